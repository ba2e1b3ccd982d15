"""Direct entropy minimisation: the network shall be certain of the target too.

Source: Vu et al. 2019, ADVENT (arXiv:1811.12833), section 3.1. Its adversarial form is ``output_adversary`` on maps of
self-information.
"""

from __future__ import annotations

from torch import Tensor, nn

from raydom.algorithms.adaptation import Adaptation, class_probabilities, finest, labelled, self_information
from raydom.algorithms.losses import masked_mean
from raydom.algorithms.phases import DomainBatch, Phase
from raydom.algorithms.supervised import LabelLosses


class EntropyMinimisation(Adaptation):
    """Loss: that of the labels + ``weight`` times the mean entropy of the target's pixels, of 0 to 1.

    Args:
        network: Maps images to logits of classes.
        labels: The losses of the labels.
        weight: Of the entropy.
        pretrain_steps: How long the labels alone are learnt at first.
    """

    def __init__(self, network: nn.Module, labels: LabelLosses, weight: float = 0.01, pretrain_steps: int = 0) -> None:
        super().__init__(network, labels, pretrain_steps)
        self.weight = weight

    def adaptation(self, step: int, num_steps: int) -> tuple[Phase, ...]:
        return (Phase("adapt", ("network",), self.losses),)

    def losses(self, batch: DomainBatch) -> dict[str, Tensor]:
        told, of_target = self.told(batch)
        entropy = self_information(class_probabilities(finest(of_target))).sum(dim=1)
        return self.labels(told, labelled(batch)) | {"entropy": self.weight * masked_mean(entropy, batch.target.valid)}
