"""Generators of CycleGAN: networks that make an image of one domain look like those of another."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydom.config import GeneratorConfig
from raydom.networks.initial import draw_normal
from raydom.networks.normalisation import InstanceNorm
from raydom.networks.unet import pad_to_multiple


class Generator(nn.Module):
    """Encoder, residual blocks and decoder, from images in [-1, 1] to images in [-1, 1].

    ``resnet`` is the network of Zhu et al. 2017 (CycleGAN, arXiv:1703.10593, appendix 7.2, with 6 or 9 residual
    blocks): convolutions c7s1-64, d128, d256, residual blocks, transposed ones u128 and u64, and c7s1 with tanh.
    ``pixel-shuffle`` has the decoder of Aarnio et al. 2022 (paper 003, section 3.7, with 3 residual blocks):
    convolutions to 512 and 256 channels, each followed by a pixel shuffle; theirs are transposed convolutions of
    stride 1, which are convolutions. Convolutions of stride 1 pad by reflection, the others by zeros.
    """

    total_stride = 4
    """Input sides that are multiples of this are not padded, px."""

    def __init__(self, config: GeneratorConfig, seed: int = 0) -> None:
        """A generator with fresh weights, drawn from N(0, 0.02).

        Args:
            config: Its kind, channels and blocks.
            seed: Of the initial weights. The global generator is not touched.
        """
        super().__init__()
        self.config = config
        first, second, inner = (config.base_channels * factor for factor in (1, 2, 4))
        with torch.random.fork_rng(devices=[]):  # the constructors of torch draw weights that are overwritten below
            self.encoder = nn.Sequential(
                *_normalised(_reflecting(config.channels, first, 7)),
                *_normalised(nn.Conv2d(first, second, 3, stride=2, padding=1)),
                *_normalised(nn.Conv2d(second, inner, 3, stride=2, padding=1)),
            )
            self.residuals = nn.Sequential(*(_Residual(inner) for _ in range(config.blocks)))
            self.decoder = nn.Sequential(
                *_normalised(*_doubling(inner, second, config.name)),
                *_normalised(*_doubling(second, first, config.name)),
                _reflecting(first, config.channels, 7),
                nn.Tanh(),
            )
        draw_normal(self, seed)

    @property
    def reach_px(self) -> int:
        """How far, to each side, an output pixel looks but for the normalisation, px."""
        reach = 0
        for position in range(self.total_stride):
            first, last = position - 3, position + 3
            for _ in range(2):
                if self.config.name == "resnet":  # a fine pixel comes of the one or two coarse ones nearest to it
                    first, last = first // 2, -(-last // 2)
                else:  # of the coarse one that it was part of, and its neighbours
                    first, last = first // 2 - 1, last // 2 + 1
            first, last = first - 2 * self.config.blocks, last + 2 * self.config.blocks
            for _ in range(2):
                first, last = 2 * first - 1, 2 * last + 1
            reach = max(reach, position - (first - 3), last + 3 - position)
        return reach

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images in the other domain, of the same size, which may be any.

        Sides that are no multiple of the total stride are padded at the bottom and right (see ``pad_to_multiple``), and
        the result is cropped.
        """
        height, width = x.shape[-2:]
        # Reflection needs two pixels of the coarsest grid.
        padded = pad_to_multiple(x, self.total_stride if min(height, width) > self.total_stride else 8)
        made: Tensor = self.decoder(self.residuals(self.encoder(padded)))
        return made[..., :height, :width]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_normalised(_reflecting(channels, channels, 3)), _reflecting(channels, channels, 3), InstanceNorm()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _reflecting(in_channels: int, out_channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, padding_mode="reflect")


def _doubling(in_channels: int, out_channels: int, name: str) -> tuple[nn.Module, ...]:
    """To twice the size."""
    if name == "resnet":
        return (nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1),)
    return _reflecting(in_channels, 4 * out_channels, 3), nn.PixelShuffle(2)


def _normalised(*layers: nn.Module) -> tuple[nn.Module, ...]:
    return (*layers, InstanceNorm(), nn.ReLU(inplace=True))
