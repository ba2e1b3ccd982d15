from __future__ import annotations

from dataclasses import replace

import bioimage_cpp as bic
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from raydom.config.neurons import SuperpixelConfig
from raydom.errors import DataError
from raydom.neurons.superpixels import superpixels

CONFIG = SuperpixelConfig(halo_px=16, min_size_px=9)


def rooms(shape: tuple[int, ...] = (40, 61), side: int = 20) -> np.ndarray:
    """Walls every ``side`` px of rows and columns."""
    boundary = np.zeros(shape, np.float32)
    boundary[..., ::side, :] = boundary[..., :, ::side] = 1
    return boundary


def rough(*shape: int) -> np.ndarray:
    values = gaussian_filter(np.random.default_rng(0).random(shape), 2)
    return ((values - values.min()) / (values.max() - values.min())).astype(np.float32)


def test_each_room_is_a_superpixel_even_through_a_door():
    boundary = rooms()
    boundary[30, 20] = boundary[9:12, 40] = 0
    labels = superpixels(boundary, CONFIG)
    found = [np.unique(labels[top : top + 19, left : left + 19]) for top in (1, 21) for left in (1, 21, 41)]
    assert sorted(np.concatenate(found)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("shape", [(90, 71), (9, 41, 37)])
def test_every_pixel_is_in_one_piece_of_at_least_the_smallest_size(shape):
    labels = superpixels(rough(*shape), CONFIG)
    sizes = np.bincount(labels.ravel())
    assert sizes[0] == 0
    assert sizes[1:].min() >= CONFIG.min_size_px
    assert len(sizes) > 5
    # Numbered by first pixel, each connected: labelling the pieces changes nothing.
    np.testing.assert_array_equal(bic.segmentation.label(labels, background=-1, connectivity=1), labels)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (13, 17), (3, 13, 17)])
def test_without_a_membrane_or_with_nothing_else_there_is_one_superpixel(shape, value):
    labels = superpixels(np.full(shape, value, np.float32), CONFIG)
    np.testing.assert_array_equal(labels, np.ones(shape, np.int32))


def test_planes_are_made_one_by_one():
    stack = rough(4, 41, 37)
    labels = superpixels(stack, replace(CONFIG, planes=True))
    first = 0
    for plane, own in zip(stack, labels, strict=True):
        alone = superpixels(plane, CONFIG)
        np.testing.assert_array_equal(own, alone + first)
        first += alone.max()


def test_a_volume_of_equal_planes_has_the_superpixels_of_a_plane():
    labels = superpixels(np.repeat(rooms()[None], 5, axis=0), replace(CONFIG, anisotropy=3.0))
    assert labels.max() == 6
    np.testing.assert_array_equal(labels, np.broadcast_to(labels[0], labels.shape))


def test_superpixels_meet_in_the_middle_of_a_wall():
    boundary = np.zeros((31, 39), np.float32)
    boundary[:, 15:24] = 1
    labels = superpixels(boundary, CONFIG)
    assert labels.max() == 2
    np.testing.assert_array_equal(labels[:, :19], 1)
    np.testing.assert_array_equal(labels[:, 20:], 2)


def test_far_membranes_do_not_matter():
    """What a tile sees beyond twice the halo of a pixel does not change the superpixel there."""
    boundary = rooms((120, 121))
    tile = boundary[30:, 30:]
    whole, part = superpixels(boundary, CONFIG)[60:-20, 60:-20], superpixels(tile, CONFIG)[30:-20, 30:-20]
    pairs = np.unique(np.stack([whole.ravel(), part.ravel()], axis=1), axis=0)
    assert len(pairs) == len(np.unique(whole)) == len(np.unique(part))


def test_evidence_that_is_not_finite_is_refused():
    with pytest.raises(DataError, match="not finite"):
        superpixels(np.array([[0.5, np.nan]], np.float32), CONFIG)
