"""Which images may be the style: files, or images of the source; and which of them are nearest to the target."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from raydom.algorithms.display import DisplayRange
from raydom.algorithms.style_interface import StyleInput
from raydom.algorithms.styles import feature_network
from raydom.config import DEFAULT_FEATURES, ImageFilter
from raydom.errors import ConfigError
from raydom.images.resample import grid_size
from raydom.inference.job import style_input
from raydom.storage import files
from raydom.storage.planes import open_planes

COMPARED_PX = 256
"""Images are compared at this size of their longer side."""


def candidates(asked: Sequence[str], source: str, images: ImageFilter | None = None) -> tuple[str, ...]:
    """The images that were asked for, each once, in order.

    Args:
        asked: Paths or patterns of files (``styles/*.tif``), and conditions on the source's manifest (``split=train``),
            all of which must hold; nothing: all images of the source.
        source: The source collection.
        images: Which of its images are meant; default: all.

    Raises:
        ConfigError: If a pattern or the conditions fit no image.
    """
    conditions = tuple(one for one in asked if re.search(r"[=<>]", one) and not files.exists(one))
    patterns = [one for one in asked if one not in conditions]
    found = [uri for pattern in patterns for uri in _matching(pattern)]
    if conditions or not patterns:
        meant = open_planes(source, images)
        chosen = meant.filter(keep=conditions)
        if not len(chosen):
            raise ConfigError(
                f"{source}: none of {len(meant)} images fulfils {' and '.join(conditions)}; one must, to be a style."
            )
        found += [str(image.uri) for image in chosen]
    return tuple(dict.fromkeys(found))


def nearest(styles: Sequence[str], content: StyleInput, number: int) -> tuple[str, ...]:
    """The style images that are most like the target, nearest first.

    What is compared are the deepest content features of raydom's own feature network, as a viewer would show the
    images: the mean and deviation of each channel over the positions, by the distance of a style's to the mean of the
    target's crops.

    Args:
        styles: To choose from.
        content: Crops of the target.
        number: How many.
    """
    if len(styles) <= number:
        return tuple(styles)
    target = torch.stack([_described(StyleInput(pixels, own)) for pixels, own in content.each()])
    described = torch.stack([_described(_small(style_input(uri))) for uri in styles])
    scale = described.std(dim=0).clamp(min=1e-6)
    distance = ((described - target.mean(dim=0)) / scale).square().mean(dim=1)
    return tuple(styles[int(place)] for place in distance.argsort(stable=True)[:number])


def _matching(pattern: str) -> list[str]:
    if not re.search(r"[*?\[]", pattern):
        if not files.exists(pattern) and not files.is_folder(pattern):
            raise ConfigError(f"--styles {pattern}: there is no such file, and it is no condition such as split=train.")
        return [files.absolute(pattern)]
    found = files.glob(pattern)
    if not found:
        raise ConfigError(f"--styles {pattern}: no file fits this pattern.")
    return found


def _small(image: StyleInput) -> StyleInput:
    scale = min(1.0, COMPARED_PX / max(image.pixels.shape[2:]))
    shape = tuple(grid_size(side, scale) for side in image.pixels.shape[2:])
    return replace(image, pixels=torch.nn.functional.interpolate(image.pixels, shape, mode="area"))


@torch.no_grad()
def _described(image: StyleInput) -> Tensor:
    """(2 c,): mean and deviation of each channel of the features, over the positions and the network's inputs."""
    pixels, statistics = image.each()[0]
    network = feature_network(DEFAULT_FEATURES, None, "cpu")
    shown = DisplayRange.of(statistics)
    stretched = shown.stretch(pixels)
    inputs = network.as_inputs(stretched if network.sees_display_range else shown.restore(stretched))
    layer = network.default_content_layers[-1]
    features = network(inputs, [layer])[layer].mean(dim=0)
    return torch.cat([features.mean(dim=(1, 2)), features.std(dim=(1, 2))])
