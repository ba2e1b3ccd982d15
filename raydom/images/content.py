"""How much of a block's structure is left after stylisation: the measure of the content guard.

Stylisation may change colours, contrast and even its sign, but what is an edge, a cell or a membrane must stay where it
was. So content and result are compared in small windows: how much of the variance of each is a linear function of the
other's channels there? Intensities need not agree, only structure; a smooth curve is nearly linear within a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

WINDOW_PX = 16
"""Side of the windows: small enough for a curve to be linear in them, large enough for chance to explain little."""
NUM_SCALES = 3
"""The images and their halves are compared, so that broad structure counts as fine structure does."""
FLOOR = 0.003
"""Variance in a window, in units of the whole image's, that counts as no structure (5 % of its deviation): the noise of
an empty background need not survive, and a texture that appears there must be stronger than this to count against
the result."""
_RIDGE = 1e-6
"""Keeps the regression defined where channels are alike, as in a gray image stored as RGB."""


def content_score(
    content: Float32[np.ndarray, "c h w"],
    result: Float32[np.ndarray, "c h w"],
    content_std: Sequence[float],
    result_std: Sequence[float],
) -> float:
    """Structure correlation of a block and of what was made of it.

    In each window, each side's share of variance that the other explains (three channels together, as colours may mix;
    else channel by channel); the geometric mean of both shares; and their mean over windows, weighted by the deviations
    in them, and over scales. The same for any gain, offset, inversion and (of RGB) linear mix of colours; nearly the
    same for gamma and histogram matching.

    Args:
        content: The block before, in any unit.
        result: The same block after, in any unit.
        content_std: Deviation of each channel of the whole content image, in its unit. Channels where it is 0 are left
            out.
        result_std: Likewise of the whole result, or of the style image which the result should look like.

    Returns:
        0 to 1. 1: all structure is kept, or there was none and is none. About 0.2 for what has nothing to do with the
        content, and less for textures finer than the windows; what is lost and what is invented both count.
    """
    ours, theirs = _windowed(content, content_std), _windowed(result, result_std)
    scores = []
    for scale in range(NUM_SCALES):
        if scale:
            ours, theirs = _halved(ours), _halved(theirs)
        share, weight = _shared_structure(_windows(ours), _windows(theirs))
        scores.append(float((share * weight).sum() / weight.sum()))
    return float(np.clip(np.mean(scores), 0.0, 1.0))


def _windowed(pixels: Float32[np.ndarray, "c h w"], std: Sequence[float]) -> Float32[np.ndarray, "g k h2 w2"]:
    """Groups of channels in units of their deviations, mirrored at the end to whole windows of the coarsest scale."""
    scale = np.array([1 / value if value > 0 else 0.0 for value in std], np.float32)
    size = WINDOW_PX << (NUM_SCALES - 1)
    ends = [(0, -length % size) for length in pixels.shape[1:]]
    padded = np.pad(pixels * scale[:, None, None], [(0, 0), *ends], mode="symmetric")
    return padded[None] if len(pixels) == 3 else padded[:, None]


def _halved(images: Float32[np.ndarray, "g k h w"]) -> Float32[np.ndarray, "g k h/2 w/2"]:
    return 0.25 * (images[..., ::2, ::2] + images[..., 1::2, ::2] + images[..., ::2, 1::2] + images[..., 1::2, 1::2])


def _windows(images: Float32[np.ndarray, "g k h w"]) -> Float32[np.ndarray, "windows k pixels"]:
    """The pixels of each window, less their mean."""
    groups, channels, height, width = images.shape
    cut = images.reshape(groups, channels, height // WINDOW_PX, WINDOW_PX, width // WINDOW_PX, WINDOW_PX)
    windows = cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, channels, WINDOW_PX**2)
    return windows - windows.mean(axis=2, keepdims=True)


def _shared_structure(
    ours: Float32[np.ndarray, "windows k pixels"], theirs: Float32[np.ndarray, "windows k pixels"]
) -> tuple[Float[np.ndarray, " windows"], Float[np.ndarray, " windows"]]:
    """For each window: the share of structure that both have, and the weight it has."""
    num_pixels = ours.shape[2]
    own, other, cross = (
        (a @ b.transpose(0, 2, 1)).astype(np.float64) / num_pixels
        for a, b in ((ours, ours), (theirs, theirs), (ours, theirs))
    )
    back = cross.transpose(0, 2, 1)
    ridge = _RIDGE * np.eye(ours.shape[1])
    share, weight = np.ones(len(ours)), np.zeros(len(ours))
    for variance, explained in (
        (own, cross @ np.linalg.solve(other + ridge, back)),
        (other, back @ np.linalg.solve(own + ridge, cross)),
    ):
        total, shared = (np.trace(matrix, axis1=1, axis2=2) / ours.shape[1] for matrix in (variance, explained))
        share *= (np.clip(shared, 0.0, total) + FLOOR) / (total + FLOOR)
        weight += np.sqrt(total + FLOOR)
    return np.sqrt(share), weight
