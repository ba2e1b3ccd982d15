"""Initial weights of generators and discriminators."""

from __future__ import annotations

import torch
from torch import nn


def draw_normal(network: nn.Module, seed: int, std: float = 0.02) -> None:
    """Weights of all convolutions from N(0, ``std``) and biases 0, in place; the global generator is not touched."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            with torch.no_grad():
                module.weight.normal_(0.0, std, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
