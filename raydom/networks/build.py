"""A segmentation network by name."""

from __future__ import annotations

import importlib

import torch
from torch import nn

from raydom.config import NetworkConfig
from raydom.errors import ConfigError
from raydom.networks.unet import UNet

NETWORKS = ("unet",)


def build_network(config: NetworkConfig, seed: int = 0) -> nn.Module:
    """A network with fresh weights that maps images (N, C, H, W) to logits (N, K, H, W).

    Args:
        config: Its name, channels and classes. ``package.module:function`` is a function of the keyword arguments
            ``in_channels`` and ``num_outputs`` that returns an ``nn.Module`` of so many output channels K, with the
            integer attributes ``total_stride`` and ``receptive_field_px`` (both px).
        seed: Of the initial weights.

    Raises:
        ConfigError: If there is no such network, or it lacks what inference needs.
    """
    network = config.name
    if network == "unet":
        return UNet(config, seed)
    if ":" not in network:
        raise ConfigError(
            f"unknown network {network!r}; there is {', '.join(NETWORKS)}; name your own as package.module:function."
        )
    module_name, _, function_name = network.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"network {network!r} cannot be imported ({error}); "
            "install its package on every worker, or put its folder on PYTHONPATH."
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = function(in_channels=config.in_channels, num_outputs=config.num_outputs)
    for attribute in ("total_stride", "receptive_field_px"):
        if not isinstance(getattr(built, attribute, None), int):
            raise ConfigError(
                f"network {network!r} has no integer attribute {attribute} (px), which says how an image can be cut; "
                "set it on the module."
            )
    if not isinstance(built, nn.Module):
        raise ConfigError(f"network {network!r} returned a {type(built).__name__}; it must be a torch.nn.Module.")
    return built
