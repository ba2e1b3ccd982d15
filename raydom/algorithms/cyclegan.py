"""CycleGAN: two generators between two domains, learnt from images that are not paired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydom.algorithms.image_pool import ImagePool
from raydom.algorithms.phases import Algorithm, DomainBatch, Phase


class CycleGan(Algorithm):
    """Images that a critic takes for those of the other domain, and that lead back to where they came from.

    All pixels count, those by which small images are mirrored too. Differs from their code in noise of a grey level,
    see ``as_generators_learn``.

    Args:
        source_to_target: Maps source images in [-1, 1] to images that look like target.
        target_to_source: The other way round.
        source_critic: Scores patches: 1 for real source images.
        target_critic: The same for target.
        cycle_weight: Of the way there and back (their lambda).
        identity_weight: Of leaving images of the wanted domain as they are, as a share of the cycle weight.
        pool_size: How many generated images each critic's pool keeps.

    Source: Zhu et al. 2017, arXiv:1703.10593, sections 3 and 4, with least squares (Mao et al. 2017, arXiv:1611.04076)
    and the identity loss of section 5.2. As their code has it, both generators learn before both critics, whose losses
    are halved.
    """

    betas = (0.5, 0.999)

    def __init__(
        self,
        source_to_target: nn.Module,
        target_to_source: nn.Module,
        source_critic: nn.Module,
        target_critic: nn.Module,
        cycle_weight: float = 10.0,
        identity_weight: float = 0.5,
        pool_size: int = 50,
    ) -> None:
        self.modules = {
            "source_to_target": source_to_target,
            "target_to_source": target_to_source,
            "source_critic": source_critic,
            "target_critic": target_critic,
        }
        self._generators = nn.ModuleDict({"source_to_target": source_to_target, "target_to_source": target_to_source})
        self._cycle_weight, self._identity_weight = cycle_weight, cycle_weight * identity_weight
        self._pools = {"source": ImagePool(pool_size), "target": ImagePool(pool_size)}

    def phases(self, step: int, num_steps: int) -> Sequence[Phase]:
        return (
            Phase("generate", ("source_to_target", "target_to_source"), self.generation),
            Phase("criticise", ("source_critic", "target_critic"), self.criticism),
        )

    def generation(self, batch: DomainBatch) -> dict[str, Tensor]:
        """The made images fool the critics, lead back, and what is of the wanted domain already stays."""
        source, target = self._real(batch)
        to_target, to_source = self.modules["source_to_target"], self.modules["target_to_source"]
        made_target, made_source = to_target(source), to_source(target)
        self._made = {"source": made_source.detach(), "target": made_target.detach()}
        losses = {
            "fool_source": least_squares(self.modules["source_critic"](made_source), 1.0),
            "fool_target": least_squares(self.modules["target_critic"](made_target), 1.0),
            "cycle_source": self._cycle_weight * F.l1_loss(to_source(made_target), source),
            "cycle_target": self._cycle_weight * F.l1_loss(to_target(made_source), target),
        }
        if self._identity_weight > 0:
            losses["identity_source"] = self._identity_weight * F.l1_loss(to_source(source), source)
            losses["identity_target"] = self._identity_weight * F.l1_loss(to_target(target), target)
        return losses

    def criticism(self, batch: DomainBatch) -> dict[str, Tensor]:
        """The critics tell real images from made ones, new and older."""
        losses = {}
        for domain, real in zip(("source", "target"), self._real(batch), strict=True):
            critic, made = self.modules[f"{domain}_critic"], self._pools[domain].exchanged(self._made[domain])
            losses[domain] = 0.5 * (least_squares(critic(real), 1.0) + least_squares(critic(made), 0.0))
        return losses

    def exported(self) -> nn.Module:
        return self._generators

    def state(self) -> dict[str, Any]:
        return {domain: pool.state() for domain, pool in self._pools.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        device = next(self._generators.parameters()).device
        for domain, pool in self._pools.items():
            pool.load_state(state[domain], device)

    def _real(self, batch: DomainBatch) -> tuple[Tensor, Tensor]:
        return as_generators_learn(batch.source.images), as_generators_learn(batch.target.images)


def as_generators_see(images: Tensor) -> Tensor:
    """Normalised images, 0 to 1, as images in [-1, 1]; the few intensities beyond are clipped."""
    return (2 * images - 1).clamp(-1, 1)


def as_generators_learn(images: Tensor) -> Tensor:
    """The same with noise of one grey level of 255 from torch's generator; also where an image is clipped as a whole.

    Instance normalisation multiplies the gradient of an image without any contrast, such as a black one, by up to 300
    in each layer: that of a content encoder of DRIT had a norm of 1e13 without the noise, and of 7 with it.
    """
    return as_generators_see(images) + (2 * torch.rand_like(images) - 1) / 255


def as_images(made: Tensor) -> Tensor:
    """The inverse: images in [-1, 1] as normalised ones."""
    return (made + 1) / 2


def least_squares(scores: Tensor, truth: float) -> Tensor:
    """Mean squared distance of a critic's scores from 1 (real) or 0 (made), in float32."""
    return (scores.float() - truth).square().mean()
