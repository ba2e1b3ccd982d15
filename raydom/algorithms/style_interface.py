"""What a style method is: prepared once for a style, then applied to images or blocks of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from raydom.config import StyleConfig
from raydom.types import ImageStatistics


@dataclass(frozen=True, eq=False)
class StyleInput:
    """Images of one size, or blocks of them, with what a method must know of the whole images."""

    pixels: Float[Tensor, "n c h w"]
    """Fractions of the legal range."""
    statistics: ImageStatistics | tuple[ImageStatistics, ...]
    """Of the whole image, in fractions: one for all, or one for each of the n."""
    initial: Float[Tensor, "n c h w"] | None = None
    """Where an optimising method begins, in the style's fractions, instead of at its own choice."""
    regions: Int[Tensor, "region_h region_w"] | None = None
    """Labels over the whole of each image, of any resolution: strotss compares what has the same label."""

    def each(self) -> list[tuple[Float[Tensor, "1 c h w"], ImageStatistics]]:
        """The images one by one, with their statistics."""
        n = len(self.pixels)
        statistics = self.statistics if isinstance(self.statistics, tuple) else (self.statistics,) * n
        return list(zip(self.pixels.split(1), statistics, strict=True))


Apply = Callable[[StyleInput, torch.Generator], Tensor]
"""Stylised images, (n, c, h, w), in the style's fractions, of the content's. The generator is for what is random."""


@dataclass(frozen=True)
class Method:
    """A style method."""

    name: str
    prepare: Callable[[StyleInput, StyleConfig], Apply]
    """Does once what only depends on the style image (one image: n = 1) and the configuration."""
    pointwise: bool
    """Whether a pixel depends on no other pixel but through the statistics: then blocks can be stylised as they are,
    without context. Otherwise a method sees whole images (or overviews of them)."""
    version: int
    """Raised when the results change."""
    learns: bool = False
    """Whether it is prepared to a ``Learning``."""
    refines: bool = False
    """Whether it is prepared to a ``Refining``."""
    takes_regions: bool = False
    """Whether it compares images region by region, if their regions are given."""


@runtime_checkable
class Refining(Protocol):
    """A prepared method that also optimises parts of an image which is too large to be optimised as a whole.

    It is surveyed once on windows of the image, and what it learns there stands for the whole image in every part: so
    parts come out as they would within the whole, without seams.
    """

    halo_px: int
    """How far beyond a part it must see."""
    stride_px: int
    """Parts, with their halo, begin at multiples of this."""
    refine_steps: int
    """With 0, parts stay as they begin."""

    def __call__(self, content: StyleInput, generator: torch.Generator) -> Tensor: ...

    def survey(self, windows: StyleInput, generator: torch.Generator) -> dict[str, np.ndarray]:
        """What is to be known of the whole image, from windows of it with the ``initial`` of each."""
        ...

    def refine(self, part: StyleInput, survey: Mapping[str, np.ndarray], generator: torch.Generator) -> Tensor:
        """Parts of the image optimised from their ``initial``, in the style's fractions."""
        ...


@runtime_checkable
class Learning(Protocol):
    """A prepared method that learns a little of an image, and then takes its parts.

    One that takes each pixel by itself (``halo_px`` is 0) learns from the overview; one that looks around it learns
    from windows at full size, and images no larger than the overview it takes as a whole.
    """

    halo_px: int
    """How far beyond a part it must see."""
    stride_px: int
    """Parts, with their halo, begin at multiples of this."""

    def __call__(self, content: StyleInput, generator: torch.Generator) -> Tensor: ...

    def learn(self, seen: StyleInput) -> dict[str, np.ndarray]:
        """What is to be known of the whole image, from its overview or from windows of it."""
        ...

    def adapt(self, part: StyleInput, learned: Mapping[str, np.ndarray]) -> Tensor:
        """Parts of the image, in the style's fractions."""
        ...


@runtime_checkable
class Progressing(Protocol):
    """A prepared method that goes on step by step, and tells what it would give with fewer steps."""

    def __call__(self, content: StyleInput, generator: torch.Generator) -> Tensor: ...

    def progress(
        self, content: StyleInput, generator: torch.Generator, pauses: Sequence[int]
    ) -> Iterator[tuple[int, Tensor]]:
        """Steps done, and the images then: after each of these numbers of steps that it passes, and at the end."""
        ...


def within_legal_range(fractions: Tensor, statistics: ImageStatistics) -> Tensor:
    """Clipped to 0..1, or as far as the style reaches where it has no such bounds (signed or floating point)."""
    return fractions.clamp(min(0.0, *statistics.minimum), max(1.0, *statistics.maximum))
