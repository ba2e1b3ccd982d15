"""How an image is cut into blocks, and what must be read for each of them."""

from __future__ import annotations

import itertools

import numpy as np

from raydom.types import Block, Region


def cut_blocks(image_id: str, spatial_shape: tuple[int, ...], block_size: int) -> list[Block]:
    """The blocks of an image: squares of ``block_size`` px from the first pixel on, cut off at the far edges."""
    starts = [range(0, size, block_size) for size in spatial_shape]
    return [
        Block(image_id, Region(start, tuple(min(s + block_size, n) for s, n in zip(start, spatial_shape, strict=True))))
        for start in itertools.product(*starts)
    ]


def padded_shape(shape: tuple[int, ...], stride: int) -> tuple[int, ...]:
    """The shape grown at the far edges to multiples of the network's total stride, px."""
    return tuple(-(-size // stride) * stride for size in shape)


def read_region(write: Region, halo: int, stride: int, shape: tuple[int, ...]) -> Region:
    """What a network must see to write a region exactly as it would from the whole image.

    The region grown by the halo and out to multiples of ``stride``, so that poolings fall on the same pixels as in the
    whole image, but no further than the padded whole image reaches: there the network meets the same border.

    Args:
        write: The region to be written, in px of the grid that the network sees.
        halo: At least the network's receptive field, px.
        stride: The network's total stride, px.
        shape: Shape of the whole image on that grid, before padding, px.
    """
    grown = write.grown(halo)
    aligned = Region(
        tuple(start // stride * stride for start in grown.start),
        tuple(-(-stop // stride) * stride for stop in grown.stop),
    )
    return aligned.clipped(Region.whole(padded_shape(shape, stride)))


def reflected(start: int, stop: int, size: int) -> np.ndarray:
    """Which pixel of an axis of ``size`` px stands at each position [start, stop) of the padded axis.

    Beyond the far edge the axis is mirrored about its last pixel; where the padding is longer than the axis can mirror,
    the last pixel is repeated.
    """
    position = np.arange(start, stop)
    mirrored = 2 * (size - 1) - position
    beyond = np.where(mirrored >= 0, mirrored, size - 1)
    return np.where(position < size, position, beyond)
