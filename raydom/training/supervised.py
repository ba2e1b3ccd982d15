"""Supervised training from a collection: what is checked and fixed beforehand, and what the loop is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from raydom.algorithms.supervised import Supervised
from raydom.commands import SupervisedConfig
from raydom.config import ModelSpec, fingerprint, to_dict
from raydom.errors import ConfigError
from raydom.networks.build import build_network
from raydom.storage import files
from raydom.storage.collection import open_collection
from raydom.storage.planes import open_planes
from raydom.training import distributed
from raydom.training.crops import CropReader, CropSampler, CropView
from raydom.training.data import check_trainable, split_by_group
from raydom.training.evaluation import validation_score
from raydom.training.loop import Training, number_of_steps
from raydom.training.model import check_network_crops, class_weights, file_hash, model_spec, with_absolute_weights
from raydom.training.plan import TrainingPlan
from raydom.training.restyling import RESTYLING, RestylingPlan, plan_restyling, restyler
from raydom.training.samples import segmented


@dataclass(frozen=True)
class SupervisedPlan(TrainingPlan):
    """A supervised training, checked and fixed: small, and the same in every process."""

    config: SupervisedConfig
    spec: ModelSpec
    training_ids: tuple[str, ...]
    validation_ids: tuple[str, ...]
    data_fingerprint: str
    """Of the ids and contents of all these images."""
    num_steps: int
    class_weights: tuple[float, ...]
    """Of the cross-entropy, one a class; none: all the same."""
    weights_sha256: str | None
    """Of the file of pretrained weights, if there is one."""
    restyling: RestylingPlan | None = None
    """Crops in another look."""

    label = "train supervised"

    def settings(self) -> dict[str, Any]:
        """All that the result depends on, for the run folder."""
        left_out = ("run", "out", "find_lr", "sample_every", *RESTYLING)
        config = {name: value for name, value in to_dict(self.config).items() if name not in left_out}
        return {
            "algorithm": "supervised",
            **config,
            "images": self.config.images.settings(),
            **self.resources(),
            "training_images": list(self.training_ids),
            "validation_images": list(self.validation_ids),
            "data": self.data_fingerprint,
            "weights_sha256": self.weights_sha256,
            "restyling": None if self.restyling is None else self.restyling.settings(),
        }

    def assemble(self, device: torch.device) -> Training:
        """Network, crops and validation of this process."""
        collection = open_collection(self.config.collection)
        network = build_network(self.spec.network, self.train.seed, self.config.weights)
        view = CropView.of(self.spec)
        reader = CropReader(collection, self.training_ids, view, self.config.mask)
        restyle = restyler(self.restyling, self.training_ids, view, self.train, device)
        sampler = CropSampler(reader, self.train, restyle=restyle)
        validation = CropReader(collection, self.validation_ids, view, self.config.mask)
        rank, world_size = distributed.rank(), distributed.world_size()
        return Training(
            algorithm=Supervised(network, self.spec.network.output, self.class_weights),
            batch_at=lambda step: sampler.batch(step, rank, world_size),
            validate=lambda: validation_score(network, validation, self.validation_ids, self.spec, device),
            sample=lambda: segmented(network, [sampler.batch(0)], device, self.spec.network.output),
            sample_every=self.config.sample_every,
        )


def plan_supervised(config: SupervisedConfig) -> SupervisedPlan:
    """Check everything that can be checked before the first step.

    Raises:
        DataError: If the collection or its labels cannot be trained on.
        ConfigError: If the settings do not fit each other or the images.
    """
    config = with_absolute_weights(config)
    config = replace(config, collection=files.absolute(config.collection), out=files.absolute(config.out))
    chosen = open_planes(config.collection, config.images)
    records = [record for record in chosen.records if record.split != "test"] or list(chosen.records)
    trainable = check_trainable(records, config.label, config.mask, config.network_config(1).output != "classes")
    labelled = {record.image_id: record for record in trainable}
    training_ids, validation_ids = split_by_group(
        list(labelled.values()), config.train.validation_fraction, config.train.seed
    )
    num_workers = config.run.workers or 1
    if len(training_ids) < num_workers:
        raise ConfigError(
            f"{num_workers} workers cannot share {len(training_ids)} training images; "
            f"give --workers {len(training_ids)} or fewer."
        )
    spec, network = model_spec(config, [labelled[image_id] for image_id in training_ids], config.train)
    check_network_crops(config.train, spec, network)
    used = [labelled[image_id] for image_id in sorted({*training_ids, *validation_ids})]
    return SupervisedPlan(
        config=config,
        spec=spec,
        training_ids=training_ids,
        validation_ids=validation_ids,
        data_fingerprint=fingerprint([[record.image_id, record.sha256] for record in used]),
        num_steps=number_of_steps(config.train, len(training_ids), num_workers),
        class_weights=class_weights(config, chosen, [labelled[image_id] for image_id in training_ids]),
        weights_sha256=file_hash(config.weights),
        restyling=plan_restyling(config, config.train, spec, [labelled[image_id] for image_id in training_ids]),
    )
