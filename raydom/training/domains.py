"""The images of several domains: which train, which validate, and batches of as many crops of each."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raydom.algorithms.phases import DomainBatch
from raydom.config import ImageFilter, TrainConfig, fingerprint
from raydom.errors import ConfigError, DataError
from raydom.images.intensity import fraction_statistics
from raydom.storage import files
from raydom.storage.collection import open_collection
from raydom.storage.planes import open_planes
from raydom.training.crops import CropSampler
from raydom.training.data import split_by_group
from raydom.types import PERCENTILE_LEVELS, ImageRecord

logger = logging.getLogger(__name__)

LEAST_SHARE, LARGEST_SHARE = 0.1, 10.0
"""An image is never drawn less or more often than this, relative to the others' mean."""


@dataclass(frozen=True)
class DomainImages:
    """The images of a domain."""

    name: str
    collection: str
    training_ids: tuple[str, ...]
    validation_ids: tuple[str, ...]
    fingerprint: str
    """Of the ids and contents of all these images."""

    @property
    def all_ids(self) -> tuple[str, ...]:
        return tuple(sorted({*self.training_ids, *self.validation_ids}))

    def records(self, image_ids: Sequence[str]) -> list[ImageRecord]:
        collection = open_collection(self.collection)
        return [collection[image_id].record for image_id in image_ids]


def domain_images(
    name: str,
    collection: str,
    images: ImageFilter,
    config: TrainConfig,
    label: str | None,
    num_workers: int,
    validated: bool = True,
) -> DomainImages:
    """Choose and split the images of a domain.

    Args:
        name: Of the domain.
        collection: Where they are.
        images: Which of them are meant.
        config: How they are split.
        label: What they must have; None: nothing.
        num_workers: Each needs an image of its own.
        validated: Whether some of them are left out of the training, to validate on; else all train.

    Raises:
        DataError: If there is none, or none for training.
        ConfigError: If there are fewer than workers.
    """
    uri = files.absolute(collection)
    records = list(open_planes(uri, images).records)
    if label is not None:
        labelled = [record for record in records if label in record.labels]
        if 0 < len(labelled) < len(records):
            logger.warning(
                "%d of %d images of the domain %s have no label %r and are not used.",
                len(records) - len(labelled), len(records), name, label,
            )  # fmt: skip
        records = labelled
    usable = [record for record in records if record.split != "test"]
    if not usable:
        what = f"with labels {label!r}" if label is not None else "chosen"
        why = "all are of split test, which is never trained on" if records else "there is none"
        raise DataError(f"{uri}: no image {what} of the domain {name} can be trained on: {why}. See raydom info {uri}.")
    if validated:
        training_ids, validation_ids = split_by_group(usable, config.validation_fraction, config.seed)
    else:
        training_ids, validation_ids = tuple(sorted(record.image_id for record in usable)), ()
    if len(training_ids) < num_workers:
        raise ConfigError(
            f"{num_workers} workers cannot share the {len(training_ids)} training images of the domain {name}; "
            f"give --workers {len(training_ids)} or fewer."
        )
    used = {record.image_id: record.sha256 for record in usable}
    ids = sorted({*training_ids, *validation_ids})
    return DomainImages(name, uri, training_ids, validation_ids, fingerprint([[one, used[one]] for one in ids]))


def check_channels(domains: Sequence[DomainImages]) -> tuple[str, ...]:
    """The channels that all images have.

    Raises:
        DataError: If the images of two domains differ in their number.
    """
    first, *others = [(domain, domain.records(domain.training_ids[:1])[0]) for domain in domains]
    for domain, record in others:
        if record.num_channels != first[1].num_channels:
            raise DataError(
                f"images of the domain {first[0].name} have {first[1].num_channels} channels "
                f"({', '.join(first[1].channels)}), those of {domain.name} have {record.num_channels} "
                f"({', '.join(record.channels)}). One network needs the same: ingest both with the same channels."
            )
    return first[1].channels


class DomainSampler:
    """Batches of as many crops of each domain, a function of the seed, the step and the rank alone.

    Args:
        samplers: Of each domain.
        labelled: Of the labelled images of the target, if some are known.
    """

    def __init__(self, samplers: Sequence[CropSampler], labelled: CropSampler | None = None) -> None:
        self._samplers, self._labelled = samplers, labelled

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> DomainBatch:
        """Crops of one step (0 is the first) of one worker."""
        batches = tuple(sampler.batch(step, rank, world_size) for sampler in self._samplers)
        labelled = None if self._labelled is None else self._labelled.batch(step, rank, world_size)
        return DomainBatch(batches, labelled)


def shares_by_likeness(source: Sequence[ImageRecord], target: Sequence[ImageRecord]) -> tuple[float, ...]:
    """How often each source image is to be drawn so that the source looks like the target; they add up to 1.

    The odds p / (1 - p) of being a target image, of a logistic regression on the intensity statistics of the images
    (percentiles, mean and deviation of each channel, as fractions), which is the ratio of the two densities (Bickel et
    al. 2009, "Discriminative learning under covariate shift"), within ``LEAST_SHARE`` and ``LARGEST_SHARE`` of the
    mean.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features = StandardScaler().fit_transform([_statistics(record) for record in (*source, *target)])
    is_target = np.array([0] * len(source) + [1] * len(target))
    model = LogisticRegression(C=0.1, class_weight="balanced").fit(features, is_target)
    logits = model.decision_function(features[: len(source)])
    odds = np.exp(logits - logits.mean())
    odds = np.clip(odds / odds.mean(), LEAST_SHARE, LARGEST_SHARE)
    return tuple((odds / odds.sum()).tolist())


def _statistics(record: ImageRecord) -> list[float]:
    told = fraction_statistics(record.statistics, record.dtype)
    percentiles = [told.percentile(channel, level) for channel in range(len(told.mean)) for level in PERCENTILE_LEVELS]
    return [value for value in (*told.mean, *told.std, *percentiles) if math.isfinite(value)]
