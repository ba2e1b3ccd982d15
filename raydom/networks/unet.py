"""The U-Net of Ronneberger, Fischer and Brox 2015 (arXiv:1505.04597), with same padding, for images of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydom.config import NetworkConfig
from raydom.errors import ConfigError


class UNet(nn.Module):
    """Encoder, bottleneck and decoder with skip connections.

    Level ``l`` has ``base_channels * 2 ** l`` channels and a pixel of ``2 ** l`` input pixels; level ``depth`` is the
    bottleneck. Differs from the paper in padding its convolutions (so that the output has the input's size), in having
    no dropout, and by choice in normalising each convolution (``norm="batch"``).
    """

    exact = True
    """No output pixel looks further than ``receptive_field_px``."""

    def __init__(self, config: NetworkConfig, seed: int = 0) -> None:
        """A network with fresh weights.

        Args:
            config: Channels, classes, depth and normalisation.
            seed: Of the initial weights; the same seed gives the same weights. The global generator is not touched.
        """
        super().__init__()
        self.config = config
        self.channels = tuple(config.base_channels * 2**level for level in range(config.depth + 1))
        """Channels of the features of each level."""
        with torch.random.fork_rng(devices=[]):  # the constructors of torch draw weights that are overwritten below
            inputs = (config.in_channels, *self.channels[:-1])
            self.encoder = nn.ModuleList(
                double_convolution(a, b, config.norm) for a, b in zip(inputs, self.channels, strict=True)
            )
            pairs = list(zip(self.channels[:-1], self.channels[1:], strict=True))
            self.up = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, stride=2) for shallow, deep in pairs)
            self.decoder = nn.ModuleList(double_convolution(2 * shallow, shallow, config.norm) for shallow, _ in pairs)
            self.head = nn.Conv2d(self.channels[0], config.num_outputs, 1)
        self.pool = nn.MaxPool2d(2)
        initialise(self, torch.Generator().manual_seed(seed))

    @property
    def total_stride(self) -> int:
        """Input sides that are multiples of this are not padded, px."""
        return int(2**self.config.depth)

    @property
    def receptive_field_px(self) -> int:
        """How far an output pixel looks to each side, px: the largest distance over all positions, exactly."""
        return receptive_radius(self.config.depth)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        """Logits, ``NetworkConfig.num_outputs`` channels.

        Sides that are no multiple of the total stride are padded at the bottom and right (see ``pad_to_multiple``), and
        the result is cropped; other images go through as they are.
        """
        height, width = x.shape[-2:]
        logits, _ = self.with_levels(pad_to_multiple(x, self.total_stride))
        return logits[..., :height, :width]

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels as they are computed: encoder0 (the finest), ..., bottleneck, ..., decoder0."""
        encoder = [f"encoder{level}" for level in range(self.config.depth)]
        return (*encoder, "bottleneck", *(f"decoder{level}" for level in reversed(range(self.config.depth))))

    def level_shape(self, level: str) -> tuple[int, int]:
        """Channels of a level's features, and log2 of their pixel in input pixels."""
        number = self.config.depth if level == "bottleneck" else int(level[len("encoder") :])
        return self.channels[number], number

    def with_levels(self, x: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n k h w"], dict[str, Tensor]]:
        """Logits, and the features of every level by name.

        Raises:
            ConfigError: If a side is no multiple of the total stride.
        """
        encoded = self.encode(x)
        decoded = self.decode(encoded)
        levels = {f"encoder{level}": features for level, features in enumerate(encoded[:-1])}
        levels |= {"bottleneck": encoded[-1]} | {f"decoder{level}": features for level, features in enumerate(decoded)}
        return self.head(decoded[0]), levels

    def encode(self, x: Float[Tensor, "n c h w"]) -> list[Tensor]:
        """Features of each level, the finest (level 0) first and the bottleneck last.

        Raises:
            ConfigError: If a side is no multiple of the total stride.
        """
        if any(side % self.total_stride for side in x.shape[-2:]):
            raise ConfigError(
                f"the encoder needs sides that are multiples of {self.total_stride} px; got {tuple(x.shape[-2:])}. "
                "Pad with raydom.networks.unet.pad_to_multiple."
            )
        features = [self.encoder[0](x)]
        for block in list(self.encoder)[1:]:
            features.append(block(self.pool(features[-1])))
        return features

    def decode(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features of each decoder level, the finest (level 0, which the head reads) first; ``depth`` of them."""
        return self._decoded(features, 0)[:0:-1]

    def decode_below(self, features: Sequence[Tensor]) -> Tensor:
        """What the finest decoder level gets from below."""
        return self._decoded(features, 1)[-1]

    def _decoded(self, features: Sequence[Tensor], finest: int) -> list[Tensor]:
        """The bottleneck, and the decoder's levels up to ``finest``."""
        decoded = [features[-1]]
        for level in reversed(range(finest, self.config.depth)):
            joined = torch.cat([features[level], self.up[level](decoded[-1])], dim=1)
            decoded.append(self.decoder[level](joined))
        return decoded


def pad_to_multiple(x: Float[Tensor, "n c h w"], multiple: int) -> Float[Tensor, "n c h_padded w_padded"]:
    """Pad at the bottom and right to the next multiple of ``multiple`` px; a multiple already is returned as it is.

    The image is mirrored about its last pixel; where the padding is longer than the image can mirror, the last pixel is
    repeated. So the padding depends on the image alone, and a block of it can be padded as the whole image would be.
    """
    for axis in (-2, -1):
        size = x.shape[axis]
        if size % multiple:
            position = torch.arange(math.ceil(size / multiple) * multiple, device=x.device)
            mirrored = 2 * (size - 1) - position
            beyond = torch.where(mirrored >= 0, mirrored, size - 1)
            x = x.index_select(axis, torch.where(position < size, position, beyond))
    return x


def receptive_radius(depth: int) -> int:
    """How far an output pixel of a U-Net with ``depth`` poolings looks, px; follows the longest way through it."""
    radius = 0
    for position in range(2**depth):
        first = last = position
        for _ in range(depth):  # up the decoder: two convolutions, then the coarse pixel that the up-convolution spread
            first, last = (first - 2) // 2, (last + 2) // 2
        first, last = first - 2, last + 2
        for _ in range(depth):  # down the encoder: all fine pixels under a pooled one, then two convolutions
            first, last = 2 * first - 2, 2 * last + 1 + 2
        radius = max(radius, position - first, last - position)
    return radius


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Fresh weights in place: He et al. 2015 (arXiv:1502.01852) before a ReLU, unit gain elsewhere, zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            up = isinstance(module, nn.ConvTranspose2d)
            # Each output pixel of a 2x2 up-convolution of stride 2 sums over the input channels only.
            taps = 1 if up else math.prod(module.kernel_size)
            gain = 1.0 if up or module.kernel_size == (1, 1) else 2.0
            std = math.sqrt(gain / (module.in_channels // module.groups * taps))
            with torch.no_grad():
                module.weight.normal_(0.0, std, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def double_convolution(in_channels: int, out_channels: int, norm: str) -> nn.Sequential:
    """Two convolutions of 3 px with ReLUs, the U-Net's building block."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers.append(nn.Conv2d(channels, out_channels, 3, padding=1, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(out_channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
