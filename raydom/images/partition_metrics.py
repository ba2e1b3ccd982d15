"""Scores of segmentations as partitions of the pixels: what was split and what was merged, as for neurons.

Unlike scores of matched objects they weigh errors by pixels (or pairs of them), and an object that was cut in two costs
little more than the cut. Sums add up over images, whose objects are different ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from raydom.images.overlaps import Overlaps

SCORES = ("rand_error", "rand_precision", "rand_recall", "rand_index_error", "vi", "vi_split", "vi_merge", "cremi")


def partition_sums(overlaps: Overlaps, *, ignore_background: bool = True) -> dict[str, float]:
    """What the scores of partitions follow from; sums of different images can be added.

    Args:
        overlaps: Of the two label images.
        ignore_background: Leave out the pixels where the truth is 0 (membranes, what was not annotated), as is the
            custom. Else they are an object like others. The prediction's 0 always is one.

    Returns:
        ``partition_px``: pixels that count; ``pairs_shared``, ``pairs_true`` and ``pairs_predicted``: sums of squared
        areas (ordered pairs of pixels, a pixel with itself too) of the overlaps, the true and the predicted objects;
        ``pairs_all``: all such pairs within the image; ``split_bits`` and ``merge_bits``: conditional entropies times
        pixels.
    """
    kept = overlaps.truth != 0 if ignore_background else np.ones(len(overlaps.truth), bool)
    shared = overlaps.pixels[kept].astype(np.float64)
    true_index = np.unique(overlaps.truth[kept], return_inverse=True)[1]
    predicted_index = np.unique(overlaps.predicted[kept], return_inverse=True)[1]
    true_areas = np.bincount(true_index, weights=shared)
    predicted_areas = np.bincount(predicted_index, weights=shared)
    return {
        "partition_px": int(shared.sum()),
        "pairs_all": float(shared.sum()) ** 2,
        "pairs_shared": _sum(shared**2),
        "pairs_true": _sum(true_areas**2),
        "pairs_predicted": _sum(predicted_areas**2),
        "split_bits": _sum(shared * np.log2(true_areas[true_index] / shared)),
        "merge_bits": _sum(shared * np.log2(predicted_areas[predicted_index] / shared)),
    }


def partition_scores(sums: Mapping[str, float]) -> dict[str, float]:
    """Errors (0 is perfect) that follow from ``partition_sums``.

    They are NaN where no pixel counts, since the truth has no object: there is nothing to be split or merged there,
    and what the prediction has is for the scores of objects to tell. A prediction without objects is one large object:
    it splits nothing, and merges everything.

    Returns:
        ``rand_error``: adapted Rand error, 0 to 1, one minus the harmonic mean of ``rand_precision`` (of the pairs of
        pixels that the prediction puts in one object, those that belong together; merges lower it) and ``rand_recall``
        (of the pairs that belong together, those that the prediction has so; splits lower it); ``rand_index_error``:
        one minus the Rand index, the share of all pairs of different pixels of an image that are together in one of the
        two and apart in the other, which is small where objects are many, whatever they are; ``vi``: variation of
        information, bits, the sum of ``vi_split`` = H(prediction | truth) and ``vi_merge`` = H(truth | prediction);
        ``cremi``: the CREMI score, the geometric mean of ``rand_error`` and ``vi``.

    Source: Arganda-Carreras et al. 2015 (Front. Neuroanat. 9:142), Rand 1971 (J. Am. Stat. Assoc. 66:846), Meilă 2007
    (J. Multivar. Anal. 98:873), cremi.org. scikit-image leaves the pairs of a pixel with itself out of the Rand error,
    which tells where objects are small.
    """
    pixels = sums["partition_px"]
    if not pixels:
        return dict.fromkeys(SCORES, math.nan)
    error = 1 - 2 * sums["pairs_shared"] / (sums["pairs_true"] + sums["pairs_predicted"])
    differing = sums["pairs_true"] + sums["pairs_predicted"] - 2 * sums["pairs_shared"]
    pairs = sums["pairs_all"] - pixels
    split, merge = sums["split_bits"] / pixels, sums["merge_bits"] / pixels
    return {
        "rand_error": error,
        "rand_precision": sums["pairs_shared"] / sums["pairs_predicted"],
        "rand_recall": sums["pairs_shared"] / sums["pairs_true"],
        "rand_index_error": differing / pairs if pairs else 0.0,
        "vi": split + merge,
        "vi_split": split,
        "vi_merge": merge,
        "cremi": math.sqrt(error * (split + merge)),
    }


def _sum(terms: np.ndarray) -> float:
    """Their sum, rounded once, so that the order of the objects makes no difference."""
    return math.fsum(terms.tolist())
