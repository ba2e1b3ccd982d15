"""What a classifier is told of an edge: numbers about the contact and about both superpixels, whichever is first.

All follow from integers that do not hang on how the image was cut, by the same operations in the same order.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int64

from raydom.errors import DataError
from raydom.neurons.contacts import Contacts
from raydom.neurons.regions import Regions
from raydom.neurons.tallies import BINS, Tallies

CONTACT_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)

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
    num_maps = {len(names), contacts.maps.sums.shape[1], regions.maps.sums.shape[1]}
    if len(num_maps) != 1:
        raise DataError(
            f"{len(names)} maps are named; contacts have {contacts.maps.sums.shape[1]} and superpixels "
            f"{regions.maps.sums.shape[1]}. Take both from the maps that the names are of."
        )
    ends = _rows(contacts, regions)
    on_contact, inside = _moments(contacts.maps), _moments(regions.maps)
    columns: Columns = {}
    for index, name in enumerate(names):
        for what, values in on_contact.items():
            columns[f"{name}: {what}"] = values[:, index]
        columns[f"{name}: above superpixels"] = on_contact["mean"][:, index] - inside["mean"][ends, index].mean(axis=0)
        for what in ("mean", "deviation", "median"):
            columns |= _of_both(f"{name} of superpixels: {what}", inside[what][ends, index])
    columns |= _shapes(contacts, regions, ends, anisotropy)
    return np.stack(list(columns.values()), axis=1).astype(np.float32), tuple(columns)


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


def _shapes(contacts: Contacts, regions: Regions, ends: Int64[np.ndarray, "2 n"], anisotropy: float) -> Columns:
    dimensions = contacts.axis_faces.shape[1]
    spacing = np.ones(dimensions)
    if dimensions == 3:
        spacing[0] = anisotropy
    area = contacts.axis_faces @ (np.prod(spacing) / spacing)
    surface = np.bincount(ends.ravel(), np.tile(area, 2), minlength=len(regions.label))
    neighbours = np.bincount(ends.ravel(), minlength=len(regions.label)).astype(np.float64)
    size = regions.voxels * np.prod(spacing)
    side = size ** (1 / dimensions)
    elongation, centre = _elongation_and_centre(regions, spacing)
    distance = np.sqrt(((centre[ends[0]] - centre[ends[1]]) ** 2).sum(axis=1))
    faces_of = contacts.axis_faces / contacts.faces[:, None]
    return {
        "contact: area": area,
        **({"contact: share across planes": faces_of[:, 0]} if dimensions == 3 else {}),
        **_of_both("contact over surface", area / surface[ends]),
        **_of_both("contact over section", area / side[ends] ** (dimensions - 1)),
        **_of_both("size", size[ends]),
        **_of_both("elongation", elongation[ends]),
        **_of_both("compactness", surface[ends] / side[ends] ** (dimensions - 1)),
        **_of_both("neighbours", neighbours[ends]),
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
