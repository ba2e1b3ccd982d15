"""DANN at any level of a U-Net: domain classifiers behind a gradient reversal.

Sources: Ganin et al. 2016 (arXiv:1505.07818); at the levels of a U-Net: Aarnio 2022, section 3.6.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raydom.algorithms.adaptation import Adaptation, domain_cost, labelled
from raydom.algorithms.phases import DomainBatch, Phase
from raydom.algorithms.reversal import reversal_strength, reversed_gradient
from raydom.algorithms.supervised import LabelLosses
from raydom.errors import ConfigError
from raydom.networks.domain_heads import DomainHead
from raydom.networks.unet import UNet


class Dann(Adaptation):
    """A U-Net whose features at some levels tell nothing of their domain.

    Loss: that of the labels + ``weight`` times that of the domains, a mean over the levels. The domain classifiers go
    down its gradient; the network gets it times -λ.

    Args:
        network: A U-Net.
        labels: The losses of the labels.
        levels: Where the domain classifiers are, see ``UNet.levels``.
        weight: Of the domain loss.
        schedule: Of λ, see ``reversal_strength``.
        gamma: How fast λ grows.
        pretrain_steps: How long the labels alone are learnt at first.
        seed: Of the classifiers' weights.

    Raises:
        ConfigError: For a level that there is not, or another network than a U-Net.
    """

    def __init__(
        self,
        network: nn.Module,
        labels: LabelLosses,
        levels: Sequence[str] = ("bottleneck",),
        weight: float = 0.1,
        schedule: str = "warm-up",
        gamma: float = 10.0,
        pretrain_steps: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(network, labels, pretrain_steps)
        network = checked_levels(network, levels)
        self.weight, self.schedule, self.gamma = weight, schedule, gamma
        depth, norm = network.config.depth, network.config.norm
        self.heads = {}
        for number, level in enumerate(levels):
            channels, stride = network.level_shape(level)
            self.heads[level] = DomainHead(channels, depth - stride, norm, seed + 1 + number)
        self.modules |= {f"domain_{level}": head for level, head in self.heads.items()}

    def adaptation(self, step: int, num_steps: int) -> tuple[Phase, ...]:
        strength = reversal_strength(self.schedule, step, num_steps, self.gamma)
        return (Phase("adapt", tuple(self.modules), lambda batch: self.losses(batch, strength)),)

    def losses(self, batch: DomainBatch, strength: float) -> dict[str, Tensor]:
        known, num_source = labelled(batch), len(batch.source.images)
        network = self.modules["network"]
        assert isinstance(network, UNet)
        logits, levels = network.with_levels(torch.cat([known.images, batch.target.images]))
        losses = self.labels(logits[: len(known.images)], known)
        for level, head in self.heads.items():
            features = levels[level]
            features = torch.cat([features[:num_source], features[len(known.images) :]])
            told = head(reversed_gradient(features, strength))
            cost = domain_cost(told[:num_source], told[num_source:])
            losses[f"domain_{level}"] = self.weight / len(self.heads) * cost
        return losses


def checked_levels(network: nn.Module, levels: Sequence[str]) -> UNet:
    """The network, if it has these levels.

    Raises:
        ConfigError: Which lists those that it has.
    """
    if not isinstance(network, UNet):
        raise ConfigError("domain classifiers are placed at the levels of a unet; give --network unet.")
    if not levels:
        raise ConfigError(f"dann needs a level; choose --levels from {', '.join(network.levels)}.")
    unknown = [level for level in levels if level not in network.levels]
    if unknown or len(set(levels)) < len(levels):
        what = f"there is no level {', '.join(unknown)}" if unknown else f"a level is given twice: {', '.join(levels)}"
        raise ConfigError(
            f"{what}; a unet of depth {network.config.depth} has {', '.join(network.levels)} (the finest is 0)."
        )
    return network
