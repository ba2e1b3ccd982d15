"""Feature network ``raydom``: filters from a formula, so that style losses need no training, download or licence.

Five levels, each a 3x3 convolution of stride 2 and a rectification; like the first layers of a network trained on
photographs, but nothing is learnt. What a level sees:

- Colour and edges: the image, blurred and halved as often as there are levels above, in three opponent colours
  (lightness, red against green, yellow against blue), each through the nine filters of the discrete cosine transform of
  3x3 px (their mean, edges, lines, corners and a checker), amplified with frequency since images have less there (what
  principal components and whitening of image patches would give, too).
- Texture: how strong each of the eight lightness filters answered, whichever its sign, one level up (and averaged
  further, of all levels above that), and how that strength changes along rows and columns; as in scattering networks
  (Mallat 2012, "Group invariant scattering"), but with the average of 3x3 px as the only blur.

Everything signed is split in its positive and its negative part. An image turned by 90 degrees has the same features,
turned, in another order of channels (if its sides are odd at each level).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

NUM_LEVELS = 5
OPPONENT_COLOURS = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
"""Of red, green and blue; made unit vectors where they are used."""
FREQUENCY_GAIN = 1.0
"""Filters are amplified by (1 + frequency) to this power; a frequency is in half periods on 3 px."""
_DECIMALS = 7  # of the filters: coarser than what libraries of mathematics disagree by, so that all machines have one


def filter_stages() -> tuple[nn.Sequential, dict[str, int]]:
    """The convolutions and rectifications in turn, and the stage after which each ``level1`` ... ``level5`` is read.

    Inputs are RGB around 0. Level 1 has 54 channels, the others 94 to 118; level ``l`` has a position every ``2 ** l``
    px, the first at the first pixel. Beyond the border, the image continues as its last pixel.
    """
    filters = cosine_filters()
    mean = np.full((3, 3), 1 / 9)
    edges = filters[[1, 3]]  # across columns, and across rows
    colours = OPPONENT_COLOURS / np.linalg.norm(OPPONENT_COLOURS, axis=1, keepdims=True)
    strengths, averages = np.zeros((0, 3)), np.zeros((0, 3))
    stages: list[nn.Module] = []
    for _ in range(NUM_LEVELS):
        signed = _kernels(colours, filters)
        changes = _kernels(strengths, edges)
        averaged = _kernels(np.concatenate([strengths, averages]), mean[None])
        stages += [_convolution(np.concatenate([signed, -signed, averaged, changes, -changes])), nn.ReLU()]
        # What the next level takes from this one, as weights of this one's channels.
        channel = np.eye(2 * len(signed) + len(averaged) + 2 * len(changes))
        positive, negative, rest = (
            channel[: len(signed)],
            channel[len(signed) :][: len(signed)],
            channel[2 * len(signed) :],
        )
        colours = (positive - negative)[:: len(filters)] / filters[0].sum()
        strengths = (positive + negative)[1 : len(filters)]
        averages = rest[: len(averaged)]
    return nn.Sequential(*stages), {f"level{level + 1}": 2 * level + 1 for level in range(NUM_LEVELS)}


def cosine_filters() -> Float[np.ndarray, "9 3 3"]:
    """Basis of the discrete cosine transform (DCT-II, orthonormal) of 3x3 px, amplified with frequency.

    The filter of ``u`` half periods along y and ``v`` along x is number ``3 u + v``; the first is the mean, times 3.
    """
    frequency, place = np.meshgrid(np.arange(3), np.arange(3), indexing="ij")
    waves = np.cos(np.pi * frequency * (place + 0.5) / 3)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    gain = (1 + np.hypot(*np.meshgrid(np.arange(3), np.arange(3)))) ** FREQUENCY_GAIN
    return (gain[:, :, None, None] * np.einsum("uy,vx->uvyx", waves, waves)).reshape(9, 3, 3)


def _kernels(mixtures: Float[np.ndarray, "m c"], filters: Float[np.ndarray, "f 3 3"]) -> Float[np.ndarray, "mf c 3 3"]:
    """Kernels that pass each mixture of the channels through each filter."""
    kernels = np.einsum("mc,fyx->mfcyx", mixtures, filters)
    return kernels.reshape(-1, *kernels.shape[2:])


def _convolution(kernels: Float[np.ndarray, "k c 3 3"]) -> nn.Conv2d:
    num_outputs, num_inputs = kernels.shape[:2]
    with torch.device("meta"):  # or else the constructor draws random weights
        convolution = nn.Conv2d(num_inputs, num_outputs, 3, stride=2, padding=1, padding_mode="replicate", bias=False)
    weight = torch.from_numpy(kernels.round(_DECIMALS).astype(np.float32))
    convolution.load_state_dict({"weight": weight}, assign=True)
    return convolution
