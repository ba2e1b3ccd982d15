"""What a training shows of itself while it goes on: a grid of pictures every so many steps."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from raydom.algorithms.adaptation import class_probabilities, finest
from raydom.algorithms.cyclegan import as_generators_see, as_images
from raydom.algorithms.phases import Batch
from raydom.algorithms.trained import DIRECTIONS
from raydom.networks.disentangled import Translator

GAP_PX = 2
SHOWN = 4
"""Crops in a grid."""


def picture(rows: Sequence[Sequence[Float[Tensor, "c h w"]]]) -> bytes:
    """Images of one size in rows and columns, as PNG: intensities from 0 to 1; three channels are RGB, of others the
    first is shown."""
    height, width = rows[0][0].shape[1:]
    sides = (len(rows) * (height + GAP_PX) - GAP_PX, len(rows[0]) * (width + GAP_PX) - GAP_PX)
    canvas = np.full((*sides, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            shown = image if len(image) == 3 else image[:1].expand(3, -1, -1)
            pixels = (shown.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            top, left = y * (height + GAP_PX), x * (width + GAP_PX)
            canvas[top : top + height, left : left + width] = pixels
    sink = io.BytesIO()
    Image.fromarray(canvas).save(sink, "PNG")
    return sink.getvalue()


def evaluated(modules: Sequence[nn.Module], draw: Callable[[], bytes]) -> bytes:
    """What is drawn with modules in evaluation mode and without gradients; their modes are given back."""
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        with torch.no_grad():
            return draw()
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)


def segmented(network: nn.Module, batches: Sequence[Batch], device: torch.device, output: str = "classes") -> bytes:
    """For each batch a row of images, and below it one of the probability that each pixel is no background.

    Args:
        network: Maps images to logits.
        batches: The images.
        device: Of the network.
        output: What it tells of each pixel, see ``NetworkConfig``.
    """

    def draw() -> bytes:
        rows = []
        for batch in batches:
            images = batch.images[:SHOWN].to(device)
            logits = finest(network(images))
            # Of outputs boundary and distance the first logit is that of an object.
            foreground = 1 - class_probabilities(logits)[:, :1] if output == "classes" else logits[:, :1].sigmoid()
            rows += [list(images), list(foreground)]
        return picture(rows)

    return evaluated([network], draw)


def translated(networks: nn.Module, batches: Sequence[Batch], device: torch.device) -> bytes:
    """For each domain a row of images, and below it rows of what the networks make of them: by CycleGAN the other
    domain, and the way back; by DRIT each of the domains, with its mean attribute."""

    def draw() -> bytes:
        rows = []
        for number, batch in enumerate(batches):
            images = as_generators_see(batch.images[:SHOWN].to(device))
            rows += [images, *_translations(networks, images, number)]
        return picture([list(as_images(row)) for row in rows])

    return evaluated([networks], draw)


def _translations(networks: nn.Module, images: Tensor, number: int) -> list[Tensor]:
    if not isinstance(networks, Translator):
        there, back = (networks[direction] for direction in DIRECTIONS[:: 1 if number == 0 else -1])  # type: ignore[index]
        return [made := there(images), back(made)]
    source, normal = torch.full_like(images[:, 0, 0, 0], number, dtype=torch.int64), networks.config.attribute_size
    made = []
    for domain in range(networks.config.num_domains):
        domains = torch.full_like(source, domain)
        attributes = networks.sample(torch.zeros(len(images), normal, device=images.device), domains)
        made.append(networks(images, source, domains, attributes))
    return made
