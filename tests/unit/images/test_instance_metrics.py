from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from raydom.images.instance_metrics import THRESHOLDS, object_counts, object_scores
from raydom.images.overlaps import count_overlaps

# True objects of 4, 4 and 2 px; predicted ones of 3 (shares 3: IoU 3/4), 4 (shares 2: IoU 2/6) and 1 px (alone).
TRUTH = np.array([[1, 1, 0, 2, 2, 0, 0], [1, 1, 0, 2, 2, 0, 0], [0, 0, 0, 0, 0, 3, 3]], np.uint8)
FOUND = np.array([[5, 5, 0, 0, 6, 6, 0], [5, 0, 0, 0, 6, 6, 0], [7, 0, 0, 0, 0, 0, 0]], np.uint8)
EMPTY = np.zeros_like(TRUTH)


def scored(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return object_scores(object_counts(count_overlaps(found, truth)))


def test_every_score_of_three_objects_by_hand() -> None:
    got = scored(FOUND, TRUTH)
    # One match of IoU 0.75: not above 0.75, so that it counts up to 0.70. 1 / (1 hit + 2 false + 2 missed).
    matched = {f"ap_{percent}": 1 / 5 if percent < 75 else 0.0 for percent in range(50, 100, 5)}
    assert got == pytest.approx(
        matched
        | {
            "dsb2018": 5 / 10 * 1 / 5,
            "object_f1_50": 1 / 3,
            "object_precision_50": 1 / 3,
            "object_recall_50": 1 / 3,
            "object_f1_75": 0.0,
            "object_precision_75": 0.0,
            "object_recall_75": 0.0,
            "sq": 0.75,
            "rq": 1 / 3,
            "pq": 0.25,
            "aji": (3 + 2) / (4 + 6 + 2 + 1),  # unions of the two that meet, the missed object, the false one
        }
    )


def test_two_objects_of_which_half_is_found() -> None:
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 2]])
    found = np.array([[1, 1, 0, 0, 0, 2, 2, 0, 0]])
    got = scored(found, truth)
    assert got["ap_50"] == got["pq"] == got["sq"] == 0.0  # an IoU of exactly 0.5 does not exceed it
    assert got["aji"] == 0.5
    found[0, 2] = found[0, 7] = 1
    got = scored(found, truth)  # now 3 of 5 px, since the far pixel belongs to object 1 too; and 2 of 4 px
    assert (got["ap_50"], got["ap_60"], got["sq"], got["aji"]) == (1 / 3, 0.0, 3 / 5, pytest.approx(5 / 9))


def test_counts_of_images_add_up_to_those_of_both_side_by_side() -> None:
    one, other = (object_counts(count_overlaps(*pair)) for pair in ((FOUND, TRUTH), (TRUTH, FOUND)))
    far = 10 * (FOUND > 0) + FOUND, 10 * (TRUTH > 0) + TRUTH
    both = count_overlaps(np.hstack([FOUND, far[1]]), np.hstack([TRUTH, far[0]]))
    assert object_counts(both) == {name: one[name] + other[name] for name in one}


@pytest.mark.parametrize(("found", "truth", "score"), [(EMPTY, EMPTY, 1.0), (FOUND, EMPTY, 0.0), (EMPTY, TRUTH, 0.0)])
def test_nothing_agrees_with_nothing_and_with_nothing_else(found: Any, truth: Any, score: float) -> None:
    assert set(scored(found, truth).values()) == {score}


def test_a_perfect_prediction_has_every_score_of_one() -> None:
    assert set(scored(TRUTH.astype(np.uint64) << np.uint64(40), TRUTH).values()) == {1.0}


@pytest.mark.parametrize("seed", range(30))
def test_scores_are_those_of_their_definitions_whatever_the_numbers(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth, found = random_labels(generator), random_labels(generator)
    if seed % 3:  # two random images rarely match: take most of the truth over
        found = np.where(generator.random(truth.shape) < 0.85, truth, found)
    got = scored(found, truth)
    assert got == pytest.approx(by_definition(found, truth), abs=1e-12)
    numbers = np.concatenate([[0], generator.permutation(np.arange(1, 200))]).astype(np.uint32)
    assert scored(numbers[found], numbers[::-1].copy()[199 - numbers[truth]]) == got
    back = scored(truth, found)
    symmetric = [name for name in got if name != "aji" and "precision" not in name and "recall" not in name]
    assert [back[name] for name in symmetric] == [got[name] for name in symmetric]
    assert back["object_recall_50"] == got["object_precision_50"]


def random_labels(generator: np.random.Generator) -> np.ndarray:
    """Squares over each other: up to eight objects, whole or in pieces."""
    labels = np.zeros((11, 13), np.uint8)
    for label in range(1, generator.integers(2, 10)):
        y, x = generator.integers(0, (9, 11))
        labels[y : y + generator.integers(1, 6), x : x + generator.integers(1, 6)] = label
    return labels


def by_definition(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The scores from a mask for each object and the best assignment of pairs, straight from the formulas."""
    true = [truth == label for label in np.unique(truth[truth > 0])]
    predicted = [found == label for label in np.unique(found[found > 0])]
    iou = np.array([[(a & b).sum() / (a | b).sum() for b in predicted] for a in true])
    scores: dict[str, float] = {}
    for threshold in THRESHOLDS:
        rows, columns = linear_sum_assignment(np.where(iou > threshold, iou, 0), maximize=True)
        hits = [iou[pair] for pair in zip(rows, columns, strict=True) if iou[pair] > threshold]
        tp, fp, fn = len(hits), len(predicted) - len(hits), len(true) - len(hits)
        percent = round(100 * threshold)
        scores[f"ap_{percent}"] = tp / (tp + fp + fn)
        if percent in (50, 75):
            scores[f"object_f1_{percent}"] = tp / (tp + (fp + fn) / 2)
            scores[f"object_precision_{percent}"] = tp / (tp + fp)
            scores[f"object_recall_{percent}"] = tp / (tp + fn)
        if percent == 50:
            scores["sq"] = sum(hits) / tp if tp else 0.0
            scores["rq"] = tp / (tp + (fp + fn) / 2)
            scores["pq"] = sum(hits) / (tp + (fp + fn) / 2)
    scores["dsb2018"] = sum(scores[f"ap_{round(100 * threshold)}"] for threshold in THRESHOLDS) / 10
    return scores | {"aji": aggregated_jaccard(true, predicted)}


def aggregated_jaccard(true: list[np.ndarray], predicted: list[np.ndarray]) -> float:
    """Algorithm 1 of Kumar et al. 2017; equally good partners are all used up."""
    intersection = union = 0
    used: set[int] = set()
    for a in true:
        quality = [((a & b).sum() / (a | b).sum(), (a & b).sum()) for b in predicted]
        best = max(quality, default=(0, 0))
        if best[1] == 0:
            union += a.sum()
            continue
        partners = [index for index, value in enumerate(quality) if value == best]
        used |= set(partners)
        intersection += best[1]
        union += (a | predicted[partners[0]]).sum()
    return intersection / (union + sum(b.sum() for index, b in enumerate(predicted) if index not in used))


def test_one_predicted_object_over_two_true_ones_is_taken_by_both_in_the_aji() -> None:
    truth = np.array([[1, 1, 2, 2]])
    assert scored(np.ones_like(truth), truth)["aji"] == (2 + 2) / (4 + 4)


def test_an_iou_at_a_threshold_is_no_match_at_any_of_them() -> None:
    for percent, strict in itertools.product(range(50, 100, 5), (True, False)):
        truth = np.ones((1, 2000), np.uint8)
        found = (np.arange(2000)[None] < 20 * percent + (not strict)).astype(np.uint8)
        assert scored(found, truth)[f"ap_{percent}"] == (0.0 if strict else 1.0)
