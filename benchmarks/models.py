"""The model runs that the benchmarks segment with: networks as they are made, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raydom.config import ModelSpec, NetworkConfig
from raydom.storage.model_run import write_model_run


def write_untrained(folder: Path, network: Any, config: NetworkConfig, channels: tuple[str, ...] = ("gray",)) -> str:
    """A finished model run of a network with two classes; returns its folder."""
    spec = ModelSpec(
        network=config,
        channels=channels,
        low=0.0,
        high=1.0,
        pixel_size_um=None,
        total_stride=int(network.total_stride),
        receptive_field_px=int(network.receptive_field_px),
        exact=bool(getattr(network, "exact", True)),
    )
    write_model_run(str(folder), spec, {name: value.numpy() for name, value in network.state_dict().items()}, {})
    return str(folder)
