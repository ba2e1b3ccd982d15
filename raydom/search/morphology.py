"""What segmented structures look like, in numbers that hold for nuclei as for vessels and membranes."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from raydom.images.instances import components
from raydom.images.objects import measure, table
from raydom.types import Region

SPECK_PX = 12
"""What hangs together in fewer pixels is a speck, not an object."""
SIGMAS_PX = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Scales at which the mask's variance is taken."""
NAMES = (
    "share", "density", "specks", "size", "solidity", "elongation", "border", "thickness", "spacing", "euler",
    *(f"scale_{sigma:g}" for sigma in SIGMAS_PX),
)  # fmt: skip


def morphology(mask: Bool[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, " descriptors"]:
    """Numbers that describe the foreground of a crop, in the order of ``NAMES``.

    Shares and densities are logarithms with a floor, so that twice as much is as far as half as much and nothing at
    all is far, but not infinitely far:

    - ``share``: of the valid pixels that are foreground, logit.
    - ``density``: log of objects per 256 x 256 px; ``specks``: of those below ``SPECK_PX``.
    - ``size``: log of the mean area of objects, weighted by area, px.
    - ``solidity`` and ``elongation`` (eccentricity) of objects, weighted by area.
    - ``border``: log of the length of the border over the area, 1/px.
    - ``thickness``: log of the mean depth within the foreground; ``spacing``: that within the background, px.
    - ``euler``: objects less holes, per object and hole, -1 (networks) to 1 (solid objects).
    - ``scale_s``: share of the mask's variance that is left after smoothing by s px.
    """
    mask = mask & valid
    num_valid = max(int(valid.sum()), 1)
    area = int(mask.sum())
    labels = components(mask)
    sizes = np.bincount(labels.ravel())[1:]
    large = sizes >= SPECK_PX
    per_tile = 256 * 256 / num_valid
    share = (area + 0.5) / (num_valid + 1.0)
    if large.any():
        kept = np.where(np.concatenate([[False], large])[labels], labels, 0)
        inside = mask.astype(np.float32)
        of_each = table(measure(kept, Region.whole(mask.shape), inside[None], inside), _flat(mask), None)
        weights = of_each["area_px"] / of_each["area_px"].sum()
        size = math.log(float((weights * of_each["area_px"]).sum()))
        solidity, elongation = (float((weights * of_each[name]).sum()) for name in ("solidity", "eccentricity"))
    else:
        size, solidity, elongation = 0.0, 0.0, 0.0
    crossings = int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum())
    holes = int(components(~mask & valid).max(initial=0)) - 1
    objects = int(large.sum())
    euler = (objects - max(holes, 0)) / (objects + max(holes, 0) + 1)
    return np.array(
        [
            math.log(share / (1 - share)),
            math.log(objects * per_tile + 1.0),
            math.log(int((~large).sum()) * per_tile + 1.0),
            size,
            solidity,
            elongation,
            math.log((crossings + 1.0) / (area + 10.0)),
            math.log(_depth(mask)),
            math.log(_depth(~mask & valid)),
            euler,
            *_scales(mask, valid),
        ]
    )


def _flat(mask: np.ndarray) -> tuple[int, int]:
    return mask.shape[0], mask.shape[1]


def _depth(mask: np.ndarray) -> float:
    """Mean distance to the outside, px."""
    if not mask.any():
        return 0.5
    return float(ndimage.distance_transform_edt(mask)[mask].mean())


def _scales(mask: np.ndarray, valid: np.ndarray) -> list[float]:
    values = np.where(valid, mask, mask[valid].mean() if valid.any() else 0.0).astype(np.float32)
    variance = float(values.var())
    return [
        float(ndimage.gaussian_filter(values, sigma).var()) / (variance + 1e-4) if variance else 0.0
        for sigma in SIGMAS_PX
    ]
