"""A segmentation network by name."""

from __future__ import annotations

import importlib

import torch
from torch import nn

from raydom.config import NETWORKS, NetworkConfig
from raydom.errors import ConfigError
from raydom.networks.library import LibraryNetwork
from raydom.networks.maskrcnn import MaskRCNN
from raydom.networks.u2net import U2Net
from raydom.networks.unet import UNet


def build_network(config: NetworkConfig, seed: int = 0, weights: str | None = None) -> nn.Module:
    """A network with fresh weights that maps images (N, C, H, W), of any size, to logits (N, K, H, W).

    U²-Net gives several logits in training mode, and Mask R-CNN objects instead (see ``MaskRCNN``). All have the
    attributes ``total_stride`` and ``receptive_field_px`` (px), and ``exact``: whether no output pixel looks further.

    Args:
        config: Its name, channels and classes. ``package.module:function`` is a function of the keyword arguments
            ``in_channels`` and ``num_outputs`` that returns an ``nn.Module`` of so many output channels K, with the
            integer attributes ``total_stride`` and ``receptive_field_px``, and ``exact`` if that is False.
        seed: Of the initial weights.
        weights: Pretrained ones of the encoder: ``imagenet``, or a file (see ``load_encoder``); None: none.

    Raises:
        ConfigError: If there is no such network, it lacks what inference needs, or the weights cannot be had.
    """
    network = config.name
    if network == "maskrcnn":
        return MaskRCNN(config, seed, weights)
    if network in NETWORKS and network not in ("unet", "u2net", "u2netp"):
        return LibraryNetwork(config, seed, weights)
    if weights is not None:
        raise ConfigError(f"{network} has no encoder with pretrained weights; leave out --weights {weights}.")
    if network in NETWORKS:
        return UNet(config, seed) if network == "unet" else U2Net(config, seed)
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
