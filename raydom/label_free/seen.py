"""What a segmenter tells of crops: all that label-free scores look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from raydom.algorithms.adaptation import class_probabilities, finest
from raydom.config import ModelSpec
from raydom.errors import ConfigError

VIEWS = ((0, False), (1, True))
"""Quarter turns of a crop, and whether it is flipped then; the first is the crop as it is."""
AT_ONCE_CPU, AT_ONCE_GPU = 1, 16
"""Crops that the network is given at a time: on a CPU more are slower."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a segmenter tells of n crops."""

    logits: Float[Tensor, "n outputs h w"]
    probabilities: Float[Tensor, "n classes h w"]
    """Of each class, the background (0) included. Of outputs that tell objects: of their pixels."""
    views: Float[Tensor, "views n classes h w"]
    """The same of the crops turned and flipped, turned back; the first is that of the crops as they are."""
    features: Float[Tensor, "n samples channels"]
    """What the network's last convolution is given, at sampled pixels."""
    sampled: Float[Tensor, "n samples classes"]
    """The probabilities there."""

    def first(self, n: int) -> Seen:
        """What it tells of the first n crops."""
        return Seen(self.logits[:n], self.probabilities[:n], self.views[:, :n], self.features[:n], self.sampled[:n])

    @property
    def foreground(self) -> Float[Tensor, "n h w"]:
        """Probability of any class but the background."""
        return 1 - self.probabilities[:, 0]


def look(
    network: nn.Module,
    spec: ModelSpec,
    fractions: Float[Tensor, "n c h w"],
    samples: Int64[Tensor, "n samples"],
    views: Sequence[tuple[int, bool]] = VIEWS,
) -> Seen:
    """Ask a network, in evaluation mode, about crops.

    Args:
        network: On the device of the crops, with outputs of ``spec``.
        spec: Says which intensities the network sees as 0 and 1, and what its outputs are.
        fractions: Of the legal range. Sides are multiples of the network's stride.
        samples: For each crop the pixels, counted row by row, at which features are taken.
        views: How crops are turned; the first is not.
    """
    last = last_convolution(network)
    inputs = (fractions - spec.low) / (spec.high - spec.low)
    at_once = AT_ONCE_CPU if inputs.device.type == "cpu" else AT_ONCE_GPU
    kept: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    was_training = network.training
    network.eval()
    logits, answers, features = [], [list[Tensor]() for _ in views], []
    try:
        with torch.inference_mode():
            for crops, places in zip(inputs.split(at_once), samples.split(at_once), strict=True):
                for view, (turns, flip) in enumerate(views):
                    told = finest(network(_turned(crops, turns, flip).to(memory_format=torch.channels_last)))
                    if view == 0:
                        logits.append(told)
                        features.append(_at(kept[-1].float(), places, told.shape[2:]))
                    answers[view].append(_turned_back(_classes(told, spec), turns, flip))
                    kept.clear()
    finally:
        hook.remove()
        network.train(was_training)
    joined = torch.stack([torch.cat(one) for one in answers])
    return Seen(
        logits=torch.cat(logits),
        probabilities=joined[0],
        views=joined,
        features=torch.cat(features),
        sampled=_at(joined[0], samples, joined.shape[3:]),
    )


def last_convolution(network: nn.Module) -> nn.Conv2d:
    """The network's last convolution: what it is given are the features that the classes are told from.

    Raises:
        ConfigError: If there is none.
    """
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise ConfigError("the network has no convolution, and so no features to compare; search with a trained model.")
    return convolutions[-1]


def sample_pixels(
    valid: Bool[Tensor, "n h w"], num_samples: int, generator: torch.Generator
) -> Int64[Tensor, "n samples"]:
    """For each crop pixels drawn among its valid ones (among all, if none is), counted row by row; with replacement."""
    weights = valid.flatten(1).float().cpu()
    weights[weights.sum(dim=1) == 0] = 1
    return torch.multinomial(weights, num_samples, replacement=True, generator=generator)


def _classes(logits: Tensor, spec: ModelSpec) -> Tensor:
    """Of outputs that tell objects the first channel is of their pixels, the other of their borders or depth."""
    return class_probabilities(logits if spec.network.output == "classes" else logits[:, :1])


def _at(maps: Float[Tensor, "n c h w"], samples: Tensor, shape: torch.Size) -> Float[Tensor, "n samples c"]:
    """Values at pixels of a grid of ``shape``, in maps that may be coarser."""
    rows, columns = samples // shape[1], samples % shape[1]
    height, width = maps.shape[2:]
    place = (rows * height // shape[0]) * width + columns * width // shape[1]
    index = place.to(maps.device)[:, None].expand(-1, maps.shape[1], -1)
    return maps.flatten(2).gather(2, index).transpose(1, 2)


def _turned(images: Tensor, turns: int, flip: bool) -> Tensor:
    turned = torch.rot90(images, turns, (-2, -1))
    return turned.flip(-1) if flip else turned


def _turned_back(images: Tensor, turns: int, flip: bool) -> Tensor:
    return torch.rot90(images.flip(-1) if flip else images, -turns, (-2, -1))
