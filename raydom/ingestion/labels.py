"""Label files as what raydom stores: binary labels as 0 and 1, instance labels as they are."""

from __future__ import annotations

import numpy as np

from raydom.errors import DataError

MASK_VALUES = (1, 128, 255, 65535)
"""What stands for foreground in files of masks."""


def as_labels(pixels: np.ndarray, invert: bool = False) -> tuple[np.ndarray, str]:
    """Labels of one plane, in the smallest dtype, and their kind.

    Planes of nothing but 0 and one of 1, 128, 255 and 65535 (what masks are saved as) are binary, and become 0 and 1.
    Any other values are the numbers of instances or classes, and are kept: a plane in which only class 2 occurs is no
    mask.

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
    if (high == 0 or high in MASK_VALUES) and ((plane == 0) | (plane == high)).all():
        return ((plane != 0) ^ invert).astype(np.uint8), "binary"
    if invert:
        raise DataError("--invert-labels is for labels of two values; this one has more.")
    if low < 0 or high > np.iinfo(np.uint32).max:
        raise DataError(f"the label has values from {low} to {high}; labels are 0 to {np.iinfo(np.uint32).max}.")
    return plane.astype(np.min_scalar_type(int(high))), "instance"
