"""The gradient reversal layer of Ganin and Lempitsky 2015 (arXiv:1409.7495), and how its strength grows."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, strength: float) -> Tensor:  # type: ignore[override]
        ctx.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -ctx.strength * gradient, None


def reversed_gradient(features: Float[Tensor, "*shape"], strength: float) -> Float[Tensor, "*shape"]:
    """The features as they are; their gradient comes back times ``-strength``."""
    reversed_: Tensor = _Reversal.apply(features, strength)  # type: ignore[no-untyped-call]
    return reversed_


def reversal_strength(schedule: str, step: int, num_steps: int, gamma: float = 10.0) -> float:
    """λ of a step (0 is the first): 1, or for ``warm-up`` from 0 towards 1, λ = 2 / (1 + exp(-γp)) - 1 with p = step /
    num_steps (Ganin et al. 2016, arXiv:1505.07818, section 5.2.2)."""
    if schedule == "constant":
        return 1.0
    return 2 / (1 + math.exp(-gamma * step / num_steps)) - 1
