"""HRNetV2 for segmentation (Wang et al. 2020, arXiv:1908.07919), on the backbone of timm."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def hrnet_backbone(name: str, in_channels: int, pretrained: bool = False) -> nn.Module:
    """The four branches of HRNet after its last fusion, at strides 4, 8, 16 and 32 px."""
    import timm

    # feature_location "": the branches themselves, not what the classifier makes of them.
    options: dict[str, Any] = {"features_only": True, "feature_location": "", "out_indices": (1, 2, 3, 4)}
    backbone: nn.Module = timm.create_model(name, pretrained=pretrained, in_chans=in_channels, **options)
    return backbone


class HRNet(nn.Module):
    """The branches, enlarged to the finest and concatenated, then two 1x1 convolutions: the head of the paper.

    Args:
        name: hrnet_w18, hrnet_w30 or hrnet_w48.
        in_channels: Of the image.
        num_outputs: Channels of the logits.
    """

    def __init__(self, name: str, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.encoder = hrnet_backbone(name, in_channels)
        channels = sum(self.encoder.feature_info.channels())  # type: ignore[union-attr, operator]
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, num_outputs, 1),
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        """Logits of the size of the input, whose sides must be multiples of 32 px; bilinear from a quarter of it."""
        branches = self.encoder(x)
        size = branches[0].shape[-2:]
        enlarged = [F.interpolate(branch, size=size, mode="bilinear", align_corners=False) for branch in branches[1:]]
        logits = self.head(torch.cat([branches[0], *enlarged], dim=1))
        return F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)
