"""L-BFGS for several images at once, each with its own history, curvature and end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST_CURVATURE = 1e-10
"""Steps along which the gradient changes less than this (y s) tell nothing about the curvature."""


def minimise(
    losses: Callable[[Tensor], Tensor],
    start: Float[Tensor, "n ..."],
    *,
    max_iterations: int,
    history_size: int = 100,
    tolerance: float = 0.0,
) -> Float[Tensor, "n ..."]:
    """Minimise one loss for each of n images, which do not see each other.

    Each image goes the way that ``torch.optim.LBFGS`` without a line search would take it alone (learning rate 1, first
    step 1 / |gradient|_1 if that is less than 1), up to rounding.

    Args:
        losses: Of images shaped like ``start``, the loss of each (n,), differentiable. Called once an iteration.
        start: Where to begin.
        max_iterations: Steps, unless all images are finished earlier.
        history_size: Past steps remembered; each costs twice the memory of ``start``.
        tolerance: An image is finished when its loss changes by less, or no pixel by more; one without a gradient is,
            too.

    Returns:
        Where the images are after the last step, detached.

    Source: Nocedal 1980, "Updating quasi-Newton matrices with limited storage" (the two-loop recursion).
    """
    num_images = len(start)
    x = start.detach().clone(memory_format=torch.contiguous_format)
    history: deque[tuple[Tensor, Tensor, Tensor]] = deque()
    active = torch.ones(num_images, dtype=torch.bool, device=x.device)
    step, old_gradient, old_loss = torch.zeros_like(x).flatten(1), torch.zeros_like(x).flatten(1), None
    inverse_curvature = x.new_ones(num_images)
    for iteration in range(max_iterations):
        loss, gradient = _evaluate(losses, x)
        active &= gradient.abs().amax(dim=1) > 0
        if old_loss is not None:
            active &= step.abs().amax(dim=1) > tolerance
            active &= ~((loss - old_loss).abs() < tolerance)
            change = gradient - old_gradient
            curvature = torch.linalg.vecdot(change, step)
            useful = curvature > SMALLEST_CURVATURE
            _remember(history, change, step, torch.where(useful, 1 / curvature, 0), useful | ~active)
            if len(history) > history_size:
                history.popleft()
            inverse_curvature = torch.where(useful, curvature / torch.linalg.vecdot(change, change), inverse_curvature)
        if not bool(active.any()):
            break
        direction = _direction(gradient, history, inverse_curvature)
        length = torch.ones_like(loss) if iteration else (1 / gradient.abs().sum(dim=1)).clamp(max=1.0)
        active &= ~(torch.linalg.vecdot(gradient, direction) > -tolerance)
        step = torch.where(active[:, None], direction * length[:, None], 0)
        x += step.reshape(x.shape)
        old_gradient, old_loss = gradient, loss
    return x


def _evaluate(losses: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The losses (n,) and their gradients (n, pixels)."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = losses(x)
        (gradient,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach(), gradient.flatten(1).contiguous()


def _remember(
    history: deque[tuple[Tensor, Tensor, Tensor]],
    change: Float[Tensor, "n pixels"],
    step: Float[Tensor, "n pixels"],
    weight: Float[Tensor, " n"],
    useful: Tensor,
) -> None:
    """Append a step for the images for which it is useful; the others keep what they know, one place later."""
    history.append((change, step, weight))
    useless = ~useful
    if not bool(useless.any()):
        return
    for newer in range(len(history) - 1, 0, -1):
        for later, earlier in zip(history[newer], history[newer - 1], strict=True):
            later[useless] = earlier[useless]
    for part in history[0]:
        part[useless] = 0


def _direction(
    gradient: Float[Tensor, "n pixels"],
    history: deque[tuple[Tensor, Tensor, Tensor]],
    inverse_curvature: Float[Tensor, " n"],
) -> Float[Tensor, "n pixels"]:
    """Minus the gradient, through the inverse curvature that the history tells of (the two-loop recursion)."""
    direction = -gradient
    shares = []
    for change, step, weight in reversed(history):
        share = torch.linalg.vecdot(step, direction) * weight
        direction.addcmul_(change, share[:, None], value=-1)
        shares.append(share)
    direction *= inverse_curvature[:, None]
    for (change, step, weight), share in zip(history, reversed(shares), strict=True):
        correction = share - torch.linalg.vecdot(change, direction) * weight
        direction.addcmul_(step, correction[:, None])
    return direction
