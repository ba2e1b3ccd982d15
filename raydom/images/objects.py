"""Measurements of objects: sums that parts of an object add up to, and the table that follows from them.

So an object that lies in several blocks is measured exactly, and no object need ever be in memory whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float32, Float64, Int64, Integer, Shaped, UInt64
from scipy.spatial import ConvexHull

from raydom.types import Region


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of objects, one an entry; all lengths in px, counted from the image's first pixel."""

    label: UInt64[np.ndarray, " n"]
    area: Int64[np.ndarray, " n"]
    sums: Int64[np.ndarray, "n 2"]
    """Of the rows and of the columns of the pixels."""
    squares: Int64[np.ndarray, "n 3"]
    """Of row times row, row times column, and column times column."""
    box: Int64[np.ndarray, "n 4"]
    """First row, first column, and the row and column after the last."""
    intensity: Float64[np.ndarray, "n c"]
    """Sums of the pixels of each channel."""
    confidence: Float64[np.ndarray, " n"]
    """Sum over the pixels of the probability that they are of an object."""
    hull: tuple[Int64[np.ndarray, "_ 2"], ...]
    """Of each part, corners of pixels (row, column) among which are those of its convex hull."""

    def __len__(self) -> int:
        return len(self.label)

    def taken(self, which: np.ndarray) -> Parts:
        """Those at these places."""
        places = np.arange(len(self))[which]
        hull = tuple(self.hull[place] for place in places)
        rest = {one.name: getattr(self, one.name)[places] for one in fields(self) if one.name != "hull"}
        return Parts(**rest, hull=hull)


def measure(
    labels: Integer[np.ndarray, "h w"],
    where: Region,
    pixels: Shaped[np.ndarray, "c h w"],
    probability: Float32[np.ndarray, "h w"],
) -> Parts:
    """The parts of objects within a region of an image, by ascending label.

    Args:
        labels: Of the region, 0 background.
        where: The region.
        pixels: Of the image, in any unit.
        probability: That a pixel is of an object.
    """
    rows, columns = np.nonzero(labels)
    found, index = np.unique(labels[rows, columns], return_inverse=True)
    n = len(found)
    y, x = rows + where.start[0], columns + where.start[1]

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(index, values, minlength=n).astype(np.float64)

    def whole(values: np.ndarray) -> np.ndarray:
        # Sums of integers, exactly: from the region's corner they are small enough for bincount's floats.
        return total(values).astype(np.int64)

    area = np.bincount(index, minlength=n).astype(np.int64)
    near = np.stack([whole(rows), whole(columns)], axis=1) if n else np.zeros((0, 2), np.int64)
    start = np.array(where.start, np.int64)
    squares = np.stack([whole(rows * rows), whole(rows * columns), whole(columns * columns)], axis=1)
    (sy, sx), (oy, ox) = near.T, start
    shifted = np.stack([2 * oy * sy + area * oy**2, ox * sy + oy * sx + area * oy * ox, 2 * ox * sx + area * ox**2])
    box = np.empty((n, 4), np.int64)
    box[:, :2], box[:, 2:] = np.iinfo(np.int64).max, -1
    for place, values in ((0, y), (1, x)):
        np.minimum.at(box[:, place], index, values)
        np.maximum.at(box[:, place + 2], index, values + 1)
    intensity = [total(channel[rows, columns].astype(np.float64)) for channel in pixels]
    return Parts(
        found.astype(np.uint64),
        area,
        near + area[:, None] * start,
        squares + shifted.T,
        box,
        np.stack(intensity, axis=1) if n else np.zeros((0, len(pixels))),
        total(probability[rows, columns].astype(np.float64)),
        _corners(index, y, x, n),
    )


def merged(parts: Sequence[Parts]) -> Parts:
    """The objects that all these parts make, by ascending label."""
    joined = {one.name: np.concatenate([getattr(p, one.name) for p in parts]) for one in fields(Parts)[:-1]}
    hulls = [corners for p in parts for corners in p.hull]
    found, index = np.unique(joined["label"], return_inverse=True)

    def summed(values: np.ndarray) -> np.ndarray:
        out = np.zeros((len(found), *values.shape[1:]), values.dtype)
        np.add.at(out, index, values)
        return out

    box = np.empty((len(found), 4), np.int64)
    box[:, :2], box[:, 2:] = np.iinfo(np.int64).max, -1
    np.minimum.at(box[:, :2], index, joined["box"][:, :2])
    np.maximum.at(box[:, 2:], index, joined["box"][:, 2:])
    of_each: list[list[np.ndarray]] = [[] for _ in found]
    for place, corners in zip(index, hulls, strict=True):
        of_each[place].append(corners)
    hull = tuple(corners[0] if len(corners) == 1 else _hull(np.concatenate(corners)) for corners in of_each)
    sums = {name: summed(joined[name]) for name in ("area", "sums", "squares", "intensity", "confidence")}
    return Parts(label=found, box=box, hull=hull, **sums)


def table(parts: Parts, shape: tuple[int, int], pixel_size_um: float | None) -> dict[str, np.ndarray]:
    """Columns of the object table, a row an object.

    Args:
        parts: Whole objects.
        shape: Of the image, px.
        pixel_size_um: Of the image, for the area in um2 (NaN if it is None).

    Returns:
        ``label``; ``centroid_y`` and ``centroid_x``, the mean position of the pixels' centres (the first pixel's is 0),
        px; ``top``, ``left``, ``bottom`` and ``right``, the bounding box, half open, px; ``area_px`` and ``area_um2``;
        ``eccentricity`` of the ellipse with the same second moments (0: a circle, or a single pixel; 1: a line);
        ``solidity``, the area over that of the convex hull of the pixels' squares; ``mean_intensity``, a list
        with an entry a channel; ``confidence``, the mean probability that its pixels are of an object; and
        ``touches_border`` of the image.
    """
    area = parts.area.astype(np.float64)
    centroid = parts.sums / area[:, None]
    # About the corner of its box, in integers, a sum of squares loses nothing to how far away the object is.
    (oy, ox), (sy, sx) = parts.box[:, :2].T, parts.sums.T
    squares = parts.squares - np.stack(
        [
            2 * oy * sy - parts.area * oy**2,
            ox * sy + oy * sx - parts.area * oy * ox,
            2 * ox * sx - parts.area * ox**2,
        ],
        axis=1,
    )
    my, mx = (sy - parts.area * oy) / area, (sx - parts.area * ox) / area
    yy, yx, xx = (squares / area[:, None] - np.stack([my * my, my * mx, mx * mx], axis=1)).T
    spread = np.sqrt((yy - xx) ** 2 + 4 * yx**2)
    major, minor = (yy + xx + spread) / 2, (yy + xx - spread) / 2
    hull_area = np.array([_area(_hull(corners)) for corners in parts.hull], float)
    box = parts.box
    return {
        "label": parts.label,
        "centroid_y": centroid[:, 0],
        "centroid_x": centroid[:, 1],
        "top": box[:, 0],
        "left": box[:, 1],
        "bottom": box[:, 2],
        "right": box[:, 3],
        "area_px": parts.area,
        "area_um2": area * (np.nan if pixel_size_um is None else pixel_size_um**2),
        "eccentricity": np.sqrt(np.clip(1 - minor / np.where(major > 0, major, 1.0), 0.0, 1.0)) * (major > 0),
        "solidity": area / hull_area,
        "mean_intensity": parts.intensity / area[:, None],
        "confidence": parts.confidence / area,
        "touches_border": (box[:, :2] == 0).any(axis=1) | (box[:, 2:] == np.array(shape)).any(axis=1),
    }


def _corners(index: np.ndarray, y: np.ndarray, x: np.ndarray, n: int) -> tuple[Int64[np.ndarray, "_ 2"], ...]:
    """For each object the outer corners of the first and last pixel of each of its rows; pixels come row by row."""
    if not n:
        return ()
    order = np.argsort(index, kind="stable")
    index, y, x = index[order], y[order], x[order]
    begins = np.flatnonzero(np.r_[True, (np.diff(index) != 0) | (np.diff(y) != 0)])
    ends = np.r_[begins[1:], len(index)] - 1
    top, left, right = y[begins], x[begins], x[ends] + 1
    corners = np.stack(
        [np.stack([top + down, side], axis=1) for down in (0, 1) for side in (left, right)], axis=1
    ).astype(np.int64)
    of_object = np.searchsorted(index[begins], np.arange(n + 1))
    return tuple(corners[a:b].reshape(-1, 2) for a, b in itertools.pairwise(of_object))


def _hull(corners: Int64[np.ndarray, "_ 2"]) -> Int64[np.ndarray, "_ 2"]:
    """Those that are corners of the convex hull, in turn; a pixel has four, so there is always an area."""
    return corners[ConvexHull(corners).vertices]


def _area(polygon: Int64[np.ndarray, "_ 2"]) -> float:
    """Of a polygon, px."""
    y, x = (polygon - polygon[0]).T
    return abs(float(np.sum(y * np.roll(x, -1) - x * np.roll(y, -1)))) / 2
