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

import torch

from raydom.config import RunConfig
from raydom.errors import ConfigError
from raydom.inference.job import Job, JobPlan, output_uri, plan_job
from raydom.inference.memory import check_memory
from raydom.inference.object_tables import keep_tables
from raydom.inference.output import record_from_json
from raydom.inference.predictor import Predictor
from raydom.inference.progress import ProgressReport
from raydom.inference.stopping import check_stop, stop_asked
from raydom.inference.worker import BlockWorker, Task
from raydom.storage import files
from raydom.storage.collection import MANIFEST, write_manifest
from raydom.storage.lease import lease
from raydom.storage.receipts import Receipt

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
Execute = Callable[[list[Task], Sequence[Job], RunConfig, str, ProgressReport, Check], None]
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
        plan.job.folder.unmark(plan.job.folder.marks())  # of an earlier run: its driver is gone, so nobody's fault
    retried = [_failures(plan) if run.retry_failed else {} for plan in plans]
    known = [_valid(plan, before) for plan, before in zip(plans, retried, strict=True)]
    run_id = uuid.uuid4().hex
    _check_weights(plans, known)

    def stage(label: str, tasks: list[Task], unit: str) -> None:
        if tasks:
            with ProgressReport(label, len(tasks), unit, run.quiet) as progress:
                execute(tasks, jobs, run, run_id, progress, check)
            check()
            for number, plan in enumerate(plans):
                known[number] = _valid(plan, retried[number])
            check_stop()

    names = ", ".join(job.name for job in jobs) if len(jobs) <= 2 else f"{len(jobs)} jobs"
    for kind in dict.fromkeys(kind for plan in plans for kind in plan.stages):
        tasks = _to_do(plans, known, kind)
        if kind == "block":
            _create_outputs(plans, known, tasks, job_kind)
        label, unit = SHOWN[kind]
        stage(f"{names}: {label}" if label else names, tasks, unit)
    _sweep(jobs, tasks)
    return [_gather(plan, before) for plan, before in zip(plans, retried, strict=True)]


def execute_serially(
    tasks: list[Task],
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


def _failures(plan: JobPlan) -> dict[str, Receipt]:
    """What failed or was quarantined until now."""
    return {key: receipt for key, receipt in plan.job.folder.compact().items() if receipt.status != "ok"}


def _valid(plan: JobPlan, retried: dict[str, Receipt]) -> dict[str, Receipt]:
    """The receipts that still hold: of this recipe and this content, and not a failure that is being retried."""
    fingerprints = {task.key: task.fingerprint for task in plan.tasks}
    return {
        key: receipt
        for key, receipt in plan.job.folder.compact().items()
        if fingerprints.get(key) == receipt.fingerprint and retried.get(key) != receipt
    }


def _to_do(plans: list[JobPlan], known: list[dict[str, Receipt]], kind: str) -> list[Task]:
    """The tasks of a stage without a receipt, of images of which all that comes before is done."""
    todo = []
    for plan, receipts in zip(plans, known, strict=True):
        if not plan.stages.get(kind):
            continue
        if kind == "overview":  # which nobody needs any more once the blocks are done
            waiting = {task.block.image_id for task in plan.stages["block"] if task.key not in receipts}
            broken = {task.block.image_id for task in plan.stages["block"]} - waiting
        else:
            order = list(plan.stages)
            earlier = order[: order.index(kind)]
            before = [task for one in earlier if kind == "block" or one != "overview" for task in plan.stages[one]]
            broken = {task.block.image_id for task in before if not _is_ok(receipts.get(task.key))}
        todo += [t for t in plan.stages[kind] if t.key not in receipts and t.block.image_id not in broken]
    return todo


def _check_weights(plans: list[JobPlan], known: list[dict[str, Receipt]]) -> None:
    """Refuse weights that cannot be used before the first block; that the model fits its images is checked already."""
    for model in {
        plan.model
        for plan, receipts in zip(plans, known, strict=True)
        if plan.model is not None and any(task.key not in receipts for task in plan.stages["block"])
    }:
        model.load()


def _create_outputs(plans: list[JobPlan], known: list[dict[str, Receipt]], blocks: list[Task], kind: JobKind) -> None:
    """Empty outputs for the images of several blocks of which none is done; workers make the others themselves."""
    begun = [
        {task.block.image_id for task in plan.stages["block"] if task.key in done}
        for plan, done in zip(plans, known, strict=True)
    ]
    wanted = [
        {task.block.image_id for task in plan.stages["finish"]} & {t.block.image_id for t in blocks if t.job == number}
        for number, plan in enumerate(plans)
    ]
    for number, plan in enumerate(plans):
        missing = wanted[number] - begun[number]
        if missing:
            processor = kind.open_processor(plan.job, "cpu")
            for image_id in sorted(missing):
                processor.output.create(processor.images[image_id])


def _sweep(jobs: Sequence[Job], finished: list[Task]) -> None:
    """Remove what killed workers left half written; those that live are done. (Images of one block are made anew.)"""
    for job in jobs:
        files.remove_partials(job.folder.uri)
    for task in finished:
        files.remove_partials(output_uri(jobs[task.job], task.block.image_id))


def _is_ok(receipt: Receipt | None) -> bool:
    return receipt is not None and receipt.status == "ok"


def _gather(plan: JobPlan, retried: dict[str, Receipt]) -> JobReport:
    """Write the manifest of the images that are whole, and tell what is not."""
    receipts = _valid(plan, retried)
    tasks = plan.tasks

    def ready(kind: str) -> set[str]:
        return {task.block.image_id for task in plan.stages[kind] if _is_ok(receipts.get(task.key))}

    done = [receipts[task.key] for task in tasks if _is_ok(receipts.get(task.key))]
    failed = tuple(receipts[task.key] for task in tasks if task.key in receipts and not _is_ok(receipts[task.key]))
    records = [
        record_from_json(receipts[task.key].record or "")
        for task in tasks
        if _is_ok(receipts.get(task.key)) and receipts[task.key].record
    ]
    write_manifest(plan.job.out, sorted(records, key=lambda record: record.image_id))
    whole = {record.image_id for record in records}
    for name, kinds in plan.tables.items():
        keep_tables(plan.job.out, name, set().union(*(whole if kind == "finish" else ready(kind) for kind in kinds)))
    of_images = (
        r for r in done if r.image_id in whole and (r.kind in ("number", "solve") or (r.kind == "block" and r.record))
    )
    objects = [receipt.num_objects for receipt in of_images if receipt.num_objects is not None]
    return JobReport(
        job=plan.job,
        num_blocks=len(plan.stages["block"]),
        num_images=plan.num_images,
        num_images_done=len(records),
        failed=failed,
        missing=sum(task.key not in receipts for task in tasks),
        seconds=sum((receipt.seconds for receipt in done), 0.0),
        content_scores=tuple(receipt.content_score for receipt in done if receipt.content_score is not None),
        num_content_lost=sum(bool(receipt.content_lost) for receipt in done),
        seam_scores=tuple(receipt.seam_score for receipt in done if receipt.seam_score is not None),
        num_objects=sum(objects) if objects else None,
        table=next(iter(plan.tables), None),
    )
