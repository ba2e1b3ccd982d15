"""Where a segmentation of superpixels joins what is apart in the truth, and cuts what is one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer, Shaped, UInt64

from raydom.errors import DataError
from raydom.images.overlaps import count_overlaps
from raydom.neurons.truth import TrueObjects, Zero, truth_overlaps


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Of superpixels and their contacts, each judged by the true object that most of it is in."""

    merged: Bool[np.ndarray, " n"]
    """Contacts of two objects within one segment."""
    split: Bool[np.ndarray, " n"]
    """Contacts of two segments within one object."""
    merged_superpixels: UInt64[np.ndarray, " m"]
    """Ascending. Their segment has more of another object: they are where a wrong merge leads to."""
    split_superpixels: UInt64[np.ndarray, " k"]
    """Ascending. Their object has more of another segment, and they are not wrongly merged: what a split cut off."""


def mistakes(
    superpixels: Integer[np.ndarray, "..."],
    uv: Integer[np.ndarray, "n 2"],
    segments: Integer[np.ndarray, "..."],
    truth: Integer[np.ndarray, "..."],
    zero: Zero,
) -> Mistakes:
    """Compare with the truth. Superpixels without a true object count as no mistake.

    Args:
        superpixels: Of an image or a volume.
        uv: The superpixels of each contact.
        segments: Their segmentation, in which each superpixel is whole.
        truth: True objects.
        zero: What label 0 of the truth means.

    Raises:
        DataError: A superpixel is in two segments, or shapes differ.
    """
    objects = TrueObjects.of(truth_overlaps(superpixels, truth), zero)
    segment = _segment_of(superpixels, segments, objects.superpixel)
    judged = np.flatnonzero(np.isin(uv, objects.superpixel).all(axis=1))
    ends = np.searchsorted(objects.superpixel, uv[judged].astype(np.uint64))
    same_object, same_segment = (of[ends[:, 0]] == of[ends[:, 1]] for of in (objects.truth, segment))
    merged, split = np.zeros((2, len(uv)), bool)
    merged[judged], split[judged] = same_segment & ~same_object, same_object & ~same_segment
    strays = ~_is_of_largest(segment, objects.truth, objects.pixels)
    cut_off = ~_is_of_largest(objects.truth, segment, objects.pixels) & ~strays
    return Mistakes(
        merged=merged,
        split=split,
        merged_superpixels=objects.superpixel[strays],
        split_superpixels=objects.superpixel[cut_off],
    )


def _segment_of(
    superpixels: np.ndarray, segments: np.ndarray, wanted: UInt64[np.ndarray, " n"]
) -> UInt64[np.ndarray, " n"]:
    if superpixels.shape != segments.shape:
        raise DataError(f"superpixels are {superpixels.shape} px and their segments {segments.shape}; both must agree.")
    both = count_overlaps(superpixels, segments)  # segments take the place of a truth
    superpixel, order = np.sort(both.predicted), np.argsort(both.predicted, kind="stable")
    twice = superpixel[1:][superpixel[1:] == superpixel[:-1]]
    if len(twice):
        raise DataError(
            f"superpixel {twice[0]} is in two segments (so are {len(twice) - 1} more); segments must be made of them."
        )
    return both.truth[order][np.searchsorted(superpixel, wanted)]


def _is_of_largest(
    groups: Shaped[np.ndarray, " n"], members: Shaped[np.ndarray, " n"], sizes: Int64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Whether each row's member has more of its group than any other; of equal ones the lesser has."""
    pairs, row = np.unique(np.stack([groups, members], axis=1), axis=0, return_inverse=True)
    total = np.bincount(row, sizes, minlength=len(pairs))
    order = np.lexsort((pairs[:, 1], -total, pairs[:, 0]))
    is_largest = np.zeros(len(pairs), bool)
    is_largest[order[np.unique(pairs[order, 0], return_index=True)[1]]] = True
    return is_largest[row]
