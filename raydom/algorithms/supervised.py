"""Supervised segmentation: the loss of the labels, and nothing else. The baseline of every adaptation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raydom.algorithms.losses import boundary_losses, distance_losses, segmentation_losses
from raydom.algorithms.phases import Algorithm, Batch, Phase


class Supervised(Algorithm):
    """The losses of a network's output on labelled crops.

    Args:
        network: Maps images to logits, or has ``losses`` as ``MaskRCNN`` has.
        output: What it tells, see ``NetworkConfig``.
        class_weights: Of ``classes``: how much a pixel of each class weighs in the cross-entropy.
    """

    def __init__(self, network: nn.Module, output: str = "classes", class_weights: Sequence[float] = ()) -> None:
        self.modules = {"network": network}
        self._labels = LabelLosses(output, class_weights)

    def phases(self, step: int, num_steps: int) -> tuple[Phase, ...]:
        return (Phase("segment", ("network",), self.segmentation),)

    def segmentation(self, batch: Batch) -> dict[str, Tensor]:
        network = self.modules["network"]
        if self._labels.output == "objects":
            losses: dict[str, Tensor] = network.losses(batch.images, batch.labels, batch.valid)  # type: ignore[operator]
            return losses
        return self._labels(network(batch.images), batch)


class LabelLosses:
    """What a network's output costs, given the labels.

    Dice and cross-entropy (Ronneberger et al. 2015 have cross-entropy alone), see ``raydom.algorithms.losses``. Of a
    network with several outputs in training, as U²-Net, each loss is the sum over all.

    Args:
        output: What the network tells, see ``NetworkConfig``; not objects.
        class_weights: Of ``classes``: how much a pixel of each class weighs in the cross-entropy.
    """

    def __init__(self, output: str = "classes", class_weights: Sequence[float] = ()) -> None:
        self.output = output
        self._class_weights = torch.tensor(class_weights) if class_weights else None

    def __call__(self, outputs: Tensor | tuple[Tensor, ...], batch: Batch) -> dict[str, Tensor]:
        each = [self._of(logits, batch) for logits in (outputs if isinstance(outputs, tuple) else (outputs,))]
        return {name: torch.stack([losses[name] for losses in each]).sum() for name in each[0]}

    def _of(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        if self.output == "classes":
            return segmentation_losses(logits, batch.labels, batch.valid, self._class_weights)
        assert batch.targets is not None
        losses = boundary_losses if self.output == "boundary" else distance_losses
        return losses(logits, batch.targets, batch.valid)
