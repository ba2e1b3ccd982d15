"""The discriminator of CycleGAN: how real each patch of an image looks."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydom.errors import ConfigError
from raydom.networks.initial import draw_normal


class PatchDiscriminator(nn.Module):
    """One score for each patch of an image; with three strided layers a patch is 70 px.

    Convolutions of 4 px: ``layers`` of stride 2 (the first without normalisation), one of stride 1, and one to a single
    channel, with LeakyReLU 0.2 between. With three, they are the five of 64, 128, 256, 512 and 1 channels of paper 003
    (section 3.7) too, which does not tell their strides.

    Source: Isola et al. 2017 (arXiv:1611.07004), section 6.1.2; instance normalisation as Zhu et al. 2017
    (arXiv:1703.10593), appendix 7.2.
    """

    def __init__(self, channels: int, base_channels: int = 64, layers: int = 3, seed: int = 0) -> None:
        """A discriminator with fresh weights, drawn from N(0, 0.02).

        Args:
            channels: Of the images.
            base_channels: Channels of the first layer; each following one has twice as many, but at most eight times.
            layers: Of stride 2.
            seed: Of the initial weights. The global generator is not touched.
        """
        super().__init__()
        self.field_px = patch_field_px(layers)
        """Side of the patch that a score is of, px; smaller images are refused."""
        widths = [base_channels * min(2**layer, 8) for layer in range(layers + 1)]
        with torch.random.fork_rng(devices=[]):  # the constructors of torch draw weights that are overwritten below
            stages: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            for layer, (inner, outer) in enumerate(itertools.pairwise(widths), start=1):
                stride = 2 if layer < layers else 1
                stages += [
                    nn.Conv2d(inner, outer, 4, stride=stride, padding=1), nn.InstanceNorm2d(outer), nn.LeakyReLU(0.2)
                ]  # fmt: skip
            self.stages = nn.Sequential(*stages, nn.Conv2d(widths[-1], 1, 4, padding=1))
        draw_normal(self, seed)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 rows columns"]:
        """Scores of patches, larger is more real.

        Raises:
            ConfigError: For images smaller than a patch.
        """
        check_field(min(images.shape[-2:]), self.field_px)
        scores: Tensor = self.stages(images)
        return scores


def patch_field_px(layers: int) -> int:
    """Side of the patch that a score is of, px: 16, 34, 70, 142 for one to four layers of stride 2."""
    field = 4 + 3  # the two convolutions of stride 1 that end it
    for _ in range(layers):
        field = 2 * field + 2
    return field


def check_field(crop_px: int, field_px: int) -> None:
    """Refuse crops that a discriminator would judge by their padding.

    Raises:
        ConfigError: If the crop is smaller than the field.
    """
    if crop_px < field_px:
        raise ConfigError(
            f"crop_px {crop_px} is smaller than the discriminator's field of {field_px} px, which would judge the "
            f"padding. Choose --crop-px {-(-field_px // 4) * 4} or more."
        )
