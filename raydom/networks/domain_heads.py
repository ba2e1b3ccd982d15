"""Networks that tell which domain features or label maps come from."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydom.networks.unet import double_convolution, initialise

HIDDEN = 128
"""Units of the hidden layer."""
MOST_CHANNELS = 256
"""Of a level of the head; more would make it larger than the network that it judges."""


class DomainHead(nn.Module):
    """The domain classifier at a level of a U-Net.

    Double convolutions and poolings, as in the U-Net, down to its lowest resolution, then one hidden layer (Aarnio
    2022, section 3.6, after Elliott et al.). Features are averaged over the crop before the hidden layer, where the
    thesis has them side by side: so crops of any size can be told apart.
    """

    def __init__(self, in_channels: int, num_poolings: int, norm: str, seed: int = 0) -> None:
        """A head with fresh weights.

        Args:
            in_channels: Of the features.
            num_poolings: How many levels of the U-Net lie below that of the features.
            norm: Of each convolution, see ``NetworkConfig``.
            seed: Of the weights. The global generator is not touched.
        """
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            layers: list[nn.Module] = []
            channels = in_channels
            for _ in range(num_poolings):
                wider = min(2 * channels, MOST_CHANNELS)
                layers += [nn.MaxPool2d(2), double_convolution(channels, wider, norm)]
                channels = wider
            self.down = nn.Sequential(*layers)
            self.hidden = nn.Conv2d(channels, HIDDEN, 1)
            self.out = nn.Conv2d(HIDDEN, 1, 1)
        initialise(self, torch.Generator().manual_seed(seed))

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 1 1"]:
        """Logit of the target, one a crop."""
        averaged = self.down(features).mean(dim=(2, 3), keepdim=True)
        logits: Tensor = self.out(self.hidden(averaged).relu())
        return logits


class MapCritic(nn.Module):
    """The fully convolutional classifier of label maps of Tsai et al. 2018 (AdaptSegNet, arXiv:1802.10349).

    Convolutions of 4 px and stride 2 with ``base_channels`` times 1, 2, 4, 8 channels and leaky ReLUs (slope 0.2), then
    one to a logit; ``num_strides`` of them, so that small crops can be told as well.
    """

    def __init__(self, in_channels: int, base_channels: int = 64, num_strides: int = 4, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = [in_channels, *(base_channels * 2**level for level in range(num_strides))]
            layers: list[nn.Module] = []
            for inner, outer in itertools.pairwise(widths):
                layers += [nn.Conv2d(inner, outer, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, stride=2, padding=1))

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h_small w_small"]:
        """Logits of the target, one a patch."""
        logits: Tensor = self.layers(maps)
        return logits
