"""U²-Net (Qin et al. 2020, arXiv:2005.09007): a U-Net whose every stage is a small U-Net itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raydom.config import NetworkConfig
from raydom.networks.unet import initialise, pad_to_multiple

CONTEXT_PX = 128
"""Context that is enough for most of what an output pixel tells, px. Its receptive field is far larger: at a pixel of
32, the dilations of one of the deepest stages alone reach 15 * 32 px."""

# Of each stage: kind (the L of the paper's RSU-L, "4F" without poolings), middle and output channels.
Stage = tuple[str, int, int]
FULL: tuple[Sequence[Stage], Sequence[Stage]] = (
    (("7", 32, 64), ("6", 32, 128), ("5", 64, 256), ("4", 128, 512), ("4F", 256, 512), ("4F", 256, 512)),
    (("7", 16, 64), ("6", 32, 64), ("5", 64, 128), ("4", 128, 256), ("4F", 256, 512)),
)
SMALL: tuple[Sequence[Stage], Sequence[Stage]] = (
    tuple((kind, 16, 64) for kind, _, _ in FULL[0]),
    tuple((kind, 16, 64) for kind, _, _ in FULL[1]),
)
"""U²-Net† of the paper, u2netp in its code."""


class U2Net(nn.Module):
    """Six encoder and five decoder stages, a side output of each decoder stage and of the bottleneck, and their fusion.

    As published, but for the padding to multiples of the total stride, which makes all poolings even.
    """

    total_stride = 32
    """Input sides that are multiples of this are not padded, px."""
    receptive_field_px = CONTEXT_PX
    exact = False

    def __init__(self, config: NetworkConfig, seed: int = 0) -> None:
        """A network with fresh weights.

        Args:
            config: Its name (u2net or u2netp), channels and classes.
            seed: Of the initial weights; the same seed gives the same weights. The global generator is not touched.
        """
        super().__init__()
        encoder, decoder = SMALL if config.name == "u2netp" else FULL
        outputs = config.num_outputs
        with torch.random.fork_rng(devices=[]):  # the constructors of torch draw weights that are overwritten below
            inputs = (config.in_channels, *(channels for _, _, channels in encoder[:-1]))
            self.encoder = nn.ModuleList(_stage(n, stage) for n, stage in zip(inputs, encoder, strict=True))
            deeper = (*(channels for _, _, channels in decoder[1:]), encoder[-1][2])
            skips = (channels for _, _, channels in encoder[:-1])
            self.decoder = nn.ModuleList(
                _stage(deep + skip, stage) for deep, skip, stage in zip(deeper, skips, decoder, strict=True)
            )
            sided = (*(channels for _, _, channels in decoder), encoder[-1][2])
            self.sides = nn.ModuleList(nn.Conv2d(channels, outputs, 3, padding=1) for channels in sided)
            self.fusion = nn.Conv2d(len(sided) * outputs, outputs, 1)
        initialise(self, torch.Generator().manual_seed(seed))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"] | tuple[Float[Tensor, "n k h w"], ...]:
        """Fused logits; in training mode these, and those of the six side outputs from the finest to the coarsest.

        All have the size of the input; sides that are no multiple of the total stride are padded, see
        ``pad_to_multiple``.
        """
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.total_stride)
        features = [self.encoder[0](x)]
        for stage in list(self.encoder)[1:]:
            features.append(stage(F.max_pool2d(features[-1], 2)))
        decoded = [features[-1]]  # from the coarsest to the finest
        for stage, skip in zip(reversed(self.decoder), features[-2::-1], strict=True):
            decoded.append(stage(torch.cat([_enlarged(decoded[-1], skip), skip], dim=1)))
        sides = [_enlarged(side(d), x) for side, d in zip(self.sides, reversed(decoded), strict=True)]
        logits = [one[..., :height, :width] for one in (self.fusion(torch.cat(sides, dim=1)), *sides)]
        return tuple(logits) if self.training else logits[0]


class ResidualU(nn.Module):
    """RSU-L of the paper: a U of L levels (L - 2 poolings, the lowest dilated instead) added to its first convolution.

    Args:
        in_channels: Of the input.
        middle: Channels within the U.
        out_channels: Of the output.
        levels: L.
        pooled: False for RSU-4F, whose levels are dilated by 1, 2, 4 and 8 instead of being pooled.
    """

    def __init__(self, in_channels: int, middle: int, out_channels: int, levels: int, pooled: bool = True) -> None:
        super().__init__()
        self.pooled = pooled
        down = [1] * (levels - 1) + [2] if pooled else [2**level for level in range(levels)]
        up = [1] * (levels - 1) if pooled else down[:-1]
        self.first = _convolution(in_channels, out_channels)
        self.down = nn.ModuleList(
            _convolution(middle if level else out_channels, middle, dilation) for level, dilation in enumerate(down)
        )
        self.up = nn.ModuleList(
            _convolution(2 * middle, middle if level else out_channels, dilation) for level, dilation in enumerate(up)
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        first = self.first(x)
        features = [self.down[0](first)]
        for level, block in enumerate(list(self.down)[1:], start=1):
            shrinks = self.pooled and level < len(self.down) - 1
            features.append(block(F.max_pool2d(features[-1], 2) if shrinks else features[-1]))
        decoded = features[-1]
        for block, skip in zip(reversed(self.up), features[-2::-1], strict=True):
            decoded = block(torch.cat([_enlarged(decoded, skip), skip], dim=1))
        result: Tensor = decoded + first
        return result


def _stage(in_channels: int, stage: Stage) -> ResidualU:
    kind, middle, out_channels = stage
    return ResidualU(in_channels, middle, out_channels, int(kind[0]), pooled=not kind.endswith("F"))


def _convolution(in_channels: int, out_channels: int, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    """Bilinearly, to the height and width of another."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
