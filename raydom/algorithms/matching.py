"""Baselines that move only intensities: each output pixel depends on its own input pixel and on global statistics.

All work on fractions of the legal range, channels second. ``content`` may be any block of an image; the statistics are
those of the whole content image and the whole style image, so a block comes out as it would within its image.
Results are not clipped to the legal range, except by ``reinhard`` (a colour outside the sRGB gamut has no RGB value).
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raydom.errors import ConfigError
from raydom.images.colour import gray_to_lightness, lab_to_srgb, lightness_to_gray, srgb_to_lab
from raydom.types import PERCENTILE_LEVELS, ImageStatistics


def meanstd(
    content: Float[Tensor, "n c h w"], content_statistics: ImageStatistics, style_statistics: ImageStatistics
) -> Float[Tensor, "n c h w"]:
    """Shift and stretch each channel to the style's mean and standard deviation.

    A constant content channel becomes the style's mean.
    """
    check_channels(content, content_statistics, style_statistics)
    gain, offset = _affine(content_statistics.mean, content_statistics.std, style_statistics.mean, style_statistics.std)
    return (content.double() * _column(gain, content) + _column(offset, content)).to(content.dtype)


def histogram(
    content: Float[Tensor, "n c h w"], content_statistics: ImageStatistics, style_statistics: ImageStatistics
) -> Float[Tensor, "n c h w"]:
    """Map each channel's quantiles onto the style's, linearly between the kept percentiles; monotone.

    Where several percentiles of the content are one intensity (a flat background), that intensity becomes the style's
    percentile at the middle of their range. A constant content channel becomes the style's mean. Intensities outside
    the content's extremes take the value of the nearest extreme.
    """
    check_channels(content, content_statistics, style_statistics)
    planes = [
        _map_through(content[:, channel].contiguous(), *_quantile_map(channel, content_statistics, style_statistics))
        for channel in range(content.shape[1])
    ]
    return torch.stack(planes, dim=1)


def reinhard(
    content: Float[Tensor, "n c h w"], content_statistics: ImageStatistics, style_statistics: ImageStatistics
) -> Float[Tensor, "n c h w"]:
    """``meanstd`` in CIE Lab, where lightness and colour are nearly independent, for images taken as sRGB.

    Three channels are matched in L, a and b; one channel is matched in L, whose statistics follow from the kept
    percentiles.

    Raises:
        ConfigError: For any other number of channels.

    Source: Reinhard et al. 2001, "Color transfer between images". They use the log space l-alpha-beta; CIE Lab is its
    usual stand-in and is defined at black.
    """
    check_channels(content, content_statistics, style_statistics)
    channels = content.shape[1]
    if channels not in (1, 3):
        raise ConfigError(
            f"reinhard needs images of 1 or 3 channels (gray or RGB); got {channels}. Use meanstd or histogram instead."
        )
    content_mean, content_std = _lab_moments(content_statistics)
    style_mean, style_std = _lab_moments(style_statistics)
    gain, offset = _affine(content_mean, content_std, style_mean, style_std)
    # In double precision, so that the rounding of powers never shows in the result, whatever the block's shape.
    planes = [plane.double().contiguous() for plane in content.unbind(1)]
    lab = (gray_to_lightness(planes[0]),) if channels == 1 else srgb_to_lab(*planes)
    matched = [plane * a + b for plane, a, b in zip(lab, gain, offset, strict=True)]
    rgb = (lightness_to_gray(matched[0]),) if channels == 1 else lab_to_srgb(*matched)
    return torch.stack(rgb, dim=1).to(content.dtype)


def check_channels(
    content: Float[Tensor, "n c h w"], content_statistics: ImageStatistics, style_statistics: ImageStatistics
) -> None:
    """Refuse a content and a style whose channels cannot be paired.

    Raises:
        ConfigError: If the content, its statistics and the style's do not have one number of channels.
    """
    channels, style_channels = content.shape[1], len(style_statistics.mean)
    if len(content_statistics.mean) != channels:
        raise ConfigError(
            f"the content has {channels} channels and its statistics have {len(content_statistics.mean)}; "
            "give the statistics of the same image."
        )
    if style_channels != channels:
        raise ConfigError(
            f"the content has {channels} channels and the style image {style_channels}; give a style image with "
            f"{channels} channels, or convert one of them first (gray to RGB, or RGB to gray)."
        )


def _affine(
    content_mean: tuple[float, ...],
    content_std: tuple[float, ...],
    style_mean: tuple[float, ...],
    style_std: tuple[float, ...],
) -> tuple[list[float], list[float]]:
    """Gain and offset per channel; a constant channel has gain 0 and so becomes the style's mean."""
    gain = [target / own if own > 0 else 0.0 for own, target in zip(content_std, style_std, strict=True)]
    offset = [target - g * own for own, target, g in zip(content_mean, style_mean, gain, strict=True)]
    return gain, offset


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device).reshape(1, -1, 1, 1)


def _quantile_map(channel: int, content: ImageStatistics, style: ImageStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Distinct content intensities, rising, and what each becomes."""
    knots, run = np.unique(np.asarray(content.percentiles[channel], np.float64), return_inverse=True)
    if len(knots) == 1:
        return knots, np.array([style.mean[channel]])
    middle_level = np.bincount(run, weights=PERCENTILE_LEVELS) / np.bincount(run)
    return knots, np.interp(middle_level, PERCENTILE_LEVELS, style.percentiles[channel])


def _map_through(plane: Tensor, knots: np.ndarray, values: np.ndarray) -> Tensor:
    """``numpy.interp`` on the tensor's device."""
    x_knots, y_knots = (torch.from_numpy(a).to(plane.device) for a in (knots, values))
    if len(knots) == 1:
        return torch.full_like(plane, float(values[0]))
    x = plane.double().clamp(float(knots[0]), float(knots[-1]))
    right = torch.searchsorted(x_knots, x, right=True).clamp(1, len(knots) - 1)
    x0, x1, y0, y1 = x_knots[right - 1], x_knots[right], y_knots[right - 1], y_knots[right]
    return (y0 + (x - x0) * ((y1 - y0) / (x1 - x0))).to(plane.dtype)


def _lab_moments(statistics: ImageStatistics) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of L, a, b; of L alone for a gray image, by integrating over its quantiles."""
    if len(statistics.mean) == 1:
        lightness = gray_to_lightness(np.asarray(statistics.percentiles[0], np.float64))
        share = np.full(len(lightness), 1.0)
        share[[0, -1]] = 0.5  # trapezoid rule over the levels
        mean = np.average(lightness, weights=share)
        return (float(mean),), (float(np.sqrt(np.average((lightness - mean) ** 2, weights=share))),)
    if statistics.lab_mean is None or statistics.lab_std is None:
        raise ConfigError("reinhard needs the Lab statistics of both images; compute them with image_statistics.")
    return statistics.lab_mean, statistics.lab_std
