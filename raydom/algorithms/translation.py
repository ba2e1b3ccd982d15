"""The generators of a trained CycleGAN as a style method, without seams.

A generator normalises each layer by the statistics of what it sees, so that every tile of an image would come out in
its own contrast. An image that is no larger than the overview goes through as a whole. Of a larger one the statistics
of all layers are recorded on windows at full size, spread over the image, taken as one; every part then uses those, and
sees as far beyond its borders as the convolutions look. So it is what it would be within the whole, whatever the cut.

Source: Chen et al. 2022, "Towards Ultra-Resolution Neural Style Transfer via Thumbnail Instance Normalization"
(arXiv:2103.11784), who record them on a thumbnail. There texture is finer than in the image, and its contrast another:
windows at full size come nearer to the statistics of the whole image.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from raydom.algorithms.cyclegan import as_generators_see, as_images
from raydom.algorithms.style_interface import StyleInput, within_legal_range
from raydom.algorithms.trained import load_generators
from raydom.config import DomainSpec, GeneratorSpec, StyleConfig
from raydom.images.intensity import fraction_statistics
from raydom.networks.normalisation import normalised_by, recorded_statistics
from raydom.storage.model_run import open_generator_run
from raydom.types import ImageStatistics


class Translation:
    """From fractions of one domain to fractions of the other."""

    def __init__(self, style: StyleInput, config: StyleConfig) -> None:
        generators, spec = generators_of(str(config.generator), str(style.pixels.device))
        self.generator = generators[config.direction.replace("-", "_")]
        self.seen, self.made = _ordered(spec, config.direction)
        self.stride_px = spec.total_stride
        self.halo_px = -(-spec.reach_px // self.stride_px) * self.stride_px
        self.statistics = domain_statistics(self.made)

    @torch.no_grad()
    def __call__(self, content: StyleInput, generator: torch.Generator) -> Tensor:
        """Each image by its own statistics."""
        return torch.cat([self._fractions(self.generator(self._view(pixels))) for pixels, _ in content.each()])

    def learn(self, seen: StyleInput) -> dict[str, np.ndarray]:
        recorded = recorded_statistics(self.generator, self._view(seen.pixels))
        return {name: statistics.float().cpu().numpy() for name, statistics in recorded.items()}

    @torch.no_grad()
    def adapt(self, part: StyleInput, learned: Mapping[str, np.ndarray]) -> Tensor:
        with normalised_by(self.generator, {name: torch.from_numpy(array) for name, array in learned.items()}):
            return self._fractions(self.generator(self._view(part.pixels)))

    def _view(self, fractions: Tensor) -> Tensor:
        return as_generators_see((fractions - self.seen.low) / (self.seen.high - self.seen.low))

    def _fractions(self, made: Tensor) -> Tensor:
        fractions = self.made.low + as_images(made.float()) * (self.made.high - self.made.low)
        return within_legal_range(fractions, self.statistics)


@functools.lru_cache(maxsize=2)
def generators_of(run: str, device: str) -> tuple[nn.ModuleDict, GeneratorSpec]:
    """Loaded once in a process."""
    generators, spec = load_generators(run)
    return generators.to(torch.device(device)), spec


def made_domain(config: StyleConfig) -> tuple[DomainSpec, GeneratorSpec]:
    """The domain that a configuration's generator makes images of, and the spec of its run."""
    spec = open_generator_run(str(config.generator)).spec
    return _ordered(spec, config.direction)[1], spec


def made_style(config: StyleConfig, device: str = "cpu") -> StyleInput:
    """What stands for a style image: the statistics of the domain that the generator makes images of; no pixels."""
    domain, spec = made_domain(config)
    return StyleInput(torch.zeros(1, len(spec.channels), 1, 1, device=device), domain_statistics(domain))


def made_units(config: StyleConfig) -> ImageStatistics | None:
    """The scale of the pixels that the generator makes, if it was trained on floating point ones."""
    domain, _ = made_domain(config)
    return domain.statistics if np.dtype(domain.dtype).kind == "f" else None


def domain_statistics(domain: DomainSpec) -> ImageStatistics:
    """Of the domain's fractions."""
    return fraction_statistics(domain.statistics, domain.dtype)


def _ordered(spec: GeneratorSpec, direction: str) -> tuple[DomainSpec, DomainSpec]:
    """The domain that is seen and that which is made."""
    source, target = spec.domains
    return (target, source) if direction == "target-to-source" else (source, target)
