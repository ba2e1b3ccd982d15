"""What is fixed beforehand of the network that a training is for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from torch import nn

from raydom.commands import BALANCED, NetworkOptions
from raydom.config import ModelSpec, TrainConfig
from raydom.networks.build import build_network
from raydom.networks.pretrained import IMAGENET
from raydom.storage.collection import Collection
from raydom.training.data import balanced_weights, check_crops, common_pixel_size, intensity_range
from raydom.types import ImageRecord

Options = TypeVar("Options", bound=NetworkOptions)


def model_spec(
    options: NetworkOptions, records: Sequence[ImageRecord], train: TrainConfig
) -> tuple[ModelSpec, nn.Module]:
    """What inference must know of the model to be, and the untrained network that told its stride.

    Args:
        options: Which network, which labels.
        records: The labelled training images.
        train: How large its crops are.
    """
    shape = options.network_config(records[0].num_channels)
    network = build_network(shape, weights=options.weights)
    low, high = intensity_range(records)
    spec = ModelSpec(
        network=shape,
        channels=records[0].channels,
        low=low,
        high=high,
        pixel_size_um=common_pixel_size(records),
        total_stride=int(network.total_stride),  # type: ignore[arg-type]
        receptive_field_px=int(network.receptive_field_px),  # type: ignore[arg-type]
        exact=bool(getattr(network, "exact", True)),
        window_px=2 * train.crop_px,
        label=options.label,
    )
    return spec, network


def check_network_crops(train: TrainConfig, spec: ModelSpec, network: nn.Module) -> None:
    """Refuse crops that the network cannot be trained on, see ``check_crops``."""
    batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    check_crops(train, spec.total_stride, batch_norm, bool(getattr(network, "pools_globally", False)))


def class_weights(options: NetworkOptions, collection: Collection, records: Sequence[ImageRecord]) -> tuple[float, ...]:
    """Of the cross-entropy, one a class; none: all the same."""
    if options.class_weights != (BALANCED,):
        return tuple(float(weight) for weight in options.class_weights)
    return balanced_weights(collection, records, options.label, options.mask, options.num_classes)


def file_hash(weights: str | None) -> str | None:
    """SHA-256 of a file of pretrained weights, if there is one."""
    return None if weights in (None, IMAGENET) else hashlib.sha256(Path(weights).read_bytes()).hexdigest()


def with_absolute_weights(options: Options) -> Options:
    """Workers have another working folder."""
    if options.weights in (None, IMAGENET):
        return options
    return replace(options, weights=str(Path(options.weights).absolute()))
