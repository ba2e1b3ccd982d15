"""Images larger than the overview, stylised in parts without seams.

What a method must know of the whole image it learns once, in the global pass: the overview (the whole image at low
resolution) is stylised; how it changed is kept as a gain and an offset for each pixel and channel of the overview; and
a method that refines is surveyed on windows at full size. A part of the image then begins as the full-size content
under the interpolated gain and offset, and is refined with the survey's global statistics. Neither depends on how the
image is cut: interpolation counts from the whole image, and what refinement sees beyond a part is its halo. A method
that learns has no need of that: what it has learnt of the overview, or of windows, is all that its parts must know.

Sources: He et al. 2013, "Guided Image Filtering" (the gain is its slope, the content being the guide) and He and Sun
2015, "Fast Guided Filter" (arXiv:1505.00996), which interpolates the slopes. Here the offset carries what the overview
shows beyond the local slope too, so that at the overview's resolution the stylised overview comes out exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int
from torch import Tensor

from raydom.algorithms.style_interface import Apply, Learning, Method, Refining, StyleInput, within_legal_range
from raydom.algorithms.styles import shrunk
from raydom.config import StyleConfig
from raydom.images.resample import grid_size, resample, source_region
from raydom.types import ImageStatistics, Region

LARGE_VERSION = 1
"""Raised when what is done here to large images changes their pixels."""
GUIDE_RADIUS_PX = 8
"""Half the side of the windows in which the gain is fitted, px of the overview."""
FLAT = 0.05
"""Windows whose content deviates less than this share of the whole overview's deviation count as flat."""
LEAST_STYLE_PX = 128
"""Shorter side, px, below which a style image is not made smaller."""
WINDOW_PX = 256
"""Side of the windows at full size on which a method is surveyed, px; more where the halo is large."""

ReadRegion = Callable[[Region, tuple[int, ...]], Float32[np.ndarray, "c h w"]]
"""Pixels, in fractions, of a region of the image resampled to a shape."""


@dataclass(frozen=True, eq=False)
class Styler:
    """A method and its style image, prepared at each scale that is asked for."""

    method: Method
    style: StyleInput
    config: StyleConfig
    prepared: dict[float, Apply] = field(default_factory=dict)

    def at(self, scale: float) -> Apply:
        """Structures of the style image shrink with the content's, as long as enough of it is left to have a style."""
        least = min(1.0, LEAST_STYLE_PX / min(self.style.pixels.shape[2:]))
        scale = max(scale, least)
        if scale not in self.prepared:
            self.prepared[scale] = self.method.prepare(shrunk(self.style, scale), self.config)
        return self.prepared[scale]

    def refiner(self) -> Refining | None:
        """The method at full size, if it refines blocks."""
        full = self.at(1.0) if self.method.refines else None
        return full if isinstance(full, Refining) and full.refine_steps > 0 else None

    def learning(self, shape: tuple[int, ...]) -> Learning | None:
        """The method, if it learns of an image of ``shape`` and then takes its parts; its style is not made smaller."""
        full = self.at(1.0) if self.method.learns else None
        if not isinstance(full, Learning) or (full.halo_px > 0 and self.overview_scale(shape) == 1):
            return None
        return full

    def legal(self, fractions: Tensor) -> Tensor:
        """Clipped to where the style's intensities can be."""
        return within_legal_range(fractions, self.style.each()[0][1])

    def overview_scale(self, shape: tuple[int, ...]) -> float:
        return min(1.0, self.config.overview_px / max(shape))

    def context(self, inner: Region, shape: tuple[int, ...]) -> Region:
        """What must be seen of an image of ``shape`` to stylise a region of it as the whole image would be."""
        looking = self.looking(shape)
        if looking is None or looking.halo_px == 0:
            return inner
        return _aligned(inner.grown(looking.halo_px), looking.stride_px, shape)

    def looking(self, shape: tuple[int, ...]) -> Learning | Refining | None:
        """The method, if it works on parts of an image of ``shape`` one by one."""
        if self.method.learns:
            return self.learning(shape)
        return self.refiner() if self.overview_scale(shape) < 1 else None


def global_pass(
    styler: Styler,
    statistics: ImageStatistics,
    read: ReadRegion,
    shape: tuple[int, ...],
    device: torch.device | str,
    generator: torch.Generator,
    regions: Int[Tensor, "region_h region_w"] | None = None,
) -> dict[str, np.ndarray]:
    """What parts of an image must know of the whole: arrays by name, to be kept.

    Args:
        styler: Of a method that is not pointwise.
        statistics: Of the whole image, in fractions.
        read: Gives the pixels.
        shape: (h, w) of the whole image.
        device: Where to compute.
        generator: Of what is random.
        regions: Labels over the whole image.

    Returns:
        What a method learns that then takes parts; of other methods
        ``styled`` (c, h, w) for an image no larger than the overview, else ``gain`` and ``offset`` (c, h, w), and the
        survey of a method that refines.
    """

    def on_device(pixels: np.ndarray) -> Tensor:
        return torch.from_numpy(pixels)[None].to(device)

    def windowed(looking: Learning | Refining) -> tuple[list[Region], np.ndarray]:
        windows = survey_windows(shape, styler.config.overview_px, looking, generator)
        return windows, np.stack([read(window, shape) for window in windows])

    learning = styler.learning(shape)
    if learning is not None and learning.halo_px > 0:
        pixels = torch.from_numpy(windowed(learning)[1]).to(device)
        return {f"learned.{name}": array for name, array in learning.learn(StyleInput(pixels, statistics)).items()}
    scale = styler.overview_scale(shape)
    small_shape = tuple(grid_size(size, scale) for size in shape) if scale < 1 else shape
    small = on_device(read(Region.whole(small_shape), small_shape))
    overview = StyleInput(small, statistics, regions=regions)
    if learning is not None:
        return {f"learned.{name}": array for name, array in learning.learn(overview).items()}
    styled = styler.at(scale)(overview, generator)
    if scale == 1.0:
        return {"styled": styled[0].float().cpu().numpy()}
    gain = local_gain(small, styled)
    offset = styled - gain * small
    passed = {"gain": gain[0].cpu().numpy(), "offset": offset[0].cpu().numpy()}
    refiner = styler.refiner()
    if refiner is None:
        return passed
    windows, seen = windowed(refiner)
    starts = np.stack([_carried(passed, one, window, shape) for one, window in zip(seen, windows, strict=True)])
    content, start = (torch.from_numpy(batch).to(device) for batch in (seen, starts))
    survey = refiner.survey(StyleInput(content, statistics, styler.legal(start)), generator)
    return passed | {f"survey.{name}": array for name, array in survey.items()}


def styled_region(
    styler: Styler,
    passed: Mapping[str, np.ndarray],
    content: StyleInput,
    seen: Region,
    inner: Region,
    shape: tuple[int, ...],
    generator: torch.Generator,
) -> Float32[np.ndarray, "c h w"]:
    """A part of a stylised image, the same however the image is cut (up to what lies beyond the halo of refinement).

    Args:
        styler: Of a method that is not pointwise.
        passed: The image's global pass.
        content: The pixels of ``seen``, with the statistics of the whole image.
        seen: At least ``styler.context(inner, shape)``.
        inner: What is wanted.
        shape: (h, w) of the whole image.
        generator: Of what is random.
    """
    inside = inner.relative_to(seen)
    learning = styler.learning(shape)
    if learning is not None:
        adapted = learning.adapt(content, _named(passed, "learned."))[0].cpu().numpy()
        return np.ascontiguousarray(adapted[(slice(None), *inside.slices)])
    if "styled" in passed:
        return np.ascontiguousarray(passed["styled"][(slice(None), *inner.slices)])
    initial = torch.from_numpy(_carried(passed, content.pixels[0].cpu().numpy(), seen, shape))[None]
    initial = styler.legal(initial.to(content.pixels))
    refiner = styler.refiner()
    if refiner is not None:
        initial = refiner.refine(replace(content, initial=initial), _named(passed, "survey."), generator)
    return np.ascontiguousarray(initial[0].float().cpu().numpy()[(slice(None), *inside.slices)])


def local_gain(content: Float[Tensor, "n c h w"], styled: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """How strongly the stylised image follows its content, by windows and channels: the slope of a guided filter.

    Negative where the style inverts the contrast; where the content is flat, the slope over the whole image, so that a
    change that is the same everywhere is carried to full size as it is.
    """
    mean_content, mean_styled = _windowed(content), _windowed(styled)
    variance = (_windowed(content.square()) - mean_content.square()).clamp(min=0)
    covariance = _windowed(content * styled) - mean_content * mean_styled
    centred = content - content.mean(dim=(2, 3), keepdim=True)
    whole_variance = centred.square().mean(dim=(2, 3), keepdim=True)
    whole_slope = (centred * styled).mean(dim=(2, 3), keepdim=True) / (whole_variance + 1e-12)
    flat = FLAT**2 * whole_variance + 1e-12
    return _windowed((covariance + flat * whole_slope) / (variance + flat))


def _windowed(images: Tensor) -> Tensor:
    """Means over windows; at the borders over the part of a window inside the image."""
    side = 2 * GUIDE_RADIUS_PX + 1
    return F.avg_pool2d(images, side, stride=1, padding=GUIDE_RADIUS_PX, count_include_pad=False)


def survey_windows(
    shape: tuple[int, ...], overview_px: int, looking: Learning | Refining, generator: torch.Generator
) -> list[Region]:
    """Windows at full size, spread evenly over the image with some chance, of about as many pixels as the overview."""
    side = max(WINDOW_PX, 4 * looking.halo_px)
    sides = tuple(min(size, -(-side // looking.stride_px) * looking.stride_px) for size in shape)
    wanted = max(1, overview_px**2 // (sides[0] * sides[1]))
    # As many rows and columns as fit the image's shape.
    rows = max(1, min(round((wanted * shape[0] / shape[1]) ** 0.5), shape[0] // sides[0]))
    columns = max(1, min(wanted // rows, shape[1] // sides[1]))
    windows = []
    for row in range(rows):
        for column in range(columns):
            chance = torch.rand(2, generator=generator).tolist()
            cells = (shape[0] / rows, shape[1] / columns)
            start = [
                int(place * cell + share * max(0.0, cell - extent)) // looking.stride_px * looking.stride_px
                for place, cell, share, extent in zip((row, column), cells, chance, sides, strict=True)
            ]
            windows.append(Region(tuple(start), tuple(s + extent for s, extent in zip(start, sides, strict=True))))
    return windows


def _named(passed: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays of that prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in passed.items() if name.startswith(prefix)}


def _carried(
    passed: Mapping[str, np.ndarray], content: np.ndarray, region: Region, shape: tuple[int, ...]
) -> np.ndarray:
    """Content of a region under the interpolated gain and offset of the overview."""
    small = passed["gain"].shape[1:]
    source = source_region(region, small, shape)
    gain, offset = (
        resample(passed[name][(slice(None), *source.slices)], source, region, small, shape)
        for name in ("gain", "offset")
    )
    return content * gain + offset


def _aligned(region: Region, stride: int, shape: tuple[int, ...]) -> Region:
    """Out to multiples of ``stride``, but not beyond the image."""
    start = tuple(max(0, s // stride * stride) for s in region.start)
    stop = tuple(min(size, -(-s // stride) * stride) for s, size in zip(region.stop, shape, strict=True))
    return Region(start, stop)
