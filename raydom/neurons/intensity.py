"""Intensities of a whole image stretched to 0 to 1, so that thresholds and scales mean the same in every image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Shaped

from raydom.types import ImageStatistics

DARKEST, BRIGHTEST = 1.0, 99.0
"""Percentiles of the whole image that become 0 and 1: a few hot or dead pixels do not matter."""


def stretched(
    pixels: Shaped[np.ndarray, "*d h w"], statistics: ImageStatistics, channel: int = 0
) -> Float32[np.ndarray, "*d h w"]:
    """Pixels of one channel, from the 1st percentile of the image to the 99th, as 0 to 1; what lies beyond is cut off.

    Args:
        pixels: Of any part of the image, as they are stored.
        statistics: Of the whole image.
        channel: Which it is.
    """
    low, high = (statistics.percentile(channel, level) for level in (DARKEST, BRIGHTEST))
    if high <= low:  # nearly all pixels are alike: by the extremes, and if these are alike too all is 0
        low, high = statistics.minimum[channel], statistics.maximum[channel]
    scale = 1 / (high - low) if high > low else 0.0
    return np.clip((pixels.astype(np.float64) - low) * scale, 0, 1).astype(np.float32)
