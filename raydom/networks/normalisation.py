"""Instance normalisation whose statistics can be recorded on one image and used on parts of it.

A network with instance normalisation gives every tile of an image its own contrast. When the statistics of each layer
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


class InstanceNorm(nn.Module):
    """Each channel of each image to mean 0 and deviation 1, without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.recording = False
        self.known: Tensor | None = None
        """(2, c): mean and variance of each channel, used instead of those of the images."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        if self.recording:
            values = x.to(torch.promote_types(x.dtype, torch.float32))
            variance, mean = torch.var_mean(values, dim=(0, 2, 3), correction=0)
            self.known = torch.stack([mean, variance])
        if self.known is None:
            return F.instance_norm(x, eps=EPSILON)
        mean, variance = self.known.to(x)[:, None, :, None, None]
        return (x - mean) * torch.rsqrt(variance + EPSILON)


@torch.no_grad()
def recorded_statistics(network: nn.Module, images: Float[Tensor, "n c h w"]) -> dict[str, Tensor]:
    """Mean and variance (2, c) of each instance normalisation of a network, by name, over all the images as one."""
    norms = _norms(network)
    try:
        for norm in norms.values():
            norm.recording = True
        network(images)
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
            norm.known = statistics[name]
        yield
    finally:
        for norm in norms.values():
            norm.known = None


def _norms(network: nn.Module) -> dict[str, InstanceNorm]:
    return {name: module for name, module in network.named_modules() if isinstance(module, InstanceNorm)}
