"""The model of a job: a model run, or a threshold."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from raydom.algorithms.trained import load_trained
from raydom.config import ModelSpec, NetworkConfig
from raydom.errors import ConfigError, DataError
from raydom.networks.threshold import Threshold
from raydom.storage import files
from raydom.storage.collection import Image
from raydom.storage.model_run import open_model_run

THRESHOLD = "threshold:"


@dataclass(frozen=True, slots=True)
class Model:
    """What a job must know of its model before any of it is loaded."""

    name: str
    spec: ModelSpec
    content_hash: str
    level: float | None
    """Of a threshold, a fraction of the legal range."""

    def load(self) -> nn.Module:
        """The network, in evaluation mode, on the CPU.

        Raises:
            DataError: If its weights cannot be read, or are not finite.
        """
        network = load_trained(self.name)[0] if self.level is None else Threshold(self.level).eval()
        if not all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters()):
            raise DataError(f"{self.name}: some weights are not finite. Restore them, or train again.")
        return network


@functools.lru_cache(maxsize=1)
def network_on(device: torch.device, model: Model) -> nn.Module:
    """The network of a model, ready to be asked; one for all jobs of this process that follow each other with it."""
    return model.load().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def absolute_model(name: str) -> str:
    """The name of a model as it is understood in any folder."""
    return name if name.startswith(THRESHOLD) else files.absolute(name)


def open_model(name: str, images: Iterable[Image]) -> Model:
    """A model for some images: the folder of a model run, or ``threshold:VALUE`` in the units of their pixels.

    Raises:
        ConfigError: For a threshold that is no number, or images that do not agree in dtype and channels.
        DataError: If there is no model run, or it is not finished.
    """
    if not name.startswith(THRESHOLD):
        run = open_model_run(name)
        return Model(name, run.spec, run.content_hash, None)
    records = [image.record for image in images]
    dtypes = sorted({record.dtype for record in records})
    if len(dtypes) > 1 or np.dtype(dtypes[0]).kind == "f":
        raise ConfigError(
            f"{name}: a threshold is in the units of the pixels, which must be integers of one dtype; these are "
            f"{', '.join(dtypes)}. Choose images by --keep dtype=..., or a trained model."
        )
    largest = np.iinfo(dtypes[0]).max if dtypes[0] != "bool" else 1
    try:
        value = float(name.removeprefix(THRESHOLD))
    except ValueError:
        value = float("nan")
    if not 0 < value <= largest:
        raise ConfigError(f"{name}: give threshold:VALUE with 0 < VALUE <= {largest}, the units of {dtypes[0]} pixels.")
    channels = records[0].channels
    spec = ModelSpec(
        network=NetworkConfig(name="threshold", in_channels=len(channels), base_channels=1),
        channels=channels,
        low=0.0,
        high=1.0,
        pixel_size_um=None,
        total_stride=Threshold.total_stride,
        receptive_field_px=Threshold.receptive_field_px,
    )
    return Model(name, spec, f"{name}/{dtypes[0]}", float(np.float32(value) / np.float32(largest)))
