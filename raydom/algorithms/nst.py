"""Neural style transfer: the image with the content's features and the style's feature correlations.

Source: Gatys, Ecker and Bethge 2016, "Image Style Transfer Using Convolutional Neural Networks" (CVPR; preprint
arXiv:1508.06576), with the sums of the paper. Their Gram matrix F F^T is divided here by its number of positions M,
and so is the loss of it: the same number when content and style have one size, and still comparable when they do not.
The optimiser sees intensities at which 0..1 is what a viewer would show (see ``DisplayRange``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from raydom.config import NstSettings
from raydom.errors import ConfigError, DataError
from raydom.networks.features import FeatureNetwork
from raydom.types import ImageStatistics

REFERENCE_PX = 512
"""Side of the image for which the content weight is stated, px: the size of the paper's images."""


# ---------------------------------------------------------------------------------------------------------- losses


def gram_matrix(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c c"]:
    """Correlations of each image's feature channels, averaged over its positions: F F^T / M."""
    flat = features.flatten(2)
    return flat @ flat.mT / flat.shape[2]


def content_loss(features: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Half the squared distance of features, summed over one image and layer (the paper's eq. 1)."""
    return 0.5 * (features - target).square().sum(dim=(1, 2, 3))


def style_loss(
    grams: Mapping[str, Float[Tensor, "n _ _"]], targets: Mapping[str, Float[Tensor, "m _ _"]]
) -> Float[Tensor, " n"]:
    """Squared distance of Gram matrices over 4 C^2, averaged over the layers of ``targets``.

    With Gram matrices divided by M, this is the paper's sum over 4 C^2 M^2 (eq. 4) with w_l = 1 / number of layers.
    """
    layers = [
        (grams[layer] - target).square().sum(dim=(1, 2)) / (4 * target.shape[1] ** 2)
        for layer, target in targets.items()
    ]
    return torch.stack(layers).mean(dim=0)


# ----------------------------------------------------------------------------------------------------- intensities


@dataclass(frozen=True)
class DisplayRange:
    """Per channel, the fractions of the legal range that are shown to the feature network as 0 and 1.

    An image that fills more than half of the legal range is shown as it is. Others (12-bit data in 16-bit files, dim
    fluorescence) are stretched from their outermost kept percentiles (0.4 and 99.6), all three channels of an RGB image
    alike and other channels each on its own. A constant channel is shown as it is.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, statistics: ImageStatistics) -> DisplayRange:
        """The display range of a whole image, from its statistics in fractions."""
        low = [percentiles[1] for percentiles in statistics.percentiles]
        high = [percentiles[-2] for percentiles in statistics.percentiles]
        if len(low) == 3:
            low, high = [min(low)] * 3, [max(high)] * 3
        spans = [_shown_span(a, b) for a, b in zip(low, high, strict=True)]
        return cls(tuple(a for a, _ in spans), tuple(b for _, b in spans))

    def stretch(self, fractions: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        low, span = self._columns(fractions)
        return (fractions - low) / span

    def restore(self, shown: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The inverse of ``stretch``."""
        low, span = self._columns(shown)
        return shown * span + low

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (like.new_tensor(values).reshape(1, -1, 1, 1) for values in (self.low, self.high))
        return low, high - low


def _shown_span(low: float, high: float) -> tuple[float, float]:
    fills_legal_range = low >= 0 and high <= 1 and high - low > 0.5
    return (0.0, 1.0) if fills_legal_range or high <= low else (low, high)


# ------------------------------------------------------------------------------------------------------- transfer


@dataclass(frozen=True, eq=False)
class StyleTargets:
    """What is kept of a style image: computed once, used for every image that is to look like it."""

    network: FeatureNetwork
    view: Callable[[Tensor], Tensor]
    """Stretched images as the feature network takes them."""
    grams: dict[str, Tensor]
    """For each style layer, a Gram matrix for each network input that the style image makes: one, or one a channel."""
    content_layers: tuple[str, ...]
    content_weight: float
    style_weight: float


def style_targets(
    style: Float[Tensor, "1 c h w"],
    network: FeatureNetwork,
    config: NstSettings,
    view: Callable[[Tensor], Tensor] = lambda shown: shown,
) -> StyleTargets:
    """The style image's Gram matrices, and the layers and weights that go with the network.

    Args:
        style: The style image, stretched.
        network: On the style's device.
        config: Layers and weights; empty or None stands for the network's default.
        view: What makes of stretched images what ``network.as_inputs`` takes.

    Raises:
        ConfigError: For layers that the network does not have, or a style image too small for them.
    """
    style_layers = config.style_layers or network.default_style_layers
    content_layers = config.content_layers or network.default_content_layers
    network.check(content_layers, style.shape[2:])
    with torch.no_grad():
        inputs = network.as_inputs(view(style))
        grams = {layer: gram_matrix(features) for layer, features in network(inputs, style_layers).items()}
        style_weight = config.style_weight
        if style_weight is None:
            features = network(inputs, content_layers)
            style_weight = config.style_ratio * _balance(grams, features, style.shape[2:])
    return StyleTargets(network, view, grams, tuple(content_layers), config.content_weight, style_weight)


def losses(
    image: Float[Tensor, "n c h w"], content_features: Mapping[str, Tensor], targets: StyleTargets
) -> Float[Tensor, " n"]:
    """The paper's total loss of each image: alpha * content + beta * style.

    The content loss is a sum over pixels and the style loss is not, so alpha is stated for an image of 512 x 512 px and
    scaled by 512^2 / (h w): the balance does not depend on the size. With several content layers, their mean. Where one
    image makes several network inputs (its channels), their mean.

    Args:
        image: Stretched.
        content_features: ``content_targets`` of the content.
        targets: Of the style.
    """
    n, _, height, width = image.shape
    inputs = targets.network.as_inputs(targets.view(image))
    features = targets.network(inputs, (*targets.grams, *targets.content_layers))
    content = torch.stack([content_loss(features[layer], target) for layer, target in content_features.items()])
    repeats = len(inputs) // len(next(iter(targets.grams.values())))
    style = style_loss(
        {layer: gram_matrix(features[layer]) for layer in targets.grams},
        {layer: gram.repeat(repeats, 1, 1) for layer, gram in targets.grams.items()},
    )
    alpha = targets.content_weight * REFERENCE_PX**2 / (height * width)
    return (alpha * content.mean(dim=0) + targets.style_weight * style).reshape(n, -1).mean(dim=1)


def content_targets(content: Float[Tensor, "n c h w"], targets: StyleTargets) -> dict[str, Tensor]:
    """Features of stretched content images at the content layers."""
    with torch.no_grad():
        return targets.network(targets.network.as_inputs(targets.view(content)), targets.content_layers)


def transfer(
    content: Float[Tensor, "n c h w"],
    start: Float[Tensor, "n c h w"],
    targets: StyleTargets,
    config: NstSettings,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Float[Tensor, "n c h w"]:
    """Optimise each image on its own, from ``start``.

    Each image's loss is divided by its first value, so that step sizes and the optimisers' small constants do not
    depend on the network. Adam works elementwise, so images in a batch do not see each other; L-BFGS takes them
    in turn.

    Args:
        content: What to keep, stretched.
        start: Where to begin; with 0 steps, the result.
        targets: Of the style, by ``style_targets``.
        config: Optimiser, steps and learning rate. For L-BFGS a step is an iteration of the line-search-free method.
        on_step: Called with the step number and the loss of each image before it.

    Raises:
        DataError: If the result is not finite.
    """
    if config.optimizer == "lbfgs" and len(start) > 1:
        singles = zip(content.split(1), start.split(1), strict=True)
        return torch.cat([transfer(c, s, targets, config, on_step) for c, s in singles])
    content_features = content_targets(content, targets)
    with torch.no_grad():
        first = losses(start, content_features, targets)
    scale = torch.where(first > 0, 1 / first, torch.zeros_like(first))
    image = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    num_seen = 0

    def closure() -> float:
        nonlocal num_seen
        image.grad = None
        loss = losses(image, content_features, targets)
        (loss * scale).sum().backward()
        if on_step is not None:
            on_step(num_seen, loss.detach())
        num_seen += 1
        return float((loss.detach() * scale).sum())

    if config.steps > 0:
        _minimise(image, closure, config)
    result = image.detach()
    if not bool(torch.isfinite(result).all()):
        raise DataError(
            f"style transfer diverged to NaN or infinity within {config.steps} steps of {config.optimizer}; "
            "use optimizer adam, a smaller learning_rate, or fewer steps."
        )
    return result


def _minimise(image: Tensor, closure: Callable[[], float], config: NstSettings) -> None:
    if config.optimizer == "lbfgs":
        optimizer: torch.optim.Optimizer = torch.optim.LBFGS(
            [image], lr=1.0, max_iter=config.steps, max_eval=2 * config.steps, tolerance_grad=0.0, tolerance_change=0.0
        )
        optimizer.step(closure)
        return
    optimizer = torch.optim.Adam([image], lr=config.learning_rate, eps=1e-12)
    for _ in range(config.steps):
        optimizer.step(closure)


def _balance(grams: Mapping[str, Tensor], features: Mapping[str, Tensor], shape: Sequence[int]) -> float:
    """The style weight at which a black-box image without features would cost as much in content as in style."""
    alpha = REFERENCE_PX**2 / (shape[0] * shape[1])
    content = torch.stack([content_loss(f, torch.zeros_like(f)) for f in features.values()]).mean()
    style = style_loss({layer: torch.zeros_like(gram) for layer, gram in grams.items()}, grams).mean()
    if not float(style) > 0:
        raise ConfigError("the style image has no features at the style layers; choose other layers or another image.")
    return float(alpha * content / style)
