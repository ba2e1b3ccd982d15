"""Neural style transfer: the image with the content's features and the style's feature correlations.

Source: Gatys, Ecker and Bethge 2016, "Image Style Transfer Using Convolutional Neural Networks" (CVPR; preprint
arXiv:1508.06576). Their Gram matrix F F^T is divided here by its number of positions M, and so is the loss of it: the
same number when content and style have one size, and still comparable when they do not. The losses come in three
published forms, named as in ``NstSettings.loss``: the sums of that paper, the means of its published code, and those of
Neishabouri. The optimiser sees intensities at which 0..1 is what a viewer would show (see ``display.DisplayRange``).

A large image is optimised block by block as it would be as a whole (``survey`` and ``replay``): the style loss reaches
a pixel only through its slope along the Gram matrices of the whole image, and Adam treats each pixel on its own. So the
slopes of every step are recorded once, on windows that stand for the image, and all blocks follow them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from raydom.algorithms import lbfgs
from raydom.config import NstSettings
from raydom.errors import ConfigError, DataError
from raydom.networks.features import FeatureNetwork

REFERENCE_PX = 512
"""Side of the image for which the content weight is stated, px: the size of the paper's images."""
HALO_MARGIN_PX = 16
"""How much further than the receptive field blocks look."""
HISTORY = 20
"""Steps that L-BFGS remembers: within 1 % of the loss that torch's 100 lead to, in a fifth of the memory."""
DAMPING = 1.0
"""Adam's small constant, over the root mean square of an image's first gradient. Not small: plain Adam moves a pixel
with hardly any gradient as far as any other. On real images with deeper layers, 20 steps of it end at 2.5 times the
loss, and rounding decides about so many pixels that blocks differ from their image by 0.7/255 instead of 0.03/255."""


# ---------------------------------------------------------------------------------------------------------- losses


def gram_matrix(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c c"]:
    """Correlations of each image's feature channels, averaged over its positions: F F^T / M."""
    return _Gram.apply(features)  # type: ignore[no-any-return, no-untyped-call]


class _Gram(torch.autograd.Function):
    """F F^T / M with one product on the way back instead of two, and gradients in the memory layout of the features."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        rows = _rows(features)
        return rows.mT @ rows / rows.shape[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        slopes = (gradients[0] + gradients[0].mT) / features[0, 0].numel()
        return _applied(slopes, features)


def _rows(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h*w c"]:
    """A row for each position; no copy where channels are last in memory, as networks have them."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)


def _applied(slopes: Float[Tensor, "m c c"], features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """``slopes F`` for symmetric slopes, of one image or the m network inputs that each image makes."""
    products = _rows(features).unflatten(0, (-1, len(slopes))) @ slopes
    return products.flatten(0, 1).unflatten(1, features.shape[2:]).permute(0, 3, 1, 2)


def content_loss(
    features: Float[Tensor, "n c h w"], target: Float[Tensor, "n c h w"], form: str = "sums"
) -> Float[Tensor, " n"]:
    """Squared distance of one layer's features.

    Args:
        features: Of each image.
        target: Of its content.
        form: sums for half the sum over an image (Gatys et al., eq. 1); notebook or means for the mean over all
            elements (Neishabouri, eq. 1).
    """
    squares = (features - target).square()
    return 0.5 * squares.sum(dim=(1, 2, 3)) if form == "sums" else squares.mean(dim=(1, 2, 3))


def style_loss(
    grams: Mapping[str, Float[Tensor, "n _ _"]], targets: Mapping[str, Float[Tensor, "m _ _"]], form: str = "sums"
) -> Float[Tensor, " n"]:
    """Squared distance of Gram matrices, over the layers of ``targets``.

    With C channels, and Gram matrices divided by M, a layer costs

    - sums: the sum over 4 C^2, which is the paper's eq. 4, over 4 C^2 M^2 of undivided matrices; then the mean of the
      layers (w_l = 1 / number of layers);
    - notebook: the mean over C x C, over C^2 once more (the weights 1000 / C^2 without their 1000); then the sum;
    - means: the mean over C x C, which is Neishabouri's eq. 4, over C^2 M^2 of undivided matrices; then the sum.
    """
    layers = []
    for layer, target in targets.items():
        squares, channels = (grams[layer] - target).square(), target.shape[1]
        if form == "sums":
            layers.append(squares.sum(dim=(1, 2)) / (4 * channels**2 * len(targets)))
        else:
            layers.append(squares.mean(dim=(1, 2)) / (channels**2 if form == "notebook" else 1))
    return torch.stack(layers).sum(dim=0)


def _content_weights(targets: StyleTargets, shape: Sequence[int]) -> dict[str, float]:
    """What the content loss of each layer is multiplied with, for images of this height and width, px.

    A sum over pixels grows with the image and the style loss does not, so the content weight of the form sums is stated
    for 512 x 512 px and scaled; its layers are averaged. In the other forms it is each layer's.
    """
    weight, num_layers = targets.content_weight, len(targets.content_layers)
    if targets.form == "sums":
        weight *= REFERENCE_PX**2 / (shape[0] * shape[1] * num_layers)
    return dict.fromkeys(targets.content_layers, weight)


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
    form: str = "sums"
    """Which published form the losses have."""
    precision: str = "float32"
    """What the network computes in while images are optimised: float32 or bfloat16."""

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers that are looked at."""
        return tuple(dict.fromkeys((*self.grams, *self.content_layers)))

    @property
    def stride_px(self) -> int:
        """Blocks that begin at multiples of this have the feature positions of their image."""
        return self.network.geometry(self.layers)[0]

    @property
    def halo_px(self) -> int:
        """Context that blocks need to come out as in their image, within a tolerance; a multiple of ``stride_px``.

        In one step, a pixel is moved by features that look as far as the receptive field; over many steps influence
        goes further but fades, which the margin covers.
        """
        stride, receptive_field = self.network.geometry(self.layers)
        return -(-(receptive_field - 1 + HALO_MARGIN_PX) // stride) * stride


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
        targets = StyleTargets(
            network,
            view,
            grams,
            tuple(content_layers),
            config.content_weight,
            config.style_weight or 0.0,
            config.loss,
            config.precision,
        )
        if config.style_weight is not None:
            return targets
        balance = _balance(targets, network(inputs, content_layers), style.shape[2:])
    return replace(targets, style_weight=config.style_ratio * balance)


def losses(
    image: Float[Tensor, "n c h w"], content_features: Mapping[str, Tensor], targets: StyleTargets
) -> Float[Tensor, " n"]:
    """The total loss of each image: alpha * content + beta * style, in the form of ``targets``.

    Where one image makes several network inputs (its channels), their mean.

    Args:
        image: Stretched.
        content_features: ``content_targets`` of the content.
        targets: Of the style.
    """
    n, _, *shape = image.shape
    features = _features(image, targets, targets.layers)
    first = next(iter(targets.grams))
    repeats = len(features[first]) // len(targets.grams[first])
    style = style_loss(
        {layer: gram_matrix(features[layer]) for layer in targets.grams},
        {layer: gram.repeat(repeats, 1, 1) for layer, gram in targets.grams.items()},
        targets.form,
    )
    total = targets.style_weight * style
    for layer, weight in _content_weights(targets, shape).items():
        total = total + weight * content_loss(features[layer], content_features[layer], targets.form)
    return total.reshape(n, -1).mean(dim=1)


def content_targets(content: Float[Tensor, "n c h w"], targets: StyleTargets) -> dict[str, Tensor]:
    """Features of stretched content images at the content layers."""
    with torch.no_grad():
        return _features(content, targets, targets.content_layers)


def _features(image: Float[Tensor, "n c h w"], targets: StyleTargets, layers: Sequence[str]) -> dict[str, Tensor]:
    inputs = targets.network.as_inputs(targets.view(image))
    if targets.precision == "float32":
        return targets.network(inputs, layers)
    with torch.autocast(inputs.device.type, torch.bfloat16):
        features = targets.network(inputs, layers)
    return {layer: seen.float() for layer, seen in features.items()}


def transfer(
    content: Float[Tensor, "n c h w"],
    start: Float[Tensor, "n c h w"],
    targets: StyleTargets,
    config: NstSettings,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Float[Tensor, "n c h w"]:
    """Optimise each image on its own, from ``start``.

    Each image's loss is divided by its first value, so that step sizes and the optimisers' small constants do not
    depend on the network. Images in a batch do not see each other.

    Args:
        content: What to keep, stretched.
        start: Where to begin; with 0 steps, the result.
        targets: Of the style, by ``style_targets``.
        config: Optimiser, steps and learning rate. For L-BFGS a step is an iteration of the line-search-free method.
        on_step: Called with the step number and the loss of each image before it.

    Raises:
        DataError: If the result is not finite.
    """
    *_, (_, image) = progress(content, start, targets, config, (), on_step)
    return image


def progress(
    content: Float[Tensor, "n c h w"],
    start: Float[Tensor, "n c h w"],
    targets: StyleTargets,
    config: NstSettings,
    pauses: Sequence[int],
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Iterator[tuple[int, Float[Tensor, "n c h w"]]]:
    """``transfer``, and with Adam what it would give with fewer steps: the number of steps, and the images.

    Args:
        content: As for ``transfer``, and so are the others.
        start: Where to begin.
        targets: Of the style.
        config: ``steps`` come last.
        pauses: After how many steps the images are wanted, beside the last.
        on_step: Called before each step.

    Raises:
        DataError: If the images are not finite.
    """
    content_features = content_targets(content, targets)
    with torch.no_grad():
        first = losses(start, content_features, targets)
    scale = torch.where(first > 0, 1 / first, torch.zeros_like(first))
    num_seen = 0

    def scaled(image: Tensor) -> Tensor:
        nonlocal num_seen
        loss = losses(image, content_features, targets)
        if on_step is not None:
            on_step(num_seen, loss.detach())
        num_seen += 1
        return loss * scale

    if config.optimizer == "lbfgs":
        result = lbfgs.minimise(scaled, start, max_iterations=config.steps, history_size=HISTORY)
    else:
        result, adam = _adam(start, config)
        unit = None
        for step in range(config.steps):
            if step > 0 and step in pauses:
                yield step, _check_finite(result, config).clone()
            (gradient,) = torch.autograd.grad(scaled(result).sum(), result)
            unit = _unit(gradient, (2, 3)) if unit is None else unit
            result.grad = gradient / unit
            adam.step()
    yield config.steps, _check_finite(result, config)


def coarse_start(
    content: Float[Tensor, "n c h w"], start: Float[Tensor, "n c h w"], coarse: StyleTargets, config: NstSettings
) -> Float[Tensor, "n c h w"]:
    """``start`` with the change that ``coarse_steps`` steps at half size make: its fine detail stays.

    The published code's two resolutions (512 px, then 800 px), the lower one first, where a step costs a quarter and
    reaches twice as far.

    Args:
        content: What to keep, stretched.
        start: Where to begin.
        coarse: Of the style image at half size.
        config: Optimiser, ``coarse_steps`` and learning rate.
    """
    small_content, small_start = halved(content), halved(start)
    small = transfer(small_content, small_start, coarse, replace(config, steps=config.coarse_steps))
    return start + F.interpolate(small - small_start, size=start.shape[2:], mode="bilinear")


def halved(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h/2 w/2"]:
    """Images at half size, by the means of 2 x 2 px; a last odd row or column is left out."""
    return F.avg_pool2d(images, 2)


def _adam(start: Tensor, config: NstSettings) -> tuple[Tensor, torch.optim.Adam]:
    """A copy to optimise, and what moves it along gradients in terms of ``_unit``."""
    image = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    return image, torch.optim.Adam([image], lr=config.learning_rate, eps=DAMPING)


def _unit(gradient: Float[Tensor, "n c h w"], dims: tuple[int, ...]) -> Tensor:
    """The root mean square of each channel's gradient, with its axes kept; 1 where there is none."""
    size = gradient.square().mean(dim=dims, keepdim=True).sqrt()
    return torch.where(size > 0, size, torch.ones_like(size))


def _check_finite(image: Tensor, config: NstSettings) -> Tensor:
    result = image.detach()
    if not bool(torch.isfinite(result).all()):
        raise DataError(
            f"style transfer diverged to NaN or infinity within {config.steps} steps of {config.optimizer}; "
            "use optimizer adam, a smaller learning_rate, or fewer steps."
        )
    return result


def _balance(targets: StyleTargets, features: Mapping[str, Tensor], shape: Sequence[int]) -> float:
    """The style weight at which a black-box image without features would cost as much in content as in style."""
    content = torch.stack([content_loss(f, torch.zeros_like(f), targets.form).mean() for f in features.values()]).sum()
    weights = _content_weights(replace(targets, content_weight=1.0), shape)
    zeros = {layer: torch.zeros_like(gram) for layer, gram in targets.grams.items()}
    style = style_loss(zeros, targets.grams, targets.form).mean()
    if not float(style) > 0:
        raise ConfigError("the style image has no features at the style layers; choose other layers or another image.")
    return float(next(iter(weights.values())) * content / style)


# ---------------------------------------------------------------------------------------- large images, block by block


@dataclass(frozen=True, eq=False)
class Survey:
    """What moves a block's pixels in each step as they would move in the whole image.

    None of it depends on the size of the image or of a block: the gradient of the loss, times the number of pixels, is
    ``slopes F`` at features F of a style layer, and ``weight (F - P)`` at features F of a content layer with targets P.
    """

    slopes: dict[str, Float[Tensor, "steps m _ _"]]
    """By style layer: symmetric matrices, for each step and each network input that an image makes."""
    content: dict[str, float]
    """By content layer: the weight."""
    unit: Float[Tensor, "1 c 1 1"]
    """In terms of which Adam sees the gradient of each channel."""

    @property
    def num_steps(self) -> int:
        return len(next(iter(self.slopes.values())))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays for storage: upper triangles in float16, over the largest magnitude of each matrix."""
        arrays: dict[str, np.ndarray] = {
            "content": np.array(list(self.content.values())),
            "unit": self.unit.flatten().cpu().numpy(),
        }
        for layer, slopes in self.slopes.items():
            rows, columns = torch.triu_indices(*slopes.shape[2:]).to(slopes.device)
            scale = slopes.abs().amax(dim=(2, 3), keepdim=True)
            parts = (slopes / scale.clamp(min=torch.finfo(scale.dtype).tiny))[:, :, rows, columns]
            arrays[f"{layer}.slopes"] = parts.half().cpu().numpy()
            arrays[f"{layer}.scale"] = scale.flatten(1).cpu().numpy()
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], targets: StyleTargets) -> Survey:
        """What ``to_arrays`` made for the same targets, on their device.

        Raises:
            DataError: If it was made for other layers.
        """
        slopes = {}
        for layer, gram in targets.grams.items():
            channels = gram.shape[1]
            parts, scale = arrays.get(f"{layer}.slopes"), arrays.get(f"{layer}.scale")
            triangle = channels * (channels + 1) // 2
            if parts is None or scale is None or parts.shape != (*scale.shape, triangle) or len(gram) != parts.shape[1]:
                raise DataError(f"the survey of the image holds no slopes of layer {layer}; make it again.")
            rows, columns = torch.triu_indices(channels, channels).to(gram.device)
            values = torch.from_numpy(parts).to(gram) * torch.from_numpy(scale).to(gram)[..., None]
            whole = gram.new_empty(*values.shape[:2], channels, channels)
            whole[:, :, rows, columns] = values
            whole[:, :, columns, rows] = values
            slopes[layer] = whole
        content, unit = arrays.get("content", np.empty(0)).tolist(), arrays.get("unit", np.empty(0))
        if len(content) != len(targets.content_layers) or len(unit) == 0:
            raise DataError(f"the survey of the image holds {len(content)} content weights; make it again.")
        device = next(iter(targets.grams.values())).device
        return cls(
            slopes,
            dict(zip(targets.content_layers, content, strict=True)),
            torch.from_numpy(unit).reshape(1, -1, 1, 1).to(device),
        )


def survey(
    content: Float[Tensor, "n c h w"],
    start: Float[Tensor, "n c h w"],
    targets: StyleTargets,
    config: NstSettings,
) -> Survey:
    """Optimise n windows of one image together, as parts of it, and record what the style loss does in each step.

    Their Gram matrices are pooled to one for each layer, their estimate of the whole image's. With the whole image as
    the only window, this is ``transfer`` with Adam.

    Args:
        content: Windows of the image at full size, stretched.
        start: Where they begin.
        targets: Of the style.
        config: ``refine_steps`` and learning rate.
    """
    content_features = content_targets(content, targets)
    image, adam = _adam(start, config)
    pixels = content.shape[2] * content.shape[3]
    content_slopes = {
        layer: weight * pixels * len(content) / len(content_features[layer])
        for layer, weight in _content_weights(targets, content.shape[2:]).items()
    }
    if targets.form != "sums":
        content_slopes = {
            layer: 2 * slope / content_features[layer][0].numel() for layer, slope in content_slopes.items()
        }
    recorded = {layer: gram.new_zeros(config.refine_steps, *gram.shape) for layer, gram in targets.grams.items()}
    unit = content.new_ones(1, content.shape[1], 1, 1)
    for step in range(config.refine_steps):
        features = _features(image, targets, targets.layers)
        slopes = _style_slopes(features, targets)
        for layer, slope in slopes.items():
            # Twice, as F is on both sides of F F^T.
            slope *= 2 * pixels / features[layer][0, 0].numel()
            recorded[layer][step] = slope
        gradient = _gradient(image, features, content_features, slopes, content_slopes)
        unit = _unit(gradient, (0, 2, 3)) if step == 0 else unit
        image.grad = gradient / unit
        adam.step()
    _check_finite(image, config)
    return Survey(recorded, content_slopes, unit)


def replay(
    content: Float[Tensor, "n c h w"],
    start: Float[Tensor, "n c h w"],
    targets: StyleTargets,
    survey: Survey,
    config: NstSettings,
) -> Float[Tensor, "n c h w"]:
    """Optimise blocks of an image as they would be as parts of it: for as many steps as the survey has.

    Args:
        content: Blocks with context (``targets.halo_px``), stretched, that begin at multiples of ``targets.stride_px``.
        start: Where they begin.
        targets: Of the style.
        survey: Of their image.
        config: Learning rate.

    Raises:
        DataError: If the result is not finite.
    """
    content_features = content_targets(content, targets)
    image, adam = _adam(start, config)
    for step in range(survey.num_steps):
        slopes = {layer: slopes[step] for layer, slopes in survey.slopes.items()}
        gradient = _gradient(image, _features(image, targets, targets.layers), content_features, slopes, survey.content)
        image.grad = gradient / survey.unit
        adam.step()
    return _check_finite(image, config)


def _style_slopes(features: Mapping[str, Tensor], targets: StyleTargets) -> dict[str, Tensor]:
    """The derivative of the style loss, of all images pooled, by each layer's Gram matrices (m, c, c)."""
    grams = {
        layer: gram_matrix(features[layer].detach()).unflatten(0, (-1, len(target))).mean(dim=0).requires_grad_()
        for layer, target in targets.grams.items()
    }
    loss = targets.style_weight * style_loss(grams, targets.grams, targets.form).mean()
    return dict(zip(grams, torch.autograd.grad(loss, list(grams.values())), strict=True))


def _gradient(
    image: Float[Tensor, "n c h w"],
    features: Mapping[str, Tensor],
    content_features: Mapping[str, Tensor],
    slopes: Mapping[str, Float[Tensor, "m _ _"]],
    content_slopes: Mapping[str, float],
) -> Float[Tensor, "n c h w"]:
    """The gradient at the image, from those that are known at its features."""
    gradients = []
    for layer, seen in features.items():
        gradient = torch.zeros_like(seen)
        if layer in slopes:
            gradient += _applied(slopes[layer], seen.detach())
        if layer in content_slopes:
            gradient += content_slopes[layer] * (seen.detach() - content_features[layer])
        gradients.append(gradient)
    return torch.autograd.grad(list(features.values()), image, gradients)[0]
