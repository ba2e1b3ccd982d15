"""Segmentation by an intensity threshold: the simplest baseline, in the form of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CERTAIN = 20.0
"""A logit whose probability rounds to 0 or 1."""


class Threshold(nn.Module):
    """Foreground wherever the mean of the channels is at least ``level``.

    Args:
        level: A fraction of the legal range of the dtype.
    """

    total_stride = 1
    receptive_field_px = 0

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w) to logits (n, 1, h, w)."""
        bright = images.mean(dim=1, keepdim=True) >= torch.tensor(self.level, dtype=images.dtype)
        return bright.to(images.dtype).mul(2 * CERTAIN).sub(CERTAIN)
