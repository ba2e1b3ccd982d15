"""Pixel metrics: counts of agreement and disagreement, and the scores that follow from them.

Counts add up, so an image is compared block by block and a collection image by image; scores are taken at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Shaped

from raydom.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Confusion:
    """Numbers of pixels by what was predicted and what is true. Counts of disjoint pixels can be added."""

    tp: int = 0
    """Foreground in both."""
    fp: int = 0
    """Predicted foreground that is background."""
    fn: int = 0
    """Foreground that was missed."""
    tn: int = 0
    """Background in both."""

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)


def confusion(
    prediction: Shaped[np.ndarray, "..."],
    truth: Shaped[np.ndarray, "..."],
    mask: Shaped[np.ndarray, "..."] | None = None,
) -> Confusion:
    """Count the pixels on which two segmentations agree and disagree.

    Args:
        prediction: Labels of any integer or bool dtype; every value but 0 is foreground, so instances count too.
        truth: The same for the truth.
        mask: Where it is 0, pixels are left out.

    Raises:
        ConfigError: If the shapes differ.
    """
    _check_shapes(prediction, truth, mask)
    return _count(prediction != 0, truth != 0, None if mask is None else mask != 0)


def scores(counts: Confusion) -> dict[str, float]:
    """F1, IoU, Dice, precision and recall, each from 0 to 1.

    Where neither the prediction nor the truth has a foreground pixel they agree perfectly, and all five are 1. Where
    only one of them has, all five are 0. F1 and Dice are the same number for pixels; both names are in use.
    """
    tp, fp, fn = counts.tp, counts.fp, counts.fn
    if tp + fp + fn == 0:
        return dict.fromkeys(("f1", "iou", "dice", "precision", "recall"), 1.0)
    f1 = 2 * tp / (2 * tp + fp + fn)
    return {
        "f1": f1,
        "iou": tp / (tp + fp + fn),
        "dice": f1,
        "precision": tp / (tp + fp) if tp else 0.0,
        "recall": tp / (tp + fn) if tp else 0.0,
    }


def _check_shapes(prediction: np.ndarray, truth: np.ndarray, mask: np.ndarray | None) -> None:
    for name, other in (("truth", truth), ("mask", mask)):
        if other is not None and other.shape != prediction.shape:
            raise ConfigError(
                f"the prediction has shape {prediction.shape} and the {name} {other.shape}; they must cover the same "
                "pixels. Compare labels of one image on its original grid."
            )


def _count(
    prediction: Bool[np.ndarray, "*shape"],
    truth: Bool[np.ndarray, "*shape"],
    kept: Bool[np.ndarray, "*shape"] | None,
) -> Confusion:
    if kept is not None:
        prediction, truth = prediction[kept], truth[kept]
    tp = int(np.count_nonzero(prediction & truth))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return Confusion(tp, fp, fn, prediction.size - tp - fp - fn)
