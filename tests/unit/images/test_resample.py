import numpy as np
import pytest

from raydom.images.resample import grid_size, resample, source_region
from raydom.types import Region


def _whole(pixels, new_shape):
    shape = pixels.shape[1:]
    return resample(pixels, Region.whole(shape), Region.whole(new_shape), shape, new_shape)


@pytest.mark.parametrize("new_shape", [(37, 53), (22, 31), (111, 70), (9, 7)])
def test_a_part_is_resampled_bit_for_bit_as_within_the_whole(new_shape):
    pixels = np.random.default_rng(0).random((2, 37, 53), dtype=np.float32)
    shape = (37, 53)
    whole = _whole(pixels, new_shape)
    for region in (
        Region((0, 0), (5, 3)),
        Region((4, 3), (9, 7)),
        Region((new_shape[0] - 3, 0), new_shape),
    ):
        source = source_region(region, shape, new_shape)
        part = resample(pixels[(slice(None), *source.slices)], source, region, shape, new_shape)
        assert np.array_equal(part, whole[(slice(None), *region.slices)])


def test_a_constant_stays_constant_and_the_same_size_is_the_identity():
    assert np.allclose(_whole(np.full((1, 11, 17), 0.3, np.float32), (5, 40)), 0.3, atol=1e-6)
    pixels = np.random.default_rng(0).random((1, 5, 7), dtype=np.float32)
    assert np.array_equal(_whole(pixels, (5, 7)), pixels)


def test_halving_averages_with_a_triangle_and_doubling_interpolates_linearly():
    ramp = np.arange(8, dtype=np.float32)[None, None]
    # Away from the border a linear ramp stays the same ramp, seen at the new pixel centres.
    assert np.allclose(_whole(ramp, (1, 4))[0, 0, 1:3], [2.5, 4.5], atol=1e-6)
    assert np.allclose(_whole(ramp, (1, 16))[0, 0, 1:15], (np.arange(1, 15) + 0.5) / 2 - 0.5, atol=1e-6)


def test_a_grid_has_at_least_one_pixel():
    assert grid_size(3, 0.01) == 1
    assert grid_size(960, 0.58) == 557
