"""The discriminators of DRIT++ and MDMM: of images, which may tell the domain too, and of contents."""

from __future__ import annotations

import math
from itertools import pairwise

from jaxtyping import Float, Int64
from torch import Tensor, nn

from raydom.config import DisentangledConfig
from raydom.errors import ConfigError
from raydom.networks.disentangled import STRIDE, Branches, leaky_convolution, seeded

MIN_CROP_PX = 64
"""Of such a crop the last layer of the discriminators, which halve it six times, is one pixel."""


class DomainDiscriminator(nn.Module):
    """MDMM's, one for all domains: whether patches of an image are real, and of which domain the whole is."""

    def __init__(self, config: DisentangledConfig, crop_px: int) -> None:
        super().__init__()
        widths = [config.in_channels, *(config.base_channels * 2**n for n in (0, 1, 2, 3, 4, 4))]
        self.layers = nn.Sequential(*(leaky_convolution(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths)))
        self.real = nn.Conv2d(widths[-1], 1, 1, bias=False)
        self.domain = nn.Conv2d(widths[-1], config.num_domains, math.ceil(crop_px / 64), bias=False)

    def forward(
        self, x: Float[Tensor, "n c h w"], domains: Int64[Tensor, " n"]
    ) -> tuple[tuple[Tensor, ...], Float[Tensor, "n k"] | None]:
        """Logits: a map of real (positive) or made for each scale, of which there is one; and of the domains."""
        features = self.layers(x)
        return (self.real(features),), self.domain(features).flatten(1)


class MultiScaleDiscriminator(nn.Module):
    """DRIT++'s, for each domain: whether patches of an image are real, at three scales."""

    def __init__(self, config: DisentangledConfig) -> None:
        super().__init__()
        self.branches = Branches(lambda more: _Scales(config.in_channels, config.base_channels), config)

    def forward(
        self, x: Float[Tensor, "n c h w"], domains: Int64[Tensor, " n"]
    ) -> tuple[tuple[Tensor, ...], Float[Tensor, "n k"] | None]:
        """Logits: a map of real (positive) or made for each scale; the domains are not told."""
        return self.branches(x, domains), None


class _Scales(nn.Module):
    def __init__(self, in_channels: int, base_channels: int) -> None:
        super().__init__()
        widths = [in_channels, *(base_channels * 2**n for n in range(4))]
        self.scales = nn.ModuleList(
            nn.Sequential(
                *(leaky_convolution(a, b, 4, 2, 1) for a, b in pairwise(widths)),
                nn.Conv2d(widths[-1], 1, 1),
            )
            for _ in range(3)
        )
        self.smaller = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for scale in self.scales:
            maps.append(scale(x))
            x = self.smaller(x)
        return tuple(maps)


class ContentDiscriminator(nn.Module):
    """Which domain a content is of: three convolutions of 7 and stride 2, one of 4, one of 1.

    Just so with crops of 216 px, whose content of 54 px comes down to one value. The authors' code takes no other; here
    the logits of larger ones are averaged, and of smaller ones the kernel of 4 is cut to what is left, and so many of
    the strided convolutions are left out as find less than a kernel.
    """

    def __init__(self, config: DisentangledConfig, crop_px: int) -> None:
        super().__init__()
        width, side = 4 * config.base_channels, crop_px // STRIDE
        layers: list[nn.Module] = []
        while len(layers) < 3 and side + 2 >= 7:
            layers.append(leaky_convolution(width, width, 7, stride=2, padding=1))
            side = (side + 2 - 7) // 2 + 1
        self.layers = nn.Sequential(
            *layers,
            leaky_convolution(width, width, min(4, side)),
            nn.Conv2d(width, 1 if config.separate else config.num_domains, 1),
        )

    def forward(self, content: Float[Tensor, "n k h w"]) -> Float[Tensor, "n d"]:
        """Logits: of each domain, or with separate networks of the second of two."""
        logits: Tensor = self.layers(content).mean(dim=(-2, -1))
        return logits


def build_discriminators(config: DisentangledConfig, crop_px: int, seed: int = 0) -> dict[str, nn.Module]:
    """Fresh discriminators: of images made with encoded attributes, with random ones, and of contents.

    Raises:
        ConfigError: If the crop is too small for them.
    """
    check_crop(crop_px, separate=config.separate)

    def of_images() -> nn.Module:
        return MultiScaleDiscriminator(config) if config.separate else DomainDiscriminator(config, crop_px)

    return seeded(
        lambda: {
            "encoded_discriminator": of_images(),
            "random_discriminator": of_images(),
            "content_discriminator": ContentDiscriminator(config, crop_px),
        },
        config,
        seed,
    )


def field_px(*, separate: bool) -> int:
    """Side of the patch that a logit of an image discriminator is of, px: 127 of MDMM's; of DRIT++'s 46, 93 and, at its
    coarsest scale, 187."""
    field = 1
    for _ in range(4 if separate else 6):  # convolutions of stride 2, of 4 or of 3 px
        field = 2 * field + (2 if separate else 1)
    for _ in range(2 if separate else 0):  # poolings of 3 px
        field = 2 * field + 1
    return field


def check_crop(crop_px: int, *, separate: bool) -> None:
    """Refuse crops that the networks cannot be trained on. Those smaller than the field are seen mirrored beyond their
    borders, and judged as few patches.

    Raises:
        ConfigError: Saying which could.
    """
    if crop_px % STRIDE or crop_px < MIN_CROP_PX:
        fitting = max(MIN_CROP_PX, crop_px // STRIDE * STRIDE)
        raise ConfigError(
            f"crop_px must be a multiple of {STRIDE} and >= {MIN_CROP_PX} for the discriminators, whose field of "
            f"{field_px(separate=separate)} px halves it six times; got {crop_px}. Choose {fitting}."
        )
