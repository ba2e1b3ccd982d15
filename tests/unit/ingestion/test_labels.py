from __future__ import annotations

import numpy as np
import pytest

from raydom.errors import DataError
from raydom.ingestion.labels import as_labels


def test_masks_are_binary_and_numbers_are_kept_even_when_only_one_of_them_occurs() -> None:
    for values in ((0, 255), (0, 1), (0, 128)):
        labels, kind = as_labels(np.array([[[values[0], values[1], values[1]]]], np.uint8))
        assert (labels.tolist(), labels.dtype, kind) == ([[0, 1, 1]], np.uint8, "binary")
    labels, kind = as_labels(np.array([[[0, 5, 300]]], np.int32))
    assert (labels.tolist(), labels.dtype, kind) == ([[0, 5, 300]], np.uint16, "instance")
    assert as_labels(np.array([[[0, 1, 70_000]]], np.float64))[0].dtype == np.uint32
    for classes in ([0, 2, 2], [1, 2, 2]):
        labels, kind = as_labels(np.array([[classes]], np.uint8))
        assert (labels.tolist(), kind) == ([classes], "instance")


def test_inverting_swaps_and_twice_is_nothing() -> None:
    pixels = np.array([[[0, 255, 255]]], np.uint8)
    once, _ = as_labels(pixels, invert=True)
    assert once.tolist() == [[1, 0, 0]]
    np.testing.assert_array_equal(as_labels(once[None], invert=True)[0], as_labels(pixels)[0])
    assert as_labels(np.zeros((1, 2, 2), np.uint8), invert=True)[0].tolist() == [[1, 1], [1, 1]]


def test_a_constant_plane_is_empty_or_full() -> None:
    assert as_labels(np.zeros((1, 1, 3), np.uint8))[0].tolist() == [[0, 0, 0]]
    assert as_labels(np.full((1, 1, 3), 255, np.uint8))[0].tolist() == [[1, 1, 1]]


def test_gray_masks_saved_in_colour_are_accepted_and_coloured_ones_refused() -> None:
    gray = np.array([[0, 7, 9]], np.uint8)
    np.testing.assert_array_equal(as_labels(np.stack([gray] * 3))[0], gray)
    with pytest.raises(DataError, match="coloured"):
        as_labels(np.stack([gray, gray, gray + 1]))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [(np.array([[[0, 0.5, 1]]]), "fractions"), (np.array([[[0, -1, 5]]]), "from -1 to 5"),
     (np.array([[[0, 1, 2**33]]]), "labels are 0 to")],
)  # fmt: skip
def test_what_is_no_label_is_refused(pixels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_labels(pixels)
    with pytest.raises(DataError, match=r"fractions|two values"):
        as_labels(pixels, invert=True)
