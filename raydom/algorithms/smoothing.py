"""Smoothing that keeps edges: the smooth part of an image, by weighted least squares.

Source: Farbman et al. 2008, "Edge-preserving decompositions for multi-scale tone and detail manipulation", with the
weights and constants of the published code of Liao et al. 2017 (arXiv:1705.01088).
"""

import torch
from jaxtyping import Float
from torch import Tensor

STRENGTH = 0.8
"""Weight of smoothness (their lambda); it yields to the first power of the guide's gradient (their alpha, 1)."""
_SMALLEST_GRADIENT = 1e-4
_TOLERANCE = 1e-4
_MOST_ITERATIONS = 2000


def weighted_least_squares(
    image: Float[Tensor, "n c h w"], guide: Float[Tensor, "n 1 h w"]
) -> Float[Tensor, "n c h w"]:
    """The image near ``image`` that is smooth wherever ``guide`` is.

    Minimises the squared distance to the image plus, over all pairs of neighbours, their squared difference times
    ``STRENGTH / (|difference in the guide| + 1e-4)``; by conjugate gradients, until the residual of each channel is at
    most 1e-4 of the channel.
    """
    down, right = (STRENGTH / (guide.double().diff(dim=axis).abs() + _SMALLEST_GRADIENT) for axis in (2, 3))

    def system(x: Tensor) -> Tensor:
        return x + _divergence(down * x.diff(dim=2), 2) + _divergence(right * x.diff(dim=3), 3)

    diagonal = 1 + _sum_around(down, 2) + _sum_around(right, 3)
    given = image.double()
    x, residual = given, given - system(given)
    direction = scaled = residual / diagonal
    product = _dot(residual, scaled)
    enough = _TOLERANCE**2 * _dot(given, given)
    for _ in range(_MOST_ITERATIONS):
        if bool((_dot(residual, residual) <= enough).all()):
            break
        moved = system(direction)
        step = _ratio(product, _dot(direction, moved))
        x, residual = x + step * direction, residual - step * moved
        scaled = residual / diagonal
        product, last = _dot(residual, scaled), product
        direction = scaled + _ratio(product, last) * direction
    return x.to(image.dtype)


def _divergence(flow: Tensor, axis: int) -> Tensor:
    """At each pixel, what flows in from the pixel before it minus what flows on to the next one."""
    edge = _edge(flow, axis)
    return torch.cat([edge, flow], axis) - torch.cat([flow, edge], axis)


def _sum_around(weights: Tensor, axis: int) -> Tensor:
    edge = _edge(weights, axis)
    return torch.cat([edge, weights], axis) + torch.cat([weights, edge], axis)


def _edge(flow: Tensor, axis: int) -> Tensor:
    """Zeros beyond the first or the last of what lies between neighbours (nothing does in a row of one pixel)."""
    shape = list(flow.shape)
    shape[axis] = 1
    return flow.new_zeros(shape)


def _dot(a: Tensor, b: Tensor) -> Float[Tensor, "n c 1 1"]:
    return (a * b).sum(dim=(2, 3), keepdim=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where both have vanished: a channel that is solved stays."""
    return torch.where(b > 0, a / b.clamp(min=torch.finfo(b.dtype).tiny), 0.0)
