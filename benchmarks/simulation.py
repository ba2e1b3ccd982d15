"""A block stage on up to thousands of workers, as events in time: what driver, receipts and store make of it.

Nothing is computed: blocks take times drawn from measured ones, and every request and every batch takes its time at
the one who serves it. A server that does one thing after another (the driver; the store's requests a second) makes
those that come too quickly wait, which is how a limit shows.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What things take, s; each is measured or assumed where it is given."""

    batch_s: float = 0.0
    """Of the driver, for a batch: giving it out and taking its result."""
    hand_over_s: float = 0.0
    """Between the end of a batch and the begin of the next one on the same worker, if the driver is free."""
    task_s: float = 0.0
    """Of a worker beside a block's own time: receipt, threads."""
    put_s: float = 0.0
    """Latency of writing or removing a small object."""
    get_s: float = 0.0
    """The same of reading one."""
    list_s: float = 0.0
    """The same of listing a page of a thousand."""
    puts_per_s: float = math.inf
    """Objects that the store writes and removes under a prefix."""
    gets_per_s: float = math.inf
    """Objects, and pages of lists, that it reads there."""
    part_s: float = 0.0
    """CPU of the driver for a file of receipts that it puts together with others."""
    at_once: int = 8
    """Requests that the driver makes at the same time."""
    workers_per_s: float = math.inf
    """That the head starts."""
    worker_s: float = 0.0
    """Until a worker that was started computes."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How the engine goes about it."""

    batch: int
    """Tasks to a batch."""
    flush_s: float = 10.0
    """After so long a worker writes its receipts."""
    look_s: float = 10.0
    """How often the driver counts files of receipts."""
    many_files: int = 512
    """So many it puts together."""
    reads_all_marks: bool = False
    """Whether a worker reads the marks of all others before each batch, as it once did."""
    block_puts: float = 0.0
    """Objects that a block's pixels are, if all are under one prefix of the store; 0: under as many as it takes."""


@dataclass
class Outcome:
    """What became of a run."""

    seconds: float
    busy_s: float
    """Of all workers, at their blocks."""
    num_tasks: int
    workers: int
    load: dict[str, float]
    """Share of the time for which each server was at work."""
    most_files: int
    """Of receipts, at once."""

    @property
    def utilisation(self) -> float:
        """Share of the workers' time that they were at their blocks."""
        return self.busy_s / (self.workers * self.seconds)

    @property
    def tasks_per_s(self) -> float:
        return self.num_tasks / self.seconds


@dataclass
class Server:
    """Does one thing after another."""

    free_at: float = 0.0
    busy_s: float = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """When something that comes now, and takes so long, is done."""
        self.free_at = max(self.free_at, now) + seconds
        self.busy_s += seconds
        return self.free_at


Wait = tuple[Server | None, float, float]
"""What a process waits for: a server that is to do something, for how long, and how long after that."""


class Simulation:
    """A stage of blocks; see ``simulate``."""

    def __init__(
        self, service_s: np.ndarray, workers: int, num_tasks: int, costs: Costs, engine: Engine, seed: int
    ) -> None:
        self.costs, self.engine, self.workers, self.num_tasks = costs, engine, workers, num_tasks
        self.driver, self.puts, self.gets, self.pixels = Server(), Server(), Server(), Server()
        sizes = np.minimum(engine.batch, num_tasks - np.arange(0, num_tasks, engine.batch))
        rng = np.random.default_rng(seed)
        seconds = [float(rng.choice(service_s, size).sum()) for size in sizes]
        self.left = list(zip(sizes.tolist(), seconds, strict=True))[::-1]
        self.busy_s = sum(seconds)
        self.parts = self.most_files = self.at_work = 0
        self.ended = 0.0

    def run(self) -> Outcome:
        """Play it to its end."""
        count = itertools.count()
        self.at_work = min(self.workers, len(self.left))
        events: list[tuple[float, int, Iterator[Wait]]] = [(self.engine.look_s, next(count), self._tidying())]
        for worker in range(self.at_work):
            begins = worker / self.costs.workers_per_s + self.costs.worker_s
            events.append((begins, next(count), self._working()))
        heapq.heapify(events)
        while events:
            self.now, _, process = events[0]
            waits = next(process, None)
            if waits is None:
                heapq.heappop(events)
                continue
            server, service_s, latency_s = waits
            done = self.now if server is None else server.serve(self.now, service_s)
            heapq.heapreplace(events, (done + latency_s, next(count), process))
        seconds = max(self.ended, 1e-12)
        servers = {"driver": self.driver, "store writes": self.puts, "store reads": self.gets, "pixels": self.pixels}
        load = {name: min(1.0, server.busy_s / seconds) for name, server in servers.items()}
        return Outcome(seconds, self.busy_s, self.num_tasks, self.workers, load, self.most_files)

    def _put(self, count: float = 1.0) -> Wait:
        return self.puts, count / self.costs.puts_per_s, self.costs.put_s

    def _get(self, count: float, latency_s: float) -> Wait:
        return self.gets, count / self.costs.gets_per_s, latency_s

    def _listed(self, files: int) -> Wait:
        pages = math.ceil(max(1, files) / 1000)
        return self._get(pages, pages * self.costs.list_s)

    def _working(self) -> Iterator[Wait]:
        """A worker: takes a batch, looks for marks, leaves its own, computes, writes receipts, removes the mark."""
        while self.left:
            count, left_s = self.left.pop()
            yield self.driver, self.costs.batch_s, self.costs.hand_over_s
            yield self._listed(self.at_work if self.engine.reads_all_marks else 1)
            if self.engine.reads_all_marks:
                yield self._get(self.at_work, self.at_work * self.costs.get_s)
            yield self._put()
            left_s += count * self.costs.task_s
            objects_a_s = count * self.engine.block_puts / left_s if left_s else 0.0
            while left_s > 1e-9:
                spent = min(left_s, self.engine.flush_s)
                left_s -= spent
                yield None, 0.0, spent
                if objects_a_s:  # pixels are written beside the computation, which waits only if the store lags behind
                    written = self.pixels.serve(self.now, objects_a_s * spent / self.costs.puts_per_s)
                    yield None, 0.0, max(0.0, written - self.now - spent)
                yield self._put()
                self.parts += 1
                self.most_files = max(self.most_files, self.parts)
            yield self._put()
        self.at_work -= 1
        self.ended = max(self.ended, self.now)

    def _tidying(self) -> Iterator[Wait]:
        """The driver, beside giving out batches: puts files of receipts together."""
        while self.at_work:
            yield self._listed(self.parts)
            if self.parts >= self.engine.many_files:
                taken = self.parts
                for begin in range(0, taken, self.costs.at_once):
                    some = min(self.costs.at_once, taken - begin)
                    yield self._get(some, self.costs.get_s)
                    yield self.driver, some * self.costs.part_s, 0.0
                yield self._put()
                yield self._put(taken)  # removed by requests of a thousand, each object counts
                self.parts -= taken - 1
            yield None, 0.0, self.engine.look_s


def simulate(
    service_s: Sequence[float] | np.ndarray, workers: int, num_tasks: int, costs: Costs, engine: Engine, seed: int = 0
) -> Outcome:
    """Play a stage of so many blocks on so many workers.

    Args:
        service_s: Measured times of blocks, from which those of the simulated ones are drawn.
        workers: All alike.
        num_tasks: Blocks.
        costs: What things take.
        engine: How the engine goes about it.
        seed: Of what is drawn.
    """
    return Simulation(np.asarray(service_s, float), workers, num_tasks, costs, engine, seed).run()
