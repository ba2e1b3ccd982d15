"""The learning-rate range test of Smith 2017 (arXiv:1506.01186): which rates a training bears, in a hundred steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from raydom.config import TrainConfig
from raydom.errors import DivergedError
from raydom.training.loop import Loop, Training, prefetched
from raydom.training.plan import TrainingPlan
from raydom.training.runner import choose_device

STEPS = 100
LOWEST, HIGHEST = 1e-6, 1.0
SMOOTHING = 0.9
"""Share of the smoothed loss that is kept from step to step."""
WORSE = 4.0
"""The test ends where the smoothed loss is so many times its lowest."""


@dataclass(frozen=True)
class RangeTest:
    """What a range test has seen."""

    rates: Sequence[float]
    losses: Sequence[float]
    """All losses together, smoothed, at each of the rates."""
    suggestion: float
    """A tenth of the rate with the lowest smoothed loss: rates near that one are about to diverge."""


def learning_rate_range_test(plan: TrainingPlan, num_steps: int = STEPS) -> RangeTest:
    """Train in this process with rates that rise exponentially from step to step; writes nothing."""
    device = choose_device(plan.run)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(max(1, int(plan.run.cpus_per_worker)))
    try:
        return swept(plan.assemble(device), plan.train, num_steps, device)
    finally:
        torch.set_num_threads(threads_before)


def swept(training: Training, config: TrainConfig, num_steps: int, device: torch.device) -> RangeTest:
    """The range test of any training; its modules are spoilt afterwards."""
    ratio = HIGHEST / LOWEST
    loop = Loop(training.algorithm, config, num_steps, device, lambda step: LOWEST * ratio ** (step / (num_steps - 1)))
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    batches = prefetched(training.batch_at, 0, num_steps)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for batch in batches:
            try:
                loss = sum(loop.advance(batch).values())
            except DivergedError:
                break
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            rates.append(loop.learning_rate(loop.step - 1))
            losses.append(average / (1 - SMOOTHING**loop.step))  # as if the average had not begun at 0
            if losses[-1] > WORSE * min(losses):
                break
    batches.close()
    if not losses:
        raise DivergedError("the very first loss of the range test is not finite. Look for broken images.")
    return RangeTest(rates, losses, rates[losses.index(min(losses))] / 10)
