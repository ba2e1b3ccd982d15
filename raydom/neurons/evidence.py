"""Where membranes may be: dark ridges of an image, and the maps whose statistics describe the borders of superpixels.

What is told of a pixel depends on the pixels within ``context_px`` of it and on nothing else, to the last bit: filters
have a fixed extent and add up in float64 in one order (those of scipy.ndimage; vectorised ones may round otherwise in
the last columns of an array), and nothing is normalised by what the tile holds. Maps are then rounded to uint8 over
ranges that are fixed too, so that their statistics are integers, and blocks of an image may be cut anywhere.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, UInt8
from scipy.ndimage import gaussian_filter1d

from raydom.config.neurons import EvidenceConfig
from raydom.errors import DataError

TRUNCATE = 4.0
"""Extent of the Gaussians, in standard deviations."""
GRADIENT_RANGE = 0.4
"""Gradient magnitude, times sigma, that becomes 255: a step from 0 to 1 has 1 / sqrt(2 pi)."""
RIDGE_RANGE = 0.25
"""Curvature across a ridge, times the square of sigma, that becomes 255 where dark, and 0 where bright."""

Array = np.ndarray


def context_px(config: EvidenceConfig) -> int:
    """How far the evidence of a pixel looks, px: that of a tile with so much around it is that of the whole image."""
    return max(_radius(sigma) for sigma in (*config.frangi_sigmas_px, *config.gradient_sigmas_px))


def frangi_boundary(raw: Float32[np.ndarray, "... h w"], config: EvidenceConfig) -> Float32[np.ndarray, "... h w"]:
    """How much each pixel looks like a dark ridge, as membranes do.

    Of an image: Frangi's measure of lines, exp(-(l1 / l2)² / (2 beta²)) (1 - exp(-S² / (2 gamma²))) where the largest
    eigenvalue by magnitude, l2, of the Hessian is positive, 0 elsewhere; S is the norm of both eigenvalues. Of a volume
    (unless ``config.planes``), where membranes are sheets: the same of the two largest, which is that of each plane
    when planes are alike. The largest over the scales counts.

    Args:
        raw: Intensities, 0 to 1 by the statistics of the whole image.
        config: Scales, beta and gamma.

    Returns:
        0 to 1 in steps of 1/255, so that it can be written as uint8 without a change.

    Raises:
        DataError: If intensities are not finite.

    Source: Frangi et al. 1998 (MICCAI, 130-137), eq. 13 and 15, with their normalised derivatives: second derivatives
    are multiplied by sigma², which scikit-image leaves out (its gamma is ours over sigma²). Their measure of tubes in
    volumes is 0 on sheets; and gamma is fixed, since half the largest norm of a tile would hang on the tile.
    """
    _check_finite(raw, "the image")
    best = np.zeros(raw.shape)
    for sigma in config.frangi_sigmas_px:
        cross, along, square = _curvatures(raw.astype(np.float64), sigma, config.planes)
        likeness = np.exp(-((along / np.maximum(cross, 1e-10)) ** 2) / (2 * config.frangi_beta**2))
        likeness *= -np.expm1(square / (-2 * config.frangi_gamma**2))
        np.maximum(best, np.where(cross > 0, likeness, 0), out=best)
    return (np.rint(255 * best) / 255).astype(np.float32)


def map_names(config: EvidenceConfig) -> tuple[str, ...]:
    """Names of the maps of ``feature_maps``, in their order."""
    return (
        "raw",
        "boundary",
        *(f"gradient_{sigma:g}px" for sigma in config.gradient_sigmas_px),
        *(f"ridge_{sigma:g}px" for sigma in config.frangi_sigmas_px),
    )


def feature_maps(
    raw: Float32[np.ndarray, "... h w"], boundary: Float32[np.ndarray, "..."], config: EvidenceConfig
) -> UInt8[np.ndarray, "c ... h w"]:
    """What describes a border: intensity, boundary evidence, gradients and ridges at several scales.

    Args:
        raw: Intensities, 0 to 1 by the statistics of the whole image; what lies beyond counts as 0 or 1.
        boundary: Boundary evidence, 0 to 1.
        config: Scales.

    Returns:
        The maps that ``map_names`` tells, 0 to 255: intensity and boundary evidence times 255; the square root of the
        gradient's magnitude (times sigma) over ``GRADIENT_RANGE``, which resolves the small ones; the largest
        eigenvalue by magnitude of the Hessian (times sigma²) from minus to plus ``RIDGE_RANGE``, 128 where flat.

    Raises:
        DataError: If the two differ in shape, or are not finite.
    """
    if raw.shape != boundary.shape:
        raise DataError(f"the image is {raw.shape} and its boundary evidence {boundary.shape}; they must be alike.")
    _check_finite(raw, "the image")
    _check_finite(boundary, "its boundary evidence")
    exact = raw.astype(np.float64)
    maps = [_as_bytes(exact), _as_bytes(boundary.astype(np.float64))]
    for sigma in config.gradient_sigmas_px:
        maps.append(_as_bytes(np.sqrt(_gradient_magnitude(exact, sigma, config.planes) / GRADIENT_RANGE)))
    for sigma in config.frangi_sigmas_px:
        ridge, *_ = _curvatures(exact, sigma, config.planes)
        maps.append(_as_bytes((ridge / RIDGE_RANGE + 1) / 2))
    return np.stack(maps)


# ----------------------------------------------------------------------------------------------------- derivatives


def _radius(sigma: float) -> int:
    return math.ceil(TRUNCATE * sigma)


def _filtered(image: Array, sigma: float, axis: int, order: int) -> Array:
    return gaussian_filter1d(image, sigma, axis=axis, order=order, mode="reflect", radius=_radius(sigma))


def _derivatives(image: Array, sigma: float, axes: tuple[int, ...], total: int) -> dict[tuple[int, ...], Array]:
    """All derivatives of one total order, by their orders along ``axes``."""
    first, *rest = axes
    if not rest:
        return {(total,): _filtered(image, sigma, first, total)}
    return {
        (order, *others): derivative
        for order in range(total + 1)
        for others, derivative in _derivatives(
            _filtered(image, sigma, first, order), sigma, tuple(rest), total - order
        ).items()
    }


def _axes(image: Array, planes: bool) -> tuple[int, ...]:
    return tuple(range(image.ndim))[-2 if planes else 0 :]


def _gradient_magnitude(image: Array, sigma: float, planes: bool) -> Array:
    """Times sigma."""
    parts = _derivatives(image, sigma, _axes(image, planes), 1).values()
    return np.sqrt(sum(part * part for part in parts)) * sigma


def _curvatures(image: Array, sigma: float, planes: bool) -> tuple[Array, Array, Array]:
    """Of the Hessian times sigma²: its two largest eigenvalues by magnitude, largest first, and the sum of squares."""
    axes = _axes(image, planes)
    parts = _derivatives(image, sigma, axes, 2)
    hessian = {}
    for orders, derivative in parts.items():
        i, j = np.repeat(range(len(axes)), orders).tolist()
        hessian[i, j] = derivative * sigma**2
    square = np.zeros(image.shape)
    for (i, j), entry in hessian.items():
        square += (1 if i == j else 2) * entry * entry
    if len(axes) == 2:
        half, difference = (hessian[0, 0] + hessian[1, 1]) / 2, (hessian[0, 0] - hessian[1, 1]) / 2
        root = np.copysign(np.sqrt(difference * difference + hessian[0, 1] * hessian[0, 1]), half)
        return half + root, half - root, square
    return *_two_largest(*_eigenvalues(hessian)), square


def _eigenvalues(hessian: dict[tuple[int, int], Array]) -> tuple[Array, Array, Array]:
    """Of symmetric 3 x 3 matrices, in descending order: the roots of the characteristic polynomial as three cosines."""
    a, b, c = (hessian[i, i] for i in range(3))
    d, e, f = hessian[0, 1], hessian[1, 2], hessian[0, 2]
    mean = (a + b + c) / 3
    a, b, c = a - mean, b - mean, c - mean
    scale = np.sqrt((a * a + b * b + c * c + 2 * (d * d + e * e + f * f)) / 6)
    determinant = a * (b * c - e * e) - d * (d * c - e * f) + f * (d * e - b * f)
    cosine = np.clip(determinant / np.maximum(2 * scale**3, 1e-300), -1, 1)
    angle = np.arccos(cosine) / 3
    largest = mean + 2 * scale * np.cos(angle)
    smallest = mean + 2 * scale * np.cos(angle + 2 * math.pi / 3)
    return largest, 3 * mean - largest - smallest, smallest


def _two_largest(high: Array, middle: Array, low: Array) -> tuple[Array, Array]:
    """The two of three descending numbers that are largest by magnitude, largest first."""
    upwards = np.abs(high) >= np.abs(low)
    first, last = np.where(upwards, high, low), np.where(upwards, low, high)
    return first, np.where(np.abs(middle) >= np.abs(last), middle, last)


def _as_bytes(values: Array) -> UInt8[np.ndarray, "..."]:
    """0 to 1 as 0 to 255, and what lies beyond as the nearer of both."""
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


def _check_finite(values: Array, name: str) -> None:
    if not np.isfinite(values).all():
        raise DataError(
            f"{name} has {np.count_nonzero(~np.isfinite(values))} pixels that are not finite; replace them by numbers."
        )
