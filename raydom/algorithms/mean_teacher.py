"""Self-training with a mean teacher: what it is confident of on the target teaches the network, seen through noise.

Sources: Tarvainen and Valpola 2017 (arXiv:1703.01780: the teacher is a moving average); French et al. 2018
(arXiv:1706.05208: for domains, with a confidence threshold); Tranheden et al. 2021, DACS (arXiv:2007.08702: threshold
0.968, and pseudo-labels that weigh as much as the share of confident pixels).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydom.algorithms.adaptation import Adaptation, class_probabilities, finest, halves, labelled
from raydom.algorithms.phases import DomainBatch, Phase
from raydom.algorithms.supervised import LabelLosses


class MeanTeacher(Adaptation):
    """Loss: that of the labels + ``weight`` times the cross-entropy of the teacher's labels on the target.

    The cross-entropy is summed over the pixels whose likeliest class has a probability of at least ``confidence``, and
    divided by the number of all valid ones. The teacher sees the crop, the network the crop with other intensities and
    noise. The run holds the teacher.

    Args:
        network: Maps images to logits of classes.
        labels: The losses of the labels.
        weight: Of what the teacher tells.
        confidence: Probability from which it is believed.
        decay: Of the moving average, a step; less in the first steps, so that the random weights are soon forgotten.
        noise: Standard deviation of the noise, in normalised intensities.
        pretrain_steps: How long the labels alone are learnt at first.
    """

    def __init__(
        self,
        network: nn.Module,
        labels: LabelLosses,
        weight: float = 1.0,
        confidence: float = 0.968,
        decay: float = 0.99,
        noise: float = 0.05,
        pretrain_steps: int = 0,
    ) -> None:
        super().__init__(network, labels, pretrain_steps)
        self.modules |= {"teacher": copy.deepcopy(network).requires_grad_(False)}
        self.weight, self.confidence, self.decay, self.noise = weight, confidence, decay, noise
        self.updates = 0

    def exported(self) -> nn.Module:
        return self.modules["teacher"]

    def adaptation(self, step: int, num_steps: int) -> tuple[Phase, ...]:
        return (Phase("adapt", ("network",), self.losses),)

    def losses(self, batch: DomainBatch) -> dict[str, Tensor]:
        teacher = self.modules["teacher"].eval()
        with torch.no_grad():
            believed, truth = class_probabilities(finest(teacher(batch.target.images))).max(dim=1)
        seen = torch.cat([labelled(batch).images, self.disturbed(batch.target.images)])
        told, of_target = halves(self.modules["network"](seen), len(labelled(batch).images))
        probabilities = class_probabilities(finest(of_target))
        cost = -probabilities.gather(1, truth[:, None])[:, 0].clamp(min=1e-7).log()
        valid = batch.target.valid
        taught = torch.where(valid & (believed >= self.confidence), cost, 0.0).sum() / valid.sum().clamp(min=1)
        return self.labels(told, labelled(batch)) | {"taught": self.weight * taught}

    def disturbed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """With another gain and offset for each image, and noise."""
        draws = torch.rand(2, len(images), 1, 1, 1, device=images.device) * 2 - 1
        return images * (1 + 0.25 * draws[0]) + 0.1 * draws[1] + self.noise * torch.randn_like(images)

    @torch.no_grad()
    def after_step(self) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        network, teacher = self.modules["network"], self.modules["teacher"]
        for mean, parameter in zip(teacher.parameters(), network.parameters(), strict=True):
            mean.lerp_(parameter.detach(), 1 - decay)
        for own, buffer in zip(teacher.buffers(), network.buffers(), strict=True):
            own.copy_(buffer)
        self.updates += 1

    def state(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def load_state(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
