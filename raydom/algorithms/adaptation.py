"""What algorithms share that adapt a segmentation network to a target without labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raydom.algorithms.phases import Algorithm, Batch, DomainBatch, Phase
from raydom.algorithms.supervised import LabelLosses


class Adaptation(Algorithm):
    """A network that learns the source's labels, and something of the target beside it.

    Both domains go through the network in one batch, so that batch normalisation sees their mixture, in training as at
    inference. Labelled images of the target, if there are any, are learnt as those of the source. What judges features
    and maps sees whole crops, the pixels too by which small images are mirrored; all other losses leave those out.

    Args:
        network: Maps images to logits.
        labels: The losses of the labels.
        pretrain_steps: How long the labels alone are learnt at first.
    """

    def __init__(self, network: nn.Module, labels: LabelLosses, pretrain_steps: int = 0) -> None:
        self.modules: dict[str, nn.Module] = {"network": network}
        self.labels, self.pretrain_steps = labels, pretrain_steps

    def phases(self, step: int, num_steps: int) -> Sequence[Phase]:
        if step < self.pretrain_steps:
            return (Phase("pretrain", self.trained, lambda batch: self.labels(self.told(batch)[0], labelled(batch))),)
        return self.adaptation(step - self.pretrain_steps, num_steps - self.pretrain_steps)

    @property
    def trained(self) -> tuple[str, ...]:
        """The modules that the network is made of."""
        return ("network",)

    @abstractmethod
    def adaptation(self, step: int, num_steps: int) -> Sequence[Phase]:
        """The phases of a step, counted from the end of the pre-training."""

    def told(self, batch: DomainBatch) -> tuple[Any, Any]:
        """What the network tells of the labelled images, and of the target."""
        outputs = self.modules["network"](torch.cat([labelled(batch).images, batch.target.images]))
        return halves(outputs, len(labelled(batch).images))


def labelled(batch: DomainBatch) -> Batch:
    """All that has labels: the source, and what of the target is labelled."""
    if batch.labelled_target is None:
        return batch.source
    a, b = batch.source, batch.labelled_target
    targets = None if a.targets is None or b.targets is None else torch.cat([a.targets, b.targets])
    return replace(
        a,
        images=torch.cat([a.images, b.images]),
        labels=torch.cat([a.labels, b.labels]),
        valid=torch.cat([a.valid, b.valid]),
        targets=targets,
    )


def halves(outputs: Any, num_first: int) -> tuple[Any, Any]:
    """The first images' outputs and the others', also where there are several outputs."""
    if isinstance(outputs, tuple):
        first, second = zip(*(halves(one, num_first) for one in outputs), strict=True)
        return first, second
    return outputs[:num_first], outputs[num_first:]


def finest(outputs: Any) -> Tensor:
    """The logits that inference uses, of a network with several outputs in training (the first of them)."""
    logits: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
    return logits.float()


def class_probabilities(logits: Float[Tensor, "n k h w"]) -> Float[Tensor, "n classes h w"]:
    """Of every class, the background included: two of them for one logit."""
    if logits.shape[1] > 1:
        return logits.softmax(dim=1)
    foreground = logits.sigmoid()
    return torch.cat([1 - foreground, foreground], dim=1)


def self_information(probabilities: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k h w"]:
    """-p log p / log K of each class: their sum is the entropy, 1 where all K are equally likely."""
    num_classes = probabilities.shape[1]
    logs = probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()
    return -probabilities * logs / torch.tensor(float(num_classes)).log().to(probabilities)


def domain_cost(source: Tensor, target: Tensor) -> Float[Tensor, ""]:
    """½ (BCE of the source as 0 + BCE of the target as 1), in nats, from logits; ln 2 for an undecided classifier."""
    of_source = F.binary_cross_entropy_with_logits(source.float(), torch.zeros_like(source, dtype=torch.float32))
    of_target = F.binary_cross_entropy_with_logits(target.float(), torch.ones_like(target, dtype=torch.float32))
    return (of_source + of_target) / 2
