"""``stylize`` on plain arrays."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from raydom.algorithms.large import Styler, global_pass, styled_region
from raydom.algorithms.style_interface import StyleInput
from raydom.algorithms.styles import get_method, style_config, with_features
from raydom.algorithms.translation import made_style, made_units
from raydom.config import TRAINED, StyleConfig
from raydom.errors import ConfigError, DataError
from raydom.images.content import content_score
from raydom.images.intensity import fraction_statistics, from_fraction, image_statistics, to_fraction
from raydom.images.resample import resample
from raydom.images.tiles import cut_blocks
from raydom.types import ImageStatistics, Region

logger = logging.getLogger(__name__)

PART_PX = 1024
"""Side of the parts in which an image larger than the overview is refined, px."""


def stylize(
    image: np.ndarray,
    style: np.ndarray | None,
    method: str = "nst",
    *,
    channel_axis: int | None = None,
    device: str = "cpu",
    content_regions: np.ndarray | None = None,
    style_regions: np.ndarray | None = None,
    **options: Any,
) -> np.ndarray:
    """Make an image look like a style image.

    Args:
        image: (h, w), or three axes of which one is channels. Any size; any integer, bool or floating dtype.
        style: Likewise, of any size, with as many channels. Its dtype may be another. None for methods that were
            trained (cyclegan and drit, with ``generator="RUN"``), but for drit with ``attribute="style"``.
        method: One of ``methods()``, or ``package.module:function``.
        channel_axis: Which axis of three is channels. Default: the last.
        device: Torch device to compute on.
        content_regions: With strotss, labels (h, w) of the image's pixels: each region looks like what has the same
            label in the style.
        style_regions: Labels of the style's pixels. Given together with ``content_regions``.
        options: Fields of ``raydom.config.StyleOptions``, such as ``features="squeezenet1_1"``, ``weights`` and
            ``overview_px``, and of the method's own configuration (``NstConfig`` for nst), such as ``steps``.

    Returns:
        An array of the image's shape and dtype. Intensities are those of the style, as fractions of the legal range;
        floating point images outside 0..1 take the scale of a floating point style, else their own.

    Raises:
        ConfigError: For an unknown method or option, arrays that are no images or hold NaN, channels that differ, or
            regions that do not fit.
    """
    chosen = get_method(method)
    config = with_features(style_config(method, options))
    content_cyx, axis = _channels_first(image, channel_axis, "image")
    looks, style_units = _style(style, channel_axis, config, device)
    if len(content_cyx) != looks.pixels.shape[1]:
        raise ConfigError(
            f"the image has {len(content_cyx)} channels (shape {image.shape}) and the style {looks.pixels.shape[1]}"
            f"{'' if style is None else f' (shape {style.shape})'}; give a style with as many channels, convert one of "
            "them, or set channel_axis."
        )
    if method == "none":
        return image.copy()
    content_statistics = image_statistics(content_cyx)
    content = _style_input(content_cyx, content_statistics, device)
    if content_regions is not None or style_regions is not None:
        if not chosen.takes_regions:
            raise ConfigError(f"method {method} knows no regions; use strotss, or leave out the regions.")
        labels = _regions(content_regions, content_cyx.shape[1:], "content_regions")
        style_labels = _regions(style_regions, tuple(looks.pixels.shape[2:]), "style_regions")
        strangers = set(labels.unique().tolist()) - set(style_labels.unique().tolist())
        if strangers:
            raise ConfigError(
                f"style_regions lack {sorted(strangers)}, which content_regions have; use the same labels."
            )
        content, looks = replace(content, regions=labels), replace(looks, regions=style_labels)
    styler = Styler(chosen, looks, config)
    generator = torch.Generator().manual_seed(config.seed)
    if chosen.pointwise:
        result = styler.at(1.0)(content, generator)[0].cpu().numpy()
    else:
        result = _in_parts(styler, content, generator)
    if _has_lost(content.pixels[0].cpu().numpy(), result, styler, config) and config.on_content_loss == "fallback":
        return image.copy()
    units = style_units if content_cyx.dtype.kind == "f" else None
    pixels = from_fraction(result, content_cyx.dtype, content_statistics if units is None else units)
    return pixels[0] if axis is None else np.moveaxis(pixels, 0, axis)


def _style(
    style: np.ndarray | None, channel_axis: int | None, config: StyleConfig, device: str
) -> tuple[StyleInput, ImageStatistics | None]:
    """What the method is prepared with, and the scale of its pixels if they are floating point."""
    trained = config.method in TRAINED
    if not config.takes_style(config.method) and trained:
        if style is not None:
            also = ', or attribute="style" with it' if config.method == "drit" else ""
            raise ConfigError(f"method {config.method} looks like what it was trained on: give None as style{also}.")
        return made_style(config, device), made_units(config)
    if style is None:
        raise ConfigError(f"method {config.method} needs a style image, and style is None.")
    pixels, _ = _channels_first(style, channel_axis, "style")
    statistics = image_statistics(pixels)
    looks = _style_input(pixels, statistics, device)
    if trained:
        return looks, made_units(config)
    return looks, statistics if pixels.dtype.kind == "f" else None


def _has_lost(content: np.ndarray, result: np.ndarray, styler: Styler, config: StyleConfig) -> bool:
    """Whether the result has lost its content, which is warned of.

    Raises:
        DataError: If ``on_content_loss`` says fail.
    """
    (_, style_statistics), *_ = styler.style.each()
    score = content_score(content, result, content.std(axis=(1, 2)).tolist(), style_statistics.std)
    if score >= config.content_threshold:
        return False
    told = f"{config.method} has not kept the content: its score is {score:.2f}, below {config.content_threshold:g}"
    if config.on_content_loss == "fail":
        raise DataError(f"{told}. Choose a gentler setting or another style image.")
    logger.warning("%s.", told)
    return True


def _in_parts(styler: Styler, content: StyleInput, generator: torch.Generator) -> np.ndarray:
    """The stylised image (c, h, w), as the block engine makes it."""
    pixels, (_, statistics) = content.pixels[0], content.each()[0]
    shape = tuple(pixels.shape[1:])

    def read(region: Region, at: tuple[int, ...]) -> np.ndarray:
        image = pixels.cpu().numpy()
        return resample(image, Region.whole(shape), region, shape, at)

    passed = global_pass(styler, statistics, read, shape, pixels.device, generator, content.regions)
    result = np.empty(tuple(pixels.shape), np.float32)
    for block in cut_blocks("", shape, PART_PX):
        seen = styler.context(block.write, shape)
        part = StyleInput(content.pixels[:, :, seen.slices[0], seen.slices[1]], statistics)
        result[(slice(None), *block.write.slices)] = styled_region(
            styler, passed, part, seen, block.write, shape, generator
        )
    return result


def _channels_first(image: np.ndarray, channel_axis: int | None, what: str) -> tuple[np.ndarray, int | None]:
    """The image as (c, h, w), and where its channels were; None if it had no such axis."""
    if image.ndim not in (2, 3) or image.dtype.kind not in "buif" or 0 in image.shape:
        raise ConfigError(
            f"{what} must be an array (h, w) or of three axes, one of them channels, of an integer, bool or floating "
            f"dtype, and not empty; got shape {image.shape}, dtype {image.dtype}."
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ConfigError(
            f"{what} holds NaN or infinity in {int((~np.isfinite(image)).sum())} values; replace them first."
        )
    if image.ndim == 2:
        return image[None], None
    axis = -1 if channel_axis is None else channel_axis
    if not -3 <= axis < 3:
        raise ConfigError(f"channel_axis must be between -3 and 2; got {axis} for an {what} of shape {image.shape}.")
    return np.moveaxis(image, axis, 0), axis


def _regions(labels: np.ndarray | None, shape: tuple[int, ...], what: str) -> torch.Tensor:
    if labels is None or labels.dtype.kind not in "bui" or labels.shape != shape:
        got = "none" if labels is None else f"shape {labels.shape}, dtype {labels.dtype}"
        raise ConfigError(f"{what} must be integer labels of shape {shape}; got {got}. Give regions of both images.")
    return torch.from_numpy(labels.astype(np.int64))


def _style_input(pixels: np.ndarray, statistics: ImageStatistics, device: str) -> StyleInput:
    fractions = torch.from_numpy(np.ascontiguousarray(to_fraction(pixels, statistics))).to(device)
    return StyleInput(fractions[None], fraction_statistics(statistics, pixels.dtype))
