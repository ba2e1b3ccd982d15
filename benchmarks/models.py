"""The model runs that the benchmarks segment with: U-Nets as they are made, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raydom.config import ModelSpec, NetworkConfig
from raydom.storage.model_run import write_model_run


def write_unet(folder: Path, network: Any, unet: NetworkConfig, channels: tuple[str, ...] = ("gray",)) -> str:
    """A finished model run of a U-Net with two classes; returns its folder."""
    spec = ModelSpec(
        network=unet,
        channels=channels,
        low=0.0,
        high=1.0,
        pixel_size_um=None,
        total_stride=int(network.total_stride),
        receptive_field_px=int(network.receptive_field_px),
    )
    write_model_run(str(folder), spec, {name: value.numpy() for name, value in network.state_dict().items()}, {})
    return str(folder)
