"""Does tasks one after another, whatever happens to them: retries, receipts, strikes. No Ray here.

A task is read, computed and written by a processor. With overlap, the next task is read and the last one written on
threads while the current one computes. An exception costs the task an attempt, never the run. A task whose worker dies
leaves a mark behind; three marks and it is quarantined.
"""

from __future__ import annotations

import hashlib
import itertools
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from raydom.errors import ClusterError
from raydom.inference.batches import FLUSH_S
from raydom.inference.tasks import Task
from raydom.storage.receipts import STRIKES_OUT, Receipt, RunFolder

ATTEMPTS = 3


@runtime_checkable
class Processor(Protocol):
    """What a job does with a task. ``read`` and ``write`` may be called on other threads than ``compute``."""

    def read(self, task: Task) -> Any: ...

    def compute(self, task: Task, inputs: Any) -> Any: ...

    def write(self, task: Task, outputs: Any) -> dict[str, Any]:
        """Write idempotently, whole shards only; returns fields of the receipt."""
        ...


@dataclass(slots=True)
class Spent:
    """Seconds that a task took until now, all its attempts added."""

    read_s: float = 0.0
    compute_s: float = 0.0
    write_s: float = 0.0
    busy_s: float = 0.0
    """Time for which the worker was at nothing else: less than the others' sum where they overlapped."""
    cpu_s: float = 0.0
    """CPU time of the process meanwhile."""

    @property
    def seconds(self) -> float:
        return self.read_s + self.compute_s + self.write_s

    def busy_until_now(self, began: tuple[float, float]) -> None:
        """Count the time since then, by both clocks."""
        now = _clocks()
        self.busy_s += now[0] - began[0]
        self.cpu_s += now[1] - began[1]


class BlockWorker:
    """Processes tasks of several jobs; lives as long as its actor, or until its process is given tasks of another run.

    Args:
        open_processor: Opens the processor of a job by its number; called once for each job that is met.
        folders: The run folder of each job.
        run_id: Names this driver's run: marks of other runs are no strikes.
        node: Name of the machine.
        node_is_alive: Whether a named machine is still there: marks of lost machines are no strikes, and a worker on
            one that was given up tells of no failures.
        overlap: Read and write on threads beside the computation.
        watch: Told of each receipt at once.
        stopping: Asked before each task; once it is true no further one is begun.
        flush_s: How long a receipt waits at most for others.
    """

    def __init__(
        self,
        open_processor: Callable[[int], Processor],
        folders: Sequence[RunFolder],
        *,
        run_id: str,
        node: str = "local",
        node_is_alive: Callable[[str], bool] = lambda node: True,
        overlap: bool = True,
        watch: Callable[[Receipt], None] = lambda receipt: None,
        stopping: Callable[[], bool] = lambda: False,
        flush_s: float = FLUSH_S,
    ) -> None:
        self._open, self._folders = open_processor, folders
        self._processors: dict[int, Processor] = {}
        self._run_id, self._node, self._node_is_alive = run_id, node, node_is_alive
        self._name = uuid.uuid4().hex[:12]
        self._reader = ThreadPoolExecutor(1) if overlap else None
        self._writer = ThreadPoolExecutor(1) if overlap else None
        self._watch, self._stopping, self._flush_s = watch, stopping, flush_s
        self._unwritten: dict[int, list[Receipt]] = {}
        self._last_flush = time.monotonic()

    def process(self, tasks: Sequence[Task], *, is_repeated: bool = False) -> list[Receipt]:
        """Do these tasks (the first of them if the run stops) and write their receipts; returns them, in any order.

        Args:
            tasks: What to do.
            is_repeated: Whether they were given to a worker before that was lost, maybe only from sight.
        """
        if self._stopping():
            return []
        tasks = list(tasks)
        batch = batch_name(tasks)
        strikes, marks = self._strikes(tasks, batch)
        receipts: list[Receipt] = []
        if marks or is_repeated:  # a worker or its machine died at this batch: some of it may be done
            receipts = self._already_done(tasks)
            done = {(receipt.kind, receipt.block_id) for receipt in receipts}
            tasks = [task for task in tasks if (task.kind, task.block.block_id) not in done]
        together = [task for task in tasks if not strikes.get((task.job, task.key))]
        alone = [task for task in tasks if strikes.get((task.job, task.key))]
        receipts += self._marked(together, batch)
        for task in alone:  # so that its neighbours are not blamed
            if self._stopping():
                break
            count = strikes[task.job, task.key]
            if count >= STRIKES_OUT:
                receipts.append(self._quarantine(task, count))
            else:
                receipts += self._marked([task], batch)
            self._flush()
        self._flush()
        for job, paths in marks.items():
            self._folders[job].unmark(paths)
        return receipts

    # ------------------------------------------------------------------------------------------------- strikes

    def _strikes(self, tasks: Sequence[Task], batch: str) -> tuple[dict[tuple[int, str], int], dict[int, list[str]]]:
        """How often a worker died while at each of these tasks, and the marks that tell so."""
        wanted = {(task.job, task.key) for task in tasks}
        strikes: dict[tuple[int, str], int] = {}
        marks: dict[int, list[str]] = {}
        for job in {task.job for task in tasks}:
            for path, mark in self._folders[job].marks(self._run_id, batch).items():
                struck = [(job, key) for key in mark["blocks"] if (job, key) in wanted]
                if not struck:
                    continue
                marks.setdefault(job, []).append(path)
                if self._node_is_alive(mark["node"]):
                    for key in struck:
                        strikes[key] = strikes.get(key, 0) + 1
        return strikes, marks

    def _already_done(self, tasks: Sequence[Task]) -> list[Receipt]:
        done = []
        for job in {task.job for task in tasks}:
            own = [task for task in tasks if task.job == job]
            known = self._folders[job].read_receipts([task.block.block_id for task in own])
            for task in own:
                receipt = known.get(task.key)
                if receipt is not None and (receipt.status, receipt.fingerprint) == ("ok", task.fingerprint):
                    done.append(receipt)
        return done

    def _quarantine(self, task: Task, count: int) -> Receipt:
        error = (
            f"its worker died {count} times while at it (killed by the system, out of memory, or a crash in native "
            "code); it was put aside."
        )
        return self._keep(task, Receipt(**self._identity(task), status="quarantined", attempts=count, error=error))

    # ------------------------------------------------------------------------------------------------ processing

    def _marked(self, tasks: Sequence[Task], batch: str) -> list[Receipt]:
        marks = []
        for job in sorted({task.job for task in tasks}):
            keys = [task.key for task in tasks if task.job == job]
            marks.append((job, self._folders[job].mark(keys, self._node, self._run_id, batch)))
        try:
            receipts = self._overlapped(tasks) if self._reader else self._one_by_one(tasks)
        finally:
            self._flush()  # also when interrupted: what is done is done
        for job, path in marks:
            self._folders[job].unmark([path])
        return receipts

    def _one_by_one(self, tasks: Sequence[Task]) -> list[Receipt]:
        return [self._sequential(task) for task in itertools.takewhile(lambda _: not self._stopping(), tasks)]

    def _overlapped(self, tasks: Sequence[Task]) -> list[Receipt]:
        assert self._reader is not None and self._writer is not None
        receipts: list[Receipt] = []
        writing: tuple[Task, Spent, Future] | None = None
        reading: Future | None = None
        for number, task in enumerate(tasks):
            if number and self._stopping():
                break
            began, spent = _clocks(), Spent()
            inputs, error, spent.read_s = (reading or self._reader.submit(_timed, self._read, task)).result()
            following = tasks[number + 1] if number + 1 < len(tasks) else None
            reading = self._reader.submit(_timed, self._read, following) if following else None
            outputs: Any = None
            if error is None:
                outputs, error, spent.compute_s = _timed(self._compute, task, inputs)
            if writing is not None:
                receipts.append(self._settle(*writing))
                writing = None
            spent.busy_until_now(began)
            if error is None:
                writing = (task, spent, self._writer.submit(_timed, self._write, task, outputs))
            else:
                receipts.append(self._sequential(task, spent, error))
        if writing is not None:
            began = _clocks()
            writing[2].result()
            writing[1].busy_until_now(began)
            receipts.append(self._settle(*writing))
        return receipts

    def _settle(self, task: Task, spent: Spent, writing: Future) -> Receipt:
        fields, error, spent.write_s = writing.result()
        return self._sequential(task, spent, error) if error is not None else self._ok(task, spent, 1, fields)

    def _sequential(self, task: Task, spent: Spent | None = None, error: Exception | None = None) -> Receipt:
        """All the attempts that are left, without overlap."""
        spent = Spent() if spent is None else spent
        for attempt in range(1 if error is None else 2, ATTEMPTS + 1):
            began = _clocks()
            fields, error = self._attempt(task, spent)
            spent.busy_until_now(began)
            if error is None:
                return self._ok(task, spent, attempt, fields)
        assert error is not None
        if not self._node_is_alive(self._node):  # others do its tasks by now, and may have done this one
            raise ClusterError(f"{self._node} was given up by the cluster, which this process outlived.")
        text = "".join(traceback.format_exception_only(error)).strip()
        told = Receipt(**self._identity(task, spent), status="failed", attempts=ATTEMPTS, error=text)
        return self._keep(task, told)

    def _ok(self, task: Task, spent: Spent, attempts: int, fields: dict[str, Any]) -> Receipt:
        return self._keep(task, Receipt(**self._identity(task, spent), status="ok", attempts=attempts, **fields))

    def _attempt(self, task: Task, spent: Spent) -> tuple[Any, Exception | None]:
        """What the receipt is told, or what was raised."""
        inputs, error, seconds = _timed(self._read, task)
        spent.read_s += seconds
        if error is not None:
            return None, error
        outputs, error, seconds = _timed(self._compute, task, inputs)
        spent.compute_s += seconds
        if error is not None:
            return None, error
        fields, error, seconds = _timed(self._write, task, outputs)
        spent.write_s += seconds
        return fields, error

    def _read(self, task: Task) -> Any:
        return self._processor(task).read(task)

    def _compute(self, task: Task, inputs: Any) -> Any:
        return self._processor(task).compute(task, inputs)

    def _write(self, task: Task, outputs: Any) -> dict[str, Any]:
        return self._processor(task).write(task, outputs)

    def _processor(self, task: Task) -> Processor:
        if task.job not in self._processors:
            self._processors[task.job] = self._open(task.job)
        return self._processors[task.job]

    # -------------------------------------------------------------------------------------------------- receipts

    def _identity(self, task: Task, spent: Spent | None = None) -> dict[str, Any]:
        spent = Spent() if spent is None else spent
        return {
            "block_id": task.block.block_id,
            "image_id": task.block.image_id,
            "kind": task.kind,
            "fingerprint": task.fingerprint,
            "node": self._node,
            "worker": self._name,
            "finished_at": time.time(),
            "seconds": spent.seconds,
            **asdict(spent),
        }

    def _keep(self, task: Task, receipt: Receipt) -> Receipt:
        self._unwritten.setdefault(task.job, []).append(receipt)
        self._watch(receipt)
        if time.monotonic() - self._last_flush > self._flush_s:
            self._flush()
        return receipt

    def _flush(self) -> None:
        for job in list(self._unwritten):
            self._folders[job].write_receipts(self._unwritten[job])
            del self._unwritten[job]
        self._last_flush = time.monotonic()


def batch_name(tasks: Sequence[Task]) -> str:
    """The same for the same tasks in the same order, as a worker is given them that replaces a dead one."""
    return hashlib.sha256("\n".join(f"{task.job}:{task.key}" for task in tasks).encode()).hexdigest()[:12]


def _clocks() -> tuple[float, float]:
    """The time, and the CPU time of this process, s."""
    return time.perf_counter(), time.process_time()


def _timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Exception | None, float]:
    """What a call returned or raised, and how many seconds it took."""
    began = time.perf_counter()
    try:
        result, error = function(*arguments), None
    except Exception as problem:
        result, error = None, problem
    return result, error, time.perf_counter() - began
