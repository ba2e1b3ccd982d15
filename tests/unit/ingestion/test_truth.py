from __future__ import annotations

import numpy as np

from raydom.ingestion.truth import merge_objects


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
