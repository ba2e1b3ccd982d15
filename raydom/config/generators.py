"""Generators, and what is known of trained ones."""

from __future__ import annotations

from dataclasses import dataclass

from raydom.config.base import require
from raydom.config.drit import DisentangledConfig
from raydom.types import ImageStatistics

GENERATORS = ("resnet", "pixel-shuffle")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorConfig:
    """A generator of CycleGAN with all that its shape depends on."""

    name: str = "resnet"
    """resnet (Zhu et al. 2017, arXiv:1703.10593) or pixel-shuffle (the same with a pixel-shuffle decoder)."""
    channels: int = 3
    """Of its input and of its output."""
    base_channels: int = 64
    """Channels of the first convolution; the residual blocks have four times as many."""
    blocks: int = 9
    """Residual blocks: 9 for crops of 256 px, 6 for crops of 128 px."""

    def __post_init__(self) -> None:
        require(self.name in GENERATORS, f"the generator must be {' or '.join(GENERATORS)}; got {self.name!r}.")
        for name in ("channels", "base_channels"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1; got {getattr(self, name)}.")
        require(self.blocks >= 0, f"blocks must be >= 0; got {self.blocks}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSpec:
    """What inference must know of one of the domains that a generator was trained on."""

    name: str
    low: float
    high: float
    """Intensities, as fractions of the legal range of the dtype, that the networks see as 0 and 1."""
    dtype: str
    """Of the training images; float32 where they had several, whose statistics are then of fractions."""
    statistics: ImageStatistics
    """Of all training images taken as one, in the units of the dtype."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSpec:
    """What inference must know of a training that makes images of one domain look like those of another; stored in the
    ``config.json`` of its run."""

    kind: str
    """The algorithm, which is the style method too that uses the run: cyclegan or drit."""
    generator: GeneratorConfig | DisentangledConfig
    channels: tuple[str, ...]
    """Names of the channels of all images."""
    domains: tuple[DomainSpec, ...]
    """In their order in training. Of two, the source is 0 and the target is 1."""
    pixel_size_um: float | None
    """Pixel size of the training images; None if they did not state it."""
    total_stride: int
    """Input sides and the starts of read regions are multiples of this, px."""
    reach_px: int
    """How far, to each side, an output pixel looks but for the normalisation, px: the smallest exact halo."""
