from __future__ import annotations

import numpy as np
import pytest

from raydom.errors import ConfigError, DataError
from raydom.images.metrics import Confusion, confusion
from raydom.images.overlaps import Overlaps, class_confusion, count_overlaps, foreground, merged, objects_of

TRUTH = np.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 7], [0, 0, 0, 7, 7]], np.uint16)
FOUND = np.array([[0, 2, 2, 0, 0], [0, 2, 0, 0, 5], [0, 0, 0, 0, 3]], np.uint8)


def table(overlaps: Overlaps) -> list[tuple[int, int, int]]:
    return list(zip(*(part.tolist() for part in (overlaps.truth, overlaps.predicted, overlaps.pixels)), strict=True))


def test_each_pair_of_labels_is_there_once_with_the_pixels_it_shares() -> None:
    assert table(count_overlaps(FOUND, TRUTH)) == [
        (0, 0, 7), (0, 2, 1), (1, 0, 2), (1, 2, 2), (7, 0, 1), (7, 3, 1), (7, 5, 1)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_blocks_in_any_order_give_the_table_of_the_whole(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydom.images.overlaps.PENDING_PAIRS", 10)  # so that parts are added up on the way
    generator = np.random.default_rng(seed)
    truth, found = generator.integers(0, 9, (2, 7, 13)).astype(np.uint32)
    blocks = [np.s_[y : y + 3, x : x + 4] for y in range(0, 7, 3) for x in range(0, 13, 4)]
    generator.shuffle(blocks)
    parts = merged(count_overlaps(found[block], truth[block]) for block in blocks)
    assert table(parts) == table(count_overlaps(found, truth))


def test_labels_of_64_bits_are_told_apart() -> None:
    high = np.array([2**64 - 1, 2**64 - 2, 2**53, 2**53 + 1], np.uint64)
    assert table(count_overlaps(high, high[::-1])) == [
        (2**53, 2**64 - 2, 1), (2**53 + 1, 2**64 - 1, 1), (2**64 - 2, 2**53, 1), (2**64 - 1, 2**53 + 1, 1)
    ]  # fmt: skip


def test_areas_count_the_pixels_that_the_other_image_leaves_empty() -> None:
    objects = objects_of(count_overlaps(FOUND, TRUTH))
    assert objects.true_areas.tolist() == [4, 3]
    assert objects.predicted_areas.tolist() == [3, 1, 1]
    pairs = [part.tolist() for part in (objects.true_index, objects.predicted_index, objects.shared)]
    assert pairs == [[0, 1, 1], [0, 1, 2], [2, 1, 1]]


def test_pixels_outside_the_mask_belong_to_nothing() -> None:
    mask = np.zeros(TRUTH.shape, bool)
    mask[:, 3:] = True
    assert table(count_overlaps(FOUND, TRUTH, mask)) == [(0, 0, 3), (7, 0, 1), (7, 3, 1), (7, 5, 1)]
    assert table(count_overlaps(FOUND, TRUTH, np.zeros_like(mask))) == []


def test_the_foreground_and_each_class_are_counted_as_from_the_pixels() -> None:
    assert foreground(count_overlaps(FOUND, TRUTH)) == confusion(FOUND, TRUTH)
    other = np.where(FOUND == 2, 1, FOUND)
    assert class_confusion(count_overlaps(other, TRUTH), 1) == Confusion(tp=2, fp=1, fn=2, tn=10)


@pytest.mark.parametrize(
    ("found", "error", "told"),
    [
        (FOUND.T, ConfigError, r"\(5, 3\) and the truth \(3, 5\)"),
        (FOUND.astype(float), DataError, "prediction has dtype float64; labels are whole numbers"),
        (-FOUND.astype(int), DataError, "prediction has the label -5; labels are 0"),
    ],
)
def test_what_are_no_labels_is_refused(found: np.ndarray, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        count_overlaps(found, TRUTH)
