"""What a training algorithm is: modules by name, and a step as phases. The loop does the rest, once for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """Crops of one domain."""

    images: Float32[Tensor, "n c h w"]
    """Normalised as the model's spec says: (fraction - low) / (high - low)."""
    labels: Int64[Tensor, "n h w"]
    """Class of each pixel, 0 is the background; for instances the number of its object. All 0 without labels."""
    valid: Bool[Tensor, "n h w"]
    """False where a pixel counts for nothing: outside the image, or left out by a mask."""
    targets: Float32[Tensor, "n 2 h w"] | None = None
    """What outputs boundary and distance learn, see ``raydom.images.targets``."""

    def to(self, device: torch.device) -> Batch:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{n: t.to(device, non_blocking=True) for n, t in tensors.items() if t is not None})


@dataclass(frozen=True)
class DomainBatch:
    """Crops of several domains, as many of each."""

    domains: tuple[Batch, ...]
    """By the number of the domain. Of two, the source is 0 and the target is 1."""
    labelled_target: Batch | None = None
    """Crops of the target's labelled images, if some are known."""

    @property
    def source(self) -> Batch:
        return self.domains[0]

    @property
    def target(self) -> Batch:
        return self.domains[1]

    def to(self, device: torch.device) -> DomainBatch:
        labelled = None if self.labelled_target is None else self.labelled_target.to(device)
        return DomainBatch(tuple(batch.to(device) for batch in self.domains), labelled)


@dataclass(frozen=True)
class Phase:
    """One update within a step: which modules learn, and from what.

    The loop freezes the parameters of all other modules, adds up the losses, goes one step down their gradient, and
    reports each by name.
    """

    name: str
    trains: tuple[str, ...]
    losses: Callable[[Any], dict[str, Tensor]]
    """Losses of a batch, scalars by name, weights applied."""


class Algorithm(ABC):
    """A training algorithm: one short file with its phases. This class holds what most of them share."""

    modules: Mapping[str, nn.Module]
    """All that is trained or saved, by name."""
    learning_rate_factors: Mapping[str, float] = {}
    """Factor on the learning rate by module name; 1 where none is given."""
    clip_norms: Mapping[str, float] = {}
    """Largest norm of the gradient by module name; that of the configuration where none is given."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of Adam's moments."""

    @abstractmethod
    def phases(self, step: int, num_steps: int) -> Sequence[Phase]:
        """The phases of a step, in order. The step (0 is the first) is for schedules and for phases that rest."""

    def exported(self) -> nn.Module:
        """What a finished run holds the weights of: all that inference needs, and no more."""
        return self.modules["network"]

    def after_step(self) -> None:  # noqa: B027 - most do nothing
        """What is done after the phases of each step, such as moving an average of the weights."""

    def state(self) -> dict[str, Any]:
        """What must outlive a restart beside the modules, such as image pools: tensors and plain values, per rank."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:  # noqa: B027 - most have no state
        """Take back what ``state`` gave."""
