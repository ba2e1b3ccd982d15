"""Segmentation networks on the encoders of segmentation-models-pytorch and timm, for images of any size."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydom.config import NetworkConfig
from raydom.errors import ConfigError
from raydom.networks.hrnet import HRNet, hrnet_backbone
from raydom.networks.pretrained import load_encoder
from raydom.networks.reach import measured_reach
from raydom.networks.unet import pad_to_multiple

CONTEXT_PX = 128
"""Context that is enough for most of what an output pixel tells, px, where it looks at the whole image or nearly so."""
LIMIT_PX = 512
"""A larger receptive field is not worth its halo."""
FINEST_CHANNELS = 16
"""Of the U-Net++ decoder at full resolution; each level down has twice as many."""
DEEPLAB = {"deeplabv3": (8, (12, 24, 36)), "deeplabv3plus": (16, (6, 12, 18))}
"""Output stride, px, and atrous rates. v3 has no finer features to tell small objects by, so it is run at 8, where its
paper is best as well, and doubles the rates; v3+ has, and is run at 16."""
HUB_FILE = "model.safetensors"
"""Of each repository of weights on the Hugging Face hub."""


class LibraryNetwork(nn.Module):
    """U-Net++, DeepLab v3 and v3+ or HRNet: pads the input, runs the network, and crops its logits."""

    def __init__(self, config: NetworkConfig, seed: int = 0, weights: str | None = None) -> None:
        """A network with fresh weights, its encoder pretrained if wanted.

        Args:
            config: Name, channels, classes, encoder and depth.
            seed: Of the initial weights; the same seed gives the same weights. The global generator is not touched.
            weights: Of the encoder: ``imagenet`` or a file (see ``load_encoder``); None: fresh.

        Raises:
            ConfigError: If there is no such encoder, or it does not fit the network or the weights.
        """
        super().__init__()
        self.config = config
        make = {"unetplusplus": _unetplusplus, "deeplabv3": _deeplab, "deeplabv3plus": _deeplab}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network: nn.Module = make.get(config.name, _hrnet)(config)
        if weights is not None:
            fetch, source = _imagenet_weights(config)
            load_encoder(self.network.encoder, weights, fetch, source)  # type: ignore[arg-type]

    @property
    def total_stride(self) -> int:
        """Input sides that are multiples of this are not padded, px."""
        if self.config.name == "unetplusplus":
            return int(2**self.config.depth)
        return DEEPLAB[self.config.name][0] if self.pools_globally else 32

    @property
    def pools_globally(self) -> bool:
        """Whether it normalises features of whole crops, and so needs two of them in a batch."""
        return self.config.name in DEEPLAB

    @property
    def exact(self) -> bool:
        """Whether no output pixel looks further than ``receptive_field_px``."""
        return self._reach is not None

    @property
    def receptive_field_px(self) -> int:
        """How far an output pixel looks to each side, px; where that is too far, how much context is enough."""
        return CONTEXT_PX if self._reach is None else self._reach

    @cached_property
    def _reach(self) -> int | None:
        if self.config.name != "unetplusplus":  # image pooling; HRNet has 24 3x3 convolutions at a pixel of 32
            return None
        return measured_reach(self.network, self.config.in_channels, self.total_stride, LIMIT_PX)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        """Logits, ``NetworkConfig.num_outputs`` channels.

        Sides that are no multiple of the total stride are padded at the bottom and right (see ``pad_to_multiple``), and
        the result is cropped; other images go through as they are.
        """
        height, width = x.shape[-2:]
        logits: Tensor = self.network(pad_to_multiple(x, self.total_stride))
        return logits[..., :height, :width]


def _unetplusplus(config: NetworkConfig) -> nn.Module:
    if not 3 <= config.depth <= 5:
        raise ConfigError(f"unetplusplus has a depth of 3 to 5; got {config.depth}.")
    channels = [FINEST_CHANNELS * 2**level for level in reversed(range(config.depth))]
    network = _from_smp(config, "UnetPlusPlus", encoder_depth=config.depth, decoder_channels=channels)
    if config.depth < 5 and hasattr(network.encoder, "layer4"):
        del network.encoder.layer4  # more than half of a residual network, and never called
    return network


def _deeplab(config: NetworkConfig) -> nn.Module:
    kind = "DeepLabV3" if config.name == "deeplabv3" else "DeepLabV3Plus"
    output_stride, rates = DEEPLAB[config.name]
    return _from_smp(config, kind, encoder_output_stride=output_stride, decoder_atrous_rates=rates)


def _hrnet(config: NetworkConfig) -> nn.Module:
    return HRNet(config.name, config.in_channels, config.num_outputs)


def _from_smp(config: NetworkConfig, kind: str, **options: Any) -> nn.Module:
    import segmentation_models_pytorch as smp

    known = smp.encoders.get_encoder_names()
    if config.encoder not in known and not config.encoder.startswith("tu-"):
        near = difflib.get_close_matches(config.encoder, known, n=3) or ["resnet18", "resnet34", "resnet50"]
        raise ConfigError(
            f"there is no encoder {config.encoder!r}; near it: {', '.join(near)}. Choose one of "
            "segmentation-models-pytorch 0.5, or tu-NAME for one of timm."
        )
    try:
        network: nn.Module = getattr(smp, kind)(
            encoder_name=config.encoder,
            encoder_weights=None,
            in_channels=config.in_channels,
            classes=config.num_outputs,
            **options,
        )
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:  # of encoders that do not fit
        raise ConfigError(
            f"{config.name} cannot be made with the encoder {config.encoder!r} ({error!r}). Choose another, such as "
            "resnet34."
        ) from error
    return network


def _imagenet_weights(config: NetworkConfig) -> tuple[Callable[[], Mapping[str, Tensor]], str]:
    """What fetches them, and where from."""
    if config.name.startswith("hrnet"):
        return lambda: hrnet_backbone(config.name, 3, pretrained=True).state_dict(), f"{HUB_FILE} of timm/{config.name}"

    def fetch() -> Mapping[str, Tensor]:
        from segmentation_models_pytorch.encoders import get_encoder

        state: Mapping[str, Tensor] = get_encoder(config.encoder, weights="imagenet").state_dict()
        return state

    timm = config.encoder.startswith("tu-")
    place = f"timm/{config.encoder[3:]}" if timm else f"smp-hub/{config.encoder}.imagenet"
    return fetch, f"{HUB_FILE} of {place}"
