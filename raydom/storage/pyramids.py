"""The levels of an OME-Zarr image or label, filled in one pass over its pixels.

Each level is half as large in y and x as the one before. The pixels come from top to bottom in bands, and each level
waits for no more than the rows of one of its shards before it is written and passed on, halved, to the next: memory
grows with the width of an image (and of a part of one that is filled by itself, not at all).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import zarr

from raydom.errors import ConfigError
from raydom.storage import files
from raydom.storage.pictures import Pixels
from raydom.storage.zarr_images import open_array, read_multiscale, shards_of, store_shards
from raydom.types import Region

LEVELS_AT_ONCE = 3
"""A part of an image that is as wide and high as 2 ** 3 shards has whole shards up to this level: nobody else's."""
BAND_BYTES = 256 << 20
"""Images whose rows of shards are larger are filled in parts."""


def parts(level: Any) -> list[Region]:
    """The parts of a level 0 that can be filled independently of each other up to level ``LEVELS_AT_ONCE``."""
    sides = [shard << LEVELS_AT_ONCE for shard in shards_of(level)[-2:]]
    height, width = level.shape[-2:]
    return [
        Region((top, left), (min(top + sides[0], height), min(left + sides[1], width)))
        for top in range(0, height, sides[0])
        for left in range(0, width, sides[1])
    ]


def write_levels(levels: Sequence[zarr.Array], pixels: Pixels, method: str = "mean") -> None:
    """Write all levels of a new image or label.

    Args:
        levels: What ``create_image`` or ``create_labels`` gave.
        pixels: Of level 0; read once, in bands.
        method: ``mean`` of 2 x 2 pixels (of those that exist, at an odd border), or ``nearest``: the first of them.
    """
    if pixels.shape != levels[0].shape or pixels.dtype != levels[0].dtype:
        raise ConfigError(
            f"{pixels.dtype} pixels of shape {pixels.shape}; {levels[0].dtype} {levels[0].shape} expected."
        )
    row_bytes = pixels.dtype.itemsize * int(np.prod(pixels.shape)) // pixels.shape[-2]
    num_rows = shards_of(levels[0])[-2]
    if row_bytes * num_rows <= BAND_BYTES:
        fill_levels(levels, Region.whole(pixels.shape[-2:]), bands(pixels, num_rows), method)
        return
    for part in parts(levels[0]):
        fill_levels(levels[: LEVELS_AT_ONCE + 1], part, bands(pixels, num_rows, part), method)
    if len(levels) > LEVELS_AT_ONCE + 1:
        write_coarser(levels, method, start=LEVELS_AT_ONCE)


def write_coarser(
    levels: Sequence[zarr.Array],
    method: str,
    *,
    start: int = 0,
    part: Region | None = None,
    watch: Callable[[np.ndarray], None] = lambda band: None,
) -> None:
    """Fill the levels after ``start`` from it.

    Args:
        part: One of the ``parts`` of level ``start``, whose own coarser pixels are to be written up to
            ``LEVELS_AT_ONCE`` levels further. Default: all pixels and levels.
        watch: Shown each band of level ``start`` that is read; all its pixels, each once.
    """
    finest, num_rows = levels[start], shards_of(levels[start])[-2]
    if part is None and (len(levels) - start - 1 <= LEVELS_AT_ONCE or len(parts(finest)) == 1):
        whole = Region.whole(finest.shape[-2:])
        fill_levels(levels[start:], whole, _watched(bands(finest, num_rows), watch), method, first=1)
        return
    for one in parts(finest) if part is None else [part]:
        reach = levels[start : start + LEVELS_AT_ONCE + 1]
        fill_levels(reach, one, _watched(bands(finest, num_rows, one), watch), method, first=1)
    if part is None:
        write_coarser(levels, method, start=start + LEVELS_AT_ONCE)


def writable_levels(uri: str, group_path: str = "") -> list[zarr.Array]:
    """The levels of an image, or of its label ``labels/<name>``, for writing."""
    paths = read_multiscale(uri, group_path).paths
    return [open_array(uri, files.join(group_path, path) if group_path else path, mode="r+") for path in paths]


def fill_levels(
    levels: Sequence[zarr.Array], part: Region, bands: Iterable[np.ndarray], method: str, first: int = 0
) -> None:
    """Write a part of an image, and what is made of it, level by level.

    Args:
        levels: From the one that the bands are of.
        part: px of ``levels[0]``; whole shards of each of the levels.
        bands: The pixels of the part from top to bottom, each as many rows as a shard has.
        first: The first of the levels to be written; those before it are only read.
    """
    if method not in ("mean", "nearest"):
        raise ConfigError(f"pyramids are made by mean or nearest; got {method!r}.")
    (top, left), height = part.start, part.shape[0]
    waiting: list[list[np.ndarray]] = [[] for _ in levels]
    written = [top >> number for number in range(len(levels))]
    bottoms = [(top >> number) + -(-height >> number) for number in range(len(levels))]

    def push(number: int, rows: np.ndarray) -> None:
        pending = waiting[number]
        pending.append(rows)
        num_rows = sum(band.shape[-2] for band in pending)
        at, level = written[number], levels[number]
        if num_rows < shards_of(level)[-2] and at + num_rows < bottoms[number]:
            return
        band = pending[0] if len(pending) == 1 else np.concatenate(pending, axis=-2)
        pending.clear()
        written[number] = at + num_rows
        if number >= first:
            start = left >> number
            region = Region((at, start), (at + num_rows, start + band.shape[-1]))
            store_shards(level, region, band)
        if number + 1 < len(levels):
            push(number + 1, halved(band, method))

    for band in bands:
        push(0, band)


def halved(pixels: np.ndarray, method: str) -> np.ndarray:
    """Half the size in the last two axes (rounded up); integers are rounded to nearest."""
    if method == "nearest":
        return pixels[..., ::2, ::2]
    # Repeating the last row of an odd side leaves it the mean of the pixels that exist.
    padding = [(0, 0)] * (pixels.ndim - 2) + [(0, size % 2) for size in pixels.shape[-2:]]
    even = np.pad(pixels, padding, mode="edge") if any(after for _, after in padding) else pixels
    corners = [even[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
    if pixels.dtype.kind in "bui" and pixels.dtype.itemsize <= 2:
        total = sum((part.astype(np.int32) for part in corners[1:]), corners[0].astype(np.int32))
        return ((total + 2) // 4).astype(pixels.dtype)
    mean = sum((part.astype(np.float64) for part in corners[1:]), corners[0].astype(np.float64)) / 4
    return (np.rint(mean) if pixels.dtype.kind in "ui" else mean).astype(pixels.dtype)


def bands(pixels: Pixels, num_rows: int, part: Region | None = None) -> Iterator[np.ndarray]:
    """The pixels, or a part of them, from top to bottom, ``num_rows`` at a time."""
    part = Region.whole(pixels.shape[-2:]) if part is None else part
    for top in range(part.start[0], part.stop[0], num_rows):
        yield np.asarray(pixels[..., top : min(top + num_rows, part.stop[0]), part.start[1] : part.stop[1]])


def _watched(found: Iterable[np.ndarray], watch: Callable[[np.ndarray], None]) -> Iterator[np.ndarray]:
    for band in found:
        watch(band)
        yield band
