"""Adaptation of a segmentation network from a source to a target: what is fixed beforehand, and what the loop is given.

One plan for all algorithms that do so; what makes each of them is in ``_algorithm``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from raydom.algorithms.adaptation import Adaptation
from raydom.algorithms.classifier_discrepancy import ClassifierDiscrepancy
from raydom.algorithms.dann import Dann, checked_levels
from raydom.algorithms.entropy import EntropyMinimisation
from raydom.algorithms.mean_teacher import MeanTeacher
from raydom.algorithms.output_adversary import OutputAdversary
from raydom.algorithms.supervised import LabelLosses
from raydom.algorithms.trained import load_trained
from raydom.commands import (
    AdaptationConfig,
    DannConfig,
    DiscrepancyConfig,
    DomainsConfig,
    EntropyConfig,
    MeanTeacherConfig,
    NetworkOptions,
    OutputAdversaryConfig,
)
from raydom.config import ModelSpec, TrainConfig, to_dict
from raydom.errors import ConfigError
from raydom.label_free.combined import Standard
from raydom.networks.build import build_network
from raydom.networks.domain_heads import MapCritic
from raydom.networks.unet import UNet
from raydom.storage import files
from raydom.storage.collection import open_collection
from raydom.storage.model_run import open_model_run
from raydom.training import distributed
from raydom.training.crops import CropReader, CropSampler, CropView
from raydom.training.data import check_alike, check_trainable
from raydom.training.domains import DomainImages, DomainSampler, check_channels, domain_images, shares_by_likeness
from raydom.training.evaluation import validation_score
from raydom.training.loop import Training, number_of_steps
from raydom.training.model import check_network_crops, class_weights, file_hash, model_spec, with_absolute_weights
from raydom.training.plan import TrainingPlan
from raydom.training.restyling import RESTYLING, RestylingPlan, plan_restyling, restyler
from raydom.training.samples import segmented
from raydom.training.seeds import ORDER, derived_generator
from raydom.training.unlabelled import TargetScore, certainty, labelled_standard

logger = logging.getLogger(__name__)

NAMES: dict[type[AdaptationConfig], str] = {
    DannConfig: "dann",
    OutputAdversaryConfig: "output-adversary",
    EntropyConfig: "entropy",
    DiscrepancyConfig: "classifier-discrepancy",
    MeanTeacherConfig: "mean-teacher",
}
"""What each algorithm is called on the command line and in its run."""
LABELLED = 2
"""Number of the target's labelled images among the domains, for what is drawn of them."""


@dataclass(frozen=True)
class AdaptationPlan(TrainingPlan):
    """An adaptation, checked and fixed: small, and the same in every process."""

    config: AdaptationConfig
    spec: ModelSpec
    source: DomainImages
    target: DomainImages
    labelled_ids: tuple[str, ...]
    """Images of the target whose labels are learnt."""
    target_mask: str | None
    """What marks the target's pixels that count, if all its images have it."""
    shares: tuple[float, ...] | None
    """How often each source image is drawn."""
    num_steps: int
    class_weights: tuple[float, ...]
    weights_sha256: str | None
    """Of the file of pretrained weights, if there is one."""
    initial_hash: str | None
    """Content hash of the model run to begin with."""
    restyling: RestylingPlan | None = None
    """Crops of the source in another look."""
    standard: Standard | None = None
    """How foreground looks in the labels of the source, for ``--select combined``."""

    @property
    def algorithm(self) -> str:
        return NAMES[type(self.config)]

    @property
    def label(self) -> str:
        return f"train {self.algorithm}"

    def settings(self) -> dict[str, Any]:
        """All that the result depends on, for the run folder."""
        left_out = {*DomainsConfig.__dataclass_fields__, *RESTYLING}
        config = {name: value for name, value in to_dict(self.config).items() if name not in left_out}
        return {
            "algorithm": self.algorithm,
            **config,
            **self.resources(),
            "source": to_dict(self.source),
            "target": to_dict(self.target),
            "labelled_images": list(self.labelled_ids),
            "target_mask": self.target_mask,
            "weights_sha256": self.weights_sha256,
            "initial": self.initial_hash,
            "restyling": None if self.restyling is None else self.restyling.settings(),
        }

    def assemble(self, device: torch.device) -> Training:
        """Network, crops and validation of this process."""
        config, spec, seed = self.config, self.spec, self.train.seed
        if config.initial is None:
            network = build_network(spec.network, seed, config.weights)
        else:
            network = load_trained(config.initial)[0].requires_grad_(True).train()
        labels = LabelLosses(spec.network.output, self.class_weights)
        algorithm = _algorithm(config, network, labels, lambda: build_network(spec.network, seed + 1), self.train)
        view, unlabelled = CropView.of(spec), CropView.of(spec, labelled=False)
        source, target = open_collection(self.source.collection), open_collection(self.target.collection)
        known = CropReader(source, self.source.training_ids, view, config.mask)
        foreign = CropReader(target, self.target.training_ids, unlabelled, self.target_mask)
        labelled = None
        if self.labelled_ids:
            labelled = CropSampler(CropReader(target, self.labelled_ids, view, config.mask), self.train, LABELLED)
        restyle = restyler(self.restyling, self.source.training_ids, view, self.train, device)
        sampler = DomainSampler(
            [CropSampler(known, self.train, 0, self.shares, restyle), CropSampler(foreign, self.train, 1)], labelled
        )
        rank, world_size = distributed.rank(), distributed.world_size()
        return Training(
            algorithm=algorithm,
            batch_at=lambda step: sampler.batch(step, rank, world_size),
            validate=self._validation(algorithm, device),
            keep_last=config.select == "last",
            sample=lambda: segmented(algorithm.exported(), sampler.batch(0).domains, device, spec.network.output),
            sample_every=config.sample_every,
        )

    def _validation(self, algorithm: Adaptation, device: torch.device) -> Callable[[], float]:
        """What scores the network at hand."""
        config, spec, target = self.config, self.spec, self.target
        if self.standard is not None:
            score = TargetScore(
                target,
                self.standard,
                spec,
                num_crops=config.select_crops,
                seed=self.train.seed,
                mask=self.target_mask,
                device=device,
            )
            return lambda: score(algorithm.exported())
        if config.select == "entropy":
            foreign, view = open_collection(target.collection), CropView.of(spec, labelled=False)
            reader = CropReader(foreign, target.validation_ids, view, self.target_mask)
            return lambda: certainty(algorithm.exported(), reader, target.validation_ids, spec, device)
        known, ids = open_collection(self.source.collection), self.source.validation_ids
        labelled = CropReader(known, ids, CropView.of(spec), config.mask)
        return lambda: validation_score(algorithm.exported(), labelled, ids, spec, device)


def plan_adaptation(config: AdaptationConfig) -> AdaptationPlan:
    """Check everything that can be checked before the first step.

    Raises:
        DataError: If a domain has no image to train on, the source no labels, or the domains differ in their channels.
        ConfigError: If the settings do not fit each other or the images.
    """
    config = replace(with_absolute_weights(config), out=files.absolute(config.out))
    config = replace(config, initial=None if config.initial is None else files.absolute(config.initial))
    num_workers = config.run.workers or 1
    (name, uri, images), (target_name, target_uri, target_images) = config.pair()
    source = domain_images(name, uri, images, config.train, config.label, num_workers)
    target = domain_images(target_name, target_uri, target_images, config.train, None, num_workers)
    check_channels([source, target])
    instances = config.network_config(1).output != "classes"
    check_trainable(source.records(source.all_ids), config.label, config.mask, instances)
    check_alike(target.records(target.all_ids))
    labelled_ids = _labelled_ids(config, target)
    if labelled_ids:
        check_trainable(target.records(labelled_ids), config.label, config.mask, instances)
    records = source.records(source.training_ids)
    initial_hash = None
    if config.initial is None:
        spec, network = model_spec(config, records, config.train)
    else:
        run = open_model_run(config.initial)
        spec, initial_hash = run.spec, run.content_hash
        network = _initial(config, run.spec, records[0].num_channels)
    check_network_crops(config.train, spec, network)
    _check_algorithm(config, network)
    _warn_of_pixel_sizes(spec, target)
    return AdaptationPlan(
        config=config,
        spec=spec,
        source=source,
        target=target,
        labelled_ids=labelled_ids,
        target_mask=_target_mask(config, target),
        shares=shares_by_likeness(records, target.records(target.training_ids)) if config.reweight else None,
        num_steps=_num_steps(config, source, target, num_workers),
        class_weights=class_weights(config, open_collection(source.collection), records),
        weights_sha256=file_hash(config.weights),
        initial_hash=initial_hash,
        restyling=plan_restyling(config, config.train, spec, records),
        standard=_standard(config, source, spec),
    )


def _algorithm(
    config: AdaptationConfig,
    network: nn.Module,
    labels: LabelLosses,
    twin: Callable[[], nn.Module],
    train: TrainConfig,
) -> Adaptation:
    shared: dict[str, Any] = {"weight": config.weight, "pretrain_steps": config.pretrain_steps}  # type: ignore[attr-defined]
    num_classes = config.num_classes

    def critic(channels: int) -> MapCritic:
        return MapCritic(num_classes, channels, _critic_strides(train.crop_px), train.seed + 1)

    if isinstance(config, DannConfig):
        levels = config.levels
        return Dann(network, labels, levels, schedule=config.reversal, gamma=config.gamma, seed=train.seed, **shared)
    if isinstance(config, OutputAdversaryConfig):
        return OutputAdversary(
            network,
            labels,
            critic(config.critic_channels),
            updates=config.updates,
            schedule=config.reversal,
            critic_rate=config.critic_rate,
            **shared,
        )
    if isinstance(config, EntropyConfig):
        if config.mode == "direct":
            return EntropyMinimisation(network, labels, **shared)
        return OutputAdversary(network, labels, critic(64), updates="alternating", maps="self-information", **shared)
    if isinstance(config, DiscrepancyConfig):
        return ClassifierDiscrepancy(network, twin(), labels, trunk_updates=config.trunk_updates, **shared)
    assert isinstance(config, MeanTeacherConfig)
    return MeanTeacher(network, labels, confidence=config.confidence, decay=config.decay, noise=config.noise, **shared)


def _standard(config: AdaptationConfig, source: DomainImages, spec: ModelSpec) -> Standard | None:
    if config.select != "combined":
        return None
    if spec.num_classes > 2:
        logger.warning(
            "--select combined judges where any of the %d classes but the background is told, not which of them.",
            spec.num_classes,
        )
    return labelled_standard(source, spec, config.train.seed, config.mask)


def _check_algorithm(config: AdaptationConfig, network: nn.Module) -> None:
    """Refuse a network or crops that the algorithm cannot work on."""
    if isinstance(config, DannConfig):
        checked_levels(network, config.levels)
    if isinstance(config, DiscrepancyConfig) and not isinstance(network, UNet):
        raise ConfigError("classifier-discrepancy needs a unet; give --network unet, or another --initial.")
    if isinstance(config, OutputAdversaryConfig | EntropyConfig):
        _critic_strides(config.train.crop_px)


def _critic_strides(crop_px: int) -> int:
    """As many strides of the critic as the crop has room for; four, as published, from 32 px.

    Raises:
        ConfigError: For crops that it cannot judge.
    """
    strides = min(4, crop_px.bit_length() - 2)
    if strides < 1:
        raise ConfigError(
            f"the critic of label maps needs crops of at least 4 px, which its convolutions of 4 px and stride 2 bring "
            f"down to one; got --crop-px {crop_px}."
        )
    return strides


def _initial(config: AdaptationConfig, spec: ModelSpec, num_channels: int) -> nn.Module:
    """The network of the run to begin with, untrained.

    Raises:
        ConfigError: If it is not for such images or labels.
    """
    if spec.network.in_channels != num_channels:
        raise ConfigError(
            f"--initial {config.initial} takes {spec.network.in_channels} channels ({', '.join(spec.channels)}); the "
            f"source's images have {num_channels}."
        )
    if spec.num_classes != config.num_classes or spec.label != config.label:
        raise ConfigError(
            f"--initial {config.initial} tells {spec.num_classes} classes of {spec.label!r}; asked for are "
            f"{config.num_classes} of {config.label!r}. Give --num-classes and --label as it has them."
        )
    asked = config.network_config(num_channels)
    if spec.network.output != asked.output:
        raise ConfigError(
            f"--initial {config.initial} tells {spec.network.output} of {spec.label!r}; asked for are {asked.output}. "
            f"Give --output {spec.network.output}, or another run."
        )
    for option in ("network", "base_channels", "depth", "norm", "encoder"):
        field = "name" if option == "network" else option
        wanted, there = getattr(config, option), getattr(spec.network, field)
        if wanted not in (there, getattr(NetworkOptions, option)):
            raise ConfigError(
                f"--{option.replace('_', '-')} {wanted} has no effect with --initial {config.initial}, whose network "
                f"has {there}. Leave it out."
            )
    return build_network(spec.network)


def _warn_of_pixel_sizes(spec: ModelSpec, target: DomainImages) -> None:
    """Training takes images without a pixel size as they are; at inference theirs must be told."""
    if spec.pixel_size_um is None:
        return
    unknown = [one.image_id for one in target.records(target.all_ids) if one.pixel_size_um is None]
    if unknown:
        logger.warning(
            "%d images of the target do not state their pixel size: they are taken to have that of the model, %g um.",
            len(unknown), spec.pixel_size_um,
        )  # fmt: skip


def _labelled_ids(config: AdaptationConfig, target: DomainImages) -> tuple[str, ...]:
    """Drawn among the target's training images that have labels.

    Raises:
        ConfigError: If there are not as many.
    """
    if not config.labelled_target:
        return ()
    there = [one.image_id for one in target.records(target.training_ids) if config.label in one.labels]
    if len(there) < config.labelled_target:
        raise ConfigError(
            f"--labelled-target {config.labelled_target}: {len(there)} training images of the target have labels "
            f"{config.label!r}."
        )
    drawn = derived_generator(config.train.seed, ORDER, 0, LABELLED).permutation(len(there))[: config.labelled_target]
    return tuple(sorted(there[index] for index in drawn))


def _target_mask(config: AdaptationConfig, target: DomainImages) -> str | None:
    """The mask, if all images of the target have it: a field of view may be known without labels."""
    lacking = [one.image_id for one in target.records(target.all_ids) if config.mask not in one.labels]
    if config.mask is None or not lacking:
        return config.mask
    logger.warning(
        "%d images of the target have no mask %r, such as %s: all pixels of the target count.",
        len(lacking), config.mask, lacking[0],
    )  # fmt: skip
    return None


def _num_steps(config: AdaptationConfig, source: DomainImages, target: DomainImages, num_workers: int) -> int:
    """An epoch visits every image of the larger domain."""
    num_images = max(len(source.training_ids), len(target.training_ids))
    steps = number_of_steps(config.train, num_images, num_workers)
    if config.pretrain_steps >= steps:
        raise ConfigError(f"--pretrain-steps {config.pretrain_steps} leaves none of {steps} steps to adapt.")
    return steps
