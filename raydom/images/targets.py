"""What networks learn of instances: where objects are, and their borders or the distance to them.

An edge of the array is no border: an object that lies at it is taken to go on beyond.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Integer
from scipy import ndimage

MARGIN_PX = 64
"""Around a part of an image, so much more decides its targets, px: they are those of the whole image wherever objects
reach no further."""


def instance_targets(instances: Integer[np.ndarray, "h w"], output: str) -> Float32[np.ndarray, "2 h w"]:
    """The two maps that a network of an output learns, each from 0 to 1.

    Args:
        instances: Number of the object of each pixel; 0: none.
        output: ``boundary`` (object; its border) or ``distance`` (object; its relative distance).
    """
    second = object_borders(instances) if output == "boundary" else relative_distance(instances)
    return np.stack([instances > 0, second]).astype(np.float32)


def object_borders(instances: Integer[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The pixels of objects of which one of the eight neighbours is of another object, or of none.

    So two objects that touch are separated by at least 2 px, one of each.
    """
    largest = ndimage.maximum_filter(instances, size=3, mode="nearest")
    smallest = ndimage.minimum_filter(instances, size=3, mode="nearest")
    borders: Bool[np.ndarray, "h w"] = (instances > 0) & (largest != smallest)
    return borders


def relative_distance(instances: Integer[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """The distance to the nearest pixel that is not of the same object, over the largest in the object; 0 elsewhere.

    An object without such a pixel, which fills the array, is 1 everywhere.
    """
    found = np.zeros(instances.shape, np.float32)
    numbers = np.unique(instances[instances > 0])
    compact = np.searchsorted(numbers, instances) + 1  # find_objects lists every number up to the largest
    compact[instances <= 0] = 0
    for number, place in enumerate(ndimage.find_objects(compact), start=1):
        # One pixel around the object's box holds its nearest other pixel in every direction, where there is one.
        window = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in place)
        mask = compact[window] == number
        distance = np.ones(mask.shape) if mask.all() else ndimage.distance_transform_edt(mask)
        found[window][mask] = (distance / distance.max())[mask]
    return found
