"""STROTSS: the image with the self-similarity of the content and, as a cloud of features, the style.

Source: Kolkin, Salavon and Shakhnarovich 2019, "Style Transfer by Relaxed Optimal Transport and Self-Similarity" (CVPR;
arXiv:1904.12785), and for what the paper leaves open the authors' code (github.com/nkolkin13/STROTSS). Where we differ:

* Scales halve the image's own size down to ``smallest_px``, so that the last is the image itself. 512 px gives theirs.
* The style image is shrunk to the longer side of each scale, but never enlarged: that would teach blur.
* Images are shrunk with antialiasing, and all hypercolumns are sampled bilinearly (the code: the style's at the nearest
  position). Locations are drawn as pairs (the code shuffles rows and columns apart, and so leaves its region masks).
* The first steps of RMSprop are up to ten times its learning rate, as its mean of squared gradients begins at 0: noise
  that takes a hundred steps to remove. ``optimizer="corrected"`` corrects that mean, as Adam does, and lets the rate
  fall to 0 within each scale; ``"rmsprop"`` is the paper's.

The optimiser sees intensities at which 0..1 is what a viewer would show (see ``display.DisplayRange``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from raydom.config import StrotssConfig
from raydom.errors import ConfigError, DataError
from raydom.networks.features import FeatureNetwork

FIRST_CONTENT_WEIGHT = 16.0
PYRAMID_LEVELS = 5
GRID_LOCATIONS = 128**2
"""At most so many locations of an image are candidates at a time."""
REDRAW_STEPS = 10
"""Steps after which the offset of the grid of candidates is drawn anew."""
FLAT = 1e-4
"""Mean cosine distance of features below which they count as all alike, as those of constant images are."""


# ---------------------------------------------------------------------------------------------------------- losses


class _Products(torch.autograd.Function):
    """rows rows^T. Its gradient is one product of matrices; autograd would take two, as it sees no symmetry."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return rows @ rows.mT

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        return (grads[0] + grads[0].mT) @ rows


def directions(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Vectors of length 1, of which the cosine distance is 1 - x y; a zero vector stays, at distance 1 from all."""
    return F.normalize(vectors, dim=1, eps=1e-6)


def self_similarity_loss(
    result: Float[Tensor, "n d"], content: Float[Tensor, "n d"], similarity: str = "normalized"
) -> Float[Tensor, ""]:
    """How differently two images resemble themselves: cosine distances between all pairs of the same locations.

    normalized (paper, eq. 7): distances over their column sums; the mean difference times n. plain (futscdav's code):
    the mean difference of the distances themselves.

    Args:
        result: Directions of hypercolumns.
        content: Those of the content, at the same locations.
        similarity: normalized or plain.
    """
    of_result, of_content = 1 - _Products.apply(result), 1 - content @ content.mT
    if similarity == "plain":
        return (of_result - of_content).abs().mean()
    n = len(result)
    shares = [distances / distances.sum(dim=0).clamp_min(n * FLAT) for distances in (of_result, of_content)]
    return (shares[0] - shares[1]).abs().mean() * n


def relaxed_emd(result: Float[Tensor, "n d"], style: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Relaxed earth mover's distance (eq. 4 and 5) of directions, for the cosine distance.

    The mean distance of each to its nearest in the other set, the larger of both ways. Only the nearest pairs have a
    gradient, so the matrix of all distances is left out of it.
    """
    with torch.no_grad():
        i, j = _larger_way(-result @ style.mT)
        weights = result.new_zeros(result.shape).index_add_(0, i, style[j])
    return 1 - (result * weights).sum() / len(i)


def palette_loss(result: Float[Tensor, "n k"], style: Float[Tensor, "m k"]) -> Float[Tensor, ""]:
    """Relaxed earth mover's distance of colours, for the sum of cosine and Euclidean distance (over sqrt k).

    The paper measures in a decorrelated colour space. It is a rotation of RGB, which changes neither distance.
    """

    turned, style_turned = directions(result), directions(style)
    scale = result.shape[1] ** -0.5
    with torch.no_grad():  # in place, as these matrices are what a step costs most of
        distances = torch.cdist(result, style).mul_(scale)
        i, j = _larger_way(distances.addmm_(turned, style_turned.mT, alpha=-1))
    cosine = 1 - (turned[i] * style_turned[j]).sum(1)
    euclidean = (result[i] - style[j]).square().sum(1).clamp_min(1e-5).sqrt() * scale
    return (cosine + euclidean).mean()


def _larger_way(distances: Float[Tensor, "n m"]) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """The nearest pairs of each row, or those of each column if these are farther apart in the mean.

    Distances may lack a constant.
    """
    of_rows, of_columns = distances.min(dim=1), distances.min(dim=0)
    n, m = (torch.arange(size, device=distances.device) for size in distances.shape)
    if bool(of_rows.values.mean() >= of_columns.values.mean()):
        return n, of_rows.indices
    return of_columns.indices, m


def moments(hypercolumns: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Mean and covariance (over n, as the authors' code)."""
    mean = hypercolumns.mean(dim=0)
    return mean, _Products.apply((hypercolumns - mean).mT) / len(hypercolumns)


def moment_loss(
    result: Float[Tensor, "n d"], style_mean: Float[Tensor, " d"], style_covariance: Float[Tensor, "d d"]
) -> Float[Tensor, ""]:
    """Mean absolute difference of the means and of the covariances (eq. 6): it fixes what angles leave open."""
    mean, covariance = moments(result)
    return (mean - style_mean).abs().mean() + (covariance - style_covariance).abs().mean()


@dataclass(frozen=True, eq=False)
class StyleSamples:
    """What is kept of the style image at one scale and in one region."""

    directions: Float[Tensor, "m d"]
    colours: Float[Tensor, "m k"]
    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]

    @classmethod
    def of(cls, hypercolumns: Float[Tensor, "m d"], num_colours: int) -> StyleSamples:
        return cls(directions(hypercolumns), hypercolumns[:, :num_colours].clone(), *moments(hypercolumns))


def total_loss(
    result: Float[Tensor, "n d"], content: Float[Tensor, "n d"], style: StyleSamples, alpha: float, similarity: str
) -> Float[Tensor, ""]:
    """(alpha content + REMD + moments + palette / max(alpha, 1)) / (alpha + 2).

    The authors' code; the paper has alpha in place of max(alpha, 1) and adds 1 / alpha to the denominator, which
    changes the loss's scale alone.

    Args:
        result: Hypercolumns of the image.
        content: Hypercolumns of the content, at the same locations.
        style: Of the style, anywhere.
        alpha: Weight of the content.
        similarity: normalized or plain.
    """
    turned = directions(result)
    content_loss = self_similarity_loss(turned, directions(content), similarity)
    style_loss = relaxed_emd(turned, style.directions) + moment_loss(result, style.mean, style.covariance)
    palette = palette_loss(result[:, : style.colours.shape[1]], style.colours)
    return (alpha * content_loss + style_loss + palette / max(alpha, 1)) / (alpha + 2)


# ---------------------------------------------------------------------------------------------------- hypercolumns


@dataclass(frozen=True, eq=False)
class Sight:
    """How images are seen: in their colours, and through the layers of a network."""

    network: FeatureNetwork
    layers: tuple[str, ...]
    view: Callable[[Tensor], Tensor] = lambda shown: shown
    """What makes of stretched images what ``network.as_inputs`` takes."""

    def maps(self, images: Float[Tensor, "n c h w"]) -> list[Tensor]:
        """Colours and features of each network input (m of them) that the images make: (m, channels, height, width)."""
        features = self.network(self.network.as_inputs(self.view(images)), self.layers)
        return [self.network.as_inputs(images), *(features[layer] for layer in self.layers)]


def hypercolumns(maps: Sequence[Tensor], index: int, locations: Float[Tensor, "n 2"]) -> Float[Tensor, "n d"]:
    """Colours and features at locations, bilinearly between positions of each map, side by side.

    Args:
        maps: By ``Sight.maps``.
        index: Which network input.
        locations: (y, x), as fractions of the image's sides; the middle of the first pixel is 0.5 / side.
    """
    grid = (2 * locations.flip(1) - 1)[None, None]
    parts = [
        F.grid_sample(part[index : index + 1], grid, padding_mode="border", align_corners=False)[0, :, 0]
        for part in maps
    ]
    return torch.cat(parts).mT


def grid_locations(shape: Sequence[int], generator: torch.Generator) -> Float[Tensor, "n 2"]:
    """Middles of pixels on a regular grid of at most 128^2, with a random offset; (y, x) as fractions of the sides."""
    stride = max(1, math.ceil(math.sqrt(shape[0] * shape[1] / GRID_LOCATIONS)))
    offsets = torch.randint(stride, (2,), generator=generator).tolist()
    # An image of few rows may have fewer than the stride.
    sides = [(torch.arange(min(o, s - 1), s, stride) + 0.5) / s for o, s in zip(offsets, shape, strict=True)]
    return torch.cartesian_prod(*sides)


def drawn(
    locations: Float[Tensor, "n 2"],
    num: int,
    generator: torch.Generator,
    regions: Int[Tensor, "region_h region_w"] | None,
) -> dict[int, Float[Tensor, "m 2"]]:
    """For each region that has any, at most ``num`` of the locations, at random without repetition."""
    shuffled = locations[torch.randperm(len(locations), generator=generator)]
    if regions is None:
        return {0: shuffled[:num]}
    rows, columns = (shuffled * torch.tensor(regions.shape)).long().unbind(1)
    labels = regions.cpu()[rows, columns]
    return {int(label): shuffled[labels == label][:num] for label in labels.unique()}


def style_samples(
    style: Float[Tensor, "1 c h w"],
    longest_px: int,
    sight: Sight,
    num: int,
    generator: torch.Generator,
    regions: Int[Tensor, "region_h region_w"] | None = None,
) -> list[dict[int, StyleSamples]]:
    """For each network input that the style image makes, its samples by region, at a scale.

    Args:
        style: Stretched.
        longest_px: Longer side that the image is shrunk to, as far as the layers allow.
        sight: How it is seen.
        num: Samples for each region. (The code draws five times 1000, each without repetition.)
        generator: Draws the locations, on the CPU.
        regions: Labels; None: one region, 0.

    Raises:
        ConfigError: If the style image is too small for the layers.
    """
    shape = tuple(style.shape[2:])
    sight.network.check(sight.layers, shape)
    scale = min(1.0, max(longest_px / max(shape), sight.network.min_size_px(sight.layers) / min(shape)))
    with torch.no_grad():
        maps = sight.maps(_resized(style, _scaled(shape, scale)))
        sides = [(torch.arange(side) + 0.5) / side for side in maps[0].shape[2:]]
        locations = drawn(torch.cartesian_prod(*sides), num, generator, regions)
        return [
            {
                label: StyleSamples.of(hypercolumns(maps, index, where.to(style)), maps[0].shape[1])
                for label, where in locations.items()
            }
            for index in range(len(maps[0]))
        ]


# --------------------------------------------------------------------------------------------------------- scales


def scales(shape: Sequence[int], smallest_px: int, needed_px: int = 1) -> list[tuple[int, int]]:
    """Sizes, small to large: the image's own, its half, ... while the longer side has ``smallest_px``.

    Scales whose shorter side is below ``needed_px`` are left out, but never the image's own.
    """
    sizes = [(shape[0], shape[1])]
    while max(half := _scaled(shape, 0.5 ** len(sizes))) >= smallest_px and min(half) >= needed_px:
        sizes.append(half)
    return sizes[::-1]


def content_weights(num_scales: int, content_weight: float) -> list[float]:
    """The paper's alpha at each scale: 16, 8, 4, 2, ... times the content weight."""
    return [FIRST_CONTENT_WEIGHT * content_weight / 2**number for number in range(num_scales)]


def _scaled(shape: Sequence[int], scale: float) -> tuple[int, int]:
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _resized(images: Float[Tensor, "n c h w"], shape: Sequence[int]) -> Tensor:
    if tuple(images.shape[2:]) == tuple(shape):
        return images
    return F.interpolate(images, size=tuple(shape), mode="bilinear", align_corners=False, antialias=True)


def _enlarged(images: Float[Tensor, "n c h w"], shape: Sequence[int]) -> Tensor:
    return F.interpolate(images, size=tuple(shape), mode="bilinear", align_corners=False)


def laplacian_pyramid(images: Float[Tensor, "n c h w"], levels: int = PYRAMID_LEVELS) -> list[Tensor]:
    """What each halving loses, fine to coarse, and last what then is left."""
    pyramid = []
    for _ in range(levels):
        half = _enlarged(images, [max(1, side // 2) for side in images.shape[2:]])
        pyramid.append(images - _enlarged(half, images.shape[2:]))
        images = half
    return [*pyramid, images]


def collapsed(pyramid: Sequence[Tensor]) -> Float[Tensor, "n c h w"]:
    """The images of a Laplacian pyramid."""
    *details, images = pyramid
    for detail in reversed(details):
        images = detail + _enlarged(images, detail.shape[2:])
    return images


# ------------------------------------------------------------------------------------------------------- transfer


def transfer(
    content: Float[Tensor, "n c h w"],
    start: Float[Tensor, "n c h w"] | Float[Tensor, "1 c 1 1"],
    style: Callable[[int], Sequence[Mapping[int, StyleSamples]]],
    sight: Sight,
    config: StrotssConfig,
    generator: torch.Generator,
    regions: Int[Tensor, "region_h region_w"] | None = None,
    on_step: Callable[[int, int, Tensor], None] | None = None,
) -> Float[Tensor, "n c h w"]:
    """Optimise each image on its own, from coarse to fine; all with the same random numbers.

    In turn: the first step of RMSprop moves a pixel by the sign of its gradient, so that the rounding of a batch would
    show, and the losses compare the locations of one image.

    Args:
        content: What to keep, stretched.
        start: Where to begin. One colour, the style's mean, is the paper's start: the content's finest Laplacian on
            that colour at the first scale; from scale to scale the content's detail is added, but not at the last.
            Images are a start of their own: what has changed is carried from scale to scale, and their detail stays.
        style: ``style_samples`` for a longer side in px.
        sight: How images are seen.
        config: Steps, weights and numbers of samples. With 0 steps, the start is the result.
        generator: Draws locations, on the CPU.
        regions: Labels of the content, of any size: compared with the style within each, the mean over regions
            counts. Regions that are too small to be met at a scale have no say there.
        on_step: Called with the scale's longer side, the step, and the loss of each network input before it.

    Raises:
        ConfigError: If content or style are too small for the layers.
        DataError: If the result is not finite.
    """
    own_start = start.shape == content.shape
    if len(content) > 1:
        state, results = generator.get_state(), []
        for number in range(len(content)):
            generator.set_state(state)
            one = slice(number, number + 1)
            begin = start[one] if own_start else start
            results.append(transfer(content[one], begin, style, sight, config, generator, regions, on_step))
        return torch.cat(results)
    sight.network.check(sight.layers, content.shape[2:])
    sizes = scales(content.shape[2:], config.smallest_px, sight.network.min_size_px(sight.layers))
    image = before = start
    for number, (shape, alpha) in enumerate(
        zip(sizes, content_weights(len(sizes), config.content_weight), strict=True)
    ):
        first, last = number == 0, number == len(sizes) - 1
        content_here = _resized(content, shape)
        if own_start:
            start_here = _resized(start, shape)
            image = start_here if first else start_here + _enlarged(image - before, shape)
            before = start_here
        else:
            detail = 0.0 if last and not first else laplacian_pyramid(content_here, 1)[0]
            image = detail + (image if first else _enlarged(image, shape))
        image = optimised(
            image,
            content_here,
            style(max(shape)),
            sight,
            config,
            alpha,
            config.learning_rate / 2 if last else config.learning_rate,
            generator,
            regions,
            None if on_step is None else functools.partial(on_step, max(shape)),
        )
    if not bool(torch.isfinite(image).all()):
        raise DataError(
            f"style transfer diverged to NaN or infinity with strotss.learning_rate {config.learning_rate}; "
            "use a smaller one."
        )
    return image


def optimised(
    image: Float[Tensor, "1 c h w"],
    content: Float[Tensor, "1 c h w"],
    style: Sequence[Mapping[int, StyleSamples]],
    sight: Sight,
    config: StrotssConfig,
    alpha: float,
    learning_rate: float,
    generator: torch.Generator,
    regions: Int[Tensor, "region_h region_w"] | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Float[Tensor, "1 c h w"]:
    """The image after ``config.steps`` steps on its Laplacian pyramid, at one scale."""
    with torch.no_grad():
        content_maps = sight.maps(content)
    pyramid = [part.detach().clone().requires_grad_() for part in laplacian_pyramid(image)]
    corrected = config.optimizer == "corrected"
    optimizer: torch.optim.Optimizer
    if corrected:  # Adam without momentum is just that
        optimizer = torch.optim.Adam(pyramid, lr=learning_rate, betas=(0.0, 0.99))
    else:
        optimizer = torch.optim.RMSprop(pyramid, lr=learning_rate, alpha=0.99)
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1 - step / max(1, config.steps) if corrected else 1.0
    )
    for step in range(config.steps):
        if step % REDRAW_STEPS == 0:
            grid = grid_locations(content.shape[2:], generator)
        locations = drawn(grid, config.samples, generator, regions)
        result_maps = sight.maps(collapsed(pyramid))
        losses = [
            _loss(result_maps, content_maps, index, style[index % len(style)], locations, alpha, config.similarity)
            for index in range(len(content_maps[0]))
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        decay.step()
        if on_step is not None:
            on_step(step, torch.stack(losses).detach())
    return collapsed(pyramid).detach()


def _loss(
    result_maps: Sequence[Tensor],
    content_maps: Sequence[Tensor],
    index: int,
    style: Mapping[int, StyleSamples],
    locations: Mapping[int, Tensor],
    alpha: float,
    similarity: str,
) -> Float[Tensor, ""]:
    """Of one network input: the mean over its regions."""
    shared = {label: where.to(content_maps[0]) for label, where in locations.items() if label in style}
    if not shared:
        raise ConfigError(
            f"no region of the content is met in the style image: labels {sorted(locations)} against {sorted(style)} "
            f"at {content_maps[0].shape[2]} x {content_maps[0].shape[3]} px; use the same labels in both."
        )
    losses = []
    for label, where in shared.items():
        result, content = (hypercolumns(maps, index, where) for maps in (result_maps, content_maps))
        losses.append(total_loss(result, content, style[label], alpha, similarity))
    return torch.stack(losses).mean()
