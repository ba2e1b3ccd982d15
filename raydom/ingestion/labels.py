"""Label files as what raydom stores: binary labels as 0 and 1, instance labels as they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from raydom.errors import DataError

MASK_VALUES = (1, 128, 255, 65535)
"""What stands for foreground in files of masks."""


@dataclass(frozen=True, slots=True)
class LabelRule:
    """How the pixels of a label file become labels."""

    kind: str
    """``binary`` or ``instance``."""
    dtype: np.dtype
    invert: bool

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Labels (y, x; or z, y, x) of pixels with channels before them."""
        if self.kind == "binary":
            return ((pixels[0] != 0) ^ self.invert).astype(self.dtype)
        return pixels[0].astype(self.dtype)


def label_rule(pieces: Iterable[np.ndarray], invert: bool = False) -> LabelRule:
    """What the pixels of a label file mean.

    Planes of nothing but 0 and one of 1, 128, 255 and 65535 (what masks are saved as) are binary, and become 0 and 1.
    Any other values are the numbers of instances or classes, and are kept: a plane in which only class 2 occurs is no
    mask.

    Args:
        pieces: All pixels of the plane or volume, channels first; several channels must be equal, as in masks saved in
            colour.
        invert: Swap the two values of a mask.

    Raises:
        DataError: If the pixels are no labels.
    """
    lows, highs, marks = [], [], set()
    for pixels in pieces:
        if not all(np.array_equal(pixels[0], other) for other in pixels[1:]):
            raise DataError(
                f"the label is coloured: its {len(pixels)} channels differ. Save it as gray or palette image."
            )
        plane = pixels[0]
        if plane.dtype.kind == "f" and not (np.isfinite(plane).all() and (plane == np.rint(plane)).all()):
            raise DataError(f"the label holds fractions (dtype {plane.dtype}); labels are whole numbers.")
        lows.append(plane.min())
        highs.append(plane.max())
        has_two = ((plane == 0) | (plane == highs[-1])).all()
        marks |= {int(highs[-1])} if has_two else {0, -1, -2}
    low, high = min(lows), max(highs)
    if len(marks - {0}) <= 1 and (high == 0 or high in MASK_VALUES):
        return LabelRule("binary", np.dtype(np.uint8), invert)
    if invert:
        raise DataError("--invert-labels is for labels of two values; this one has more.")
    if low < 0 or high > np.iinfo(np.uint32).max:
        raise DataError(f"the label has values from {low} to {high}; labels are 0 to {np.iinfo(np.uint32).max}.")
    return LabelRule("instance", np.min_scalar_type(int(high)), invert)


def as_labels(pixels: np.ndarray, invert: bool = False) -> tuple[np.ndarray, str]:
    """Labels (uint8, uint16 or uint32; axes ``yx``) of one plane (axes ``cyx``), and their kind; see ``label_rule``."""
    rule = label_rule([pixels], invert)
    return rule.apply(pixels), rule.kind
