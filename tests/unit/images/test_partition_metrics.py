from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import adapted_rand_error, variation_of_information
from sklearn.metrics import rand_score

from raydom.images.overlaps import count_overlaps
from raydom.images.partition_metrics import partition_scores, partition_sums

TWO = np.array([[1, 1, 1, 1, 2, 2, 2, 2]], np.uint8)
ONE = np.ones_like(TWO)


def scored(found: np.ndarray, truth: np.ndarray, *, ignore_background: bool = True) -> dict[str, float]:
    return partition_scores(partition_sums(count_overlaps(found, truth), ignore_background=ignore_background))


def test_two_objects_merged_into_one() -> None:
    # 64 ordered pairs in the merged object, of which 2 x 16 belong together; one bit says to which a pixel belongs.
    # Of the 56 of different pixels, the 32 between the two are wrong.
    expected = {"rand_precision": 0.5, "rand_recall": 1.0, "rand_error": 1 / 3, "rand_index_error": 32 / 56}
    expected |= {"vi": 1.0, "vi_split": 0.0, "vi_merge": 1.0, "cremi": math.sqrt(1 / 3)}
    assert scored(ONE, TWO) == pytest.approx(expected)


def test_one_object_split_in_two_has_the_errors_turned_round() -> None:
    expected = {"rand_precision": 1.0, "rand_recall": 0.5, "rand_error": 1 / 3, "rand_index_error": 32 / 56}
    expected |= {"vi": 1.0, "vi_split": 1.0, "vi_merge": 0.0, "cremi": math.sqrt(1 / 3)}
    assert scored(TWO, ONE) == pytest.approx(expected)


def test_pixels_without_a_true_object_are_ignored_unless_asked_for() -> None:
    truth, found = np.array([[0, 0, 1, 1]]), np.array([[1, 2, 1, 1]])
    assert scored(found, truth)["rand_error"] == scored(found, truth)["vi"] == 0.0
    asked = scored(found, truth, ignore_background=False)
    # Shared: 1, 1, 2 px; true: 2, 2; predicted: 3, 1. Two pixels cost a bit each; three, what tells 1 from 2.
    assert (asked["rand_precision"], asked["rand_recall"]) == (6 / 10, 6 / 8)
    assert asked["vi_split"] == pytest.approx(2 / 4)
    assert asked["vi_merge"] == pytest.approx((math.log2(3) + 2 * math.log2(3 / 2)) / 4)


def test_a_truth_without_objects_has_no_scores_and_a_prediction_without_is_one_object() -> None:
    assert all(math.isnan(score) for score in scored(TWO, np.zeros_like(TWO)).values())
    assert scored(np.zeros_like(TWO), TWO) == scored(ONE, TWO)


def test_sums_of_images_add_up_to_those_of_both_side_by_side() -> None:
    one, other = (partition_sums(count_overlaps(*pair)) for pair in ((ONE, TWO), (TWO, ONE)))
    both = partition_sums(count_overlaps(np.hstack([ONE, TWO + 2]), np.hstack([TWO, ONE + 2])))
    assert both.pop("pairs_all") == 16**2  # a pixel of one image makes no pair with one of another
    assert both == {name: one[name] + other[name] for name in both}


def test_the_rand_index_error_is_that_of_scikit_learn_and_of_one_pixel_none() -> None:
    generator = np.random.default_rng(0)
    truth, found = generator.integers(0, 6, (2, 9, 7))
    for ignored in (True, False):
        kept = truth > 0 if ignored else np.ones_like(truth, bool)
        expected = 1 - rand_score(truth[kept], found[kept])
        assert scored(found, truth, ignore_background=ignored)["rand_index_error"] == pytest.approx(expected)
    assert scored(ONE[:, :1], ONE[:, :1])["rand_index_error"] == 0.0


@pytest.mark.parametrize("ignore_background", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_scores_agree_with_scikit_image(seed: int, ignore_background: bool) -> None:
    generator = np.random.default_rng(seed)
    truth, found = generator.integers(0, 6, (2, 9, 7))
    found = np.where(generator.random(truth.shape) < 0.7, truth, found)
    ignored = (0,) if ignore_background else ()
    sums = partition_sums(count_overlaps(found, truth), ignore_background=ignore_background)
    split, merge = variation_of_information(truth, found, ignore_labels=ignored)
    got = partition_scores(sums)
    assert (got["vi_split"], got["vi_merge"], got["vi"]) == pytest.approx((split, merge, split + merge))
    # scikit-image counts pairs of different pixels: without the pairs of each pixel with itself.
    pairs = {name: sums[name] - sums["partition_px"] for name in ("pairs_shared", "pairs_true", "pairs_predicted")}
    # What scikit-image 0.26 returns as precision is, by its own documentation, the recall, and the other way round.
    assert adapted_rand_error(truth, found, ignore_labels=ignored) == pytest.approx(
        [partition_scores(sums | pairs)[name] for name in ("rand_error", "rand_recall", "rand_precision")]
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_numbers_of_objects_make_no_difference_and_sides_swap(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth, found = generator.integers(1, 20, (2, 9, 7))
    got, back = scored(found, truth), scored(truth, found)
    numbers = generator.permutation(np.arange(1, 21)).astype(np.uint64) << np.uint64(44)
    assert scored(numbers[found], numbers[truth]) == got
    assert (got["vi_split"], got["rand_precision"]) == (back["vi_merge"], back["rand_recall"])
    assert (got["vi"], got["rand_error"]) == (back["vi"], back["rand_error"])
