"""Runs block jobs: plan, do what is not done yet, gather. The plain twin of ``cluster/blocks.py``.

All of a run's state is in the output folders, so running the same jobs again finishes what was begun; how the tasks
are executed (here one after another, there by Ray in several processes) changes nothing in the result.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from raydom.config import RunConfig
from raydom.errors import ConfigError
from raydom.inference.job import Job, JobPlan, output_uri, plan_job
from raydom.inference.ledger import Ledger
from raydom.inference.memory import check_memory
from raydom.inference.object_tables import keep_tables
from raydom.inference.output import record_from_json
from raydom.inference.predictor import Predictor
from raydom.inference.progress import ProgressReport
from raydom.inference.stopping import check_stop, stop_asked
from raydom.inference.tasks import Tasks
from raydom.inference.worker import BlockWorker
from raydom.storage import files
from raydom.storage.collection import MANIFEST, write_manifest
from raydom.storage.lease import lease
from raydom.storage.receipts import Receipt, receipts_of
from raydom.types import ImageRecord

logger = logging.getLogger(__name__)

BATCH = 16
"""Tasks between two writings of receipts."""

SHOWN = {
    "overview": ("global pass", "images"), "block": ("", "blocks"), "view": ("objects", "blocks"),
    "pair": ("objects in several blocks", "blocks"), "number": ("numbers of objects", "images"),
    "graph": ("borders", "blocks"), "solve": ("multicut", "images"), "label": ("labels", "blocks"),
    "pyramid": ("pyramids of large images", "parts"), "finish": ("pyramids", "images"),
}  # fmt: skip
"""What the progress says of each stage, and what it counts."""

J = TypeVar("J", bound=Job)

Check = Callable[[], None]
"""Called between two batches; raises when the run must not go on."""
Execute = Callable[[Tasks, Sequence[Job], RunConfig, str, ProgressReport, Check], None]
"""Does tasks of jobs under a run id, counting them in the progress; receipts are its only result."""


@dataclass(frozen=True, slots=True)
class JobReport(Generic[J]):
    """What became of a job."""

    job: J
    num_blocks: int
    num_images: int
    num_images_done: int
    failed: tuple[Receipt, ...]
    """Receipts of what failed or was quarantined."""
    missing: int
    """Blocks and images without a receipt, as after an interruption."""
    seconds: float
    """Time that the workers spent on the blocks that are done, summed, whenever that was."""
    content_scores: tuple[float, ...]
    """Of the stylised blocks."""
    num_content_lost: int
    """Blocks whose content score is too low."""
    seam_scores: tuple[float, ...]
    """Of the stylised images of several blocks, or of their parts."""
    num_objects: int | None
    """In the images that are done; None if the job makes none."""
    table: str | None
    """The folder of tables, within the output, that tells of each."""

    @property
    def ok(self) -> bool:
        return self.num_images_done == self.num_images

    @property
    def seconds_per_image(self) -> float:
        return self.seconds / max(1, self.num_images_done)


@dataclass(frozen=True, slots=True)
class JobKind:
    """What is done with jobs of a kind."""

    plan: Callable[[Any, int], JobPlan]
    """Checks a job and cuts it into tasks, of that number."""
    open_processor: Callable[[Any, str], Any]
    """Opens what does the tasks of a job, on a device."""
    check_memory: Callable[[Any, RunConfig], None]
    """Refuses blocks that do not fit the memory of a worker."""


BLOCK_JOBS = JobKind(plan_job, Predictor, check_memory)


def run_jobs(
    jobs: Sequence[J],
    run: RunConfig,
    execute: Execute,
    *,
    kind: JobKind = BLOCK_JOBS,
    keep_parts: bool = False,
) -> list[JobReport[J]]:
    """Run jobs to their end, skipping what their receipts say is done.

    Args:
        jobs: With an output each; all of one kind.
        run: Where and how.
        execute: Does the tasks, with the processors of their kind.
        kind: Of the jobs.
        keep_parts: Keep what the stages leave for each other, such as overviews; ``RunFolder.forget_parts`` removes it.

    Raises:
        ConfigError: Before the first block, for what cannot be done, when an output was begun with other settings or
            is a collection that no job made, and while another driver is at work on it.
        ClusterError: When another driver has taken over meanwhile.
        StoppedError: When it was told to stop, after the blocks in flight; see ``stopping.draining``.
    """
    outs = [job.out for job in jobs]
    if len(set(outs)) < len(outs):
        raise ConfigError(f"two jobs would write to one output: {sorted(o for o in outs if outs.count(o) > 1)[0]}.")
    for job in jobs:
        _check_own(job)
        kind.check_memory(job, run)
    plans = [kind.plan(job, number) for number, job in enumerate(jobs)]
    with ExitStack() as leases:
        held = [leases.enter_context(lease(job.folder.lease_uri)) for job in jobs]

        def check() -> None:
            for one in held:
                one.check()

        reports = _run_plans(plans, run, execute, check, kind)
        for report in reports:
            if report.ok and not keep_parts:
                report.job.folder.forget_parts()
    return reports


def _check_own(job: Job) -> None:
    """Refuse an output that is a collection already, such as the one that is read: its images would be overwritten."""
    run = job.folder.uri
    if files.is_file(files.join(job.out, MANIFEST)) and not files.list_files(run) and not files.list_folders(run):
        raise ConfigError(
            f"{job.out} is a collection that this command did not make; its images and labels would be overwritten. "
            "Choose another --out."
        )


def _run_plans(
    plans: list[JobPlan], run: RunConfig, execute: Execute, check: Check, job_kind: JobKind
) -> list[JobReport]:
    jobs = [plan.job for plan in plans]
    for plan in plans:
        # They change the last bits of the result, so they belong to what may not change.
        hardware = {"threads": max(1, int(run.cpus_per_worker)), "device": device_of(run)}
        plan.job.folder.claim(plan.settings | hardware)
        plan.job.folder.unmark(plan.job.folder.mark_files())  # of an earlier run: its driver is gone, so nobody's fault
    ledgers = [Ledger(plan) for plan in plans]
    for ledger in ledgers:
        ledger.look()
        if run.retry_failed:
            ledger.forget_failures()
    run_id = uuid.uuid4().hex
    _check_weights(plans, ledgers)

    def between() -> None:
        check()
        for ledger in ledgers:
            ledger.tidy()

    def stage(label: str, tasks: Tasks, unit: str) -> None:
        if tasks:
            with ProgressReport(label, len(tasks), unit, run.quiet) as progress:
                execute(tasks, jobs, run, run_id, progress, between)
            check()
            for ledger in ledgers:
                ledger.look()
            check_stop()

    names = ", ".join(job.name for job in jobs) if len(jobs) <= 2 else f"{len(jobs)} jobs"
    for kind in dict.fromkeys(kind for plan in plans for kind in plan.stages):
        to_do = [ledger.to_do(kind) for ledger in ledgers]
        if kind == "block":
            for plan, ledger, blocks in zip(plans, ledgers, to_do, strict=True):
                _create_outputs(plan, ledger, blocks, job_kind)
        label, unit = SHOWN[kind]
        tasks = Tasks.joined(to_do)
        stage(f"{names}: {label}" if label else names, tasks, unit)
    for ledger in ledgers:
        ledger.look(at_end=True)
    _sweep(jobs, tasks)
    return [_gather(plan, ledger) for plan, ledger in zip(plans, ledgers, strict=True)]


def execute_serially(
    tasks: Tasks,
    jobs: Sequence[Any],
    run: RunConfig,
    run_id: str,
    progress: ProgressReport,
    check: Check,
    open_processor: Callable[[Any, str], Any] = Predictor,
) -> None:
    """One task after another, in this process, without overlap."""
    if run.gpus_per_worker > 0 and not torch.cuda.is_available():
        raise ConfigError(
            f"--gpus-per-worker {run.gpus_per_worker:g} was asked for and torch sees no GPU on this machine. Leave the "
            "option out to compute on CPUs, or join a cluster with --address."
        )
    threads_before = torch.get_num_threads()
    torch.set_num_threads(max(1, int(run.cpus_per_worker)))
    try:
        worker = BlockWorker(
            lambda number: open_processor(jobs[number], device_of(run)),
            [job.folder for job in jobs],
            run_id=run_id,
            overlap=False,
            watch=lambda receipt: progress.update(1, int(receipt.status != "ok")),
            stopping=stop_asked,
        )
        for start in range(0, len(tasks), BATCH):
            if stop_asked():
                break
            check()
            worker.process(tasks[start : start + BATCH])
    finally:
        torch.set_num_threads(threads_before)


def device_of(run: RunConfig) -> str:
    """Where a worker computes: on CUDA when it was given a share of a GPU."""
    return "cuda" if run.gpus_per_worker > 0 else "cpu"


def _check_weights(plans: list[JobPlan], ledgers: list[Ledger]) -> None:
    """Refuse weights that cannot be used before the first block; that the model fits its images is checked already."""
    for model in {
        plan.model
        for plan, ledger in zip(plans, ledgers, strict=True)
        if plan.model is not None and not ledger.is_known("block").all()
    }:
        model.load()


def _create_outputs(plan: JobPlan, ledger: Ledger, blocks: Tasks, kind: JobKind) -> None:
    """Empty outputs for the images of several blocks of which none is done; workers make the others themselves."""
    begun = plan.stages["block"].image_ids(ledger.is_known("block"))
    missing = (plan.stages["finish"].image_ids() & blocks.image_ids()) - begun
    if missing:
        processor = kind.open_processor(plan.job, "cpu")
        for image_id in sorted(missing):
            processor.output.create(processor.images[image_id])


def _sweep(jobs: Sequence[Job], finished: Tasks) -> None:
    """Remove what killed workers left half written; those that live are done. (Images of one block are made anew.)"""
    for job in jobs:
        files.remove_partials(job.folder.uri)
    for task in finished:
        files.remove_partials(output_uri(jobs[task.job], task.block.image_id))


def _gather(plan: JobPlan, ledger: Ledger) -> JobReport:
    """Write the manifest of the images that are whole, and tell what is not."""
    failed: list[tuple[int, Receipt]] = []
    records: list[ImageRecord] = []
    scores: dict[str, list[float]] = {"content_score": [], "seam_score": []}
    objects: dict[str, int] = {}
    seconds, lost = 0.0, 0
    for numbers, table in ledger.receipts():
        is_ok = pc.equal(table["status"], "ok")
        failed += zip(numbers[~np.asarray(is_ok)].tolist(), receipts_of(table.filter(pc.invert(is_ok))), strict=True)
        done = table.filter(is_ok)
        records += map(record_from_json, filter(None, done["record"].drop_null().to_pylist()))
        seconds += pc.sum(done["seconds"]).as_py() or 0.0
        lost += pc.sum(done["content_lost"]).as_py() or 0
        for name, found in scores.items():
            found += done[name].drop_null().to_pylist()
        alone = pc.and_(pc.equal(done["kind"], "block"), pc.is_valid(done["record"]))
        of_images = pc.or_(pc.is_in(done["kind"], pa.array(["number", "solve"])), alone)
        for receipt in receipts_of(done.filter(pc.and_(of_images, pc.is_valid(done["num_objects"])))):
            objects[receipt.image_id] = objects.get(receipt.image_id, 0) + (receipt.num_objects or 0)
    write_manifest(plan.job.out, sorted(records, key=lambda record: record.image_id))
    whole = {record.image_id for record in records}
    for name, kinds in plan.tables.items():
        ready = (plan.stages[kind].image_ids(ledger.is_ok(kind)) for kind in kinds if kind != "finish")
        keep_tables(plan.job.out, name, set().union(*ready, whole if "finish" in kinds else ()))
    told = [count for image_id, count in objects.items() if image_id in whole]
    return JobReport(
        job=plan.job,
        num_blocks=len(plan.stages["block"]),
        num_images=plan.num_images,
        num_images_done=len(records),
        failed=tuple(receipt for _, receipt in sorted(failed, key=lambda one: one[0])),
        missing=ledger.num_unknown,
        seconds=seconds,
        content_scores=tuple(scores["content_score"]),
        num_content_lost=lost,
        seam_scores=tuple(scores["seam_score"]),
        num_objects=sum(told) if told else None,
        table=next(iter(plan.tables), None),
    )
