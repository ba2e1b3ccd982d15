"""Scores of instance segmentations: how well predicted objects match the true ones.

Counts add up over images (whose objects are different ones), so that a collection is scored image by image; scores are
taken at the end.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from raydom.images.overlaps import Objects, Overlaps, objects_of

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
"""IoUs that a match must exceed, as in the Data Science Bowl 2018. From 0.5 on matches are one to one without any
assignment: labels do not overlap, so at most one object can share more than half of a union with another. Below 0.5
they are not, and there are no such thresholds here."""

F1_THRESHOLDS = (0.5, 0.75)
"""Those for which F1, precision and recall are told as well."""


def object_counts(overlaps: Overlaps) -> dict[str, float]:
    """What the scores of objects follow from; counts of different images can be added.

    Returns:
        ``num_true`` and ``num_predicted``: objects; ``matched_50`` to ``matched_95``: pairs of them whose IoU exceeds
        0.50 to 0.95; ``matched_iou``: sum of the IoUs above 0.5; ``aji_intersection`` and ``aji_union``, px.
    """
    objects = objects_of(overlaps)
    unions = objects.true_areas[objects.true_index] + objects.predicted_areas[objects.predicted_index] - objects.shared
    ious = objects.shared / unions  # correctly rounded, so that 11 of 20 px are not more than 0.55
    intersection, union = _aggregated(objects, ious, unions)
    return {
        "num_true": len(objects.true_areas),
        "num_predicted": len(objects.predicted_areas),
        **{name_at("matched", t): int(np.count_nonzero(ious > t)) for t in THRESHOLDS},
        "matched_iou": float(np.sort(ious[ious > THRESHOLDS[0]]).sum()),  # sorted: whatever the numbers of the objects
        "aji_intersection": intersection,
        "aji_union": union,
    }


def object_scores(counts: Mapping[str, float]) -> dict[str, float]:
    """Scores from 0 to 1 that follow from ``object_counts``.

    Where there is no object in either image they agree perfectly, and every score is 1. Where only one of them has
    objects, every score is 0.

    Returns:
        ``ap_50`` to ``ap_95``: TP / (TP + FP + FN), a match being a pair whose IoU exceeds (not: reaches) 0.50 to 0.95;
        ``dsb2018``: their mean, the score of the Data Science Bowl 2018, which averages it over images;
        ``object_f1_50``, ``object_precision_50``, ``object_recall_50``, and the same at 0.75; ``pq``: panoptic quality,
        the product of ``rq`` (recognition: F1 at 0.5) and ``sq`` (segmentation: the mean IoU of matched pairs);
        ``aji``: aggregated Jaccard index.

    Source: Caicedo et al. 2019 (Nat. Methods 16:1247), Kirillov et al. 2019 (arXiv:1801.00868), Kumar et al. 2017 (IEEE
    TMI 36:1550). AJI is as Kumar's: each true object takes the predicted one of highest IoU, which several may take.
    """
    true, predicted = counts["num_true"], counts["num_predicted"]
    scores = {}
    for t in THRESHOLDS:
        tp = counts[name_at("matched", t)]
        scores[name_at("ap", t)] = _ratio(tp, true + predicted - tp)
    for t in F1_THRESHOLDS:
        tp = counts[name_at("matched", t)]
        scores[name_at("object_f1", t)] = _ratio(2 * tp, true + predicted)
        scores[name_at("object_precision", t)] = _ratio(tp, predicted, 0.0 if true else 1.0)
        scores[name_at("object_recall", t)] = _ratio(tp, true, 0.0 if predicted else 1.0)
    matched = counts[name_at("matched", THRESHOLDS[0])]
    return {
        "dsb2018": sum(scores[name_at("ap", t)] for t in THRESHOLDS) / len(THRESHOLDS),
        **scores,
        "pq": _ratio(2 * counts["matched_iou"], true + predicted),
        "sq": _ratio(counts["matched_iou"], matched, 0.0 if true or predicted else 1.0),
        "rq": _ratio(2 * matched, true + predicted),
        "aji": _ratio(counts["aji_intersection"], counts["aji_union"]),
    }


def name_at(name: str, threshold: float) -> str:
    """The name of a count or score at an IoU, such as ``ap_50``."""
    return f"{name}_{round(100 * threshold)}"


def _aggregated(objects: Objects, ious: np.ndarray, unions: np.ndarray) -> tuple[int, int]:
    """Intersection and union of the AJI, px.

    Of several predicted objects with the highest IoU the one that shares most is taken; where these are equal too they
    all count as used, so that the numbers of the objects make no difference.
    """
    order = np.lexsort((objects.shared, ious, objects.true_index))
    owner = objects.true_index[order]
    last = np.append(owner[1:] != owner[:-1], True)[: len(owner)]  # the best pair of each true object stands last
    best = order[last]
    best_of = np.full(len(objects.true_areas), -1)
    best_of[objects.true_index[best]] = best
    rival = best_of[objects.true_index]
    is_best = (ious == ious[rival]) & (objects.shared == objects.shared[rival])
    used = np.zeros(len(objects.predicted_areas), bool)
    used[objects.predicted_index[is_best]] = True
    alone = objects.true_areas[best_of < 0].sum() + objects.predicted_areas[~used].sum()
    return int(objects.shared[best].sum()), int(unions[best].sum() + alone)


def _ratio(part: float, whole: float, of_nothing: float = 1.0) -> float:
    return part / whole if whole else of_nothing
