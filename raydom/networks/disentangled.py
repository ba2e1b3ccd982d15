"""The encoders and the generator of DRIT++ (Lee et al. 2020, arXiv:1905.01270), for two domains and for many (MDMM).

An image is its content, a map that all domains share, and its attribute, a few numbers of how it looks in its domain.
Layers and widths are those of the authors' codes (HsinYingLee/DRIT and HsinYingLee/MDMM, concatenating form).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from raydom.config import DisentangledConfig
from raydom.networks.normalisation import InstanceNorm, LayerNorm
from raydom.networks.unet import pad_to_multiple

STRIDE = 4
"""A pixel of the content is so many pixels of the image on each side."""


class Branches(nn.Module):
    """A network for each domain, or one for all whose input has a channel for each: 1 in that of the domain, else 0."""

    def __init__(self, build: Callable[[int], nn.Module], config: DisentangledConfig, told: bool = True) -> None:
        """Fresh networks.

        Args:
            build: Makes a network whose input has so many channels more.
            config: Number of domains, and whether each has its own.
            told: Whether the network for all domains is told which it is.
        """
        super().__init__()
        self.separate, self.num_domains, self.told = config.separate, config.num_domains, told
        number, more = (config.num_domains, 0) if config.separate else (1, config.num_domains if told else 0)
        self.networks = nn.ModuleList(build(more) for _ in range(number))

    def forward(self, x: Tensor, domains: Int64[Tensor, " n"], *beside: Tensor) -> tuple[Tensor, ...]:
        """What the network of each item's domain makes of it.

        Args:
            x: (n, c, h, w).
            domains: Domain of each item.
            beside: Further arguments of the network, (n, ...) each.
        """
        if not self.separate:
            if self.told:
                x = with_channels(x, F.one_hot(domains, self.num_domains).to(x.dtype))
            return _as_tuple(self.networks[0](x, *beside))
        order = domains.argsort(stable=True)
        parts = [
            _as_tuple(self.networks[domain](x[chosen], *(value[chosen] for value in beside)))
            for domain in range(self.num_domains)
            if len(chosen := (domains == domain).nonzero()[:, 0])
        ]
        return tuple(torch.cat(values)[order.argsort()] for values in zip(*parts, strict=True))


class ContentEncoder(nn.Module):
    """What is where, whatever the domain: four times ``base_channels`` channels at a quarter of the resolution."""

    def __init__(self, config: DisentangledConfig) -> None:
        super().__init__()
        width = config.base_channels

        def trunk(more: int) -> nn.Module:
            return nn.Sequential(
                leaky_convolution(config.in_channels + more, width, 7, padding=3),
                _strided(width, 2 * width),
                _strided(2 * width, 4 * width),
                *(ResidualBlock(4 * width) for _ in range(3)),
            )

        self.trunks = Branches(trunk, config, told=False)
        self.shared = ResidualBlock(4 * width)

    def forward(self, x: Float[Tensor, "n c h w"], domains: Int64[Tensor, " n"]) -> Float[Tensor, "n k h4 w4"]:
        """The content, in training with standard normal noise upon it."""
        content: Tensor = self.shared(self.trunks(x, domains)[0])
        return content + torch.randn_like(content) if self.training else content


class AttributeEncoder(nn.Module):
    """How an image looks among those of its domain: mean and logarithm of the variance of its attribute.

    Keeps the moments of the attributes of each domain over the last training images, about ``MEMORY`` of them, so that
    attributes can be drawn that look like the domain's (as HistAuGAN does, Wagner et al. 2021, arXiv:2107.12357).
    """

    MEMORY = 1000
    observed: Tensor
    observed_first: Tensor
    observed_second: Tensor

    def __init__(self, config: DisentangledConfig) -> None:
        super().__init__()
        width = config.base_channels

        def trunk(more: int) -> nn.Module:
            return _AttributeTrunk(config.in_channels + more, width, config.attribute_size)

        self.trunks = Branches(trunk, config)
        moments = (config.num_domains, config.attribute_size)
        self.register_buffer("observed", torch.zeros(config.num_domains, 1))
        self.register_buffer("observed_first", torch.zeros(moments))
        self.register_buffer("observed_second", torch.zeros(moments))

    def forward(
        self, x: Float[Tensor, "n c h w"], domains: Int64[Tensor, " n"]
    ) -> tuple[Float[Tensor, "n z"], Float[Tensor, "n z"]]:
        mean, log_variance = self.trunks(x, domains)
        return mean, log_variance

    @torch.no_grad()
    def observe(
        self, mean: Float[Tensor, "n z"], log_variance: Float[Tensor, "n z"], domains: Int64[Tensor, " n"]
    ) -> None:
        """Count attributes of training images among the moments of their domains."""
        member = F.one_hot(domains, len(self.observed)).T.float()[:, :, None]
        kept = (1 - 1 / self.MEMORY) ** member.sum(dim=1)
        mean, variance = mean.float(), log_variance.float().exp()
        # Sums, not products of matrices, which mixed precision rounds.
        self.observed.mul_(kept).add_(member.sum(dim=1))
        self.observed_first.mul_(kept).add_((member * mean).sum(dim=1))
        self.observed_second.mul_(kept).add_((member * (mean.square() + variance)).sum(dim=1))

    def moments(self) -> tuple[Float[Tensor, "k z"], Float[Tensor, "k z"]]:
        """Mean and standard deviation of the attributes of each domain; 0 and 1 where none was observed."""
        count = self.observed.clamp(min=torch.finfo(torch.float32).tiny)
        mean = self.observed_first / count
        deviation = (self.observed_second / count - mean.square()).clamp(min=0).sqrt()
        return mean, torch.where(self.observed > 0, deviation, 1.0)


class _AttributeTrunk(nn.Module):
    def __init__(self, in_channels: int, width: int, attribute_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(in_channels, width, 4, stride=2),
            *(_PooledBlock(factor * width, (factor + 1) * width) for factor in (1, 2, 3)),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.mean = nn.Linear(4 * width, attribute_size)
        self.log_variance = nn.Linear(4 * width, attribute_size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.layers(x)
        return self.mean(features), self.log_variance(features)


class Generator(nn.Module):
    """An image of a domain from a content and an attribute."""

    def __init__(self, config: DisentangledConfig) -> None:
        super().__init__()
        width, size = 4 * config.base_channels, config.attribute_size
        self.shared = ResidualBlock(width)
        self.decoders = Branches(lambda more: _Decoder(width + more, size, config.in_channels), config)

    def forward(
        self, content: Float[Tensor, "n k h4 w4"], attribute: Float[Tensor, "n z"], domains: Int64[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """Intensities between -1 and 1."""
        return self.decoders(self.shared(content), domains, attribute)[0]


class _Decoder(nn.Module):
    def __init__(self, in_channels: int, attribute_size: int, out_channels: int) -> None:
        super().__init__()
        width = in_channels + attribute_size
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(3)))
        half = (width + attribute_size) // 2
        quarter = (half + attribute_size) // 2
        self.up = nn.ModuleList(
            [_upsampling(width + attribute_size, half), _upsampling(half + attribute_size, quarter)]
        )
        self.last = nn.ConvTranspose2d(quarter + attribute_size, out_channels, 1)

    def forward(self, x: Tensor, attribute: Tensor) -> Tensor:
        x = self.blocks(with_channels(x, attribute))
        for up in self.up:
            x = up(with_channels(x, attribute))
        image: Tensor = self.last(with_channels(x, attribute)).tanh()
        return image


class Translator(nn.Module):
    """What a finished training leaves: images in [-1, 1] of one domain as if they were of another.

    A training of DRIT learns its parts one by one.
    """

    total_stride = STRIDE
    """Input sides that are multiples of this are not padded, px."""

    def __init__(self, config: DisentangledConfig, modules: Mapping[str, nn.Module] | None = None) -> None:
        """Of trained modules, or of fresh ones."""
        super().__init__()
        self.config = config
        modules = modules or build_generators(config)
        self.content_encoder = modules["content_encoder"]
        self.attribute_encoder = cast("AttributeEncoder", modules["attribute_encoder"])
        self.generator = modules["generator"]

    @property
    def reach_px(self) -> int:
        """How far, to each side, an output pixel looks but for the normalisation, px."""
        reach = 0
        for position in range(STRIDE):
            first = last = position
            for _ in range(2):  # a fine pixel comes of the one or two coarse ones nearest to it
                first, last = first // 2, -(-last // 2)
            first, last = first - 16, last + 16  # eight residual blocks of two convolutions
            for _ in range(2):
                first, last = 2 * first - 1, 2 * last + 1
            reach = max(reach, position - (first - 3), last + 3 - position)
        return reach

    def forward(
        self,
        images: Float[Tensor, "n c h w"],
        sources: Int64[Tensor, " n"],
        domains: Int64[Tensor, " n"],
        attributes: Float[Tensor, "n z"],
    ) -> Float[Tensor, "n c h w"]:
        """The images with their content, in the look of other domains; of any size.

        Args:
            images: Between -1 and 1.
            sources: Domains that the images are of; they matter where domains have separate networks.
            domains: Domains that the results are of.
            attributes: How they look there, see ``sample`` and ``encode_attributes``.
        """
        height, width = images.shape[-2:]
        # Reflection needs two pixels of the coarsest grid.
        padded = pad_to_multiple(images, STRIDE if min(height, width) > STRIDE else 2 * STRIDE)
        made: Tensor = self.generator(self.content_encoder(padded, sources), attributes, domains)
        return made[..., :height, :width]

    def encode_attributes(self, images: Float[Tensor, "n c h w"], domains: Int64[Tensor, " n"]) -> Float[Tensor, "n z"]:
        """The attributes of images of the domains, between -1 and 1."""
        return self.attribute_encoder(images, domains)[0]

    def sample(self, normal: Float[Tensor, "n z"], domains: Int64[Tensor, " n"]) -> Float[Tensor, "n z"]:
        """Attributes as images of the domains have them, from draws of a standard normal."""
        mean, deviation = self.attribute_encoder.moments()
        return mean[domains] + deviation[domains] * normal


class Look(nn.Module):
    """A translator from one domain to one look of another."""

    def __init__(self, translator: Translator, source: int, domain: int, attribute: Float[Tensor, "1 z"]) -> None:
        super().__init__()
        self.translator, self.attribute = translator, attribute
        self._source, self._domain = source, domain

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The images, between -1 and 1, in that look."""
        sources, domains = (torch.full((len(images),), n, device=images.device) for n in (self._source, self._domain))
        made: Tensor = self.translator(images, sources, domains, self.attribute.expand(len(images), -1))
        return made


def build_generators(config: DisentangledConfig, seed: int = 0) -> dict[str, nn.Module]:
    """Fresh encoders and generator; the same seed gives the same weights."""
    return seeded(
        lambda: {
            "content_encoder": ContentEncoder(config),
            "attribute_encoder": AttributeEncoder(config),
            "generator": Generator(config),
        },
        config,
        seed,
    )


def seeded(build: Callable[[], dict[str, nn.Module]], config: DisentangledConfig, seed: int) -> dict[str, nn.Module]:
    """Fresh modules; the global generator is left as it was.

    The weights of convolutions have the mean 0 and, of networks as wide as the authors', their deviation of 0.02;
    narrower ones have so much more that signals keep their size from layer to layer. All else is as torch has it.
    """
    deviation = 0.02 * math.sqrt(64 / config.base_channels)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        modules = build()
        for module in (part for whole in modules.values() for part in whole.modules()):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, 0.0, deviation)
    return modules


def with_channels(x: Float[Tensor, "n c h w"], values: Float[Tensor, "n k"]) -> Float[Tensor, "n c_and_k h w"]:
    """The maps, and for each value one more that has it everywhere."""
    return torch.cat([x, values[:, :, None, None].expand(-1, -1, *x.shape[-2:])], dim=1)


def leaky_convolution(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0
) -> nn.Sequential:
    """Mirrored, convolved, rectified with a slope of 0.01; without normalisation, which the authors' code never
    reaches (it compares two texts that always differ)."""
    return nn.Sequential(
        nn.ReflectionPad2d(padding),
        nn.Conv2d(in_channels, out_channels, kernel, stride=stride),
        nn.LeakyReLU(0.01, inplace=True),
    )


class ResidualBlock(nn.Module):
    """Two convolutions with instance normalisation, added to what they began with."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), InstanceNorm(), nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), InstanceNorm(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.layers(x)
        return added


class _PooledBlock(nn.Module):
    """Two convolutions and a pooling, beside one of 1 x 1 after a pooling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LeakyReLU(0.2), nn.ReflectionPad2d(1), nn.Conv2d(in_channels, in_channels, 3),
            nn.LeakyReLU(0.2), nn.ReflectionPad2d(1), nn.Conv2d(in_channels, out_channels, 3), nn.AvgPool2d(2),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.layers(x) + self.shortcut(x)
        return added


def _strided(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReflectionPad2d(1), nn.Conv2d(in_channels, out_channels, 3, stride=2), InstanceNorm(),
        nn.ReLU(inplace=True),
    )  # fmt: skip


def _upsampling(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1),
        LayerNorm(out_channels),
        nn.ReLU(inplace=True),
    )


def _as_tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)
