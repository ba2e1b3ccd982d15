"""An adversary on label maps: the target's shall look like the source's.

Sources: Javanmardi and Tasdizen 2018 (gradient reversal on the softmax map); Tsai et al. 2018, AdaptSegNet
(arXiv:1802.10349: alternating updates); Vu et al. 2019, ADVENT (arXiv:1811.12833: self-information instead of
probabilities).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from raydom.algorithms.adaptation import (
    Adaptation,
    class_probabilities,
    domain_cost,
    finest,
    labelled,
    self_information,
)
from raydom.algorithms.phases import DomainBatch, Phase
from raydom.algorithms.reversal import reversal_strength, reversed_gradient
from raydom.algorithms.supervised import LabelLosses
from raydom.networks.domain_heads import MapCritic


class OutputAdversary(Adaptation):
    """A network whose label maps of the target a critic cannot tell from those of the source.

    Args:
        network: Maps images to logits of classes.
        labels: The losses of the labels.
        critic: Judges maps of all classes.
        weight: Of the adversary's loss.
        updates: ``reversal``: one update, the network gets the critic's gradient reversed (paper 002); ``alternating``:
            the network first makes the critic take the target for the source, then the critic learns.
        maps: ``probability`` or ``self-information`` (adversarial entropy minimisation).
        schedule: Of λ with reversal, see ``reversal_strength``.
        pretrain_steps: How long the labels alone are learnt at first.
        critic_rate: Learning rate of the critic, as a share of the network's.
    """

    def __init__(
        self,
        network: nn.Module,
        labels: LabelLosses,
        critic: MapCritic,
        weight: float = 0.1,
        updates: str = "reversal",
        maps: str = "probability",
        schedule: str = "warm-up",
        pretrain_steps: int = 0,
        critic_rate: float = 1.0,
    ) -> None:
        super().__init__(network, labels, pretrain_steps)
        self.modules |= {"critic": critic}
        self.learning_rate_factors = {"critic": critic_rate}
        self.weight, self.updates, self.maps, self.schedule = weight, updates, maps, schedule
        self._seen: tuple[Tensor, Tensor] | None = None

    def adaptation(self, step: int, num_steps: int) -> tuple[Phase, ...]:
        if self.updates == "reversal":
            strength = reversal_strength(self.schedule, step, num_steps)
            return (Phase("adapt", ("network", "critic"), lambda batch: self.together(batch, strength)),)
        return (
            Phase("segment", ("network",), self.segmentation),
            Phase("criticise", ("critic",), self.criticism),
        )

    def together(self, batch: DomainBatch, strength: float) -> dict[str, Tensor]:
        told, of_target = self.told(batch)
        source, target = self._maps(told, batch), self._maps(of_target, batch)
        critic = self.modules["critic"]
        cost = domain_cost(critic(reversed_gradient(source, strength)), critic(reversed_gradient(target, strength)))
        return self.labels(told, labelled(batch)) | {"domain": self.weight * cost}

    def segmentation(self, batch: DomainBatch) -> dict[str, Tensor]:
        told, of_target = self.told(batch)
        source, target = self._maps(told, batch), self._maps(of_target, batch)
        self._seen = source.detach(), target.detach()
        judged = self.modules["critic"](target).float()
        fooled = F.binary_cross_entropy_with_logits(judged, judged.new_zeros(judged.shape))
        return self.labels(told, labelled(batch)) | {"fooled": self.weight * fooled}

    def criticism(self, batch: DomainBatch) -> dict[str, Tensor]:
        assert self._seen is not None
        source, target = self._seen
        return {"domain": domain_cost(self.modules["critic"](source), self.modules["critic"](target))}

    def _maps(self, outputs: Tensor | tuple[Tensor, ...], batch: DomainBatch) -> Tensor:
        """What the critic sees; of the labelled images those of the source."""
        probabilities = class_probabilities(finest(outputs)[: len(batch.source.images)])
        return probabilities if self.maps == "probability" else self_information(probabilities)
