"""From a network's maps to objects: seeded watershed.

Source: Beucher and Lantuéjoul 1979, as flooded by Meyer 1991 (scikit-image's implementation). Seeds and floods stay
within what hangs together in the foreground, and ties are broken in the order of pixels, so an object comes out the
same from any part of the image that shows all that hangs together with it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int32, UInt8
from scipy import ndimage
from skimage.segmentation import watershed

from raydom.config import InstanceConfig


def instances(
    maps: UInt8[np.ndarray, "k h w"], output: str, threshold: float, config: InstanceConfig
) -> Int32[np.ndarray, "h w"]:
    """Objects, numbered from 1 in the order of their first pixel; 0 is background.

    Args:
        maps: What the network tells, 0..255 for 0..1: of output ``classes`` the foreground alone; of ``boundary`` also
            the border of objects; of ``distance`` also the depth within them, over the greatest of each.
        output: Which of the three.
        threshold: Foreground probability from which a pixel belongs to an object.
        config: Of the seeds. Where something in the foreground has none, it is one object.
    """
    foreground = maps[0] >= np.float32(255 * threshold)
    if output == "classes":
        return numbered(components(foreground))
    if output == "boundary":
        inside = maps[0].astype(np.int32) * (255 - maps[1].astype(np.int32)) // 255
    else:
        inside = maps[1].astype(np.int32)
    seeds = components(foreground & (inside >= 255 * config.seed_threshold))
    seeds[np.bincount(seeds.ravel())[seeds] < config.min_seed_px] = 0
    wholes = components(foreground)
    seeded = np.zeros(int(wholes.max(initial=0)) + 1, bool)
    seeded[wholes[seeds > 0]] = True
    unseeded = foreground & ~seeded[wholes]
    seeds[unseeded] = int(seeds.max(initial=0)) + wholes[unseeded]
    return numbered(watershed(-inside, seeds, mask=foreground).astype(np.int32))


def components(mask: Bool[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    """What hangs together by the sides of pixels, numbered from 1."""
    labels, _ = ndimage.label(mask, output=np.int32)
    return np.asarray(labels)


def numbered(labels: Int32[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    """The same objects, numbered from 1 in the order of their first pixel."""
    found, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.where(found == 0, -1, first))
    number = np.empty(len(found), np.int32)
    number[order] = np.arange(len(found), dtype=np.int32) + (0 if (found == 0).any() else 1)
    return number[inverse].reshape(labels.shape)
