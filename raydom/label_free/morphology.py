"""What segmented structures look like, in numbers that hold for nuclei as for vessels and membranes."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from raydom.images.instances import components
from raydom.images.objects import measure, table
from raydom.types import Region

SPECK_PX = 12
"""What hangs together in fewer pixels is no object."""
TILE_PX = 256
NAMES = ("share", "density", "size", "solidity", "border", "euler")


def morphology(mask: Bool[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, " descriptors"]:
    """Numbers that describe the foreground of a crop, in the order of ``NAMES``.

    Of what has no upper bound the logarithm, so that twice as much is as far as half as much; with a floor, so that
    nothing at all is far, but not infinitely far.

    - ``share``: logit of the share of the valid pixels that is foreground.
    - ``density``: log of the number of objects per 256 x 256 px, and 1.
    - ``size``: log of the mean area of objects, px, and ``solidity`` (area over that of the convex hull), both weighted
      by area; 0 where there are none.
    - ``border``: log of the length of the border over the area, 1/px.
    - ``euler``: objects less holes over their number, -1 (networks) to 1 (solid objects).
    """
    mask = mask & valid
    num_valid, area = max(int(valid.sum()), 1), int(mask.sum())
    share = (area + 0.5) / (num_valid + 1.0)
    labels = components(mask)
    large = np.bincount(labels.ravel())[1:] >= SPECK_PX
    objects, holes = int(large.sum()), max(int(components(~mask & valid).max(initial=0)) - 1, 0)
    size, solidity = 0.0, 0.0
    if objects:
        kept = np.where(np.concatenate([[False], large])[labels], labels, 0)
        inside = mask.astype(np.float32)
        found = table(
            measure(kept, Region.whole(mask.shape), inside[None], inside), (mask.shape[0], mask.shape[1]), None
        )
        weights = found["area_px"] / found["area_px"].sum()
        size, solidity = math.log(weights @ found["area_px"]), float(weights @ found["solidity"])
    crossings = int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum())
    return np.array(
        [
            math.log(share / (1 - share)),
            math.log(objects * TILE_PX**2 / num_valid + 1.0),
            size,
            solidity,
            math.log((crossings + 1.0) / (area + 10.0)),
            (objects - holes) / (objects + holes + 1),
        ]
    )
