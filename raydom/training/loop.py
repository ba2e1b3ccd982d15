"""The training loop, once for all algorithms: it knows modules, phases and batches, and nothing of images or Ray."""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raydom.algorithms.phases import Algorithm, Phase
from raydom.config import TrainConfig
from raydom.errors import ConfigError, DataError, DivergedError
from raydom.training import distributed
from raydom.training.seeds import derived_seed

DEFAULT_EPOCHS = 50
MAX_ROWS = 1000
"""About how many rows the table of metrics has at most, beside those of the validations."""
PREFETCHED = 2
"""Batches that are prepared while the network works on another."""


@dataclass(frozen=True)
class Training:
    """All that the loop is given: what is trained, on which batches, and how it is scored."""

    algorithm: Algorithm
    batch_at: Callable[[int], Any]
    """The batch of a step, for this process. A function of the step alone; called on other threads, ahead of time."""
    validate: Callable[[], float] | None = None
    """A score, larger is better; the same on all processes. None: the last weights are the best."""
    keep_last: bool = False
    """Whether the last weights count as the best whatever their score."""
    sample: Callable[[], bytes] | None = None
    """Draws what the training makes now, as PNG. Called on process 0."""
    sample_every: int | None = None
    """Steps between two such pictures; None: there is none."""


@dataclass(frozen=True)
class Report:
    """Where a training is after a step."""

    step: int
    """Steps done."""
    num_steps: int
    losses: Mapping[str, float]
    """By ``phase.loss``, mean over the processes."""
    learning_rate: float
    score: float | None
    """Validation score after this step, if there was a validation."""
    best_score: float | None
    seconds: float
    """Since the beginning, earlier attempts included."""


def train(
    training: Training,
    config: TrainConfig,
    num_steps: int,
    *,
    device: torch.device,
    checkpoint: bytes | None = None,
    save: Callable[[Report, bytes | None], None] = lambda report, state: None,
    watch: Callable[[Report], None] = lambda report: None,
    show: Callable[[int, bytes], None] = lambda step, picture: None,
) -> None:
    """Train from the first step, or from a checkpoint, to the last.

    The result depends on the configuration, the data and the number of processes, not on interruptions: the learning
    rate is a function of the step, torch's generators are seeded anew for each step and rank, and everything else is in
    the checkpoint. Call it in every process of a group with the same arguments.

    Args:
        training: Algorithm, batches and validation.
        config: Settings of the loop.
        num_steps: Steps in all.
        device: Where the modules and batches are put.
        checkpoint: What an earlier call saved.
        save: Called every ``validate_every`` steps and after the last, on all processes, with the state on process 0.
        watch: Called after every step.
        show: Called with each picture and its step, on process 0.

    Raises:
        DivergedError: When a loss or a gradient is not finite, before it reaches the weights, on all processes.
        DataError: If the checkpoint is of another training.
    """
    for report, state in progress(training, config, num_steps, device=device, checkpoint=checkpoint):
        watch(report)
        wanted = training.sample_every is not None and report.step % training.sample_every == 0
        if wanted and training.sample is not None and distributed.rank() == 0:
            show(report.step, training.sample())
        if state is not None:
            save(report, state())


def progress(
    training: Training,
    config: TrainConfig,
    num_steps: int,
    *,
    device: torch.device,
    checkpoint: bytes | None = None,
) -> Generator[tuple[Report, Callable[[], bytes | None] | None], None, None]:
    """``train`` step by step: after each a report and, where there is a checkpoint, what gives its state.

    Args:
        training: As for ``train``, and so are the others.
        config: Settings of the loop.
        num_steps: Steps in all.
        device: Where the modules and batches are put.
        checkpoint: To begin with.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        loop = Loop(training.algorithm, config, num_steps, device, keep_last=training.keep_last)
        if checkpoint is not None:
            loop.load_state(checkpoint)
        if loop.has_stalled:  # the last checkpoint of a training that ended early
            return
        with contextlib.closing(prefetched(training.batch_at, loop.step, num_steps)) as batches:
            for batch in batches:
                losses = loop.advance(batch)
                score = None
                at_checkpoint = loop.step % config.validate_every == 0 or loop.step == num_steps
                if at_checkpoint:
                    distributed.average_buffers(training.algorithm.modules.values())
                    score = training.validate() if training.validate is not None else None
                yield loop.record(losses, score, at_checkpoint), loop.state if at_checkpoint else None
                if loop.has_stalled:
                    break


class Loop:
    """The state of a training: modules, optimisers, step, best weights and the table of metrics."""

    def __init__(
        self,
        algorithm: Algorithm,
        config: TrainConfig,
        num_steps: int,
        device: torch.device,
        learning_rate: Callable[[int], float] | None = None,
        keep_last: bool = False,
    ) -> None:
        """At the first step.

        Args:
            algorithm: What is trained.
            config: Settings of the loop.
            num_steps: Steps in all.
            device: Where the modules are put.
            learning_rate: Of a step (0 is the first), instead of what the settings say.
            keep_last: Whether the last weights count as the best whatever their score.
        """
        self.keep_last = keep_last
        self.algorithm, self.config, self.num_steps, self.device = algorithm, config, num_steps, device
        self.learning_rate = learning_rate or (
            lambda step: scheduled(config.learning_rate, config.schedule, step, num_steps)
        )
        self.rate_of_phase = _checked_rates(config.rate_of_phase, algorithm, num_steps)
        self.step = 0
        self.best: dict[str, Any] = {"score": None, "step": 0, "weights": {}}
        self.rows: list[dict[str, float | int]] = []
        self._seconds_before, self._began = 0.0, time.monotonic()
        self._since_row: Counter[str] = Counter()
        self._times_since_row: Counter[str] = Counter()
        for module in algorithm.modules.values():
            module.to(device).train()
        distributed.broadcast_modules(algorithm.modules.values())
        # What the algorithm froze itself stays frozen.
        self.parameters = {
            name: [p for p in module.parameters() if p.requires_grad] for name, module in algorithm.modules.items()
        }
        self.optimizers = {
            name: torch.optim.AdamW(
                parameters, lr=config.learning_rate, betas=algorithm.betas, weight_decay=config.weight_decay
            )
            for name, parameters in self.parameters.items()
            if parameters
        }

    def advance(self, batch: Any) -> dict[str, float]:
        """One step: every phase in its turn. Returns the losses by ``phase.loss``."""
        torch.manual_seed(derived_seed(self.config.seed, self.step, distributed.rank()))
        batch = batch.to(self.device)
        losses: dict[str, float] = {}
        for phase in self.algorithm.phases(self.step, self.num_steps):
            losses |= self._update(phase, batch)
        self.algorithm.after_step()
        self.step += 1
        return losses

    def _update(self, phase: Phase, batch: Any) -> dict[str, float]:
        unknown = [name for name in phase.trains if name not in self.optimizers]
        if unknown:
            raise ConfigError(
                f"phase {phase.name} trains {', '.join(unknown)}; there are parameters to train in "
                f"{', '.join(self.optimizers)}."
            )
        for name, parameters in self.parameters.items():
            for parameter in parameters:
                parameter.requires_grad_(name in phase.trains)
        bfloat16 = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            losses = phase.losses(batch)
        trained = [p for name in phase.trains for p in self.parameters[name]]
        for parameter in trained:
            parameter.grad = None
        values = torch.stack([loss.float() for loss in losses.values()])
        values.sum().backward()
        means = dict(zip(losses, distributed.average_gradients(trained, values.detach()).tolist(), strict=True))
        for name, value in means.items():
            self._require_finite(value, f"the loss {name!r}", phase)
        for name in phase.trains:
            limit = self.algorithm.clip_norms.get(name, self.config.clip_norm) or math.inf
            norm = nn.utils.clip_grad_norm_(self.parameters[name], limit)
            self._require_finite(float(norm), f"the gradient of {name!r}", phase)
        for name in phase.trains:
            factor = self.algorithm.learning_rate_factors.get(name, 1.0) * self.rate_of_phase.get(phase.name, 1.0)
            for group in self.optimizers[name].param_groups:
                group["lr"] = factor * self.learning_rate(self.step)
            self.optimizers[name].step()
        return {f"{phase.name}.{name}": value for name, value in means.items()}

    def _require_finite(self, value: float, what: str, phase: Phase) -> None:
        if not math.isfinite(value):
            kept = self.step // self.config.validate_every * self.config.validate_every
            there = f"the checkpoint of step {kept} is the last good one" if kept else "there is no checkpoint yet"
            raise DivergedError(
                f"{what} of phase {phase.name!r} is {value} at step {self.step + 1} of {self.num_steps}; {there}. "
                f"Lower the learning rate ({self.config.learning_rate}), or look for broken images."
            )

    @property
    def has_stalled(self) -> bool:
        """Whether ``patience`` validations in a row have not been better than the best before them."""
        since = sum("score" in row and row["step"] > self.best["step"] for row in self.rows)
        return self.config.patience is not None and since >= self.config.patience

    def record(self, losses: Mapping[str, float], score: float | None, at_checkpoint: bool) -> Report:
        """Keep the metrics of the step just done; at a checkpoint, the weights too if they are the best so far."""
        self._since_row.update(losses)
        self._times_since_row.update(losses.keys())  # phases may rest
        seconds = self._seconds_before + time.monotonic() - self._began
        rate = self.learning_rate(self.step - 1)
        if at_checkpoint or self.step % max(1, self.num_steps // MAX_ROWS) == 0:
            row = {name: value / self._times_since_row[name] for name, value in self._since_row.items()}
            row |= {"step": self.step, "learning_rate": rate, "seconds": seconds}
            self.rows.append(row if score is None else row | {"score": score})
            self._since_row, self._times_since_row = Counter(), Counter()
        best = self.best["score"]
        if at_checkpoint and (self.keep_last or score is None or best is None or score > best):
            exported = self.algorithm.exported().state_dict()
            weights = {name: value.detach().cpu().clone() for name, value in exported.items()}
            self.best = {"score": score, "step": self.step, "weights": weights}
        return Report(self.step, self.num_steps, dict(losses), rate, score, self.best["score"], seconds)

    def state(self) -> bytes | None:
        """All that a restart needs, on process 0; all processes must call."""
        algorithm_states = distributed.gathered(self.algorithm.state())
        if distributed.rank() != 0:
            return None
        return _to_bytes(
            {
                "step": self.step,
                "num_steps": self.num_steps,
                "world_size": distributed.world_size(),
                "modules": {name: module.state_dict() for name, module in self.algorithm.modules.items()},
                "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
                "algorithm": algorithm_states,
                "best": self.best,
                "rows": self.rows,
                "seconds": self._seconds_before + time.monotonic() - self._began,
            }
        )

    def load_state(self, checkpoint: bytes) -> None:
        state = _from_bytes(checkpoint)
        if set(state["modules"]) != set(self.algorithm.modules) or state["num_steps"] != self.num_steps:
            raise DataError(
                f"the checkpoint is of a training of {', '.join(state['modules'])} over {state['num_steps']} steps; "
                f"this one is of {', '.join(self.algorithm.modules)} over {self.num_steps}. Choose another --out."
            )
        try:
            for name, module in self.algorithm.modules.items():
                module.load_state_dict(state["modules"][name])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
        except (RuntimeError, ValueError, KeyError) as error:
            raise DataError(f"the checkpoint is of another network: {error} Choose another --out.") from error
        states = state["algorithm"]
        self.algorithm.load_state(states[distributed.rank() % len(states)])
        self.step, self.best, self.rows = state["step"], state["best"], state["rows"]
        self._seconds_before = state["seconds"]


@dataclass(frozen=True)
class Finished:
    """What a finished training leaves."""

    weights: dict[str, Any]
    """Of the exported module at its best validation, as numpy arrays by name."""
    best_step: int
    best_score: float | None
    rows: Sequence[Mapping[str, float | int]]
    """The table of metrics: step, learning_rate, seconds, score, and a mean of each loss since the row before."""


def finished(checkpoint: bytes) -> Finished:
    """The result of a training from its last checkpoint."""
    state = _from_bytes(checkpoint)
    best = state["best"]
    weights = {name: value.numpy() for name, value in best["weights"].items()}
    return Finished(weights, best["step"], best["score"], state["rows"])


def scheduled(peak: float, schedule: str, step: int, num_steps: int) -> float:
    """Learning rate of a step (0 is the first).

    Constant; linear: constant for half of the steps, then straight to 0; cosine: half a cosine from the peak to 0.
    """
    if schedule == "constant":
        return peak
    if schedule == "linear":
        return peak * min(1.0, 2 * (1 - step / num_steps))
    return peak * 0.5 * (1 + math.cos(math.pi * step / num_steps))


def _checked_rates(rates: dict[str, float], algorithm: Algorithm, num_steps: int) -> dict[str, float]:
    """The learning rates of phases, if there are such phases in any step.

    Raises:
        ConfigError: Which lists those that there are.
    """
    if not rates:
        return {}
    # In order, each once; some come late, or seldom.
    phases = {phase.name: None for step in range(num_steps) for phase in algorithm.phases(step, num_steps)}
    unknown = [name for name in rates if name not in phases]
    if unknown:
        raise ConfigError(f"--phase-rates: there is no phase {', '.join(unknown)}; the phases are {', '.join(phases)}.")
    return rates


def number_of_steps(config: TrainConfig, num_images: int, num_workers: int) -> int:
    """Steps of a training; an epoch is as many as visit every image once, but at least 20."""
    if config.steps is not None:
        return config.steps
    epochs = config.epochs if config.epochs is not None else DEFAULT_EPOCHS
    return epochs * max(20, math.ceil(num_images / (config.batch_size * num_workers)))


def prefetched(batch_at: Callable[[int], Any], first: int, last: int) -> Generator[Any, None, None]:
    """The batches of steps ``first`` to ``last - 1`` in order, prepared ahead on threads."""
    with ThreadPoolExecutor(PREFETCHED) as threads:
        waiting: list[Future[Any]] = []
        try:
            for step in range(first, last):
                ahead = range(step + len(waiting), min(step + PREFETCHED + 1, last))
                waiting += [threads.submit(batch_at, number) for number in ahead]
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def _to_bytes(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _from_bytes(checkpoint: bytes) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(io.BytesIO(checkpoint), map_location="cpu", weights_only=True)
    return state
