"""Domains of images that nobody named: clusters of their colours.

Source: Liu et al. 2022, "Multi-modality microscopy image style transfer for nuclei segmentation", section 2.2: K-means
with six clusters on hue, saturation and value. It does not say how an image becomes a few numbers: see
``hsv_features``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int
from skimage.color import rgb2hsv

from raydom.errors import DataError

LEAST_SPREAD = 0.01
"""A feature that deviates less than this over all images is not stretched to the deviation of the others: where all
images are nearly gray, the noise of their hues would make the clusters."""
RESTARTS = 50
"""Starts of K-means, of which the best is taken: so many that few images depend on the seed."""


class MeanColour(NamedTuple):
    """The mean colour of images."""

    hue_degrees: float | None
    """0 red, 120 green, 240 blue; None where there is none to speak of."""
    saturation: float
    value: float


def hsv_features(image: Float32[np.ndarray, "c h w"]) -> Float[np.ndarray, "4"]:
    """The mean colour of an image: the two parts of its mean hue, the mean saturation, and the mean value.

    Hue is an angle, so that its mean is that of the points on the circle (red is no further from violet than from
    orange); each pixel weighs as much as it is saturated, since the hue of a gray one is noise.

    - One channel is gray: hue parts and saturation are 0, the value is the intensity.
    - Two channels are red and green; of four and more, the first three are red, green and blue.

    Args:
        image: Intensities from 0 to 1; others are clipped.
    """
    hue, saturation, value = np.moveaxis(rgb2hsv(as_rgb(image).transpose(1, 2, 0)), -1, 0)
    angle = 2 * np.pi * hue
    parts = (saturation * np.cos(angle), saturation * np.sin(angle), saturation, value)
    return np.array([part.mean(dtype=np.float64) for part in parts])


def as_rgb(image: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "3 h w"]:
    """Channels as red, green and blue, see ``hsv_features``; clipped to 0..1."""
    if len(image) == 1:
        image = np.repeat(image, 3, axis=0)
    elif len(image) == 2:
        image = np.concatenate([image, np.zeros_like(image[:1])])
    return image[:3].clip(0.0, 1.0)


def mean_colour(features: Float[np.ndarray, "images 4"]) -> MeanColour:
    """The mean colour of images whose ``hsv_features`` these are."""
    x, y, saturation, value = features.mean(axis=0).tolist()
    hue = float(np.degrees(np.arctan2(y, x)) % 360) if np.hypot(x, y) >= LEAST_SPREAD else None
    return MeanColour(hue, saturation, value)


def standardised(features: Float[np.ndarray, "images n"]) -> Float[np.ndarray, "images n"]:
    """Features with mean 0 and deviation 1, or less where they hardly differ."""
    spread = np.maximum(features.std(axis=0), LEAST_SPREAD)
    return (features - features.mean(axis=0)) / spread


def cluster_images(
    features: Float[np.ndarray, "images 4"], num_clusters: int, seed: int = 0
) -> Int[np.ndarray, " images"]:
    """The cluster of each image by K-means on standardised ``hsv_features``.

    Returns:
        0 to ``num_clusters - 1``, the largest cluster first; of equally large ones the darker, then the less saturated.

    Raises:
        DataError: If there are fewer different images than clusters.
    """
    from sklearn.cluster import KMeans  # here: it takes a second to load

    points = standardised(features)
    num_different = len(np.unique(points, axis=0))
    if num_different < num_clusters:
        raise DataError(
            f"{len(features)} images of {num_different} different mean colours cannot make {num_clusters} clusters. "
            f"Choose --clusters {num_different} or fewer."
        )
    found = KMeans(num_clusters, n_init=RESTARTS, random_state=seed).fit_predict(points)

    def rank(cluster: int) -> tuple[float, ...]:
        members = features[found == cluster]
        return (-len(members), *members.mean(axis=0)[::-1].tolist())

    order = sorted(range(num_clusters), key=rank)
    place = np.empty(num_clusters, np.int64)
    place[order] = np.arange(num_clusters)
    return place[found]


def principal_components(
    features: Float[np.ndarray, "images n"],
) -> tuple[Float[np.ndarray, "images 2"], Float[np.ndarray, "2"]]:
    """Standardised features in the plane in which they differ most, and the share of their variance along each axis."""
    points = standardised(features)
    _, spreads, axes = np.linalg.svd(points, full_matrices=False)
    # An axis may point either way: its largest part is positive.
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    plane, shares = np.zeros((len(points), 2)), np.zeros(2)
    number = min(2, len(axes))
    plane[:, :number] = points @ axes[:number].T
    shares[:number] = (spreads**2 / max(float(np.sum(spreads**2)), np.finfo(float).tiny))[:number]
    return plane, shares


def examples(
    points: Float[np.ndarray, "images 2"], clusters: Int[np.ndarray, " images"], number: int
) -> tuple[tuple[int, ...], ...]:
    """For each cluster, images that show it: the one next to its middle, then those furthest from all before."""
    chosen = []
    for cluster in range(int(clusters.max()) + 1):
        members = np.flatnonzero(clusters == cluster)
        inside = points[members]
        shown = [int(np.linalg.norm(inside - inside.mean(axis=0), axis=1).argmin())]
        while len(shown) < min(number, len(members)):
            distance = np.linalg.norm(inside[:, None] - inside[shown][None], axis=2).min(axis=1)
            distance[shown] = -1.0
            shown.append(int(distance.argmax()))
        chosen.append(tuple(members[shown].tolist()))
    return tuple(chosen)
