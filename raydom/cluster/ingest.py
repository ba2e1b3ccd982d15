"""Ingestion as tasks of Ray: the cluster twin of ``on_threads`` in ``raydom.ingestion.run``.

A task of Ray reads several files, one after another, and hands back what it managed in a few seconds, so that small
files cost little and large ones are shared out. No task is repeated by Ray itself: when a worker dies, this driver
decides whose fault that was, and by then nothing writes into those images any more.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from raydom.cluster.session import num_workers, ray_session  # first: it sets what Ray reads when it is imported

# isort: split
import ray
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayError, WorkerCrashedError

from raydom.cluster.capacity import needs_of
from raydom.cluster.waiting import waiting_told
from raydom.commands import IngestConfig
from raydom.config import ClusterConfig
from raydom.errors import ClusterError
from raydom.ingestion.file import IngestOutcome, Refusal
from raydom.ingestion.plan import IngestTask
from raydom.ingestion.run import Map

MAX_FILES_PER_TASK = 64
"""So many small files take long enough that the way to this driver and back does not matter."""
TASK_S = 5.0
"""A task of Ray begins no further file after so long; the rest of its files are shared out anew."""
MAX_DEATHS = 3
"""Workers that a file may cost."""
CANCEL_S = 10.0

Function = Callable[[IngestTask], IngestOutcome]
Sent = dict[str, Any]
"""A task without its configuration, or an outcome without its task: what the other side has already stays there."""


def on_ray(run: ClusterConfig) -> Map:
    """Runs ingestion tasks on Ray; to be given to ``ingest`` as its ``map``."""

    def apply(function: Function, tasks: Sequence[IngestTask]) -> Iterator[IngestOutcome]:
        with ray_session(run), waiting_told(needs_of(run), run.quiet):
            yield from _Driver(function, tasks, run).outcomes()

    return apply


class _Driver:
    """Hands out files and takes in what became of them, in any order.

    A batch whose worker dies is split, so that each file is tried alone; a file is given up when it has cost
    ``MAX_DEATHS`` workers alone, the last time with nothing else running, as memory may be what was short. Lost nodes
    are nobody's fault.
    """

    def __init__(self, function: Function, tasks: Sequence[IngestTask], run: ClusterConfig) -> None:
        self._tasks, self._run = tasks, run
        self._function, self._config = ray.put(function), ray.put(tasks[0].config)
        self._ingest = ray.remote(_ingest_files).options(num_cpus=run.cpus_per_worker, max_retries=0)
        self._waiting = deque(range(len(tasks)))
        self._single: deque[int] = deque()
        """Files to be tried alone."""
        self._suspects: deque[int] = deque()
        """Files that have one try left, with nothing else running."""
        self._deaths: Counter[int] = Counter()
        self._running: dict[ray.ObjectRef, list[int]] = {}

    def outcomes(self) -> Iterator[IngestOutcome]:
        try:
            self._fill()
            while self._running:
                (ref,), _ = ray.wait(list(self._running), num_returns=1)
                found = list(self._take(ref, self._running.pop(ref)))
                self._fill()  # first: whoever takes the outcomes may take its time
                yield from found
        finally:  # an interrupted driver leaves nobody who still writes
            for ref in self._running:
                ray.cancel(ref, force=True)
            if self._running:
                ray.wait(list(self._running), num_returns=len(self._running), timeout=CANCEL_S)

    def _fill(self) -> None:
        """Give each idle worker a task: of many files at first, of fewer towards the end, so that all end at once."""
        workers = num_workers(self._run)  # the cluster may have grown
        while len(self._running) < workers:
            if self._single:
                self._start([self._single.popleft()])
            elif self._waiting:
                size = min(MAX_FILES_PER_TASK, math.ceil(len(self._waiting) / (2 * workers)))
                self._start([self._waiting.popleft() for _ in range(size)])
            else:
                break
        if not self._running and self._suspects:
            self._start([self._suspects.popleft()])

    def _start(self, batch: list[int]) -> None:
        sent = [_fields(self._tasks[number], without="config") for number in batch]
        self._running[self._ingest.remote(self._function, self._config, sent)] = batch

    def _take(self, ref: ray.ObjectRef, batch: list[int]) -> Iterator[IngestOutcome]:
        try:
            results: list[Sent] = ray.get(ref)
        except (NodeDiedError, ObjectLostError):
            self._waiting.extend(batch)
        except (WorkerCrashedError, OutOfMemoryError) as error:
            yield from self._blame(batch, isinstance(error, OutOfMemoryError))
        except RayError as error:
            raise ClusterError(
                f"the workers failed: {str(error).strip().splitlines()[-1]} What is finished is kept: the same command "
                "goes on from there."
            ) from error
        else:
            for number, fields in zip(batch, results, strict=False):
                yield IngestOutcome(task=self._tasks[number], **fields)
            self._waiting.extendleft(reversed(batch[len(results) :]))

    def _blame(self, batch: list[int], out_of_memory: bool) -> Iterator[IngestOutcome]:
        if len(batch) > 1:
            self._single.extend(batch)
            return
        (number,) = batch
        self._deaths[number] += 1
        if self._deaths[number] < MAX_DEATHS - 1:
            self._single.append(number)
        elif self._deaths[number] < MAX_DEATHS:
            self._suspects.append(number)
        else:
            task = self._tasks[number]
            why = (
                "for want of memory. Read it on a larger machine"
                if out_of_memory
                else "in a crash of its reader, or for want of memory. Save it in another format"
            )
            error = f"{task.source}: its worker died {MAX_DEATHS} times while reading it, at last {why}."
            refusal = Refusal(source_file=task.source, label_file=None, error_type="WorkerDied", error=error)
            yield IngestOutcome(task=task, refusal=refusal)


def _ingest_files(function: Function, config: IngestConfig, tasks: list[Sent]) -> list[Sent]:
    """What became of the first of these files, at least one of them."""
    outcomes: list[Sent] = []
    began = time.monotonic()
    for fields in tasks:
        outcomes.append(_fields(function(IngestTask(config=config, **fields)), without="task"))
        if time.monotonic() - began > TASK_S:
            break
    return outcomes


def _fields(value: IngestTask | IngestOutcome, without: str) -> Sent:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.name != without}
