"""Objects that several blocks see, put together to one: which are the same, and what number each gets.

Each block looks beyond its own pixels, so neighbours see the same objects where they overlap. Two views are one object
when their intersection over union there is large enough; what is merged with the same is merged. Objects are then
numbered by their first pixel in the image, so the numbers do not depend on how the image is cut, or on which worker was
first. Where views disagree the object stays split: that can be seen in the table of pairs and mended, a wrong merge
cannot be told from an object.

A *view* is an object as one block sees it; a block owns it when some of it lies in the block's own pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from raydom.types import Region


@dataclass(frozen=True, slots=True)
class Views:
    """The objects that a block owns, in ascending order of their number within it."""

    label: Int64[np.ndarray, " n"]
    area_px: Int64[np.ndarray, " n"]
    """Of its part in the block's own pixels."""
    first: Int64[np.ndarray, " n"]
    """Where the first pixel of that part is in the image: row times width plus column (of a volume, that times its
    depth, plus the plane)."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Views of two blocks that overlap."""

    a: Int64[np.ndarray, " n"]
    b: Int64[np.ndarray, " n"]
    iou: Float64[np.ndarray, " n"]


def views(labels: Int32[np.ndarray, "*d h w"], seen: Region, write: Region, width: int) -> Views:
    """What a block owns of its labels.

    Args:
        labels: Of ``seen``, 0 background; of a volume, all planes.
        seen: The part of the image that the block looked at.
        write: Its own pixels.
        width: Of the whole image, px.
    """
    own = labels[write.relative_to(seen).index]
    depth = own.shape[0] if own.ndim == 3 else 1
    if own.ndim == 3:  # its planes come last, so that no view begins before the row of its cell
        own = np.moveaxis(own, 0, -1)
    found, first, area = np.unique(own, return_index=True, return_counts=True)
    rows, columns, planes = np.unravel_index(first, (*write.shape, depth))
    position = ((rows + write.start[0]) * width + columns + write.start[1]) * depth + planes
    is_object = found > 0
    return Views(*(array[is_object].astype(np.int64) for array in (found, area, position)))


def overlaps(
    a: Int32[np.ndarray, "*d h w"],
    b: Int32[np.ndarray, "*d h w"],
    owned_a: Int64[np.ndarray, " m"],
    owned_b: Int64[np.ndarray, " n"],
) -> Pairs:
    """The owned views that meet in what two blocks see both, with their intersection over union there.

    Args:
        a: Labels of the one block in the part that both see.
        b: Of the other.
        owned_a: Views that count.
        owned_b: Likewise.
    """
    both = (a > 0) & (b > 0)
    width = int(b.max(initial=0)) + 1
    keys, intersection = np.unique(a[both].astype(np.int64) * width + b[both], return_counts=True)
    of_a, of_b = np.divmod(keys, width)
    union = np.bincount(a.ravel())[of_a] + np.bincount(b.ravel())[of_b] - intersection
    counts = np.isin(of_a, owned_a) & np.isin(of_b, owned_b)
    return Pairs(of_a[counts], of_b[counts], (intersection / union)[counts])


# ------------------------------------------------------------------------------------------------------- numbering


@dataclass(frozen=True, slots=True)
class Numbers:
    """The final numbers of a band of blocks."""

    number: UInt64[np.ndarray, " n"]
    """Of each view, band after band, block after block; 0 where the object is left out."""
    shared: Bool[np.ndarray, " n"]
    """Whether the object has views of other blocks."""
    last: Int64[np.ndarray, " n"]
    """The last band with a view of the object."""


def number_objects(
    bands: Sequence[Callable[[], Views]],
    sizes: Sequence[int],
    merged: Int64[np.ndarray, "n 2"],
    min_area_px: int = 1,
) -> Iterator[Numbers]:
    """Numbers from 1 to N in the order of the objects' first pixels.

    Only one band is in memory at a time, and what was merged: two passes over the bands.

    Args:
        bands: Read the views of all blocks of a row of blocks, one block after another. Rows are in order, and no first
            pixel of a band's views lies above its row.
        sizes: Number of views of each band.
        merged: Pairs of views that are one object, by their place among all views of all bands.
        min_area_px: Smaller objects get the number 0.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)])
    members, group = _groups(merged)
    first = np.full(int(group.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    area, ends = np.zeros(len(first), np.int64), np.zeros(len(first), np.int64)
    for band, read in enumerate(bands):
        low, high = np.searchsorted(members, starts[band : band + 2])
        if low < high:
            seen, inside = read(), members[low:high] - starts[band]
            np.minimum.at(first, group[low:high], seen.first[inside])
            np.add.at(area, group[low:high], seen.area_px[inside])
            ends[group[low:high]] = band
    number = np.zeros(len(first), np.uint64)
    used = 0
    for band, read in enumerate(bands):
        seen = read()
        low, high = np.searchsorted(members, starts[band : band + 2])
        inside, groups = members[low:high] - starts[band], group[low:high]
        shared = np.zeros(len(seen.first), bool)
        shared[inside] = True
        # An object counts once, where it begins: alone, or as the member of its group that holds its first pixel.
        begins = ~shared & (seen.area_px >= min_area_px)
        begins[inside] = (seen.first[inside] == first[groups]) & (area[groups] >= min_area_px)
        numbers = np.zeros(len(seen.first), np.uint64)
        order = np.flatnonzero(begins)[np.argsort(seen.first[begins], kind="stable")]
        numbers[order] = np.arange(used + 1, used + 1 + len(order), dtype=np.uint64)
        used += len(order)
        starting = begins[inside]
        number[groups[starting]] = numbers[inside[starting]]
        numbers[inside] = number[groups]
        last = np.full(len(numbers), band, np.int64)
        last[inside] = ends[groups]
        yield Numbers(numbers, shared, last)


def consistent(
    pairs: Int64[np.ndarray, "n 2"], iou: Float64[np.ndarray, " n"], starts: Int64[np.ndarray, " k"]
) -> Bool[np.ndarray, " n"]:
    """Which pairs to merge so that no object has two views of one block, which that block tells apart.

    Where a chain of pairs would join two such views, its pairs are taken by falling IoU, and one that would is left.

    Args:
        pairs: Views that are alike, by their place among all views.
        iou: How much.
        starts: The place of the first view of each block, and the number of all views.
    """
    keep = np.ones(len(pairs), bool)
    members, group = _groups(pairs)
    block = np.searchsorted(starts, members, side="right") - 1
    of_group = np.unique(np.stack([group, block], axis=1), axis=0, return_counts=True)
    doubtful = np.unique(of_group[0][of_group[1] > 1, 0])
    if not len(doubtful):
        return keep
    edges = np.flatnonzero(np.isin(group[np.searchsorted(members, pairs[:, 0])], doubtful))
    root: dict[int, int] = {}
    blocks: dict[int, set[int]] = {}

    def found(view: int) -> int:
        while root.setdefault(view, view) != view:
            view = root[view]
        return view

    for edge in edges[np.lexsort((pairs[edges, 1], pairs[edges, 0], -iou[edges]))]:
        a, b = (found(int(view)) for view in pairs[edge])
        if a == b:
            continue
        of_a, of_b = (blocks.setdefault(one, {int(np.searchsorted(starts, one, side="right")) - 1}) for one in (a, b))
        if of_a & of_b:
            keep[edge] = False
        else:
            root[b] = a
            of_a |= of_b
    return keep


def _groups(merged: Int64[np.ndarray, "n 2"]) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """The views that are merged with any, in ascending order, and the group of each."""
    members, places = np.unique(merged, return_inverse=True)
    if not len(members):
        return members.astype(np.int64), np.empty(0, np.int64)
    a, b = places.reshape(-1, 2).T
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(members), len(members)))
    return members, connected_components(graph, directed=False)[1].astype(np.int64)
