from __future__ import annotations

import numpy as np
import pytest

from raydom.errors import ConfigError
from raydom.images.metrics import Confusion, confusion, scores

TRUTH = np.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 7]], np.uint16)
PREDICTION = np.array([[0, 1, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 3]], np.uint8)


def test_each_pixel_is_counted_once_and_instances_are_foreground() -> None:
    assert confusion(PREDICTION, TRUTH) == Confusion(tp=3, fp=1, fn=2, tn=9)


def test_scores_follow_from_the_counts() -> None:
    got = scores(Confusion(tp=3, fp=1, fn=2, tn=9))
    assert got == pytest.approx({"f1": 6 / 9, "iou": 3 / 6, "dice": 6 / 9, "precision": 3 / 4, "recall": 3 / 5})


def test_pixels_outside_the_mask_do_not_count() -> None:
    mask = np.zeros(TRUTH.shape, np.uint8)
    mask[:2, 1:3] = 255
    assert confusion(PREDICTION, TRUTH, mask) == Confusion(tp=2, fp=1, fn=0, tn=1)


def test_counts_of_parts_add_up_to_the_whole() -> None:
    parts = [confusion(PREDICTION[rows], TRUTH[rows]) for rows in (slice(0, 2), slice(2, 3))]
    assert sum(parts, Confusion()) == confusion(PREDICTION, TRUTH)


def test_two_empty_segmentations_agree_perfectly() -> None:
    empty = np.zeros((3, 5), bool)
    assert set(scores(confusion(empty, empty)).values()) == {1.0}


@pytest.mark.parametrize("truth_is_empty", [True, False])
def test_one_empty_segmentation_scores_zero(truth_is_empty: bool) -> None:
    empty, full = np.zeros((3, 5), bool), np.ones((3, 5), bool)
    pair = (full, empty) if truth_is_empty else (empty, full)
    assert set(scores(confusion(*pair)).values()) == {0.0}


def test_swapping_prediction_and_truth_swaps_precision_and_recall() -> None:
    forth, back = scores(confusion(PREDICTION, TRUTH)), scores(confusion(TRUTH, PREDICTION))
    assert (forth["precision"], forth["recall"], forth["iou"]) == (back["recall"], back["precision"], back["iou"])


def test_different_shapes_are_refused_with_both() -> None:
    with pytest.raises(ConfigError, match=r"\(3, 5\) and the truth \(5, 3\)"):
        confusion(PREDICTION, TRUTH.T)
