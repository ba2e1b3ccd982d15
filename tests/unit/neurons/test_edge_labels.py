from __future__ import annotations

import numpy as np
import pytest

from raydom.errors import DataError
from raydom.images.overlaps import merged
from raydom.neurons.truth import edge_labels, truth_overlaps

LABELS = np.repeat([1, 2, 3, 4], 4).reshape(4, 4).astype(np.uint32)
TRUTH = np.array([[7, 7, 7, 7], [7, 7, 0, 0], [9, 9, 0, 0], [0, 0, 0, 0]], np.int32)
U, V = np.array([1, 2, 3], np.uint64), np.array([2, 3, 4], np.uint64)


def test_zero_as_boundary_counts_for_nothing_and_as_background_is_an_object():
    table = truth_overlaps(LABELS, TRUTH)
    np.testing.assert_array_equal(edge_labels(U, V, table, "boundary"), [0, 1, -1])
    # Of 2 and 3, half is background: the smaller number of equal shares.
    np.testing.assert_array_equal(edge_labels(U, V, table, "background"), [1, 0, 0])
    np.testing.assert_array_equal(edge_labels(U, V, table, "background", min_share=0.6), [-1, -1, -1])


def test_superpixels_in_two_objects_are_unknown_by_their_share():
    truth = np.where(np.arange(16).reshape(4, 4) < 7, 1, 2)  # of superpixel 2 three pixels are in 1, one in 2
    table = truth_overlaps(LABELS, truth)
    np.testing.assert_array_equal(edge_labels(U, V, table, "boundary", 0.75), [0, 1, 0])
    np.testing.assert_array_equal(edge_labels(U, V, table, "boundary", 0.76), [-1, -1, 0])


def test_tables_of_blocks_tell_the_same():
    parts = [truth_overlaps(LABELS[:, part], TRUTH[:, part]) for part in (slice(0, 1), slice(1, 4))]
    np.testing.assert_array_equal(edge_labels(U, V, merged(parts), "boundary"), [0, 1, -1])


def test_truths_that_teach_nothing_are_refused():
    with pytest.raises(DataError, match=r"\(4, 3\) px.*\(4, 4\)"):
        truth_overlaps(LABELS, TRUTH[:, :3])
    one = truth_overlaps(LABELS, np.where(TRUTH == 9, 7, TRUTH))
    with pytest.raises(DataError, match="1 objects, with label 0 as boundary"):
        edge_labels(U, V, one, "boundary")
    assert (edge_labels(U, V, one, "background") == [1, 0, 0]).all()
    none = np.empty(0, np.uint64)
    with pytest.raises(DataError, match="single superpixel"):
        edge_labels(none, none, one, "boundary")
