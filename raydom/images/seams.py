"""Whether the borders between blocks show in an image that was computed block by block.

At a seam, neighbouring pixels on both sides of a border differ more than neighbouring pixels elsewhere. So the gradient
energy across a border is divided by that across lines near by inside the block, and this ratio by the same ratio of the
input, where the borders mean nothing. 1: no seam.

The ratio is taken in segments of a border and averaged as a logarithm: each segment is compared with its own
surroundings, and a few strong edges that happen to cross a border weigh no more than anything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from raydom.types import Region

SEGMENT_PX = 16
"""Length of border over which gradient energy is summed before it is compared, px."""
PERIOD_PX = 8
"""Distance of the lines that a border is compared with. A multiple of the period of JPEG's blocks and of the strides of
common networks, both of which leave traces at their own period that are no seams."""
NUM_LINES = 4
"""Number of lines inside the block that each border is compared with."""
FLOOR = 1e-4
"""Gradient energy, in units of the image's variance, under which differences do not count: 1 % of its deviation."""

Pixels = Float[np.ndarray, "_ h w"]
Read = Callable[[Region], Pixels]


@dataclass(frozen=True, slots=True)
class SeamScore:
    """Evidence for seams along some borders. That of disjoint borders can be added.

    A segment's evidence is the logarithm of its ratio of gradient energies.
    """

    num_segments: int = 0
    total: float = 0.0
    total_square: float = 0.0

    def __add__(self, other: SeamScore) -> SeamScore:
        return SeamScore(
            self.num_segments + other.num_segments,
            self.total + other.total,
            self.total_square + other.total_square,
        )

    @property
    def value(self) -> float:
        """Geometric mean of the segments' ratios: 1 where there is no seam, or no border."""
        return math.exp(self.total / self.num_segments) if self.num_segments else 1.0

    @property
    def standard_error(self) -> float:
        """Of the logarithm of ``value``, so about of ``value`` when that is near 1; infinite for fewer than two
        segments."""
        if self.num_segments < 2:
            return math.inf
        variance = self.total_square / self.num_segments - (self.total / self.num_segments) ** 2
        return math.sqrt(max(0.0, variance) / (self.num_segments - 1))


def seam_score(
    output: Pixels, source: Pixels, block: Region, shape: Sequence[int], output_std: Sequence[float],
    source_std: Sequence[float],
) -> SeamScore:  # fmt: skip
    """The borders between a block and its neighbours; those at the image's edge do not count.

    Args:
        output: What was computed, of ``seam_region(block, shape)``: the block and the pixels that it touches.
        source: What it was computed from, of the same region, with any number of channels.
        block: The block, within the image.
        shape: (h, w) of the whole image, px.
        output_std: Deviation of each channel of the whole output, or of what it should look like (the style).
        source_std: Likewise of the whole input.
    """
    region = seam_region(block, shape)
    inner = block.relative_to(region)
    score = SeamScore()
    for axis in (0, 1):
        for border in (block.start[axis], block.stop[axis]):
            if 0 < border < shape[axis]:
                before = border == block.stop[axis]
                lines = (output, output_std), (source, source_std)
                logs = [_log_energies(pixels, std, inner, axis, before) for pixels, std in lines]
                score += _compare(*logs)
    return score


def seam_scores(
    read_output: Read,
    read_source: Read,
    shape: Sequence[int],
    block_size: int,
    output_std: Sequence[float],
    source_std: Sequence[float],
    within: Region | None = None,
) -> Iterator[tuple[Region, SeamScore]]:
    """Every block of an image with its seam score; their sum is that of the image. One block is read at a time.

    Args:
        read_output: Gives a region of what was computed, (c, h, w), in any unit.
        read_source: Gives a region of what it was computed from.
        shape: (h, w) of the image, px.
        block_size: Side of the blocks, px.
        output_std: Deviation of each channel of the whole output (or of the style), in the unit of ``read_output``.
        source_std: Likewise of the input.
        within: Only the blocks of this part of the image, which begins with one. Default: all.
    """
    part = Region.whole(shape) if within is None else within
    for top in range(part.start[0], part.stop[0], block_size):
        for left in range(part.start[1], part.stop[1], block_size):
            stop = min(top + block_size, shape[0]), min(left + block_size, shape[1])
            block = Region((top, left), stop)
            region = seam_region(block, shape)
            yield (
                block,
                seam_score(read_output(region), read_source(region), block, shape, output_std, source_std),
            )


def seam_region(block: Region, shape: Sequence[int]) -> Region:
    """What must be read to score a block: it and the pixels that it touches."""
    return block.grown(1).clipped(Region.whole(shape))


def _log_energies(
    pixels: Pixels, std: Sequence[float], inner: Region, axis: int, before: bool
) -> Float[np.ndarray, "lines segments"]:
    """Logarithm of the gradient energy across a border (first) and lines inside the block, by segment.

    Args:
        pixels: The block and its surroundings.
        std: Deviation of each channel; constant channels are left out.
        inner: Where the block is in ``pixels``.
        axis: Which one the border cuts: 0 for rows.
        before: Whether the block lies before its border.
    """
    along = np.moveaxis(pixels, axis + 1, 0)[:, :, inner.slices[1 - axis]]
    border = inner.stop[axis] if before else inner.start[axis]
    inward = -PERIOD_PX if before else PERIOD_PX
    positions = [border + inward * n for n in range(NUM_LINES + 1)]
    positions = [line for line in positions if line == border or inner.start[axis] < line < inner.stop[axis]]
    scale = np.array([1 / value if value > 0 else 0.0 for value in std])[:, None]
    starts = np.arange(0, max(1, along.shape[2] - SEGMENT_PX + 1), SEGMENT_PX)  # the last one takes the rest
    lengths = np.diff([*starts, along.shape[2]])
    energies = []
    for line in positions:
        step = (along[line].astype(np.float64) - along[line - 1]) * scale
        energies.append(np.add.reduceat((step**2).mean(axis=0), starts) / lengths)
    return np.log(np.stack(energies) + FLOOR)


def _compare(output: Float[np.ndarray, "lines segments"], source: Float[np.ndarray, "lines segments"]) -> SeamScore:
    change = output - source
    if len(change) == 1:  # a block too narrow to have lines inside
        return SeamScore()
    evidence = change[0] - change[1:].mean(axis=0)
    return SeamScore(len(evidence), float(evidence.sum()), float((evidence**2).sum()))
