"""How many pixels each pair of true and predicted labels shares: all that scores of label images need to know.

The counts of disjoint pixels add up, so an image is compared block by block, in memory that grows with its objects and
not with its pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Shaped, UInt64

from raydom.errors import ConfigError, DataError
from raydom.images.metrics import Confusion

PENDING_PAIRS = 1 << 20
"""Pairs of labels that wait to be added up together: sorting them at once is faster than block by block."""


@dataclass(frozen=True, slots=True)
class Overlaps:
    """A sparse contingency table: the pairs of labels that share a pixel, each once, sorted; 0 is background."""

    truth: UInt64[np.ndarray, " n"]
    predicted: UInt64[np.ndarray, " n"]
    pixels: Int64[np.ndarray, " n"]
    """Pixels that the two share, at least 1."""

    @classmethod
    def none(cls) -> Overlaps:
        """The table of no pixel at all."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of two label images and the pairs of them that overlap, without the background."""

    true_areas: Int64[np.ndarray, " num_true"]
    """Pixels of each object, also those where the other image has background."""
    predicted_areas: Int64[np.ndarray, " num_predicted"]
    true_index: Int64[np.ndarray, " n"]
    """For each overlapping pair, which of the true objects it is."""
    predicted_index: Int64[np.ndarray, " n"]
    shared: Int64[np.ndarray, " n"]
    """Pixels that the pair shares."""


def count_overlaps(
    prediction: Shaped[np.ndarray, "..."],
    truth: Shaped[np.ndarray, "..."],
    mask: Shaped[np.ndarray, "..."] | None = None,
) -> Overlaps:
    """Count the pixels that each pair of labels shares.

    Args:
        prediction: Labels of any integer dtype, up to uint64, or bool; 0 is background.
        truth: The same for the truth.
        mask: Where it is 0, pixels are left out; objects are then those parts of them that remain.

    Raises:
        ConfigError: If the shapes differ.
        DataError: If labels are negative or no whole numbers.
    """
    for name, other in (("truth", truth), ("mask", mask)):
        if other is not None and other.shape != prediction.shape:
            raise ConfigError(
                f"the prediction has shape {prediction.shape} and the {name} {other.shape}; they must cover the same "
                "pixels. Compare labels of one image on its original grid."
            )
    true, predicted = _labels(truth, "truth"), _labels(prediction, "prediction")
    if mask is not None:
        kept = mask.reshape(-1) != 0
        true, predicted = true[kept], predicted[kept]
    if not true.size:
        return Overlaps.none()
    # Neighbours mostly share their labels: what is sorted is runs of equal pairs, far fewer than pixels.
    changes = np.flatnonzero((true[1:] != true[:-1]) | (predicted[1:] != predicted[:-1])) + 1
    starts = np.concatenate([[0], changes])
    lengths = np.diff(starts, append=true.size)
    return _summed(true[starts].astype(np.uint64), predicted[starts].astype(np.uint64), lengths)


def merged(parts: Iterable[Overlaps]) -> Overlaps:
    """The table of all pixels of the parts, which are disjoint pieces of one image."""
    total, waiting, num_waiting = Overlaps.none(), list[Overlaps](), 0
    for part in parts:
        waiting.append(part)
        num_waiting += len(part.pixels)
        if num_waiting > max(PENDING_PAIRS, len(total.pixels)):
            total, waiting, num_waiting = _joined([total, *waiting]), [], 0
    return _joined([total, *waiting])


def foreground(overlaps: Overlaps) -> Confusion:
    """The pixels on which the two agree that there is an object, whichever it is."""
    return class_confusion(overlaps, None)


def class_confusion(overlaps: Overlaps, label: int | None) -> Confusion:
    """The pixels on which the two agree on one label, or, for None, on any but 0."""
    if label is None:
        true, predicted = overlaps.truth != 0, overlaps.predicted != 0
    else:
        true, predicted = overlaps.truth == label, overlaps.predicted == label
    pixels = overlaps.pixels
    return Confusion(
        tp=int(pixels[true & predicted].sum()),
        fp=int(pixels[~true & predicted].sum()),
        fn=int(pixels[true & ~predicted].sum()),
        tn=int(pixels[~true & ~predicted].sum()),
    )


def objects_of(overlaps: Overlaps) -> Objects:
    """The objects of both images; background is none."""
    true_labels, true_index = np.unique(overlaps.truth, return_inverse=True)
    predicted_labels, predicted_index = np.unique(overlaps.predicted, return_inverse=True)
    true_areas = _sums(true_index, overlaps.pixels, len(true_labels))
    predicted_areas = _sums(predicted_index, overlaps.pixels, len(predicted_labels))
    # np.unique sorts, so that the background is the first label where there is any.
    true_skip, predicted_skip = int((true_labels[:1] == 0).sum()), int((predicted_labels[:1] == 0).sum())
    both = (overlaps.truth != 0) & (overlaps.predicted != 0)
    return Objects(
        true_areas=true_areas[true_skip:],
        predicted_areas=predicted_areas[predicted_skip:],
        true_index=true_index[both] - true_skip,
        predicted_index=predicted_index[both] - predicted_skip,
        shared=overlaps.pixels[both],
    )


def _labels(values: np.ndarray, name: str) -> np.ndarray:
    """All pixels in a row, as they are stored."""
    if values.dtype.kind not in "bui":
        raise DataError(f"the {name} has dtype {values.dtype}; labels are whole numbers, 0 for background.")
    if values.dtype.kind == "i" and values.size and values.min() < 0:
        raise DataError(f"the {name} has the label {values.min()}; labels are 0 (background) and above.")
    return values.reshape(-1)


def _joined(parts: list[Overlaps]) -> Overlaps:
    return _summed(
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.predicted for part in parts]),
        np.concatenate([part.pixels for part in parts]),
    )


def _summed(truth: np.ndarray, predicted: np.ndarray, pixels: np.ndarray) -> Overlaps:
    """Each pair once. Sorted by two keys rather than one joined key, into which uint64 labels would not fit."""
    if not truth.size:
        return Overlaps.none()
    order = np.lexsort((predicted, truth))
    truth, predicted = truth[order], predicted[order]
    starts = np.concatenate([[0], np.flatnonzero((truth[1:] != truth[:-1]) | (predicted[1:] != predicted[:-1])) + 1])
    return Overlaps(truth[starts], predicted[starts], np.add.reduceat(pixels[order].astype(np.int64), starts))


def _sums(index: np.ndarray, pixels: np.ndarray, number: int) -> np.ndarray:
    """Pixels by index. bincount adds up as float64, which is exact up to 2**53 px."""
    return np.bincount(index, weights=pixels, minlength=number).astype(np.int64)
