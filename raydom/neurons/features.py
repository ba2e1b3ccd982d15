"""What a classifier is told of an edge: numbers about the contact and about both superpixels, whichever is first.

All follow from integers that do not hang on how the image was cut, by the same operations in the same order.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from raydom.errors import DataError
from raydom.neurons.contacts import Contacts
from raydom.neurons.regions import Regions
from raydom.neurons.tallies import BINS, Tallies

CONTACT_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
EDGES_AT_ONCE = 65536
"""That are described together; what is needed for it is some kilobytes an edge."""

Columns = dict[str, Float64[np.ndarray, " n"]]


def edge_features(
    contacts: Contacts, regions: Regions, names: tuple[str, ...], anisotropy: float = 1.0
) -> tuple[Float32[np.ndarray, "n f"], tuple[str, ...]]:
    """Describe each edge.

    Of each map, 0 to 255: mean, standard deviation, minimum, maximum and quantiles over the contact; mean, deviation
    and median of both superpixels; and how far the contact's mean is above the mean of theirs. Of shapes: the contact's
    area, also over the surfaces of both (as far as they touch others) and over their sizes; sizes, elongations (ratio
    of the longest to the shortest axis, by second moments), compactness, number of neighbours; the distance of the
    centroids. What two superpixels have is told as absolute difference, minimum, maximum and sum.

    Args:
        contacts: Of the whole image.
        regions: Likewise.
        names: Of the maps.
        anisotropy: Of a volume: distance of two planes, px of a plane. Lengths are in such px.

    Returns:
        A row for each edge, and the names of the columns. Quantiles are interpolated within the bins of a histogram.

    Raises:
        DataError: If the numbers of names and maps differ, or an edge has a superpixel that is not among the regions.
    """
    described = EdgeFeatures(contacts, regions, names, anisotropy)
    return described.of(slice(None)), described.names


class EdgeFeatures:
    """The features of a graph's edges, described some edges at a time, so that not all are in memory.

    Args, errors: those of ``edge_features``.
    """

    def __init__(self, contacts: Contacts, regions: Regions, names: tuple[str, ...], anisotropy: float = 1.0) -> None:
        num_maps = {len(names), contacts.maps.sums.shape[1], regions.maps.sums.shape[1]}
        if len(num_maps) != 1:
            raise DataError(
                f"{len(names)} maps are named; contacts have {contacts.maps.sums.shape[1]} and superpixels "
                f"{regions.maps.sums.shape[1]}. Take both from the maps that the names are of."
            )
        self._contacts, self._map_names = contacts, names
        self._ends = _rows(contacts, regions)
        self._inside = _moments(regions.maps)
        self._shapes = Shapes.of(contacts, regions, self._ends, anisotropy)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(self._columns(slice(0, 0)))

    def of(self, rows: slice) -> Float32[np.ndarray, "n f"]:
        """A row for each of these edges."""
        described = np.empty((len(self._contacts.u[rows]), len(self.names)), np.float32)
        first, stop, _ = rows.indices(len(self._contacts.u))
        for start in range(first, stop, EDGES_AT_ONCE):
            part = slice(start, min(start + EDGES_AT_ONCE, stop))
            for number, values in enumerate(self._columns(part).values()):
                described[start - first : part.stop - first, number] = values
        return described

    def _columns(self, rows: slice) -> Columns:
        ends, on_contact, inside = self._ends[:, rows], _moments(self._contacts.maps.taken(rows)), self._inside
        columns: Columns = {}
        for index, name in enumerate(self._map_names):
            for what, values in on_contact.items():
                columns[f"{name}: {what}"] = values[:, index]
            means = inside["mean"][ends, index]
            columns[f"{name}: above superpixels"] = on_contact["mean"][:, index] - means.mean(axis=0)
            for what in ("mean", "deviation", "median"):
                columns |= _of_both(f"{name} of superpixels: {what}", inside[what][ends, index])
        return columns | self._shapes.columns(self._contacts.axis_faces[rows], ends)


# ---------------------------------------------------------------------------------------------------------- values


def _moments(maps: Tallies) -> dict[str, Float64[np.ndarray, "n c"]]:
    counts = maps.histogram.sum(axis=2, dtype=np.int64)
    mean = maps.sums / counts
    deviation = np.sqrt(np.maximum(maps.squares / counts - mean**2, 0))
    quantiles = {
        "median" if level == 0.5 else f"quantile {level:g}": _quantile(maps, level) for level in CONTACT_QUANTILES
    }
    extremes = {"minimum": maps.minimum.astype(np.float64), "maximum": maps.maximum.astype(np.float64)}
    return {"mean": mean, "deviation": deviation, **extremes, **quantiles}


def _quantile(maps: Tallies, level: float) -> Float64[np.ndarray, "n c"]:
    """Within the bin where so large a share of the pixels is reached, values taken as evenly spread; no further than
    the extremes."""
    reached = np.cumsum(maps.histogram, axis=2, dtype=np.int64)
    wanted = level * reached[..., -1]
    place = (reached < wanted[..., None]).sum(axis=2)[..., None]
    upper = np.take_along_axis(reached, place, axis=2)[..., 0]
    inside = np.take_along_axis(maps.histogram, place, axis=2)[..., 0]
    share = (wanted - (upper - inside)) / inside
    return np.clip((place[..., 0] + share) * (256 / BINS) - 0.5, maps.minimum, maps.maximum)


# ---------------------------------------------------------------------------------------------------------- shapes


@dataclass(frozen=True, slots=True)
class Shapes:
    """What is known of each superpixel's shape, and how lengths are measured."""

    spacing: Float64[np.ndarray, " d"]
    surface: Float64[np.ndarray, " m"]
    """As far as it touches others."""
    neighbours: Float64[np.ndarray, " m"]
    size: Float64[np.ndarray, " m"]
    elongation: Float64[np.ndarray, " m"]
    centre: Float64[np.ndarray, "m d"]

    @classmethod
    def of(cls, contacts: Contacts, regions: Regions, ends: Int64[np.ndarray, "2 n"], anisotropy: float) -> Shapes:
        dimensions = contacts.axis_faces.shape[1]
        spacing = np.ones(dimensions)
        if dimensions == 3:
            spacing[0] = anisotropy
        area = contacts.axis_faces @ (np.prod(spacing) / spacing)
        surface = np.bincount(ends.ravel(), np.tile(area, 2), minlength=len(regions.label)).astype(np.float64)
        neighbours = np.bincount(ends.ravel(), minlength=len(regions.label)).astype(np.float64)
        size = regions.voxels * np.prod(spacing)
        return cls(spacing, surface, neighbours, size, *_elongation_and_centre(regions, spacing))

    def columns(self, axis_faces: Int64[np.ndarray, "n d"], ends: Int64[np.ndarray, "2 n"]) -> Columns:
        """Of some edges."""
        dimensions = len(self.spacing)
        area = axis_faces @ (np.prod(self.spacing) / self.spacing)
        side = self.size ** (1 / dimensions)
        distance = np.sqrt(((self.centre[ends[0]] - self.centre[ends[1]]) ** 2).sum(axis=1))
        faces_of = axis_faces / axis_faces.sum(axis=1)[:, None]
        return {
            "contact: area": area,
            **({"contact: share across planes": faces_of[:, 0]} if dimensions == 3 else {}),
            **_of_both("contact over surface", area / self.surface[ends]),
            **_of_both("contact over section", area / side[ends] ** (dimensions - 1)),
            **_of_both("size", self.size[ends]),
            **_of_both("elongation", self.elongation[ends]),
            **_of_both("compactness", self.surface[ends] / side[ends] ** (dimensions - 1)),
            **_of_both("neighbours", self.neighbours[ends]),
            "centroids: distance": distance,
            "centroids: distance over sides": distance / side[ends].sum(axis=0),
        }


def _elongation_and_centre(
    regions: Regions, spacing: Float64[np.ndarray, " d"]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n d"]]:
    """Ratio of the longest to the shortest axis, and the centroid."""
    count = regions.voxels[:, None]
    # Moments about a pixel near the centroid are small, and exact even where those about the image's origin overflow:
    # whole numbers wrap around, and back.
    near = (regions.coordinates + count // 2) // count
    shifted = regions.coordinates - count * near
    cross = near[:, :, None] * regions.coordinates[:, None, :]
    central = regions.products - cross - cross.transpose(0, 2, 1) + count[..., None] * near[:, :, None] * near[:, None]
    mean = shifted / count
    covariance = central / count[..., None] - mean[:, :, None] * mean[:, None]
    covariance += np.eye(len(spacing)) / 12  # pixels are squares, not points
    spread = np.linalg.eigvalsh(covariance * spacing[:, None] * spacing)
    return np.sqrt(spread[:, -1] / spread[:, 0]), (near + mean) * spacing


# ----------------------------------------------------------------------------------------------------------- edges


def _rows(contacts: Contacts, regions: Regions) -> Int64[np.ndarray, "2 n"]:
    """For both superpixels of each edge, which of the regions they are."""
    asked = np.stack([contacts.u, contacts.v])
    rows = np.searchsorted(regions.label, asked)
    missing = rows == len(regions.label)
    missing[~missing] = regions.label[rows[~missing]] != asked[~missing]
    if missing.any():
        raise DataError(
            f"{np.count_nonzero(missing.any(axis=0))} edges have a superpixel (such as {asked[missing][0]}) of which "
            "nothing is known; take contacts and regions from the same labels."
        )
    return rows.astype(np.int64)


def _of_both(name: str, values: Float64[np.ndarray, "2 n"]) -> Columns:
    """What does not change when the two superpixels are told in the other order."""
    low, high = values.min(axis=0), values.max(axis=0)
    return {
        f"{name}, difference": high - low,
        f"{name}, minimum": low,
        f"{name}, maximum": high,
        f"{name}, sum": low + high,
    }
