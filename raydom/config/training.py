"""What the training loop can be told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from raydom.config.base import require
from raydom.config.styles import TRAINED

AUGMENTATIONS = ("flip", "rotate", "intensity", "particles", "empty", "blur", "noise", "colour", *TRAINED)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Settings of the training loop that do not depend on the algorithm."""

    steps: int | None = None
    """Optimiser steps, instead of epochs."""
    epochs: int | None = None
    """Passes over the training images, 50 by default; an epoch is ceil(images / (batch_size * workers)) steps of
    random crops, but at least 20."""
    batch_size: int = 8
    """Crops per worker and step."""
    crop_px: int = 128
    """Side of the square training crops, px."""
    learning_rate: float = 1.0e-3
    """Peak learning rate of Adam."""
    schedule: str = "cosine"
    """constant, linear (constant for half of the steps, then straight to 0) or cosine (to 0 at the last step)."""
    phase_rates: tuple[str, ...] = field(default=(), metadata={"comma": True})
    """Learning rates of the phases of a step as shares of it, with commas between, such as criticise=0.5: a phase is
    what the losses that are shown are named after. Default: 1 each."""
    weight_decay: float = 1.0e-4
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 switches clipping off."""
    precision: str = "float32"
    """float32 or bfloat16 (mixed precision)."""
    validation_fraction: float = 0.2
    """Share of the images kept for validation, whole groups at a time."""
    validate_every: int = 100
    """Steps between validations, each of which writes a checkpoint."""
    patience: int | None = None
    """End after so many validations in a row without a better score. Default: train all steps."""
    augment: tuple[str, ...] = ("flip", "rotate", "intensity")
    """Augmentations of the training crops: flip, rotate, intensity (gain, offset and gamma), particles (round dark
    blobs that are no objects), empty (a tenth of the crops, objects filled with background), blur, noise, colour (gain
    and offset of each channel); cyclegan or drit (a share of them as a --generator makes them, in the look of another
    domain)."""
    small_particles_px: float | None = None
    """Radius of the smaller particles, px. Default: 3."""
    large_particles_px: float | None = None
    """Radius of the larger particles, px. Default: twice that of the smaller ones."""
    min_workers: int | None = None
    """Go on with as few workers as this when some are lost, and with more again, up to --workers, when they can be had;
    the result then depends on how many there were. Default: as many as asked for, always."""
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            self.steps is None or self.epochs is None,
            f"give --steps or --epochs, not both; got steps={self.steps}, epochs={self.epochs}.",
        )
        for name in ("steps", "epochs", "batch_size", "crop_px", "validate_every", "patience", "min_workers"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be >= 1; got {value}.")
        require(
            self.schedule in ("constant", "linear", "cosine"),
            f"schedule must be constant, linear or cosine; got {self.schedule!r}.",
        )
        require(
            self.precision in ("float32", "bfloat16"), f"precision must be float32 or bfloat16; got {self.precision!r}."
        )
        require(
            0 < self.validation_fraction < 1,
            f"validation_fraction must be between 0 and 1; got {self.validation_fraction}.",
        )
        require(self.learning_rate > 0, f"learning_rate must be > 0; got {self.learning_rate}.")
        for word in self.phase_rates:
            require(
                "=" in word and _is_rate(word.partition("=")[2]),
                f"phase_rates are PHASE=SHARE with a share > 0, such as criticise=0.5; got {word!r}.",
            )
        names = [word.partition("=")[0] for word in self.phase_rates]
        require(len(set(names)) == len(names), f"a phase is given twice in phase_rates {','.join(self.phase_rates)}.")
        unknown = set(self.augment) - set(AUGMENTATIONS)
        require(not unknown, f"unknown augmentation {sorted(unknown)}; choose from {', '.join(AUGMENTATIONS)}.")
        for name in ("small_particles_px", "large_particles_px"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{name} must be > 0; got {value}.")
            require(
                value is None or "particles" in self.augment,
                f"{name} {value} has no effect: add particles to --augment.",
            )

    @property
    def rate_of_phase(self) -> dict[str, float]:
        """The phase rates by name."""
        return {name: float(share) for name, _, share in (word.partition("=") for word in self.phase_rates)}

    @property
    def particles_px(self) -> tuple[float, float]:
        """Radii of the two sizes of particles."""
        small = self.small_particles_px or 3.0
        return small, self.large_particles_px or 2 * small


def _is_rate(share: str) -> bool:
    try:
        return 0 < float(share) < math.inf
    except ValueError:
        return False
