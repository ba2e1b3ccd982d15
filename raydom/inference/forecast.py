"""How long a block job takes on a cluster, from the seconds of its tasks: sums, limits and tails. No measuring here.

The stages of a job follow each other: none begins before the one before it has ended for all images. Within a stage,
batches of tasks go to whichever worker is free. A stage can be no quicker than its work shared by the workers, than its
longest batch (an image whose objects are numbered by one worker, the last blocks), than the driver gives out batches,
and than the object store takes requests; which of them holds is told.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from raydom.inference.batches import BLOCK_PX, batch_size, most_at_once

WORK, TAIL, DRIVER, STORE, START = "workers", "longest task", "driver", "object store", "start-up"
"""What a job, or a stage, mostly waits for."""
WRITES_A_BATCH = 2
"""Its mark and its receipts."""


@dataclass(frozen=True, slots=True)
class StageLoad:
    """The work of a stage."""

    name: str
    seconds: Float[np.ndarray, " tasks"]
    """For which each task keeps a worker, in the order in which they are given out."""
    largest_px: int = BLOCK_PX
    """Pixels of the largest task."""
    on_gpu: bool = False
    """Whether the tasks are done on GPUs; this and the pixels say how many go to a batch."""
    writes: float = 0.0
    """Objects that are written to the store, beside a mark and receipts for each batch."""

    def batch_size(self, workers: int) -> int:
        """Tasks that a worker takes at a time."""
        return batch_size(len(self.seconds), workers, most_at_once(self.largest_px, workers, self.on_gpu))


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUp:
    """What passes before work begins, s."""

    session_s: float = 0.0
    """Until Ray is there, or joined, and at the end until it is left."""
    worker_s: float = 0.0
    """Until a new worker computes: processes, imports, models."""
    stage_s: float = 0.0
    """Between two stages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What no number of workers makes quicker."""

    driver_batches_per_s: float
    store_writes_per_s: float
    receipt_s: float = 0.0
    """For which the driver is at a receipt, in all."""


@dataclass(frozen=True, slots=True)
class StageForecast:
    """What becomes of a stage."""

    name: str
    seconds: float
    limit: str
    """WORK, TAIL, DRIVER or STORE."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long a job takes with a number of workers."""

    workers: int
    seconds: float
    start_s: float
    """Of them, before the first task and between stages."""
    busy_s: float
    """Of all workers, added."""
    stages: tuple[StageForecast, ...]

    @property
    def limit(self) -> str:
        """What most of the time is spent waiting for."""
        waited = {START: self.start_s}
        for stage in self.stages:
            waited[stage.limit] = waited.get(stage.limit, 0.0) + stage.seconds
        return max(waited, key=lambda name: waited[name])

    @property
    def efficiency(self) -> float:
        """Share of the workers' time in which they are at work."""
        return self.busy_s / (self.workers * self.seconds) if self.seconds else 1.0


def makespan(seconds: Sequence[float] | np.ndarray, workers: int) -> float:
    """When the last of these pieces of work ends, if each goes to whichever worker is free first, in this order."""
    if workers == 1:
        return float(np.sum(seconds))
    free = [0.0] * min(workers, len(seconds))
    for one in seconds:
        heapq.heapreplace(free, free[0] + float(one))
    return max(free, default=0.0)


def forecast_stage(stage: StageLoad, workers: int, limits: Limits) -> StageForecast:
    """How long a stage takes, and what it waits for.

    Start-up is not counted. Beside the work itself, what the longest batch adds at the end is in it.
    """
    if not len(stage.seconds):
        return StageForecast(stage.name, 0.0, WORK)
    size = stage.batch_size(workers)
    batches = np.add.reduceat(stage.seconds, np.arange(0, len(stage.seconds), size))
    shared = float(batches.sum()) / workers
    bounds = {
        WORK: makespan(batches, workers),
        DRIVER: len(batches) / limits.driver_batches_per_s,
        STORE: (stage.writes + WRITES_A_BATCH * len(batches)) / limits.store_writes_per_s,
    }
    limit = max(bounds, key=lambda name: bounds[name])
    seconds = bounds[limit]
    if limit == WORK and seconds > 2 * shared:  # more than half of it is waiting for the last
        limit = TAIL
    return StageForecast(stage.name, seconds, limit)


def forecast(
    stages: Sequence[StageLoad], workers: int, start: StartUp, limits: Limits, *, boot_s: float = 0.0
) -> Forecast:
    """How long a job takes with so many workers.

    Args:
        stages: In their order; those without tasks take no time.
        workers: All alike.
        start: What passes before work begins.
        limits: What more workers do not help against.
        boot_s: Until the machines of the workers are there.
    """
    done = [stage for stage in stages if len(stage.seconds)]
    results = tuple(forecast_stage(stage, workers, limits) for stage in done)
    receipts_s = limits.receipt_s * sum(len(stage.seconds) for stage in done)
    start_s = boot_s + start.session_s + start.worker_s + start.stage_s * max(0, len(done) - 1) + receipts_s
    busy_s = float(sum(stage.seconds.sum() for stage in done))
    return Forecast(workers, start_s + sum(stage.seconds for stage in results), start_s, busy_s, results)


def most_useful_workers(stages: Sequence[StageLoad], limits: Limits) -> int:
    """So many workers finish the work of a stage in the time that its longest batch or the driver and the store need
    anyway; more of them help no stage."""
    useful = 1
    for stage in stages:
        if len(stage.seconds):
            total, count = float(stage.seconds.sum()), len(stage.seconds)
            floor = max(float(stage.seconds.max()), stage.writes / limits.store_writes_per_s, 1e-9)
            most = min(count, math.ceil(total / floor))
            given_s = count / stage.batch_size(most) / limits.driver_batches_per_s
            useful = max(useful, min(most, math.ceil(total / max(given_s, 1e-9))))
    return useful


# ------------------------------------------------------------------------------------------------------------- money


@dataclass(frozen=True, slots=True)
class Offer:
    """A cluster of one kind of machine, and what the job takes and costs on it."""

    node: str
    nodes: int
    forecast: Forecast
    gpu_hours: float
    usd: float
    usd_spot: float | None

    @property
    def hours(self) -> float:
        return self.forecast.seconds / 3600

    @property
    def worker_hours(self) -> float:
        """Of all workers, waiting ones too: they are paid as well."""
        return self.hours * self.forecast.workers

    @property
    def least_usd(self) -> float:
        return self.usd if self.usd_spot is None else min(self.usd, self.usd_spot)


def cheapest(offers: Sequence[Offer], deadline_hours: float) -> Offer | None:
    """The offer that costs least of those that meet a deadline; of equal ones the quickest. None if none meets it."""
    fitting = [offer for offer in offers if offer.hours <= deadline_hours]
    return min(fitting, key=lambda offer: (offer.least_usd, offer.hours), default=None)
