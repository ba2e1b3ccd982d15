"""What the block engine costs, against the bare loop, with start-up apart.

    uv run python benchmarks/engine.py segment stages trivial empty plan resume
    uv run python benchmarks/engine.py segment --networks unet u2netp maskrcnn --blocks 5 6

segment: blocks of 512 px through a network on workers of one thread, over as many plain processes of one thread that
call the same network on the same tensors, before and after. work: the same in one process without Ray, in CPU time of
all threads, which other processes hardly disturb: what reading, writing and receipts cost. stages: the same blocks
through three stages of Ray Data (read, compute, write) instead of one actor that does all three. trivial: blocks of 64
px whose pixels are written unchanged. empty: blocks of which nothing is read or written but the receipt, and the
driver's memory meanwhile. plan: the driver's time and memory for a million blocks. resume: the time until the first new
block of a run of which 100,000 are done.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from models import write_untrained
from overfit import FEW

from raydom.algorithms.trained import load_trained
from raydom.cluster.blocks import execute_on_ray, run_block_jobs
from raydom.cluster.session import ray_session
from raydom.config import BlockConfig, ModelSpec, NetworkConfig, RunConfig
from raydom.images.intensity import image_statistics
from raydom.inference.job import BlockJob, plan_job
from raydom.inference.predictor import Predictor
from raydom.inference.progress import ProgressReport
from raydom.inference.runner import execute_serially, run_jobs
from raydom.inference.tasks import Task, Tasks
from raydom.networks.build import build_network
from raydom.networks.maskrcnn import label_image
from raydom.storage import zarr_images
from raydom.storage.collection import write_manifest
from raydom.storage.receipts import Receipt
from raydom.types import ImageRecord

RUN = RunConfig(workers=2, cpus_per_worker=1.0)
BATCH = 128
"""Receipts to a file, of resume."""
SERIAL = RunConfig(serial=True, quiet=True)


def make_collection(folder: Path, shape: tuple[int, int], filled: bool = True) -> str:
    """One gray image of smooth noise; or of nothing, where only its size matters."""
    group = str(folder / "images" / "image.zarr")
    (level, *_) = zarr_images.create_image(
        group, name="image", axes="cyx", shape=(1, *shape), dtype="uint8", pixel_size_um=None, channels=("gray",)
    )
    rng = np.random.default_rng(0)
    sample = rng.integers(0, 256, (1, 64, 64), np.uint8)
    if filled:
        for region in zarr_images.shard_regions(level):
            level[(slice(None), *region.slices)] = rng.integers(0, 256, (1, *region.shape), np.uint8)
    record = ImageRecord(
        image_id="image",
        uri="images/image.zarr",
        axes="cyx",
        shape=(1, *shape),
        dtype="uint8",
        pixel_size_um=None,
        channels=("gray",),
        domain=None,
        split=None,
        group=None,
        labels=(),
        statistics=image_statistics(sample),
        source_file="",
        sha256="0",
    )
    write_manifest(str(folder), [record])
    return str(folder)


def make_model(folder: Path, name: str = "unet") -> str:
    config = NetworkConfig(
        name=name,
        in_channels=1,
        output="objects" if name == "maskrcnn" else "classes",
        base_channels=16,
        depth=4,
        encoder="resnet18",
        maskrcnn=FEW,
    )
    return write_untrained(folder, build_network(config), config)


def start_up(num_blocks: int) -> int:
    """Blocks that are not counted: one batch of each worker."""
    return min(32, num_blocks // 10)


def steady_rate(job: BlockJob) -> float:
    """Blocks per second after start-up: from each worker's first receipts to the last."""
    receipts = [r for r in job.folder.read_receipts().values() if r.kind == "block"]
    ends = np.sort([receipt.finished_at for receipt in receipts])
    skipped = start_up(len(ends))
    return float((len(ends) - 1 - skipped) / (ends[-1] - ends[skipped]))


Shapes = list[tuple[int, ...]]


def calls_of(job: BlockJob) -> list[Shapes]:
    """For each block the sizes, px, of what its network is called with."""
    predictor = Predictor(job)
    segmenter = predictor.segmenter
    assert segmenter is not None
    in_windows = not segmenter.spec.exact and segmenter.spec.network.output != "objects"
    return [
        [
            region.shape
            for _, passes in predictor.read(task).asked
            for one in passes
            for region in (segmenter.windows(one.core, one.grid) if in_windows else [one.read])
        ]
        for task in plan_job(job).stages["block"]
    ]


def _bare(model: str, blocks: list[Shapes], gate: object) -> None:
    torch.set_num_threads(1)
    network, spec = load_trained(model)
    network = network.to(memory_format=torch.channels_last)
    pixels = {shape: torch.rand(1, 1, *shape) for shapes in blocks for shape in shapes}
    call(network, spec, [next(iter(pixels.values()))])
    gate.wait()  # type: ignore[attr-defined]
    call(network, spec, [pixels[shape] for shapes in blocks for shape in shapes])
    gate.wait()  # type: ignore[attr-defined]


def call(network: torch.nn.Module, spec: ModelSpec, inputs: list[torch.Tensor]) -> None:
    """Ask a network about tensors (1, 1, h, w), one after the other."""
    with torch.inference_mode():
        for pixels in inputs:
            told = network(pixels)
            if isinstance(told, list):
                label_image(told[0], (pixels.shape[-2], pixels.shape[-1]), spec.network.maskrcnn.mask_threshold)
            else:
                told.sigmoid()


def bare_rate(model: str, blocks: list[Shapes], num_workers: int) -> float:
    """Blocks per second of plain processes of one thread."""
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(num_workers + 1)
    parts = [blocks[number::num_workers] for number in range(num_workers)]
    workers = [context.Process(target=_bare, args=(model, part, gate)) for part in parts]
    for worker in workers:
        worker.start()
    gate.wait()
    began = time.perf_counter()
    gate.wait()
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    return len(blocks) / seconds


def segment(folder: Path, network: str, rows: int, columns: int, num_workers: int) -> None:
    model = make_model(folder / "model", network)
    collection = make_collection(folder / "c", (512 * rows, 512 * columns))
    job = BlockJob(name="segment", collection=collection, out=str(folder / "o"), model=model)
    blocks = calls_of(job)
    blocks = blocks[start_up(len(blocks)) + 1 :]
    before = bare_rate(model, blocks, num_workers)
    assert run_block_jobs([job], replace(RUN, workers=num_workers))[0].ok
    engine, after = steady_rate(job), bare_rate(model, blocks, num_workers)
    bare = (before + after) / 2
    print(
        f"segment, {network}: {engine:.3f} blocks/s, bare loop {bare:.3f} ({before:.3f}, {after:.3f}), "
        f"ratio {engine / bare:.2f}",
        flush=True,
    )


def work(folder: Path, network: str, rows: int, columns: int) -> None:
    torch.set_num_threads(1)
    model = make_model(folder / "model", network)
    job = BlockJob(
        name="work", collection=make_collection(folder / "c", (512 * rows, 512 * columns)), out="", model=model
    )
    blocks = calls_of(job)
    asked, spec = load_trained(model)
    asked = asked.to(memory_format=torch.channels_last)
    pixels = {shape: torch.rand(1, 1, *shape) for shapes in blocks for shape in shapes}
    inputs = [pixels[shape] for shapes in blocks for shape in shapes]
    call(asked, spec, inputs[:1])
    began = time.process_time()
    Predictor(job)
    start_up_s = time.process_time() - began
    began = time.process_time()
    assert run_jobs([replace(job, out=str(folder / "o"))], SERIAL, execute_serially)[0].ok
    engine = (time.process_time() - began - start_up_s) / len(blocks)
    began = time.process_time()
    call(asked, spec, inputs)
    bare = (time.process_time() - began) / len(blocks)
    print(
        f"work, {network}: {len(inputs) / len(blocks):.1f} calls a block; CPU seconds a block {engine:.3f} (start-up "
        f"{start_up_s:.2f} apart), bare {bare:.3f}, ratio {bare / engine:.2f}",
        flush=True,
    )


def trivial(folder: Path) -> None:
    job = BlockJob(
        name="trivial",
        collection=make_collection(folder / "c", (6400, 6400)),
        out=str(folder / "o"),
        blocks=BlockConfig(block_size=64),
    )
    assert run_block_jobs([job], RUN)[0].ok
    print(f"trivial: {steady_rate(job):.0f} blocks/s of 64 px, pixels and receipts written")


class Stage:
    """One of the three stages, with a processor of its own in each process."""

    def __init__(self, job: BlockJob) -> None:
        torch.set_num_threads(1)
        self.processor = Predictor(job)


def _task(row: dict[str, Any]) -> Task:
    return Tasks.from_json(row["task"])[0]


class Read(Stage):
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"inputs": pickle.dumps(self.processor.read(_task(row)), protocol=5)}


class Compute(Stage):
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        outputs = self.processor.compute(_task(row), pickle.loads(row["inputs"]))
        return {"task": row["task"], "outputs": pickle.dumps(outputs, protocol=5)}


class Write(Stage):
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        self.processor.write(_task(row), pickle.loads(row["outputs"]))
        return {"finished_at": time.time()}


def stages(folder: Path) -> None:
    model = make_model(folder / "model")
    collection = make_collection(folder / "c", (7168, 7680))
    jobs = [
        BlockJob(name="segment", collection=collection, out=str(folder / name), model=model)
        for name in ("fused", "staged", "again")
    ]
    with ray_session(RUN):
        fused = [measured_fused(jobs[0])]
        planned = plan_job(jobs[1])
        predictor = Predictor(jobs[1])
        predictor.output.create(predictor.image("image"))
        tasks = planned.stages["block"]
        texts = [{"task": tasks[number : number + 1].to_json()} for number in range(len(tasks))]
        rows = ray.data.from_items(texts, override_num_blocks=len(tasks))
        # As many computing actors as in the other shape; reading and writing take what the CPUs have left.
        for stage, cpus, size in ((Read, 0.1, 1), (Compute, 0.8, 2), (Write, 0.1, 1)):
            pool = ray.data.ActorPoolStrategy(size=size)
            rows = rows.map(stage, fn_constructor_args=(jobs[1],), compute=pool, num_cpus=cpus)
        ends = np.sort([row["finished_at"] for row in rows.iter_rows()])
        staged = (len(ends) - 1 - 21) / (ends[-1] - ends[21])
        fused.append(measured_fused(jobs[2]))
    print(
        f"stages: {staged:.2f} blocks/s in three stages, {np.mean(fused):.2f} fused ({fused[0]:.2f}, {fused[1]:.2f}), "
        f"ratio {staged / np.mean(fused):.2f}"
    )


def measured_fused(job: BlockJob) -> float:
    assert run_block_jobs([job], RUN)[0].ok
    return steady_rate(job)


class Nothing:
    """A processor whose blocks are done at once."""

    def __init__(self, job: BlockJob, device: str) -> None: ...

    def read(self, task: Task) -> None: ...

    def compute(self, task: Task, inputs: None) -> None: ...

    def write(self, task: Task, outputs: None) -> dict[str, Any]:
        return {}


def empty(folder: Path) -> None:
    collection = make_collection(folder / "c", (25_600, 25_600), filled=False)
    job = BlockJob(name="empty", collection=collection, out=str(folder / "o"), blocks=BlockConfig(block_size=64))
    tasks = plan_job(job).stages["block"]
    memory_mib: dict[int, float] = {}

    def check() -> None:
        tenth = 10 * progress.done // len(tasks)
        memory_mib.setdefault(tenth, private_mib())

    with ray_session(RUN), ProgressReport("empty", len(tasks), quiet=True) as progress:
        execute_on_ray(tasks, [job], RUN, "benchmark", progress, check, open_processor=Nothing)
        check()
    rates = ", ".join(f"{10 * tenth} %: {mib:.0f}" for tenth, mib in sorted(memory_mib.items()))
    print(f"empty: {steady_rate(job):.0f} blocks/s with receipts only, of {len(tasks)}; driver's memory, MiB: {rates}")


def private_mib() -> float:
    """Memory that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) / 2**10


def resume(folder: Path) -> None:
    collection = make_collection(folder / "c", (64 * 320, 64 * 320), filled=False)
    job = BlockJob(name="resume", collection=collection, out=str(folder / "o"), blocks=BlockConfig(block_size=64))
    first: list[float] = []

    def execute(tasks: Tasks, *_: object) -> None:
        first.append(time.perf_counter())
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):  # makes the empty output
        run_jobs([job], RUN, execute)
    done = plan_job(job).stages["block"][:100_000]
    for start in range(0, len(done), BATCH):
        job.folder.write_receipts(
            [
                Receipt(
                    block_id=task.block.block_id,
                    image_id="image",
                    kind="block",
                    fingerprint=task.fingerprint,
                    status="ok",
                    attempts=1,
                    seconds=0.01,
                    node="f" * 56,
                    finished_at=time.time(),
                    checksum="00000000",
                )
                for task in done[start : start + BATCH]
            ]
        )
    for stored in ("as the workers wrote them", "in one file"):  # the first run puts them together
        began = time.perf_counter()
        with suppress(KeyboardInterrupt):
            run_jobs([job], RUN, execute)
        print(f"resume: {first[-1] - began:.1f} s to the first new block, the receipts of 100,000 blocks {stored}")


def plan(folder: Path) -> None:
    collection = make_collection(folder / "c", (64_000, 64_000), filled=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    made = plan_job(
        BlockJob(name="plan", collection=collection, out=str(folder / "o"), blocks=BlockConfig(block_size=64))
    )
    seconds = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(f"plan: {len(made.stages['block'])} blocks in {seconds:.1f} s, {grown:.2f} GiB")


CASES = {"stages": stages, "trivial": trivial, "empty": empty, "plan": plan, "resume": resume}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", nargs="+", choices=["segment", "work", *CASES])
    parser.add_argument("--networks", nargs="+", default=["unet"], help="of segment and work")
    parser.add_argument("--blocks", type=int, nargs=2, default=[14, 15], help="of these: rows and columns")
    parser.add_argument("--workers", type=int, default=2, help="of segment, and processes of the bare loop")
    options = parser.parse_args()
    rows, columns = options.blocks
    segments = [
        partial(segment, network=name, rows=rows, columns=columns, num_workers=options.workers)
        for name in options.networks
    ]
    works = [partial(work, network=name, rows=rows, columns=columns) for name in options.networks]
    for what in options.what:
        cases: Sequence[Callable[[Path], None]] = {"segment": segments, "work": works}.get(what) or [CASES[what]]
        for case in cases:
            folder = Path(tempfile.mkdtemp(prefix="raydom-"))
            try:
                case(folder)
            finally:
                shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
