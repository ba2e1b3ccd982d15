"""Maximum classifier discrepancy: two heads that disagree on the target show where its features are foreign.

Source: Saito et al. 2018 (arXiv:1712.02560), section 3.3: three steps, the last of them repeated.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raydom.algorithms.adaptation import Adaptation, class_probabilities, halves, labelled
from raydom.algorithms.losses import masked_mean
from raydom.algorithms.phases import DomainBatch, Phase
from raydom.algorithms.supervised import LabelLosses
from raydom.errors import ConfigError
from raydom.networks.unet import UNet


class Head(nn.Module):
    """The finest level of a U-Net's decoder with the logits: a classifier of what lies below."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.up, self.decoder, self.out = network.up[0], network.decoder[0], network.head

    def forward(self, skipped: Tensor, deep: Tensor) -> Tensor:
        logits: Tensor = self.out(self.decoder(torch.cat([skipped, self.up(deep)], dim=1)))
        return logits


class ClassifierDiscrepancy(Adaptation):
    """A U-Net with two finest decoder levels.

    A: all learn the labels. B: the heads learn them and to disagree on the target. C: what lies below the heads learns
    to make them agree, ``trunk_updates`` times. The run holds the network with its first head.

    Args:
        network: A U-Net of classes.
        twin: A U-Net of the same shape and other weights, which gives the second head.
        labels: The losses of the labels.
        weight: Of the disagreement, the mean distance of the probabilities.
        trunk_updates: Of step C; the paper has 4.
        pretrain_steps: How long the labels alone are learnt at first.

    Raises:
        ConfigError: For another network than a U-Net.
    """

    def __init__(
        self,
        network: nn.Module,
        twin: nn.Module,
        labels: LabelLosses,
        weight: float = 1.0,
        trunk_updates: int = 4,
        pretrain_steps: int = 0,
    ) -> None:
        if not isinstance(network, UNet) or not isinstance(twin, UNet):
            raise ConfigError("two classifiers share what a unet has below its finest level; give --network unet.")
        super().__init__(network, labels, pretrain_steps)
        self.network = network
        trunk = nn.ModuleList([network.encoder, *network.up[1:], *network.decoder[1:]])
        self.modules = {"trunk": trunk, "first": Head(network), "second": Head(twin)}
        self.weight, self.trunk_updates = weight, trunk_updates

    @property
    def trained(self) -> tuple[str, ...]:
        return tuple(self.modules)

    def exported(self) -> nn.Module:
        return self.network

    def adaptation(self, step: int, num_steps: int) -> tuple[Phase, ...]:
        agree = Phase("agree", ("trunk",), self.discrepancy)
        return (
            Phase("segment", self.trained, lambda batch: self.labels(self.told(batch)[0], labelled(batch))),
            Phase("disagree", ("first", "second"), self.disagreement),
            *(agree for _ in range(self.trunk_updates)),
        )

    def disagreement(self, batch: DomainBatch) -> dict[str, Tensor]:
        told, of_target = self.told(batch)
        losses = self.labels(told, labelled(batch))
        return losses | {"discrepancy": -self.weight * distance(of_target, batch)}

    def discrepancy(self, batch: DomainBatch) -> dict[str, Tensor]:
        return {"discrepancy": self.weight * distance(self.told(batch)[1], batch)}

    def told(self, batch: DomainBatch) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        encoded = self.network.encode(torch.cat([labelled(batch).images, batch.target.images]))
        below = self.network.decode_below(encoded)
        both = tuple(self.modules[name](encoded[0], below) for name in ("first", "second"))
        return halves(both, len(labelled(batch).images))


def distance(outputs: tuple[Tensor, ...], batch: DomainBatch) -> Tensor:
    """Mean absolute difference of the two heads' probabilities on the target's valid pixels."""
    first, second = (class_probabilities(logits.float()) for logits in outputs)
    return masked_mean((first - second).abs().mean(dim=1), batch.target.valid)
