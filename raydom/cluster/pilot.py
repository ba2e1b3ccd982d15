"""A few blocks of a job, done for real in a scratch output, and what they took.

Blocks are those of the real images, with all that is around them, spread over the collection. What comes after the
blocks needs all blocks of an image, so it is done on pieces of four blocks cut out of large images. As many workers as
were asked for do it, if there are two blocks for each (else one), so that what they take from each other is measured
too. The first block of each is not counted, since models are loaded and libraries imported meanwhile: that is start-up.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from raydom.cluster.blocks import execute_on_ray
from raydom.cluster.capacity import needs_of
from raydom.cluster.session import ray_session
from raydom.cluster.waiting import waiting_told
from raydom.config import ImageFilter, RunConfig, StyleConfig
from raydom.errors import DataError
from raydom.inference.forecast import StartUp
from raydom.inference.job import BlockJob, JobPlan
from raydom.inference.neuron_job import NeuronJob
from raydom.inference.progress import ProgressReport
from raydom.inference.runner import JobKind, execute_serially
from raydom.inference.tasks import Task, Tasks
from raydom.inference.workload import halo_of, output_sizes, stored, units_of
from raydom.storage import files, zarr_images
from raydom.storage.collection import Collection, open_collection, write_manifest
from raydom.storage.pyramids import write_levels
from raydom.storage.receipts import Receipt
from raydom.types import Region

T = TypeVar("T")

PIECE_BLOCKS = 2
"""Side of a piece, in blocks."""
BLOCKS_A_PIECE = 4
"""So many of the blocks that are asked for bring another piece."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a stage took in the pilot."""

    tasks: int
    """That were measured."""
    seconds_per_unit: float
    cpu_share: float
    """CPU time over the time that it took: less than --cpus-per-worker where workers waited, or the machine is busy."""
    read_s: float
    """Mean of a task, as are the others."""
    compute_s: float
    write_s: float


@dataclass(frozen=True, slots=True)
class PilotResult:
    """What a pilot measured."""

    rates: dict[str, Rate]
    """By stage; those that the job has none of, or that cannot be tried, are missing."""
    start: StartUp
    written_share: float | None
    """Bytes that are stored, over those of the pixels without compression."""
    read_share: float | None
    """The same of the input, of one image."""
    seconds: float
    """That the pilot took."""


@dataclass(frozen=True, slots=True)
class _Done:
    """Receipts, and how long each stage took from outside."""

    receipts: dict[str, Receipt]
    walls: dict[str, float]


def run_pilot(job: BlockJob | NeuronJob, kind: JobKind, run: RunConfig, num_blocks: int, plan: JobPlan) -> PilotResult:
    """Do some blocks of a job beside its output, and remove them again.

    Raises:
        DataError: If a block fails.
    """
    began = time.perf_counter()
    scratch = f"{job.out.rstrip('/')}.pilot-{uuid.uuid4().hex[:8]}"
    quiet, run = run.quiet, replace(run, workers=pilot_workers(run, num_blocks), quiet=True)
    try:
        if run.serial:
            return _measured(job, kind, run, num_blocks, plan, scratch, began)
        with ray_session(run), waiting_told(needs_of(run), quiet):
            session_s = time.perf_counter() - began
            measured = _measured(job, kind, run, num_blocks, plan, scratch, began)
            ended = time.perf_counter()
        session_s += time.perf_counter() - ended
        return replace(measured, start=replace(measured.start, session_s=session_s))
    finally:
        files.remove(scratch)


def _measured(
    job: BlockJob | NeuronJob,
    kind: JobKind,
    run: RunConfig,
    num_blocks: int,
    plan: JobPlan,
    scratch: str,
    began: float,
) -> PilotResult:
    progress = ProgressReport("pilot", 0, "tasks", quiet=True)
    blocks_job = replace(job, out=files.join(scratch, "blocks"))
    blocks, overviews = plan.stages["block"], plan.stages.get("overview", Tasks([]))
    number = num_blocks + pilot_workers(run, num_blocks)  # the first are not counted
    chosen = blocks.chosen(spread(range(len(blocks)), number))
    larger = plan.stages["finish"].image_ids()
    ids = dict.fromkeys(task.block.image_id for task in chosen)
    stages = {"overview": overviews.chosen(overviews.of_images(ids)), "block": chosen}
    _create(blocks_job, kind, [image_id for image_id in ids if image_id in larger])
    done = _do(blocks_job, kind, run, stages, progress)
    units = _units(job, kind, plan)
    first = first_of_each([done.receipts[task.key] for task in chosen])
    cold = [*first, *first_of_each([done.receipts[task.key] for task in stages["overview"]])]
    counted = {key: one for key, one in done.receipts.items() if one not in cold}
    if not any(one.kind == "overview" for one in counted.values()):  # one for each worker
        counted |= {task.key: done.receipts[task.key] for task in stages["overview"]}
    if not any(task.key in counted for task in chosen):  # a worker for each block
        counted = done.receipts
    rates = _rates(stages, counted, units)
    began_with = next(name for name, tasks in stages.items() if tasks)
    late_s = statistics.mean(
        max(0.0, (one.busy_s or 0.0) - rates["block"].seconds_per_unit * units[f"block:{one.block_id}"])
        for one in first
    )
    worker_s = late_s + _waited(done, stages[began_with], began_with)

    whole = [image_id for image_id in ids if image_id not in larger]
    written, raw = _written(blocks_job, kind, whole)
    stage_s = 0.0
    pieces_of = spread(sorted(larger), max(1, num_blocks // BLOCKS_A_PIECE)) if larger else []
    if pieces_of:
        pieces = _pieces(job, pieces_of, scratch)
        piece_plan = kind.plan(pieces, 0)
        made = piece_plan.stages["finish"].image_ids()
        _create(pieces, kind, sorted(made))
        done = _do(pieces, kind, run, piece_plan.stages, progress)
        later = {name: tasks for name, tasks in piece_plan.stages.items() if name not in ("block", "overview")}
        rates |= _rates(later, done.receipts, _units(pieces, kind, piece_plan))
        if "finish" in rates:
            rates.setdefault("pyramid", rates["finish"])
        stage_s = statistics.median(_waited(done, tasks, name) for name, tasks in later.items() if tasks)
        more = _written(pieces, kind, sorted(made))
        written, raw = written + more[0], raw + more[1]
    return PilotResult(
        rates=rates,
        start=StartUp(worker_s=worker_s, stage_s=stage_s),
        written_share=written / raw if raw else None,
        read_share=_read_share(job, next(iter(ids))),
        seconds=time.perf_counter() - began,
    )


def pilot_workers(run: RunConfig, num_blocks: int) -> int:
    """Those that were asked for, if there are two blocks for each."""
    return max(1, min(1 if run.serial else run.workers or 1, num_blocks // 2))


def first_of_each(receipts: Iterable[Receipt]) -> list[Receipt]:
    """The receipts of what each worker finished first."""
    found: dict[str | None, Receipt] = {}
    for receipt in sorted(receipts, key=lambda one: one.finished_at):
        found.setdefault(receipt.worker, receipt)
    return list(found.values())


def _waited(done: _Done, tasks: Sequence[Task], name: str) -> float:
    """How much longer a stage took than the worker that was busiest, s."""
    busy: dict[str | None, float] = {}
    for task in tasks:
        receipt = done.receipts[task.key]
        busy[receipt.worker] = busy.get(receipt.worker, 0.0) + (receipt.busy_s or 0.0)
    return max(0.0, done.walls[name] - max(busy.values()))


def spread(things: Sequence[T], number: int) -> list[T]:
    """So many of them, evenly spread; all if there are no more."""
    if number >= len(things):
        return list(things)
    return [things[int((n + 0.5) * len(things) / number)] for n in range(number)]


def _do(
    job: BlockJob | NeuronJob,
    kind: JobKind,
    run: RunConfig,
    stages: Mapping[str, Tasks],
    progress: ProgressReport,
) -> _Done:
    execute = execute_serially if run.serial else execute_on_ray
    run_id, walls = uuid.uuid4().hex, {}
    for name, tasks in stages.items():
        if tasks:
            began = time.perf_counter()
            execute(tasks, [job], run, run_id, progress, lambda: None, open_processor=kind.open_processor)
            walls[name] = time.perf_counter() - began
    receipts = job.folder.read_receipts()
    for receipt in receipts.values():
        if receipt.status != "ok":
            raise DataError(
                f"the pilot did not get through: {receipt.kind} of {receipt.block_id} ({receipt.error}). The job would "
                "not either; --pilot 0 tells sizes without it."
            )
    return _Done(receipts, walls)


def _create(job: BlockJob | NeuronJob, kind: JobKind, image_ids: Sequence[str]) -> None:
    """Empty outputs of images of several blocks, as the runner makes them."""
    if image_ids:
        processor = kind.open_processor(job, "cpu")
        for image_id in image_ids:
            processor.output.create(processor.images[image_id])


def _units(job: BlockJob | NeuronJob, kind: JobKind, plan: JobPlan) -> dict[str, float]:
    """By the keys of tasks."""
    found = units_of(plan, job, halo_of(job))
    return {
        task.key: float(size)
        for name, tasks in plan.stages.items()
        for task, size in zip(tasks, found[name], strict=True)
    }


def _rates(
    stages: Mapping[str, Sequence[Task]], receipts: Mapping[str, Receipt], units: Mapping[str, float]
) -> dict[str, Rate]:
    rates = {}
    for name, tasks in stages.items():
        told = [(receipts[task.key], units[task.key]) for task in tasks if task.key in receipts]
        if told:
            done = [receipt for receipt, _ in told]
            busy = sum(one.busy_s or 0.0 for one in done)
            rates[name] = Rate(
                tasks=len(done),
                seconds_per_unit=busy / sum(size for _, size in told),
                cpu_share=sum(one.cpu_s or 0.0 for one in done) / max(busy, 1e-9),
                read_s=_mean(one.read_s for one in done),
                compute_s=_mean(one.compute_s for one in done),
                write_s=_mean(one.write_s for one in done),
            )
    return rates


def _mean(seconds: Iterable[float | None]) -> float:
    return float(np.mean([one or 0.0 for one in seconds]))


def _pieces(job: BlockJob | NeuronJob, image_ids: Sequence[str], scratch: str) -> BlockJob | NeuronJob:
    """The job on pieces from the middle of images, without a style: stylised pixels are no other work for what comes
    after the blocks."""
    side = PIECE_BLOCKS * job.blocks.block_size
    collection, out = files.join(scratch, "pieces"), files.join(scratch, "parts")
    _cut(open_collection(job.collection), image_ids, side, collection)
    if isinstance(job, BlockJob):
        return replace(job, collection=collection, out=out, images=ImageFilter(), style=StyleConfig())
    boundary = None
    if job.boundary is not None:
        boundary = files.join(scratch, "boundary")
        _cut(open_collection(job.boundary), image_ids, side, boundary)
    return replace(job, collection=collection, out=out, images=ImageFilter(), boundary=boundary)


def _cut(images: Collection, image_ids: Sequence[str], side: int, out: str) -> None:
    """Write squares from the middle of images, with their labels, as a collection."""
    records = []
    for image_id in image_ids:
        image = images[image_id]
        record = image.record
        starts = [max(0, (size - side) // 2) for size in record.plane_shape]
        stops = [min(start + side, size) for start, size in zip(starts, record.plane_shape, strict=True)]
        region = Region(tuple(starts), tuple(stops))
        pixels = image.numpy(region)
        uri = files.join(out, "images", f"{image_id}.zarr")
        levels = zarr_images.create_image(
            uri,
            name=image_id,
            axes="cyx" if pixels.ndim == 3 else "czyx",
            shape=pixels.shape,
            dtype=pixels.dtype,
            pixel_size_um=record.pixel_size_um,
            plane_distance_um=image.plane_distance_um,
            channels=record.channels,
        )
        write_levels(levels, pixels)
        for name in record.labels:
            kept = image.labels(name).numpy(region)
            made = zarr_images.create_labels(
                uri,
                name,
                shape=kept.shape,
                dtype=kept.dtype,
                pixel_size_um=record.pixel_size_um,
                plane_distance_um=image.plane_distance_um,
            )
            write_levels(made, kept, "nearest")
        axes = "cyx" if pixels.ndim == 3 else "czyx"
        records.append(replace(record, uri=f"images/{image_id}.zarr", axes=axes, shape=tuple(pixels.shape)))
    write_manifest(out, records)


def _written(job: BlockJob | NeuronJob, kind: JobKind, image_ids: Sequence[str]) -> tuple[int, int]:
    """Bytes that whole images took, stored and without compression."""
    if not image_ids:
        return 0, 0
    images = [image for image in job.chosen_images() if image.image_id in set(image_ids)]
    raw = sum(size.num_bytes for size in output_sizes(job, kind.open_processor, images).values())
    return sum(stored(files.join(job.out, "images", f"{one}.zarr")).num_bytes for one in image_ids), raw


def _read_share(job: BlockJob | NeuronJob, image_id: str) -> float | None:
    """Of level 0 of an image; None if it is not an OME-Zarr of its own."""
    image = open_collection(job.collection)[image_id]
    level = files.join(image.uri, "0")
    if not files.is_folder(level):
        return None
    raw = int(np.prod(image.record.shape)) * image.dtype.itemsize
    return stored(level).num_bytes / raw
