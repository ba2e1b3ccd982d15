"""Training of generators between domains: what is checked and fixed beforehand, and what the loop is given."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from raydom.algorithms.cyclegan import CycleGan
from raydom.algorithms.drit import Drit
from raydom.algorithms.phases import Algorithm
from raydom.commands import CycleGanConfig, DomainsConfig, DritConfig, TargetFilter
from raydom.config import DomainSpec, GeneratorSpec, ImageFilter, to_dict
from raydom.errors import ConfigError, DataError
from raydom.images.intensity import fraction_statistics, pooled_statistics
from raydom.networks.discriminators import PatchDiscriminator, check_field, patch_field_px
from raydom.networks.disentangled import Translator
from raydom.networks.disentangled_discriminators import check_crop, field_px
from raydom.networks.generators import Generator
from raydom.storage import files
from raydom.storage.collection import open_collection
from raydom.storage.model_run import open_model_run
from raydom.storage.planes import open_planes
from raydom.training import distributed
from raydom.training.crops import CropReader, CropSampler, CropView
from raydom.training.data import check_alike, common_pixel_size, intensity_range
from raydom.training.domains import DomainImages, DomainSampler, check_channels, domain_images
from raydom.training.loop import Training, number_of_steps
from raydom.training.plan import TrainingPlan
from raydom.training.samples import translated
from raydom.training.seeds import derived_seed
from raydom.training.translated import certainty_as_source
from raydom.types import ImageRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TranslationPlan(TrainingPlan):
    """A training of CycleGAN or DRIT, checked and fixed: small, and the same in every process."""

    config: CycleGanConfig | DritConfig
    spec: GeneratorSpec
    domains: tuple[DomainImages, ...]
    num_steps: int
    model_hash: str | None = None
    """Content hash of the segmentation model that scores them."""

    @property
    def label(self) -> str:
        return f"train {self.spec.kind}"

    def settings(self) -> dict[str, Any]:
        """All that the result depends on, for the run folder."""
        left_out = DomainsConfig.__dataclass_fields__
        return {
            "algorithm": self.spec.kind,
            **{name: value for name, value in to_dict(self.config).items() if name not in left_out},
            **self.resources(),
            "domains": [to_dict(domain) for domain in self.domains],
            "model": self.model_hash,
        }

    def assemble(self, device: torch.device) -> Training:
        """Networks and crops of this process."""
        sampler = DomainSampler(
            [
                CropSampler(domain_reader(self.spec, images, number), self.train, number)
                for number, images in enumerate(self.domains)
            ]
        )
        rank, world_size = distributed.rank(), distributed.world_size()
        algorithm = self._algorithm()
        networks, model = algorithm.exported(), self.config.model
        score = certainty_as_source(model, networks, self.spec, self.domains[1], device) if model else None
        return Training(
            algorithm=algorithm,
            batch_at=lambda step: sampler.batch(step, rank, world_size),
            validate=score,
            sample=lambda: translated(networks, sampler.batch(0).domains, device),
            sample_every=self.config.sample_every,
        )

    def _algorithm(self) -> Algorithm:
        config, seed, num_channels = self.config, self.train.seed, len(self.spec.channels)
        if isinstance(config, DritConfig):
            networks = config.network_config(num_channels, len(self.domains))
            return Drit(networks, config.losses, self.train.crop_px, seed)
        shape = config.network_config(num_channels)
        there, back = (Generator(shape, derived_seed(seed, number)) for number in range(2))
        source, target = (
            PatchDiscriminator(num_channels, config.base_channels, config.critic_layers, derived_seed(seed, number))
            for number in (2, 3)
        )
        weights = (config.cycle_weight, config.identity_weight)
        return CycleGan(there, back, source, target, *weights, config.pool_size)


def plan_translation(config: CycleGanConfig | DritConfig) -> TranslationPlan:
    """Check everything that can be checked before the first step.

    Raises:
        DataError: If a domain has no image to train on, or the domains differ in their channels.
        ConfigError: If the settings do not fit each other or the images.
    """
    config = replace(config, out=files.absolute(config.out), model=config.model and files.absolute(config.model))
    if isinstance(config, DritConfig):
        check_crop(config.train.crop_px, separate=config.separate)
        _warn_of_small_crops(config.train.crop_px, field_px(separate=config.separate))
    else:
        check_field(config.train.crop_px, patch_field_px(config.critic_layers))
    num_workers = config.run.workers or 1
    domains = [
        domain_images(name, uri, images, config.train, None, num_workers, validated=False)
        for name, uri, images in (chosen_domains(config) if isinstance(config, DritConfig) else config.pair())
    ]
    channels = check_channels(domains)
    records = [one.records(one.training_ids) for one in domains]
    for seen in records:
        check_alike(seen)
    network: Generator | Translator
    if isinstance(config, DritConfig):
        network = Translator(config.network_config(len(channels), len(domains)))
    else:
        network = Generator(config.network_config(len(channels)))
    spec = GeneratorSpec(
        kind="drit" if isinstance(config, DritConfig) else "cyclegan",
        generator=network.config,
        channels=channels,
        domains=tuple(domain_spec(one.name, seen) for one, seen in zip(domains, records, strict=True)),
        pixel_size_um=_pixel_size(config, [record for seen in records for record in seen]),
        total_stride=network.total_stride,
        reach_px=network.reach_px,
    )
    model_hash = None if config.model is None else _checked_model(config.model, spec)
    num_images = max(len(one.training_ids) for one in domains)
    num_steps = number_of_steps(config.train, num_images, num_workers)
    return TranslationPlan(config, spec, tuple(domains), num_steps, model_hash)


def _checked_model(model: str, spec: GeneratorSpec) -> str:
    """The content hash of the model that scores the generators.

    Raises:
        ConfigError: If it cannot.
    """
    run = open_model_run(model)
    told = [
        (len(spec.domains) == 2, f"there are {len(spec.domains)} domains, and a score only between two"),
        (len(run.spec.channels) == len(spec.channels), f"it takes {len(run.spec.channels)} channels"),
        (run.spec.network.output == "classes", f"it tells {run.spec.network.output}, and the score is of classes"),
    ]
    for fits, why in told:
        if not fits:
            raise ConfigError(f"--model {run.uri} cannot score these generators: {why}. Give another, or leave it out.")
    return run.content_hash


def _warn_of_small_crops(crop_px: int, field: int) -> None:
    if crop_px < field:
        logger.warning(
            "crops of %d px are smaller than the field of %d px of DRIT's discriminators, which then judge what is "
            "mirrored beyond them too. Where memory and time allow, give --crop-px %d or more.",
            crop_px, field, -(-field // 4) * 4,
        )  # fmt: skip


def _pixel_size(config: CycleGanConfig | DritConfig, records: Sequence[ImageRecord]) -> float | None:
    if config.pixel_size_um is None:
        return common_pixel_size(records)
    unknown = sum(record.pixel_size_um is None for record in records)
    if unknown:
        raise ConfigError(
            f"{unknown} of {len(records)} images do not state their pixel size, so they cannot be brought to "
            f"--pixel-size {config.pixel_size_um:g}. Ingest them with --pixel-size, or leave it out here."
        )
    return config.pixel_size_um


def chosen_domains(config: DomainsConfig) -> list[tuple[str, str, ImageFilter]]:
    """Name, collection and images of each domain: a pair, or all of one collection.

    Raises:
        DataError: If the collection has fewer than two domains.
        ConfigError: For options that choose nothing.
    """
    if config.collection is None or config.source_domain is not None or config.target_domain is not None:
        return list(config.pair())
    if config.target_images != TargetFilter():
        raise ConfigError(
            "--target-images has no effect where all domains of a collection are learnt: choose among all images "
            "by --keep, --split and --group, or two domains by --source-domain and --target-domain."
        )
    records = open_planes(config.collection, config.images).records
    names = sorted({record.domain for record in records if record.domain is not None})
    without = sum(record.domain is None for record in records)
    if len(names) < 2:
        found = f"only {names[0]!r}" if names else "none"
        raise DataError(
            f"{config.collection}: two domains or more are needed, but its column domain has {found}. Tell domains "
            "apart with `raydom domains` or `raydom ingest --domain`, or give --source and --target."
        )
    if without:
        logger.warning("%d of %d images are of no domain and are not used.", without, len(records))
    return [(name, config.collection, replace(config.images, domain=name)) for name in names]


def domain_spec(name: str, records: Sequence[ImageRecord]) -> DomainSpec:
    """What is to be known of a domain, from its training images."""
    low, high = intensity_range(records)
    dtypes = {record.dtype for record in records}
    dtype = dtypes.pop() if len(dtypes) == 1 else "float32"
    statistics = pooled_statistics(
        [one.statistics if not dtypes else fraction_statistics(one.statistics, one.dtype) for one in records],
        [float(math.prod(record.spatial_shape)) for record in records],
    )
    return DomainSpec(name=name, low=low, high=high, dtype=dtype, statistics=statistics)


def domain_reader(spec: GeneratorSpec, images: DomainImages, number: int) -> CropReader:
    """The training images of a domain as the networks see them."""
    domain = spec.domains[number]
    view = CropView(low=domain.low, high=domain.high, pixel_size_um=spec.pixel_size_um, label=None)
    return CropReader(open_collection(images.collection), images.training_ids, view)
