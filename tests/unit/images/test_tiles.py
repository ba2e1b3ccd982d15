import numpy as np

from raydom.images.tiles import cut_blocks, padded_shape, read_region, reflected
from raydom.types import Region


def test_blocks_cover_every_pixel_once():
    count = np.zeros((37, 50), int)
    for block in cut_blocks("a", (37, 50), 16):
        count[block.write.slices] += 1
    assert (count == 1).all()


def test_block_ids_do_not_depend_on_the_number_of_blocks_and_are_unique():
    small = {b.block_id for b in cut_blocks("a", (32, 32), 16)}
    large = {b.block_id for b in cut_blocks("a", (64, 48), 16)}
    assert len(small) == 4
    assert small < large


def test_read_regions_hold_the_halo_and_start_on_the_stride():
    shape = (100, 70)
    for block in cut_blocks("a", shape, 16):
        read = read_region(block.write, 10, 8, shape)
        for axis in (0, 1):
            assert read.start[axis] % 8 == 0
            assert read.start[axis] <= max(0, block.write.start[axis] - 10)
            assert read.stop[axis] >= min(padded_shape(shape, 8)[axis], block.write.stop[axis] + 10)
            assert read.stop[axis] % 8 == 0


def test_padding_mirrors_about_the_last_pixel_like_numpy():
    assert reflected(0, 8, 5).tolist() == np.pad(np.arange(5), (0, 3), mode="reflect").tolist()
    assert reflected(0, 6, 2).tolist() == [0, 1, 0, 1, 1, 1]
    assert Region((2, 3), (4, 9)).shape == (2, 6)
