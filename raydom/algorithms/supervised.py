"""Supervised segmentation: the loss of the labels, and nothing else. The baseline of every adaptation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raydom.algorithms.losses import boundary_losses, distance_losses, segmentation_losses
from raydom.algorithms.phases import Algorithm, Batch, Phase


class Supervised(Algorithm):
    """The losses of a network's output on labelled crops.

    Dice and cross-entropy (Ronneberger et al. 2015 have cross-entropy alone), see ``raydom.algorithms.losses``; Mask
    R-CNN has its own. Of a network with several outputs in training, as U²-Net, each loss is the sum over all.

    Args:
        network: Maps images to logits, or has ``losses`` as ``MaskRCNN`` has.
        output: What it tells, see ``NetworkConfig``.
        class_weights: Of ``classes``: how much a pixel of each class weighs in the cross-entropy.
    """

    def __init__(self, network: nn.Module, output: str = "classes", class_weights: Sequence[float] = ()) -> None:
        self.modules = {"network": network}
        self._output = output
        self._class_weights = torch.tensor(class_weights) if class_weights else None

    def phases(self, step: int, num_steps: int) -> tuple[Phase, ...]:
        return (Phase("segment", ("network",), self.segmentation),)

    def segmentation(self, batch: Batch) -> dict[str, Tensor]:
        network = self.modules["network"]
        if self._output == "objects":
            losses: dict[str, Tensor] = network.losses(batch.images, batch.labels, batch.valid)  # type: ignore[operator]
            return losses
        outputs = network(batch.images)
        each = [self._of(logits, batch) for logits in (outputs if isinstance(outputs, tuple) else (outputs,))]
        return {name: torch.stack([losses[name] for losses in each]).sum() for name in each[0]}

    def _of(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        if self._output == "classes":
            return segmentation_losses(logits, batch.labels, batch.valid, self._class_weights)
        assert batch.targets is not None
        losses = boundary_losses if self._output == "boundary" else distance_losses
        return losses(logits, batch.targets, batch.valid)
