"""Where superpixels touch: how much, and what the maps say there.

A *face* is a pair of neighbouring pixels (4 of an image, 6 of a volume) in different superpixels. It belongs to its
first pixel, so that blocks of an image, each with one more row and column of its neighbours, count every face once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer, UInt8, UInt64

from raydom.errors import DataError
from raydom.neurons.tallies import Groups, Tallies, starts_of_runs, tallies


@dataclass(frozen=True, slots=True)
class Contacts:
    """The borders of superpixels: an edge a row, in ascending order of (u, v), where u < v."""

    u: UInt64[np.ndarray, " n"]
    v: UInt64[np.ndarray, " n"]
    axis_faces: Int64[np.ndarray, "n d"]
    """Faces across each axis of the image."""
    maps: Tallies
    """Of the maps at both pixels of each face."""

    @property
    def faces(self) -> Int64[np.ndarray, " n"]:
        """How many there are of each edge."""
        return self.axis_faces.sum(axis=1)

    @property
    def uv(self) -> UInt64[np.ndarray, "n 2"]:
        """The superpixels of each edge."""
        return np.stack([self.u, self.v], axis=1)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As plain arrays by name, for a file."""
        return {"u": self.u, "v": self.v, "axis_faces": self.axis_faces, **self.maps.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Contacts:
        """What ``to_arrays`` told."""
        return cls(arrays["u"], arrays["v"], arrays["axis_faces"], Tallies.from_arrays(arrays))


def contacts(
    labels: Integer[np.ndarray, "... h w"], maps: UInt8[np.ndarray, "c ..."], own: tuple[int, int]
) -> Contacts:
    """The contacts of a block.

    Args:
        labels: Superpixels of the block and, where the image goes on, of one more row below and column to the right; 0
            is none, and has no faces.
        maps: Feature maps of the same pixels.
        own: Height and width of the block itself: the faces of its pixels count.

    Raises:
        DataError: If labels and maps differ in shape, or ``own`` is larger than they are.
    """
    check_alike(labels, maps)
    if own[0] > labels.shape[-2] or own[1] > labels.shape[-1]:
        raise DataError(f"labels of {labels.shape} px cannot hold the {own[0]} x {own[1]} px that a block owns.")
    found = [_faces(labels, axis, own) for axis in range(labels.ndim)]
    here, there = (np.concatenate([face[side] for face in found]) for side in (0, 1))
    flat = labels.reshape(-1)
    u, v = np.minimum(flat[here], flat[there]), np.maximum(flat[here], flat[there])
    runs = starts_of_runs(u, v)
    groups = Groups.of(u[runs], v[runs])
    number = np.repeat(groups.number, np.diff(runs, append=len(u)))
    num_edges = len(groups.starts)
    ends = np.cumsum([len(first) for first, _ in found])[:-1]
    firsts = runs[groups.order[groups.starts]]
    values = maps.reshape(len(maps), -1)[:, np.concatenate([here, there])]
    return Contacts(
        u=u[firsts].astype(np.uint64),
        v=v[firsts].astype(np.uint64),
        axis_faces=np.stack([np.bincount(part, minlength=num_edges) for part in np.split(number, ends)], axis=1),
        maps=tallies(np.tile(number, 2), values, num_edges, np.int32),
    )


def merged_contacts(parts: Iterable[Contacts]) -> Contacts:
    """The contacts of the blocks of an image as one: bit for bit those of the image in one block.

    Args:
        parts: Gone through twice, so no iterator; what reads them needs no more memory than the result and a part.

    Raises:
        DataError: If there is no part, or parts have different maps.
    """
    keys = [(part.u, part.v, part.axis_faces) for part in parts]
    if not keys:
        raise DataError("a graph is made of one part at least; got none.")
    u, v, axis_faces = (np.concatenate(columns) for columns in zip(*keys, strict=True))
    groups = Groups.of(u, v)
    firsts, numbers = groups.order[groups.starts], split_like(groups.number, [part[0] for part in keys])
    maps = Tallies.summed(zip((part.maps for part in parts), numbers, strict=True), len(firsts))
    return Contacts(u[firsts], v[firsts], groups.sums(axis_faces), maps)


def check_alike(labels: np.ndarray, maps: np.ndarray) -> None:
    """Refuse maps of other pixels."""
    if maps.shape[1:] != labels.shape:
        raise DataError(
            f"superpixels are {labels.shape} px and the maps {maps.shape[1:]}; they must be the same pixels."
        )


def split_like(rows: np.ndarray, parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The rows of each part."""
    return np.split(rows, np.cumsum([len(part) for part in parts])[:-1])


def _faces(
    labels: np.ndarray, axis: int, own: tuple[int, int]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """The first and second pixels of the faces across an axis, by their place in the array."""
    size = [*labels.shape[:-2], *own]
    size[axis] = min(size[axis], labels.shape[axis] - 1)
    first = tuple(slice(0, n) for n in size)
    second = tuple(slice(i == axis, n + (i == axis)) for i, n in enumerate(size))
    a, b = labels[first], labels[second]
    places = np.ravel_multi_index(np.nonzero((a != b) & (a != 0) & (b != 0)), labels.shape).astype(np.int64)
    return places, places + int(np.prod(labels.shape[axis + 1 :]))
