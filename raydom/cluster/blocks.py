"""Block jobs on Ray Data: the cluster twin of ``inference/runner.py``.

A task travels as one short line of text; its pixels are read and written by the process that computes it, on threads
beside the computation, so they never pass through the object store. Receipts are written by that process, right after
the pixels: what the driver sees is progress only.

On CPUs batches are Ray tasks: their processes stay for the stages and jobs that follow, with torch imported and models
open, where each new pool of actors would start processes of its own. With GPUs, what asks a network is done by actors,
since Ray ends the process of a task that had a GPU; no GPU is held while objects are stitched and pyramids made.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
import ray.exceptions

from raydom.cluster.capacity import Resources, needs_of
from raydom.cluster.session import num_workers, ray_session
from raydom.cluster.stopping import StopWatch, drained, node_is_alive
from raydom.cluster.waiting import waiting_told
from raydom.config import RunConfig
from raydom.errors import ClusterError
from raydom.inference.batches import batch_size, flush_s, most_at_once
from raydom.inference.job import Job
from raydom.inference.predictor import Predictor
from raydom.inference.progress import ProgressReport
from raydom.inference.runner import BLOCK_JOBS, Check, J, JobKind, JobReport, device_of, execute_serially, run_jobs
from raydom.inference.stopping import draining
from raydom.inference.tasks import Tasks
from raydom.inference.worker import BlockWorker, Processor
from raydom.networks.memory import keep_freed_memory

ASKS_A_NETWORK = ("overview", "block")
"""Stages that compute on GPUs where the run has some."""

OpenProcessor = Callable[[Any, str], Processor]
Rows = dict[str, np.ndarray]
"""Of Ray Data; a row is a batch of tasks, since Ray wants to be told the size of what it gives to a GPU."""

RAISED = re.compile(r"[\w.]+(Error|Exception): ")
"""The line of a traceback that tells what was raised."""
WHERE = re.compile(r"\(pid=\d+, ip=([^,)]+)|^\[Node ([^\]]+)\]", re.M)
"""In one of its first lines."""
NOT_SET_UP = "Failed to set up runtime environment"


def run_block_jobs(
    jobs: Sequence[J], run: RunConfig, *, kind: JobKind = BLOCK_JOBS, keep_parts: bool = False
) -> list[JobReport[J]]:
    """Run jobs of a kind on Ray, or in this process when ``run.serial``; see ``run_jobs``."""
    if run.serial:
        execute = functools.partial(execute_serially, open_processor=kind.open_processor)
        with draining():
            return run_jobs(jobs, run, execute, kind=kind, keep_parts=keep_parts)
    with ray_session(run), draining():
        execute = functools.partial(execute_on_ray, open_processor=kind.open_processor)
        return run_jobs(jobs, run, execute, kind=kind, keep_parts=keep_parts)


@dataclass(frozen=True)
class Opening:
    """What a process needs to do tasks of a run."""

    jobs: Sequence[Job]
    run: RunConfig
    run_id: str
    open_processor: OpenProcessor
    device: str
    workers: int

    def open(self) -> BlockWorker:
        import torch

        torch.set_num_threads(max(1, int(self.run.cpus_per_worker)))
        keep_freed_memory()
        return BlockWorker(
            lambda number: self.open_processor(self.jobs[number], self.device),
            [job.folder for job in self.jobs],
            run_id=self.run_id,
            node=ray.get_runtime_context().get_node_id(),
            node_is_alive=node_is_alive,
            stopping=StopWatch(self.run_id),
            flush_s=flush_s(self.workers),
        )


class BlockActor:
    """One worker of a pool: opens models and styles once, then processes batches of tasks."""

    def __init__(self, opening: Opening) -> None:
        self._worker = opening.open()

    def __call__(self, rows: Rows) -> Rows:
        tasks = [task for text in rows["tasks"] for task in Tasks.from_json(text)]
        receipts = self._worker.process(tasks, is_repeated=_is_repeated())
        return {"done": np.array([len(receipts)]), "failed": np.array([sum(r.status != "ok" for r in receipts)])}


_actors: dict[str, BlockActor] = {}
"""What this process has open: the models and styles of the last run that it did batches of."""


def process_batch(rows: Rows, opening: Opening) -> Rows:
    """Process a batch of tasks as an actor would, in a process that also does batches of other runs."""
    if opening.run_id not in _actors:
        _actors.clear()
        _actors[opening.run_id] = BlockActor(opening)
    return _actors[opening.run_id](rows)


def execute_on_ray(
    tasks: Tasks,
    jobs: Sequence[Job],
    run: RunConfig,
    run_id: str,
    progress: ProgressReport,
    check: Check,
    open_processor: OpenProcessor = Predictor,
) -> None:
    """Do tasks of one stage in several processes.

    They are retried by Ray without end, which is safe because a task that kills its worker is quarantined by its
    strikes.

    Args:
        open_processor: Opens what does the tasks of a job, on a device, in each process.
    """
    set_data_context()
    workers = min(len(tasks), num_workers(run))
    on_gpu = computes_on_gpu(run, tasks[0].kind)
    size = batch_size(len(tasks), workers, most_at_once(tasks.largest_px, workers, on_gpu))
    rows: list[Any] = [{"tasks": tasks[start : start + size].to_json()} for start in range(0, len(tasks), size)]
    batches = ray.data.from_items(rows, override_num_blocks=len(rows))
    needs: Resources = needs_of(run) if on_gpu else {"CPU": run.cpus_per_worker}
    if on_gpu:
        done = batches.map_batches(
            BlockActor,
            fn_constructor_args=(Opening(jobs, run, run_id, open_processor, device_of(run), workers),),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=workers),
            num_cpus=run.cpus_per_worker,
            num_gpus=run.gpus_per_worker,
        )
    else:
        done = batches.map_batches(
            process_batch,
            fn_args=(Opening(jobs, run, run_id, open_processor, "cpu", workers),),
            batch_size=1,
            compute=ray.data.TaskPoolStrategy(workers),
            num_cpus=run.cpus_per_worker,
        )
    try:
        with drained(run_id, [job.folder for job in jobs]), waiting_told(needs, run.quiet):
            for batch in done.iter_batches(batch_size=None, prefetch_batches=0):
                progress.update(int(batch["done"].sum()), int(batch["failed"].sum()))
                check()
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"{_failure(error)}. What is finished is kept: the same command goes on from there."
        ) from error


def computes_on_gpu(run: RunConfig, kind: str) -> bool:
    """Whether the tasks of a stage are given a share of a GPU."""
    return run.gpus_per_worker > 0 and kind in ASKS_A_NETWORK


def _failure(error: Exception) -> str:
    """What ended a stage."""
    if NOT_SET_UP in str(error):  # which Ray tries nowhere else
        return f"a node could not be given the job's files: {_reason(error)}. Make room there, or end its Ray"
    return f"the workers failed: {_reason(error)}"


def _reason(error: Exception) -> str:
    """What a worker raised, and on which node, out of Ray's account of it, which ends in advice."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    raised = [line for line in lines if RAISED.match(line) and "UserCodeException" not in line]
    where = WHERE.findall(str(error))
    reason = (raised or lines or [type(error).__name__])[-1].rstrip(".")
    return f"{reason}, on the node {''.join(where[-1])}" if where else reason


def _is_repeated() -> bool:
    """Whether Ray has given this batch to a worker before. Ray counts it, but has no public way to ask."""
    return bool(ray._private.worker.global_worker.core_worker.get_current_task_attempt_number() > 0)


def set_data_context() -> None:
    """How Ray Data is to go about batches: quietly, patiently, and without leaving any out."""
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, and told then
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = 0
    context.execution_no_progress_timeout_s = -1  # a GPU may take long to come, and a block long to compute
    context.actor_init_retry_on_errors = True
    context.actor_init_max_retries = 3
    context.max_consecutive_actor_init_deaths = 5
    context.retried_map_errors = False
    # Else each job has a share of each node, of one CPU or GPU none, also beside the job of a driver that was killed.
    context.op_resource_reservation_enabled = False
    context.enable_progress_bars = False
    context.print_on_execution_start = False
