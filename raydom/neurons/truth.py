"""Which edges should be cut, by the true objects that their superpixels lie in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64, Integer, UInt64

from raydom.errors import DataError
from raydom.images.overlaps import Overlaps, count_overlaps

Zero = Literal["boundary", "background"]
"""What label 0 of a truth means: ``boundary``, membranes and what was not annotated, so that its pixels do not count;
or ``background``, an object like others."""


def truth_overlaps(labels: Integer[np.ndarray, "..."], truth: Integer[np.ndarray, "..."]) -> Overlaps:
    """How many pixels each superpixel has in each true object. Tables of blocks are merged by ``overlaps.merged``.

    Args:
        labels: Superpixels.
        truth: True objects, of the same pixels.

    Raises:
        DataError: If the shapes differ.
    """
    if labels.shape != truth.shape:
        raise DataError(
            f"the truth is {truth.shape} px and the superpixels are {labels.shape}; they must cover the same pixels. "
            "Was the truth scaled, or cut?"
        )
    return count_overlaps(labels, truth)


@dataclass(frozen=True, slots=True)
class TrueObjects:
    """The object that each superpixel belongs to: the one that most of its pixels that count are in.

    Of equal ones that of the smallest number. Superpixels without such pixels are left out.
    """

    superpixel: UInt64[np.ndarray, " n"]
    """Ascending."""
    truth: UInt64[np.ndarray, " n"]
    pixels: Int64[np.ndarray, " n"]
    """Of the superpixel, that count."""
    share: Float64[np.ndarray, " n"]
    """Of these, in the object."""

    @classmethod
    def of(cls, overlaps: Overlaps, zero: Zero) -> TrueObjects:
        """By the pixels that superpixels and true objects share."""
        counted = _counted(overlaps, zero)
        truth, superpixel, pixels = overlaps.truth[counted], overlaps.predicted[counted], overlaps.pixels[counted]
        order = np.lexsort((truth, -pixels, superpixel))
        superpixels, first = np.unique(superpixel[order], return_index=True)
        total = np.add.reduceat(pixels[order], first) if len(first) else pixels
        return cls(superpixels, truth[order][first], total, pixels[order][first] / total)


def edge_labels(
    u: UInt64[np.ndarray, " n"],
    v: UInt64[np.ndarray, " n"],
    overlaps: Overlaps,
    zero: Zero,
    min_share: float = 0.5,
) -> Int8[np.ndarray, " n"]:
    """Whether each edge is a true boundary.

    Args:
        u: One superpixel of each edge.
        v: The other.
        overlaps: Pixels of each superpixel in each true object.
        zero: What label 0 of the truth means.
        min_share: A superpixel is unknown of whose pixels that count its object (`TrueObjects`) has a smaller share.

    Returns:
        1 where the objects differ, 0 where they are the same, -1 where one is unknown.

    Raises:
        DataError: If there is no edge, or the truth has fewer than two objects: nothing to learn what a boundary is.
    """
    if not len(u):
        raise DataError(
            "the graph has no edge: the image is a single superpixel. Lower the threshold of the superpixels (or, of "
            "Frangi's evidence, frangi_gamma), or leave the image out."
        )
    num_objects = len(np.unique(overlaps.truth[_counted(overlaps, zero)]))
    if num_objects < 2:
        other = "background" if zero == "boundary" else "boundary"
        raise DataError(
            f"the truth has no boundary: it has {num_objects} objects, with label 0 as {zero}. Give objects different "
            f"numbers, or take 0 as {other} if that is what it means."
        )
    objects = TrueObjects.of(overlaps, zero)
    ends = np.stack([u, v])
    rows = np.minimum(np.searchsorted(objects.superpixel, ends), len(objects.superpixel) - 1)
    both_known = ((objects.share[rows] >= min_share) & (objects.superpixel[rows] == ends)).all(axis=0)
    of_ends = objects.truth[rows]
    return np.where(both_known, of_ends[0] != of_ends[1], -1).astype(np.int8)


def _counted(overlaps: Overlaps, zero: Zero) -> Bool[np.ndarray, " n"]:
    """Which pairs of labels count."""
    return ((overlaps.truth != 0) | (zero == "background")) & (overlaps.predicted != 0)
