from __future__ import annotations

import numpy as np

from raydom.ingestion.truth import instance_boundaries, merge_objects


def test_a_shared_pixel_belongs_to_the_first_object() -> None:
    whole, left = np.ones((3, 5), bool), np.zeros((3, 5), bool)
    left[:, :2] = True
    everywhere = (slice(None), slice(None))
    plane = merge_objects((3, 5), [(*everywhere, left), (*everywhere, whole)])
    np.testing.assert_array_equal(plane.pixels, np.where(left, 1, 2))
    assert (plane.kind, plane.overlap_px, plane.num_hidden) == ("instance", 6, 0)
    plane = merge_objects((3, 5), [(*everywhere, whole), (*everywhere, left)])
    assert (plane.pixels.min(), plane.overlap_px, plane.num_hidden) == (1, 6, 1)


def test_objects_lie_where_their_boxes_are() -> None:
    plane = merge_objects((4, 6), [(slice(1, 3), slice(2, 4), np.eye(2, dtype=bool))])
    assert np.argwhere(plane.pixels).tolist() == [[1, 2], [2, 3]]
    assert plane.pixels.dtype == np.uint8
    assert not merge_objects((4, 6), []).pixels.any()


def test_a_boundary_lies_on_both_sides_of_where_two_objects_meet() -> None:
    labels = np.repeat([[3, 3, 3, 7, 7, 7, 7]], 4, axis=0)
    assert instance_boundaries(labels, 1)[0].tolist() == [0, 0, 1, 1, 0, 0, 0]
    assert instance_boundaries(labels, 2)[0].tolist() == [0, 1, 1, 1, 1, 0, 0]
    corner = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 2]])
    assert instance_boundaries(corner, 1).sum() == 3
    assert instance_boundaries(corner, 1.5).sum() == 4  # the diagonal is 1.41 px away
    assert not instance_boundaries(np.full((4, 5), 9), 3).any()


def test_background_is_an_object_of_its_own_unless_it_does_not_count() -> None:
    labels = np.array([[1, 1, 0, 2, 2]])
    assert instance_boundaries(labels, 1)[0].tolist() == [0, 1, 1, 1, 0]
    assert instance_boundaries(labels, 1, labels > 0)[0].tolist() == [0, 0, 1, 0, 0]
    assert instance_boundaries(labels, 2, labels > 0)[0].tolist() == [0, 1, 1, 1, 0]
    assert not instance_boundaries(labels, 2, labels == 5).any()
