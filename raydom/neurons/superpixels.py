"""Over-segmentation: each superpixel should lie in one neuron, whatever else its borders are.

A seeded watershed on the distance to membranes: seeds are the points far from any, so that gaps in a membrane, which
are narrower than what it surrounds, become borders too.
"""

from __future__ import annotations

import bioimage_cpp as bic
import numpy as np
from jaxtyping import Float32, Float64, Int32
from scipy.ndimage import gaussian_filter
from skimage.morphology import local_maxima

from raydom.config.neurons import SuperpixelConfig
from raydom.errors import DataError

DISTANCE_STEPS = 32
"""Of a pixel: smoothed distances are rounded to so many steps, so that flat ground is flat to the last bit."""
HEIGHT_STEPS = 4096
"""Heights are rounded to so many steps: the watershed tells apart 65,536 between the lowest and highest of a tile."""


def superpixels(boundary: Float32[np.ndarray, "... h w"], config: SuperpixelConfig) -> Int32[np.ndarray, "... h w"]:
    """Superpixels of a tile, by a watershed from the local maxima of the distance to membranes.

    The distance counts up to ``config.halo_px`` and no further, so it is told by what lies so far around a pixel.
    Equally high pixels that touch, even by a corner, are one seed. The flood goes over ``boundary_share`` times the
    boundary plus the rest of 1 times 1 minus the distance (over ``halo_px``), which is negative within membranes: where
    evidence is as high as can be, floods meet in their middle. Where no pixel is membrane, or all are, there is one
    seed, and one superpixel.

    Args:
        boundary: Boundary evidence, 0 to 1: of an image, or of a volume with its planes first.
        config: Threshold, smoothing, smallest size; planes and anisotropy of a volume.

    Returns:
        A number for each pixel, from 1 to the number of superpixels, in the order of their first pixels. Each is one
        piece, by the 4 or 6 nearest neighbours, and has at least ``min_size_px`` pixels unless it is the only one (of
        its plane).

    Raises:
        DataError: If the boundary evidence is empty or not finite.

    Source: the distance transform watershed of Beier et al. 2017 (Nature Methods 14:101), whose distances and heights
    are scaled by the tile's maximum, which ours must not hang on.
    """
    if not boundary.size or not np.isfinite(boundary).all():
        raise DataError(
            f"boundary evidence of shape {boundary.shape} is empty, or not finite in some pixels; "
            "give every pixel a number from 0 to 1."
        )
    if boundary.ndim == 3 and config.planes:
        planes = [_flooded(plane, config) for plane in boundary]
        starts = np.cumsum([0, *(plane.max() for plane in planes[:-1])])
        return np.stack([plane + start for plane, start in zip(planes, starts, strict=True)]).astype(np.int32)
    return _flooded(boundary, config)


def _flooded(boundary: Float32[np.ndarray, "..."], config: SuperpixelConfig) -> Int32[np.ndarray, "..."]:
    distance = _distance(boundary < config.threshold, config)
    height = config.boundary_share * boundary + (1 - config.boundary_share) * (1 - distance / config.halo_px)
    height = np.rint(HEIGHT_STEPS * height).astype(np.float32)
    labels = bic.segmentation.watershed(height, _seeds(distance, config))
    return _without_small(_pieces(labels), height, config.min_size_px)


def _distance(free: np.ndarray, config: SuperpixelConfig) -> Float64[np.ndarray, "..."]:
    """To the nearest membrane, at most ``halo_px``; within one, minus that to the nearest pixel that is none."""
    if free.all() or not free.any():  # the library would measure to a virtual row beyond the tile
        return np.full(free.shape, config.halo_px if free.all() else -config.halo_px, np.float64)
    spacing = (config.anisotropy,) * (free.ndim - 2) + (1.0, 1.0)
    outside, inside = (bic.distance.distance_transform(where, sampling=spacing) for where in (free, ~free))
    return np.clip(outside - inside, -config.halo_px, config.halo_px).astype(np.float64)


def _seeds(distance: Float64[np.ndarray, "..."], config: SuperpixelConfig) -> Int32[np.ndarray, "..."]:
    """A number for each local maximum of the smoothed distance, flat ones whole; one in all where there is no slope."""
    sigma = (config.sigma_px / config.anisotropy,) * (distance.ndim - 2) + (config.sigma_px,) * 2
    smooth = gaussian_filter(np.maximum(distance, 0), sigma, truncate=4.0)
    steps = np.rint(DISTANCE_STEPS * smooth).astype(np.int32)
    if steps.min() == steps.max():
        return np.ones(steps.shape, np.int32)
    # Maxima of the whole plateau: a plateau beside higher ground is none, unlike with a maximum filter.
    return bic.segmentation.label(local_maxima(steps), connectivity=steps.ndim).astype(np.int32)


def _pieces(labels: Int32[np.ndarray, "..."]) -> Int32[np.ndarray, "..."]:
    """A number for each connected piece, in the order of their first pixels."""
    return bic.segmentation.label(labels, background=-1, connectivity=1).astype(np.int32)


def _without_small(
    labels: Int32[np.ndarray, "..."], height: Float32[np.ndarray, "..."], min_size_px: int
) -> Int32[np.ndarray, "..."]:
    """Superpixels smaller than that are flooded from those around; the largest stays in any case."""
    sizes = np.bincount(labels.ravel())
    small = sizes < min(min_size_px, sizes.max())
    if not small[1:].any():
        return labels
    small[0] = True
    kept = np.where(small[labels], 0, labels).astype(np.int32)
    return _pieces(bic.segmentation.watershed(height, kept))
