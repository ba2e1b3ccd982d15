"""The generators of a trained CycleGAN or DRIT as style methods, without seams.

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
from raydom.algorithms.trained import DIRECTIONS, load_generators, load_translator
from raydom.config import DisentangledConfig, DomainSpec, GeneratorSpec, StyleConfig
from raydom.errors import ConfigError
from raydom.images.intensity import fraction_statistics
from raydom.networks.disentangled import Look, Translator
from raydom.networks.normalisation import normalised_by, recorded_statistics
from raydom.storage.model_run import open_generator_run
from raydom.types import ImageStatistics


class Translation:
    """From fractions of one domain to fractions of the other."""

    def __init__(self, style: StyleInput, config: StyleConfig) -> None:
        run, device = str(config.generator), str(style.pixels.device)
        spec = generator_spec(config)
        seen, made = _ordered(spec, config)
        self.seen, self.made = spec.domains[seen], spec.domains[made]
        self.generator: nn.Module
        if isinstance(spec.generator, DisentangledConfig):
            translator = translator_of(run, device)
            self.generator = Look(translator, seen, made, self._attribute(translator, made, style, config))
        else:
            self.generator = generators_of(run, device)[DIRECTIONS[seen]]
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

    @torch.no_grad()
    def _attribute(self, translator: Translator, made: int, style: StyleInput, config: StyleConfig) -> Tensor:
        """How images of the domain are to look: as on average, as one drawn by the seed, or as the style image."""
        device = style.pixels.device
        domain = torch.tensor([made], device=device)
        if config.attribute == "style":
            channels, own = len(generator_spec(config).channels), style.pixels.shape[1]
            if own != channels:
                raise ConfigError(f"the style image has {own} channels; {config.generator} was trained on {channels}.")
            return translator.encode_attributes(self._view(style.pixels, self.made), domain)
        normal = torch.zeros(1, translator.config.attribute_size)
        if config.attribute == "sampled":
            normal.normal_(generator=torch.Generator().manual_seed(config.seed))
        return translator.sample(normal.to(device), domain)

    def _view(self, fractions: Tensor, domain: DomainSpec | None = None) -> Tensor:
        domain = domain or self.seen
        return as_generators_see((fractions - domain.low) / (domain.high - domain.low))

    def _fractions(self, made: Tensor) -> Tensor:
        fractions = self.made.low + as_images(made.float()) * (self.made.high - self.made.low)
        return within_legal_range(fractions, self.statistics)


@functools.lru_cache(maxsize=2)
def generators_of(run: str, device: str) -> nn.ModuleDict:
    """Loaded once in a process."""
    return load_generators(run)[0].to(torch.device(device))


@functools.lru_cache(maxsize=2)
def translator_of(run: str, device: str) -> Translator:
    """Loaded once in a process."""
    return load_translator(run)[0].to(torch.device(device))


def generator_spec(config: StyleConfig) -> GeneratorSpec:
    """The spec of a configuration's run.

    Raises:
        ConfigError: If the run is not of the configuration's method.
    """
    run = open_generator_run(str(config.generator))
    if run.spec.kind != config.method:
        raise ConfigError(
            f"{run.uri} is a run of {run.spec.kind}, not of {config.method}. Give --method {run.spec.kind} with it."
        )
    return run.spec


def made_domain(config: StyleConfig) -> tuple[DomainSpec, GeneratorSpec]:
    """The domain that a configuration's generator makes images of, and the spec of its run."""
    spec = generator_spec(config)
    return spec.domains[_ordered(spec, config)[1]], spec


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


def _ordered(spec: GeneratorSpec, config: StyleConfig) -> tuple[int, int]:
    """Numbers of the domain that is seen and of that which is made.

    Raises:
        ConfigError: For a domain that there is not, or where it must be told.
    """
    names = [domain.name for domain in spec.domains]

    def number(name: str, option: str) -> int:
        if name not in names:
            raise ConfigError(f"{option} {name}: {config.generator} knows the domains {', '.join(names)}.")
        return names.index(name)

    two = len(names) == 2
    to_domain, from_domain = (config.to_domain, config.from_domain) if config.method == "drit" else (None, None)
    if to_domain is not None:
        made = number(to_domain, "--to-domain")
    elif two:
        made = DIRECTIONS.index(config.direction.replace("-", "_")) ^ 1
    else:
        raise ConfigError(f"{config.generator} knows the domains {', '.join(names)}: choose one with --to-domain.")
    if from_domain is not None:
        return number(from_domain, "--from-domain"), made
    if two:
        return 1 - made, made
    if len({(domain.low, domain.high) for domain in spec.domains}) > 1:
        raise ConfigError(
            f"the domains {', '.join(names)} of {config.generator} differ in their intensity range: tell which the "
            "images are of, or which is nearest, with --from-domain."
        )
    return made, made
