"""Deep Image Analogy: the content rebuilt from pieces of the style image that play the same part in it.

A is the content and B' the style image; A' (the result) and B are what the two would be in each other's place. From
the deepest layer of a feature network to the shallowest, the features of A' and B that are not known are rebuilt from
the layer below (the pieces found there, put in place, and the features sought that lead to them), and each position of
A is matched with one of B' by both pairs of features, (A, B) and (A', B'). The last matches lay out the style's pixels.

The method is meant to replace the content's pixels; how well their geometry survives is to be measured, not assumed.
All is done at the images' own sizes, which may differ: positions of layers are related by where they lie in the image,
so nothing is cropped or padded.

Source: Liao et al. 2017, "Visual Attribute Transfer through Deep Image Analogy" (arXiv:1705.01088), with the constants
of their published code (msracver/Deep-Image-Analogy). Where the two differ this is the paper: features are rebuilt one
layer at a time (the code: two at a time) and weighted by a sigmoid of their magnitude (the code: by a threshold).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from raydom.algorithms.patchmatch import describe, identity_field, improved, upscaled, vote
from raydom.algorithms.smoothing import weighted_least_squares
from raydom.config import AnalogyConfig
from raydom.networks.features import FeatureNetwork, Grid


@dataclass(frozen=True, slots=True)
class Level:
    """How a layer is matched."""

    patch_size: int
    search_radius: int
    """Of the random search; in the deepest layer it is the whole layer."""
    content_weights: tuple[float, float, float]
    """How much of an image's own features is kept where they are strong, for weight levels 1, 2 and 3."""


LEVELS = (
    Level(5, 4, (0.0, 0.1, 0.2)),
    Level(5, 4, (0.5, 0.6, 0.7)),
    Level(3, 6, (0.6, 0.7, 0.8)),
    Level(3, 6, (0.7, 0.8, 0.9)),
)
"""From the shallowest layer on; deeper ones are like the last. The deepest of all keeps its own features only."""
PIXEL_PATCH_SIZE = 3
_ITERATIONS_BETWEEN_CHECKS = 10
SMALLEST_SIDE = 3
"""Positions along each side that a layer must have to be used by default."""
_PIXELS = Grid(0.0, 1)
_GRAY = (0.299, 0.587, 0.114)


# ---------------------------------------------------------------------------------------------------------- layers


def analogy_layers(network: FeatureNetwork, layers: Sequence[str], shape: Sequence[int]) -> tuple[str, ...]:
    """The layers to match in, shallow to deep.

    Without a choice, the first layer of each resolution (in VGG the paper's relu1_1 to relu5_1), as far down as an
    image of this shape has three positions along each side.

    Raises:
        ConfigError: For unknown layers, or an image too small for those chosen, or for the shallowest one.
    """
    if layers:
        network.check(layers, shape)
        return tuple(layer for layer in network.layers if layer in layers)
    first = {network.grid(layer).stride_px: layer for layer in reversed(network.layers)}
    shallow_to_deep = [layer for layer in network.layers if layer in first.values()]
    network.check(shallow_to_deep[:1], shape)
    return (shallow_to_deep[0], *(layer for layer in shallow_to_deep[1:] if _is_large_enough(network, layer, shape)))


def _is_large_enough(network: FeatureNetwork, layer: str, shape: Sequence[int]) -> bool:
    needed = network.min_size_px([layer]) + (SMALLEST_SIDE - 1) * network.grid(layer).stride_px
    return min(shape) >= needed


# -------------------------------------------------------------------------------------------------------- transfer


@dataclass(frozen=True, eq=False)
class StyleFeatures:
    """What is kept of a style image: computed once, used for every image that is to look like it."""

    network: FeatureNetwork
    view: Callable[[Tensor], Tensor]
    """Stretched images as the feature network takes them."""
    shown: Float[Tensor, "1 c h w"]
    """The style image, stretched."""
    features: dict[str, Float[Tensor, "m _ _ _"]]
    """By layer, shallow to deep, of each network input that the image makes: one, or one a channel."""


def style_features(
    style: Float[Tensor, "1 c h w"],
    network: FeatureNetwork,
    config: AnalogyConfig,
    view: Callable[[Tensor], Tensor] = lambda shown: shown,
) -> StyleFeatures:
    """The style image's features.

    Args:
        style: The style image, stretched.
        network: On the style's device.
        config: Layers; empty stands for ``analogy_layers``'s choice.
        view: What makes of stretched images what ``network.as_inputs`` takes.

    Raises:
        ConfigError: For layers that the network does not have, or a style image too small for them.
    """
    layers = analogy_layers(network, config.layers, style.shape[2:])
    return StyleFeatures(network, view, style, _features(style, network, view, layers))


def _features(
    image: Tensor, network: FeatureNetwork, view: Callable[[Tensor], Tensor], layers: Sequence[str]
) -> dict[str, Tensor]:
    with torch.no_grad():
        return network(network.as_inputs(view(image)), layers)


def transfer(
    content: Float[Tensor, "1 c h w"], style: StyleFeatures, config: AnalogyConfig, generator: torch.Generator
) -> Float[Tensor, "1 c h w"]:
    """The content laid out with pixels of the style image.

    Two, or more than three, channels are seen as gray images of their own, but matched together: a position has one
    match in all channels, which therefore stay registered.

    Args:
        content: Stretched.
        style: By ``style_features``.
        config: Iterations and weights.
        generator: On the CPU, so that the result does not depend on the device.

    Returns:
        Stretched like the style image.
    """
    allowed = analogy_layers(style.network, config.layers, content.shape[2:])
    layers = tuple(layer for layer in allowed if layer in style.features)
    own = _features(content, style.network, style.view, layers)
    field = match(own, style.features, style.network, layers, config, generator)
    grid = style.network.grid(layers[0])
    field = upscaled(field, grid, _PIXELS, content.shape[2:], style.shown.shape[2:])
    result = vote(field, style.shown, PIXEL_PATCH_SIZE)
    return _with_own_detail(content, result) if config.detail == "content" else result


def match(
    content: dict[str, Tensor],
    style: dict[str, Tensor],
    network: FeatureNetwork,
    layers: Sequence[str],
    config: AnalogyConfig,
    generator: torch.Generator,
) -> Int[Tensor, "2 h w"]:
    """The field from the content to the style image at the shallowest of the layers.

    Args:
        content: Features by layer (A).
        style: Likewise (B').
        network: Whose features they are.
        layers: Shallow to deep.
    """
    sides = (content, style)
    fields: list[Tensor] = []  # from the content to the style, and back
    for number in range(len(layers) - 1, -1, -1):
        layer, level = layers[number], level_of(number)
        own = [features[layer] for features in sides]
        if fields:
            fields, swapped = _finer(fields, sides, network, layers, number, config)
            radius = level.search_radius
        else:
            shapes = [features.shape[2:] for features in own]
            fields = [identity_field(shapes[i], shapes[1 - i], own[0].device) for i in (0, 1)]
            swapped, radius = own, max(*shapes[0], *shapes[1])
        seen = _descriptors(own[0], swapped[0]), _descriptors(swapped[1], own[1])
        patches = describe(*seen, level.patch_size, generator)
        # Nothing asks for the way back any more once the shallowest layer is matched.
        fields = [
            improved(
                fields[i],
                patches[i],
                patches[1 - i],
                radius=radius,
                iterations=config.patchmatch_iterations,
                generator=generator,
            )
            for i in ((0, 1) if number > 0 else (0,))
        ]
    return fields[0]


def level_of(number: int) -> Level:
    """How the layer of that number, from the shallowest on, is matched."""
    return LEVELS[min(number, len(LEVELS) - 1)]


def _finer(
    fields: list[Tensor],
    sides: tuple[dict[str, Tensor], dict[str, Tensor]],
    network: FeatureNetwork,
    layers: Sequence[str],
    number: int,
    config: AnalogyConfig,
) -> tuple[list[Tensor], list[Tensor]]:
    """From one layer to the next finer one: the fields there, and the features of each image in the other's place.

    Those are the image's own, blended with features rebuilt from what the fields of the deeper layer lay out.
    """
    layer, deeper = layers[number], layers[number + 1]
    patch_size, deeper_patch_size = level_of(number).patch_size, level_of(number + 1).patch_size
    grids = network.grid(deeper), network.grid(layer)
    own = [features[layer] for features in sides]
    shapes = [features.shape[2:] for features in own]
    weight = level_of(number).content_weights[config.weight_level - 1]
    forward = functools.partial(network.between, first=layer, last=deeper)
    finer, swapped = [], []
    for i, field in enumerate(fields):
        finer.append(upscaled(field, *grids, shapes[i], shapes[1 - i]))
        start = vote(finer[i], own[1 - i], patch_size)
        target = vote(field, sides[1 - i][deeper], deeper_patch_size)
        swapped.append(blend(own[i], deconvolve(target, start, forward, config.deconvolution_iterations), weight))
    return finer, swapped


def _descriptors(first: Float[Tensor, "m c h w"], second: Float[Tensor, "m c h w"]) -> Float[Tensor, "k h w"]:
    """What a position looks like in both features, each weighing the same: of length 1, or less where there is none."""
    both = [F.normalize(features, dim=1, eps=1e-8) for features in (first, second)]
    return torch.cat(both, dim=1).flatten(0, 1) / (2 * len(first)) ** 0.5


# ------------------------------------------------------------------------------------------------------- the steps


def blend(own: Float[Tensor, "m c h w"], found: Float[Tensor, "m c h w"], weight: float) -> Float[Tensor, "m c h w"]:
    """Own features where they are strong, found ones elsewhere.

    Own features weigh ``weight`` times a sigmoid of their squared magnitude, which is scaled to 0..1 over the image
    (0 everywhere, if it is the same everywhere): kappa = 300, tau = 0.05.
    """
    magnitude = own.square().sum(dim=1, keepdim=True)
    low, high = magnitude.amin(dim=(2, 3), keepdim=True), magnitude.amax(dim=(2, 3), keepdim=True)
    response = (magnitude - low) / (high - low).clamp(min=torch.finfo(own.dtype).tiny)
    kept = weight * torch.sigmoid(300 * (response - 0.05))
    return own * kept + found * (1 - kept)


def deconvolve(
    target: Float[Tensor, "m c h w"],
    start: Float[Tensor, "m c2 h2 w2"],
    forward: Callable[[Tensor], Tensor],
    iterations: int,
) -> Float[Tensor, "m c2 h2 w2"]:
    """Features whose ``forward`` is nearest to ``target`` (squared distance), from ``start``, by L-BFGS.

    History 4 as in the published code; ends when ten iterations lower the distance by less than 1e-3 of its first
    value.
    """
    # Channels last in memory: faster convolutions, and the optimiser needs one block.
    variable = start.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).requires_grad_()
    with torch.no_grad():
        first = (forward(start) - target).square().sum()
    if not bool(first > 0):
        return start

    def loss() -> Tensor:
        variable.grad = None
        distance = (forward(variable.permute(0, 3, 1, 2)) - target).square().sum() / first
        distance.backward()
        return distance

    # Without its tolerances, which are absolute: the very first step is smaller than any useful one.
    optimizer = torch.optim.LBFGS(
        [variable],
        max_iter=_ITERATIONS_BETWEEN_CHECKS,
        history_size=4,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )
    last = 1.0
    for done in range(0, iterations, _ITERATIONS_BETWEEN_CHECKS):
        optimizer.param_groups[0]["max_iter"] = min(_ITERATIONS_BETWEEN_CHECKS, iterations - done)
        now = float(optimizer.step(loss).detach())
        if done > 0 and last - now < 1e-3:
            break
        last = now
    return variable.detach().permute(0, 3, 1, 2)


def _with_own_detail(content: Float[Tensor, "1 c h w"], result: Float[Tensor, "1 c h w"]) -> Tensor:
    """The content with its smooth part exchanged for the result's: A + WLS(A') - WLS(A)."""
    weights = content.new_tensor(_GRAY if content.shape[1] == 3 else (1 / content.shape[1],) * content.shape[1])
    guide = torch.einsum("nchw,c->nhw", content, weights)[:, None]
    return content + weighted_least_squares(result - content, guide)
