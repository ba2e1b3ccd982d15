"""Instance and layer normalisation whose statistics can be recorded on one image and used on parts of it.

A network with such a normalisation gives every tile of an image its own contrast. When the statistics of each layer
are recorded on the whole image (or on what stands for it) and used in each of its parts, the parts come out as they
would within the whole.

Source: Ulyanov et al. 2016, "Instance Normalization" (arXiv:1607.08022); Chen et al. 2022, "Towards Ultra-Resolution
Neural Style Transfer via Thumbnail Instance Normalization" (arXiv:2103.11784).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-5


class _ImageNorm(nn.Module):
    """Groups of channels of each image to mean 0 and deviation 1."""

    def __init__(self, over_channels: bool) -> None:
        super().__init__()
        self.recording = False
        self.known: Tensor | None = None
        """(2, c) or (2, 1): mean and variance of each channel, or of all, used instead of those of the images."""
        self._over_channels = over_channels

    def normalised(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        if self.recording:
            values = x.to(torch.promote_types(x.dtype, torch.float32))
            axes = (0, 1, 2, 3) if self._over_channels else (0, 2, 3)
            variance, mean = torch.var_mean(values, dim=axes, correction=0)
            self.known = torch.stack([mean.reshape(-1), variance.reshape(-1)])
        if self.known is None:
            return F.group_norm(x, 1, eps=EPSILON) if self._over_channels else F.instance_norm(x, eps=EPSILON)
        mean, variance = self.known.to(x)[:, None, :, None, None]
        return (x - mean) * torch.rsqrt(variance + EPSILON)


class InstanceNorm(_ImageNorm):
    """Each channel of each image to mean 0 and deviation 1, without parameters."""

    def __init__(self) -> None:
        super().__init__(over_channels=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return self.normalised(x)


class LayerNorm(_ImageNorm):
    """Each image to mean 0 and deviation 1 over all its channels, which then have a gain and an offset each."""

    def __init__(self, channels: int) -> None:
        super().__init__(over_channels=True)
        self.gain, self.offset = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return torch.addcmul(self.offset[:, None, None], self.normalised(x), self.gain[:, None, None])


@torch.no_grad()
def recorded_statistics(network: nn.Module, images: Float[Tensor, "n c h w"], *beside: Tensor) -> dict[str, Tensor]:
    """Mean and variance, (2, c) or (2, 1), of each normalisation of a network, by name, over all the images as one."""
    norms = _norms(network)
    try:
        for norm in norms.values():
            norm.recording = True
        network(images, *beside)
        return {name: norm.known for name, norm in norms.items() if norm.known is not None}
    finally:
        for norm in norms.values():
            norm.recording, norm.known = False, None


@contextmanager
def normalised_by(network: nn.Module, statistics: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the block, the network normalises with what was recorded, whatever its images."""
    norms = _norms(network)
    try:
        for name, norm in norms.items():
            norm.known = statistics.get(name)  # None for what had no part in the image
        yield
    finally:
        for norm in norms.values():
            norm.known = None


def _norms(network: nn.Module) -> dict[str, _ImageNorm]:
    return {name: module for name, module in network.named_modules() if isinstance(module, _ImageNorm)}
