"""The picture of clusters of images: each a point in the plane in which they differ most, with example images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from raydom.report.pictures import DPI
from raydom.storage.files import write_bytes_atomic

THUMBNAIL_PX = 96
"""Longer side of an example image."""


def domains_picture(
    points: Float[np.ndarray, "images 2"],
    shares: Float[np.ndarray, "2"],
    clusters: Int[np.ndarray, " images"],
    names: Sequence[str],
    shown: Mapping[int, np.ndarray],
    path: str,
) -> None:
    """Write a PNG of all images as points, coloured by cluster, and some as themselves, framed in their colour.

    Args:
        points: Each image in the plane of the first two principal components.
        shares: Of the variance, along each axis.
        clusters: Of each image, 0 to the number of names - 1.
        names: Of the clusters.
        shown: By the number of an image, its pixels, RGB (y, x, 3) uint8.
        path: Where to write: a path or any fsspec URL.
    """
    figure = Figure(figsize=(9, 7.5), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    palette = colormaps["tab10" if len(names) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    colours = [palette[cluster % len(palette)] for cluster in range(len(names))]
    for cluster, name in enumerate(names):
        members = points[clusters == cluster]
        axes.scatter(
            members[:, 0], members[:, 1], s=18, color=colours[cluster], label=f"{name} ({len(members)})", alpha=0.8
        )
    for number, place in _spread(points, sorted(shown)).items():
        step = max(1, -(-max(shown[number].shape[:2]) // THUMBNAIL_PX))
        box = AnnotationBbox(
            OffsetImage(shown[number][::step, ::step], zoom=0.5),
            tuple(points[number]),
            xybox=tuple(place),
            boxcoords="axes fraction",
            pad=0.12,
            bboxprops={"edgecolor": colours[clusters[number]], "linewidth": 2},
            arrowprops={"arrowstyle": "-", "color": colours[clusters[number]], "linewidth": 0.8},
        )
        axes.add_artist(box)
    axes.set_xlabel(f"first principal component of hue, saturation and value ({shares[0]:.0%} of the variance)")
    axes.set_ylabel(f"second principal component ({shares[1]:.0%})")
    axes.margins(0.12)
    figure.legend(loc="outside upper center", ncols=min(6, len(names)), frameon=False, fontsize=9)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    write_bytes_atomic(path, png.getvalue())


def _spread(points: Float[np.ndarray, "images 2"], numbers: Sequence[int]) -> dict[int, np.ndarray]:
    """Where pictures lie, in fractions of the axes: near their points, pushed apart where they would overlap."""
    low, high = points.min(axis=0), points.max(axis=0)
    places = 0.1 + 0.8 * (points[list(numbers)] - low) / np.where(high > low, high - low, 1.0)
    for _ in range(200):
        apart = places[:, None] - places[None]
        distance = np.linalg.norm(apart, axis=2)
        near = (distance < 0.1) & ~np.eye(len(places), dtype=bool)
        if not near.any():
            break
        # Pictures on one point part in directions of their own.
        angle = 2.4 * np.arange(len(places))
        own = np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, None]
        direction = np.where(distance[..., None] > 1e-6, apart / np.maximum(distance, 1e-6)[..., None], own)
        places += 0.02 * (direction * near[..., None]).sum(axis=1)
        places = places.clip(0.05, 0.95)
    return dict(zip(numbers, places, strict=True))
