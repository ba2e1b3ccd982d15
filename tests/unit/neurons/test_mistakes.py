from __future__ import annotations

import numpy as np
import pytest

from raydom.errors import DataError
from raydom.neurons.mistakes import mistakes

# Six superpixels of 4, 3, 2, 1, 2 and 2 px in a row.
SUPERPIXELS = np.repeat([1, 2, 3, 4, 5, 6], [4, 3, 2, 1, 2, 2])[None].astype(np.int32)
UV = np.stack([np.arange(1, 6), np.arange(2, 7)], axis=1).astype(np.uint64)


def found(segments, truth, zero="boundary"):
    def image(of):
        return np.array([0, *of])[SUPERPIXELS]

    return mistakes(SUPERPIXELS, UV, image(segments), image(truth), zero)


def test_a_right_segmentation_has_no_mistakes_whatever_its_numbers() -> None:
    right = found([9, 9, 9, 4, 4, 4], [1, 1, 1, 2, 2, 2])
    assert not right.merged.any() and not right.split.any()
    assert not len(right.merged_superpixels) and not len(right.split_superpixels)


def test_of_a_wrong_merge_the_contact_and_the_smaller_side_are_told() -> None:
    wrong = found([9, 9, 9, 9, 4, 4], [1, 1, 2, 2, 3, 3])
    assert wrong.merged.tolist() == [False, True, False, False, False]
    assert wrong.merged_superpixels.tolist() == [3, 4]
    assert not wrong.split.any() and not len(wrong.split_superpixels)


def test_of_a_wrong_split_the_contact_and_the_smaller_side_are_told() -> None:
    wrong = found([1, 1, 5, 5, 7, 7], [1, 1, 1, 1, 2, 2])
    assert wrong.split.tolist() == [False, True, False, False, False]
    assert wrong.split_superpixels.tolist() == [3, 4]
    assert not wrong.merged.any() and not len(wrong.merged_superpixels)


def test_what_is_cut_off_and_joined_to_another_counts_as_merged() -> None:
    wrong = found([1, 1, 1, 1, 1, 2], [1, 1, 1, 2, 2, 2])
    assert (wrong.merged_superpixels.tolist(), wrong.split_superpixels.tolist()) == ([4, 5], [6])


def test_zero_is_no_object_as_boundary_and_one_as_background() -> None:
    truth = [1, 1, 0, 0, 1, 1]
    as_boundary, as_background = (found([1] * 6, truth, zero) for zero in ("boundary", "background"))
    assert not as_boundary.merged.any()
    assert as_background.merged.tolist() == [False, True, False, True, False]
    assert as_background.merged_superpixels.tolist() == [3, 4]


def test_without_any_true_object_there_are_no_mistakes() -> None:
    nothing = found([1, 1, 2, 2, 3, 3], [0] * 6)
    assert not nothing.merged.any() and not nothing.split.any()


def test_a_superpixel_in_two_segments_and_another_shape_are_refused() -> None:
    halved = np.arange(14)[None] // 5
    with pytest.raises(DataError, match="superpixel 2 is in two segments"):
        mistakes(SUPERPIXELS, UV, halved, np.ones_like(SUPERPIXELS), "boundary")
    with pytest.raises(DataError, match=r"\(1, 14\) px and their segments \(2, 7\)"):
        mistakes(SUPERPIXELS, UV, halved.reshape(2, 7), np.ones_like(SUPERPIXELS), "boundary")
