"""Stain normalisation of haematoxylin and eosin (H&E): each stain gets the style's colour and strength.

Light through stained tissue is absorbed in proportion to the amount of stain (Beer and Lambert), so that in optical
density the colours of two stains add up, and every pixel lies between them.

Source: Macenko et al. 2009, "A method for normalizing histology slides for quantitative analysis" (ISBI). As in the
usual reference code (mitkovetta/staining-normalization): natural logarithm of intensity plus one gray value, beta 0.15,
alpha 1. Unlike there, a white pixel has density 0 (their transmitted light is 240 of 255), and the strength of a stain
is taken where there is stain, so that it does not depend on the amount of empty glass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raydom.errors import ConfigError, DataError

BETA = 0.15
"""Optical density in every channel from which on a pixel counts as stained."""
ALPHA = 1.0
"""The stains' colours are the extremes but for this percentage of the stained pixels."""
MIN_STAINED = 0.001
"""Share of stained pixels under which an image is taken as empty."""
MIN_ANGLE_DEG = 1.0
"""Angle between two colours under which they are taken as one; haematoxylin and eosin are 15 to 40 degrees apart."""
DARK_DENSITY = 2.0
"""Median density from which on an image is no transmitted light: half of it lets less than a seventh through."""


@dataclass(frozen=True, eq=False)
class Stains:
    """The two stains of an image: haematoxylin, which absorbs more red, and eosin."""

    colours: Float[np.ndarray, "3 2"]
    """Optical densities in R, G and B of each stain; unit vectors."""
    strengths: Float[np.ndarray, "2"]
    """99th percentile of the amount of each, where there is stain."""


def optical_density(fractions: Tensor) -> Tensor:
    """Of fractions of the legal range, 0 (white) to 5.5 (black)."""
    return -((255 * fractions.clamp(0, 1) + 1) / 256).log()


def stains_of(pixels: Float[Tensor, "c h w"], what: str = "the image") -> Stains:
    """The stains of an image, whole or at low resolution.

    Args:
        pixels: Fractions of the legal range.
        what: Which image that is, for errors.

    Raises:
        ConfigError: If it is no RGB image.
        DataError: If it shows no transmitted light, no stain, or only one colour.
    """
    check_rgb(len(pixels), what)
    remedy = "macenko is for H&E in transmitted light; use reinhard, histogram or meanstd instead."
    density = optical_density(pixels.double()).reshape(3, -1).T.cpu().numpy()
    if float(np.median(density.mean(axis=1))) > DARK_DENSITY:
        raise DataError(f"{what} is mostly dark (median density above {DARK_DENSITY:g}), as fluorescence is; {remedy}")
    stained = density[(density >= BETA).all(axis=1)]
    if len(stained) < max(2, MIN_STAINED * len(density)):
        raise DataError(f"{what} has no stained tissue ({len(stained)} of {len(density)} pixels); {remedy}")
    plane = np.linalg.eigh(np.cov(stained.T))[1][:, 1:]  # the two directions of largest variance
    # Angles are counted from the mean colour, where they cannot wrap around.
    centre = plane.T @ stained.mean(axis=0)
    basis = plane @ (np.array([[centre[0], -centre[1]], [centre[1], centre[0]]]) / (np.linalg.norm(centre) or 1.0))
    inside = stained @ basis
    low, high = np.percentile(np.arctan2(inside[:, 1], inside[:, 0]), (ALPHA, 100 - ALPHA))
    if np.degrees(high - low) < MIN_ANGLE_DEG:
        raise DataError(f"{what} has stain of one colour only, such as a gray image; {remedy}")
    colours = basis @ np.array([[np.cos(low), np.cos(high)], [np.sin(low), np.sin(high)]])
    colours = colours[:, np.argsort(-colours[0])]
    amounts = stained @ np.linalg.pinv(colours).T
    return Stains(colours, np.percentile(amounts, 99, axis=0))


def macenko(pixels: Float[Tensor, "n c h w"], content: Stains, style: Stains) -> Float[Tensor, "n c h w"]:
    """Each pixel's amounts of stain, in the style's strengths and colours; what is neither stain is left out.

    Args:
        pixels: Fractions of the legal range, of any part of the content image.
        content: Stains of the whole content image.
        style: Stains of the style image.
    """
    check_rgb(pixels.shape[1], "the image")
    matrix = style.colours @ np.diag(style.strengths / content.strengths) @ np.linalg.pinv(content.colours)
    # Plane by plane in double precision, so that the result does not depend on the block's shape.
    density = [optical_density(plane.double().contiguous()) for plane in pixels.unbind(1)]
    planes = [
        sum((float(factor) * plane for factor, plane in zip(row, density, strict=True)), torch.zeros_like(density[0]))
        for row in matrix
    ]
    return torch.stack([((256 * (-plane).exp() - 1) / 255).clamp(0, 1) for plane in planes], dim=1).to(pixels.dtype)


def check_rgb(num_channels: int, what: str) -> None:
    """Refuse what has no colours.

    Raises:
        ConfigError: For any number of channels but 3.
    """
    if num_channels != 3:
        raise ConfigError(
            f"macenko needs RGB images, of 3 channels; {what} has {num_channels}. Use meanstd or histogram instead."
        )
