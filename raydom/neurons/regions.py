"""What superpixels are: how large, where, of which shape, and what the maps say in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Int64, Integer, UInt8, UInt64

from raydom.errors import DataError
from raydom.neurons.contacts import check_alike, split_like
from raydom.neurons.tallies import Groups, Tallies, tallies


@dataclass(frozen=True, slots=True)
class Regions:
    """The superpixels: one a row, in ascending order of their numbers.

    Moments are exact up to 9e18 over the square of the image's longest side (in px) pixels a superpixel.
    """

    label: UInt64[np.ndarray, " n"]
    voxels: Int64[np.ndarray, " n"]
    """Pixels of it."""
    coordinates: Int64[np.ndarray, "n d"]
    """Sums of the pixels' coordinates along each axis, about the image's first pixel."""
    products: Int64[np.ndarray, "n d d"]
    """Sums of the products of two coordinates."""
    maps: Tallies
    """Of the maps at its pixels."""

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As plain arrays by name, for a file."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "maps"}
        return own | self.maps.to_arrays()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Regions:
        """What ``to_arrays`` told."""
        own = {field.name: arrays[field.name] for field in fields(cls) if field.name != "maps"}
        return cls(**own, maps=Tallies.from_arrays(arrays))


def regions(
    labels: Integer[np.ndarray, "... h w"], maps: UInt8[np.ndarray, "c ..."], start: tuple[int, int]
) -> Regions:
    """The superpixels of a block, as far as they lie in it.

    Args:
        labels: Superpixels of the block's own pixels; 0 is none.
        maps: Feature maps of the same pixels.
        start: Row and column of the block's first pixel in the image. (Blocks of a volume hold all its planes.)

    Raises:
        DataError: If labels and maps differ in shape.
    """
    check_alike(labels, maps)
    flat = labels.reshape(-1)
    begins = np.zeros(labels.shape, bool)
    begins[..., 1:] = labels[..., 1:] != labels[..., :-1]
    begins[..., :1] = True
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=flat.size)
    kept = flat[starts] != 0
    starts, lengths = starts[kept], lengths[kept]
    groups = Groups.of(flat[starts])
    number = np.repeat(groups.number, lengths)
    pixels = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(len(number))
    coordinates, products = _run_moments(np.unravel_index(starts, labels.shape), lengths, start)
    return Regions(
        label=flat[starts][groups.order[groups.starts]].astype(np.uint64),
        voxels=groups.sums(lengths),
        coordinates=groups.sums(coordinates),
        products=groups.sums(products),
        maps=tallies(number, maps.reshape(len(maps), -1)[:, pixels], len(groups.starts), np.int64),
    )


def merged_regions(parts: Iterable[Regions]) -> Regions:
    """The superpixels of the blocks of an image: bit for bit those of the image in one block.

    Args:
        parts: Gone through twice, so no iterator; what reads them needs no more memory than the result and a part.

    Raises:
        DataError: If there is no part, or parts have different maps.
    """
    names = [field.name for field in fields(Regions) if field.name != "maps"]
    keys = [tuple(getattr(part, name) for name in names) for part in parts]
    if not keys:
        raise DataError("a graph is made of one part at least; got none.")
    rows = {name: np.concatenate(columns) for name, columns in zip(names, zip(*keys, strict=True), strict=True)}
    groups = Groups.of(rows["label"])
    sums = {name: groups.sums(rows[name]) for name in ("voxels", "coordinates", "products")}
    numbers = split_like(groups.number, [part[0] for part in keys])
    maps = Tallies.summed(zip((part.maps for part in parts), numbers, strict=True), len(groups.starts))
    return Regions(label=rows["label"][groups.order[groups.starts]], **sums, maps=maps)


def _run_moments(
    first: tuple[np.ndarray, ...], lengths: Int64[np.ndarray, " m"], start: tuple[int, int]
) -> tuple[Int64[np.ndarray, "m d"], Int64[np.ndarray, "m d d"]]:
    """Sums of coordinates and of their products over runs of pixels along a row, from the place of the first."""
    *others, column = (np.asarray(axis, np.int64) for axis in first)
    others[-1] = others[-1] + start[0]
    column = column + start[1]
    steps = lengths * (lengths - 1) // 2
    columns = lengths * column + steps
    squares = lengths * column**2 + 2 * column * steps + steps * (2 * lengths - 1) // 3
    sums = np.stack([*(lengths * axis for axis in others), columns], axis=1)
    products = np.empty((len(lengths), len(first), len(first)), np.int64)
    for i, axis in enumerate(others):
        products[:, i, :] = axis[:, None] * sums
        products[:, :, i] = products[:, i, :]
    products[:, -1, -1] = squares
    return sums, products
