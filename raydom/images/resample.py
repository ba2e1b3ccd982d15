"""Resampling by global coordinates, so that a part of an image is resampled exactly as it is within the whole.

Each output pixel is a weighted sum of input pixels whose positions and weights depend on its coordinate in the whole
image only, added in a fixed order. So the result does not depend, to the last bit, on how the image is cut.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from raydom.types import Region


def grid_size(size: int, scale: float) -> int:
    """Length of an axis of ``size`` px after resampling by ``scale``, px; at least 1."""
    return max(1, round(size * scale))


def source_span(start: int, stop: int, size: int, new_size: int) -> tuple[int, int]:
    """The input pixels, [first, last), that the output pixels [start, stop) of one axis are made of."""
    if size == new_size:
        return start, stop
    step = size / new_size
    reach = max(1.0, step)
    first = int(np.floor((start + 0.5) * step - 0.5 - reach))
    last = int(np.ceil((stop - 0.5) * step - 0.5 + reach))
    return max(0, first), min(size, last + 1)


def source_region(region: Region, shape: tuple[int, ...], new_shape: tuple[int, ...]) -> Region:
    """The part of an image of ``shape`` that a region of its resampled version of ``new_shape`` is made of."""
    spans = [source_span(*axis) for axis in zip(region.start, region.stop, shape, new_shape, strict=True)]
    return Region(tuple(a for a, _ in spans), tuple(b for _, b in spans))


def resample(
    pixels: Float32[np.ndarray, "c h w"],
    source: Region,
    region: Region,
    shape: tuple[int, ...],
    new_shape: tuple[int, ...],
) -> Float32[np.ndarray, "c new_h new_w"]:
    """A region of the resampled image from the part of the image it is made of.

    Linear interpolation where the image grows; a triangle as wide as an output pixel, so without aliasing, where it
    shrinks. Pixel centres are at half-integers, the outer edges of both grids coincide, and at the border the weights
    that fall outside are left out and the rest are rescaled.

    Args:
        pixels: The input pixels of ``source``.
        source: Which part of the input ``pixels`` are; at least ``source_region(region, shape, new_shape)``.
        region: The wanted part of the output.
        shape: (h, w) of the whole input, px.
        new_shape: (h, w) of the whole output, px.

    Returns:
        float32 (c, h, w) of ``region``.
    """
    image: np.ndarray = pixels
    for axis in (0, 1):
        if shape[axis] == new_shape[axis]:
            cut = slice(region.start[axis] - source.start[axis], region.stop[axis] - source.start[axis])
            image = image[:, cut] if axis == 0 else image[:, :, cut]
            continue
        index, weight = _taps(region.start[axis], region.stop[axis], shape[axis], new_shape[axis])
        index -= source.start[axis]
        total = None
        for tap in range(index.shape[1]):
            taken = np.take(image, index[:, tap], axis=axis + 1)
            factor = weight[:, tap, None] if axis == 0 else weight[None, :, tap]
            total = taken * factor if total is None else total + taken * factor
        assert total is not None
        image = total
    return np.ascontiguousarray(image)


def _taps(start: int, stop: int, size: int, new_size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each output pixel, the input pixels (n, k) and their float32 weights (n, k), which add up to 1."""
    step = size / new_size
    reach = max(1.0, step)
    centre = (np.arange(start, stop) + 0.5) * step - 0.5
    # Counted from the whole image, so that the number of taps is the same for every part of it.
    index = np.floor(centre - reach).astype(np.int64)[:, None] + np.arange(int(np.ceil(2 * reach)) + 2)
    weight = np.clip(1.0 - np.abs(index - centre[:, None]) / reach, 0.0, None)
    weight[(index < 0) | (index >= size)] = 0.0
    weight /= weight.sum(axis=1, keepdims=True)
    # A tap without weight may point anywhere: at the nearest pixel that has one, to stay inside what was read.
    used = weight > 0
    first = np.argmax(used, axis=1)
    last = index.shape[1] - 1 - np.argmax(used[:, ::-1], axis=1)
    rows = np.arange(len(index))
    index = np.clip(index, index[rows, first][:, None], index[rows, last][:, None])
    return index, weight.astype(np.float32)
