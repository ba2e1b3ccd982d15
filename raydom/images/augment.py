"""Augmentation of training crops: what a microscope could as well have seen. The mask follows the image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int64

Crop = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Image (C, H, W) float32, label (H, W) int64 and validity (H, W) bool of one crop."""


def augment(
    image: Float32[np.ndarray, "c h w"],
    label: Int64[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    names: tuple[str, ...],
    generator: np.random.Generator,
) -> Crop:
    """Apply the named augmentations, in a fixed order, each drawn anew.

    - ``flip``: each axis with probability one half.
    - ``rotate``: by 0, 90, 180 or 270 degrees, equally likely. Other angles would blur both the texture and the edges
      of the mask, and together with the flips these are all the symmetries of the pixel grid. Needs a square crop.
    - ``intensity``: see ``jitter_intensity``.

    Args:
        image: Normalised intensities, about 0 to 1.
        label: Class of each pixel.
        valid: False where a pixel must not count.
        names: Which of the above; order does not matter.
        generator: Source of randomness. The same draws are made whatever ``names`` holds, so that switching one
            augmentation off does not change the others.
    """
    flip_y, flip_x = (bool(draw < 0.5) for draw in generator.random(2))
    quarter_turns = int(generator.integers(4))
    jitter = generator.uniform(-1.0, 1.0, size=3)
    if "flip" in names:
        image, label, valid = (_flipped(array, flip_y, flip_x) for array in (image, label, valid))
    if "rotate" in names:
        image, label, valid = (np.rot90(array, quarter_turns, axes=(-2, -1)) for array in (image, label, valid))
    if "intensity" in names:
        image = jitter_intensity(image, gain=1 + 0.25 * jitter[0], offset=0.1 * jitter[1], log_gamma=0.35 * jitter[2])
    return np.ascontiguousarray(image), np.ascontiguousarray(label), np.ascontiguousarray(valid)


def jitter_intensity(
    image: Float32[np.ndarray, "c h w"], gain: float, offset: float, log_gamma: float
) -> Float32[np.ndarray, "c h w"]:
    """``gain * x ** exp(log_gamma) + offset``, the same for all channels so that their ratios stay.

    Values below 0 keep their sign under the power; nothing is clipped.
    """
    gamma = np.float32(np.exp(log_gamma))
    return np.float32(gain) * np.sign(image) * np.abs(image) ** gamma + np.float32(offset)


def _flipped(array: np.ndarray, flip_y: bool, flip_x: bool) -> np.ndarray:
    return array[..., :: -1 if flip_y else 1, :: -1 if flip_x else 1]
