"""Which edges should be cut, by the true objects that their superpixels lie in."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Int8, Integer, UInt64

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


def edge_labels(
    u: UInt64[np.ndarray, " n"],
    v: UInt64[np.ndarray, " n"],
    overlaps: Overlaps,
    zero: Zero,
    min_share: float = 0.5,
) -> Int8[np.ndarray, " n"]:
    """Whether each edge is a true boundary.

    A superpixel belongs to the object that most of its pixels are in (of equal ones that of the smallest number).

    Args:
        u: One superpixel of each edge.
        v: The other.
        overlaps: Pixels of each superpixel in each true object.
        zero: What label 0 of the truth means.
        min_share: Where that object has a smaller share of the pixels that count, the superpixel's object is unknown.

    Returns:
        1 where the objects differ, 0 where they are the same, -1 where one is unknown.

    Raises:
        DataError: If there is no edge, or the truth has fewer than two objects: nothing to learn what a boundary is.
    """
    if not len(u):
        raise DataError(
            "the graph has no edge: the image is a single superpixel. Lower the threshold of the superpixels, or leave "
            "the image out."
        )
    counted = overlaps.truth != 0 if zero == "boundary" else np.ones(len(overlaps.truth), bool)
    counted &= overlaps.predicted != 0
    truth, superpixel, pixels = overlaps.truth[counted], overlaps.predicted[counted], overlaps.pixels[counted]
    objects = np.unique(truth)
    if len(objects) < 2:
        other = "background" if zero == "boundary" else "boundary"
        raise DataError(
            f"the truth has no boundary: it has {len(objects)} objects, with label 0 as {zero}. Give objects different "
            f"numbers, or take 0 as {other} if that is what it means."
        )
    order = np.lexsort((truth, -pixels, superpixel))
    superpixels, first = np.unique(superpixel[order], return_index=True)
    total = np.add.reduceat(pixels[order], first)
    known = pixels[order][first] >= min_share * total
    ends = np.stack([u, v])
    rows = np.minimum(np.searchsorted(superpixels, ends), len(superpixels) - 1)
    both_known = (known[rows] & (superpixels[rows] == ends)).all(axis=0)
    of_ends = truth[order][first][rows]
    return np.where(both_known, of_ends[0] != of_ends[1], -1).astype(np.int8)
