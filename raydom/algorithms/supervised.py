"""Supervised segmentation: the loss of the labels, and nothing else. The baseline of every adaptation."""

from __future__ import annotations

from torch import Tensor, nn

from raydom.algorithms.losses import segmentation_losses
from raydom.algorithms.phases import Algorithm, Batch, Phase


class Supervised(Algorithm):
    """Dice and cross-entropy on labelled crops (Ronneberger et al. 2015 have cross-entropy alone)."""

    def __init__(self, network: nn.Module) -> None:
        self.modules = {"network": network}

    def phases(self, step: int, num_steps: int) -> tuple[Phase, ...]:
        return (Phase("segment", ("network",), self.segmentation),)

    def segmentation(self, batch: Batch) -> dict[str, Tensor]:
        return segmentation_losses(self.modules["network"](batch.images), batch.labels, batch.valid)
