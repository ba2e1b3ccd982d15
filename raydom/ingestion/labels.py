"""Label files as what raydom stores: binary labels as 0 and 1, instance labels as they are."""

from __future__ import annotations

import numpy as np

from raydom.errors import DataError


def as_labels(pixels: np.ndarray, invert: bool = False) -> tuple[np.ndarray, str]:
    """Labels of one plane, in the smallest dtype, and their kind.

    Two values are binary: the larger becomes 1. A constant plane is binary too: 0 if it is 0, else 1. More values
    are the numbers of instances (or classes) and are kept.

    Args:
        pixels: Axes ``cyx``; several channels must be equal, as in masks saved in colour.
        invert: Swap the two values.

    Returns:
        Labels, axes ``yx``, uint8, uint16 or uint32; and ``binary`` or ``instance``.

    Raises:
        DataError: If the pixels are no labels.
    """
    if not all(np.array_equal(pixels[0], other) for other in pixels[1:]):
        raise DataError(f"the label is coloured: its {len(pixels)} channels differ. Save it as gray or palette image.")
    plane = pixels[0]
    if plane.dtype.kind == "f" and not (np.isfinite(plane).all() and (plane == np.rint(plane)).all()):
        raise DataError(f"the label holds fractions (dtype {plane.dtype}); labels are whole numbers.")
    low, high = plane.min(), plane.max()
    if ((plane == low) | (plane == high)).all():
        mask = plane == high if low != high else np.full(plane.shape, high != 0)
        return (mask ^ invert).astype(np.uint8), "binary"
    if invert:
        raise DataError("--invert-labels is for labels of two values; this one has more.")
    if low < 0 or high > np.iinfo(np.uint32).max:
        raise DataError(f"the label has values from {low} to {high}; labels are 0 to {np.iinfo(np.uint32).max}.")
    return plane.astype(np.min_scalar_type(int(high))), "instance"
