"""Local contrast, for images that are dark as a whole and hold more than the eye or a threshold sees."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from skimage.exposure import equalize_adapthist

LEAST_TILE_PX = 8
"""Smaller tiles have too few pixels for a histogram."""


def clahe(image: Float32[np.ndarray, "c h w"], clip_limit: float = 0.01) -> Float32[np.ndarray, "c h w"]:
    """Contrast limited adaptive histogram equalisation (CLAHE) in tiles of an eighth of the height and width.

    Three channels are taken as RGB, of which the value (HSV) is equalised, so that colours stay; of images with other
    numbers each channel by itself. What is equalised is stretched to 0..1 first; where it is constant it stays.

    Args:
        image: Intensities from 0 to 1; others are clipped.
        clip_limit: Largest share of a tile's pixels in one of 256 bins; more gives more contrast, and more noise.

    Returns:
        Intensities from 0 to 1.

    Source: Zuiderveld 1994, Graphics Gems IV, as in scikit-image; its use for fluorescence images: Liu et al. 2022,
    "Multi-modality microscopy image style transfer for nuclei segmentation", section 2.2.
    """
    image = image.clip(0.0, 1.0)
    if len(image) != 3:
        return np.stack([_equalised(channel, clip_limit) for channel in image])
    value = image.max(axis=0)
    # Scaling all three alike leaves hue and saturation; black has neither and becomes gray.
    gain = np.divide(_equalised(value, clip_limit), value, out=np.zeros_like(value), where=value > 0)
    return np.where(value > 0, image * gain, _equalised(value, clip_limit)).astype(np.float32)


def _equalised(plane: Float32[np.ndarray, "h w"], clip_limit: float) -> Float32[np.ndarray, "h w"]:
    if np.ptp(plane) == 0:
        return plane
    tiles = tuple(max(LEAST_TILE_PX, size // 8) for size in plane.shape)
    return equalize_adapthist(plane.astype(np.float64), kernel_size=tiles, clip_limit=clip_limit).astype(np.float32)
