"""Procedural cells under two simulated microscopes: labelled images with a real domain shift, without any file.

A scene is what lies on the slide, a microscope is how it is seen. Both microscopes see the same kind of cells darker
than their surroundings; they differ in stain, lamp colour, contrast, illumination, focus and noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt16
from scipy.ndimage import gaussian_filter

from raydom.errors import ConfigError

MOST_CELLS = np.iinfo(np.uint16).max
"""So many cells can be numbered."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Amounts of absorbing matter on a slide, each of shape (y, x), 0 where there is none and about 1 where full."""

    body: Float[np.ndarray, "y x"]
    """Cell bodies, textured."""
    nucleus: Float[np.ndarray, "y x"]
    """Cell nuclei."""
    debris: Float[np.ndarray, "y x"]
    """Specks and a faint cloudy film, which are no cells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Microscope:
    """How a scene becomes an image; light is absorbed as in Beer and Lambert's law.

    Colours are (red, green, blue). Intensities are fractions of white.
    """

    lamp: tuple[float, float, float]
    """Intensity of an empty field."""
    body_absorbance: tuple[float, float, float]
    """Optical depth (nats) of a full cell body, a colour each."""
    nucleus_absorbance: tuple[float, float, float]
    debris_absorbance: tuple[float, float, float]
    blur_px: float
    """Standard deviation of the focus, px."""
    shading: float
    """How much the illumination falls off from its brightest place to the corners, as a fraction."""
    shot_noise: float
    """Standard deviation of the noise of a white pixel; it goes with the square root of the intensity."""
    read_noise: float
    """Standard deviation of the noise of a black pixel."""


MICROSCOPES = {
    "source": Microscope(
        lamp=(0.93, 0.90, 0.92),
        body_absorbance=(0.42, 0.62, 0.30),
        nucleus_absorbance=(0.75, 0.85, 0.45),
        debris_absorbance=(0.25, 0.25, 0.25),
        blur_px=0.8,
        shading=0.06,
        shot_noise=0.015,
        read_noise=0.005,
    ),
    "target": Microscope(
        lamp=(0.46, 0.48, 0.36),
        body_absorbance=(0.17, 0.20, 0.26),
        nucleus_absorbance=(0.20, 0.24, 0.30),
        debris_absorbance=(0.08, 0.08, 0.08),
        blur_px=1.3,
        shading=0.08,
        shot_noise=0.02,
        read_noise=0.008,
    ),
}


def make_cells(
    shape: tuple[int, int],
    generator: np.random.Generator,
    *,
    density: float = 0.25,
    radius_px: tuple[float, float] = (7.0, 14.0),
    elongation: tuple[float, float] = (1.0, 1.8),
    irregularity: float = 0.12,
    texture: float = 0.25,
) -> tuple[Scene, UInt16[np.ndarray, "y x"]]:
    """Scatter cells of varied size, shape and texture.

    Cells may touch but do not overlap; at the border of the image they are cut off.

    Args:
        shape: Height and width, px.
        generator: Source of all randomness: the same state gives the same cells.
        density: Aimed share of the area that cells cover. Above about 0.5 there is no room and fewer are placed.
        radius_px: Smallest and largest mean radius of a cell, px.
        elongation: Smallest and largest ratio of a cell's axes.
        irregularity: How far outlines wave around an ellipse: about the standard deviation, as a share of the radius.
        texture: How uneven cell bodies are: standard deviation of the amount of matter, as a share of it.

    Returns:
        The scene, and the instances: 0 is background, then 1 to the number of cells without a gap. A pixel belongs
        to a cell where the body is at least half full.

    Raises:
        ConfigError: If the shape, density, radius, elongation, irregularity or texture cannot be used, and for more
            cells than 16 bits can number.
    """
    for ok, problem in (
        (min(shape) >= 1, f"shape must be at least 1 x 1 px; got {shape}"),
        (0 <= density < 1, f"density must be from 0 to below 1; got {density}"),
        (0 < radius_px[0] <= radius_px[1], f"radius_px must be two rising numbers > 0; got {radius_px}"),
        (1 <= elongation[0] <= elongation[1], f"elongation must be two rising numbers >= 1; got {elongation}"),
        (0 <= irregularity <= 0.4, f"irregularity must be from 0 to 0.4; got {irregularity}"),
        (texture >= 0, f"texture must be >= 0; got {texture}"),
    ):
        if not ok:
            raise ConfigError(f"{problem}.")
    area_px = np.pi * np.mean(np.square(np.linspace(*radius_px, 100)))
    # One in five finds no room at the usual densities, and the tries must end at any.
    wanted_px, tries = density * shape[0] * shape[1], int(8 * density * shape[0] * shape[1] / area_px) + 8
    labels = np.zeros(shape, np.uint16)
    body, nucleus = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    covered_px = num_cells = 0
    for _ in range(tries):
        if covered_px >= wanted_px:
            break
        center = generator.uniform((0, 0), shape)
        radius = generator.uniform(*radius_px)
        window, inside, core = _draw_cell(
            shape, center, radius, generator.uniform(*elongation), irregularity, generator
        )
        mask = inside >= 0.5
        taken = labels[window] > 0
        if not mask.any() or np.count_nonzero(mask & taken) > 0:
            continue
        num_cells += 1
        if num_cells > MOST_CELLS:
            raise ConfigError(f"more than {MOST_CELLS} cells in {shape} px; draw smaller images, or larger cells.")
        labels[window][mask] = num_cells
        stain = generator.uniform(0.75, 1.1)
        np.maximum(body[window], inside * stain, out=body[window])
        np.maximum(nucleus[window], core * generator.uniform(0.7, 1.1), out=nucleus[window])
        covered_px += int(np.count_nonzero(mask))
    body *= 1 + texture * _smooth_noise(shape, 1.5, generator)
    nucleus *= 1 + 0.3 * _smooth_noise(shape, 1.0, generator)
    specks = (generator.random(shape) < 0.001).astype(np.float32) * 8
    film = 0.3 * np.clip(_smooth_noise(shape, 12.0, generator), 0, None)
    return Scene(body.clip(0), nucleus.clip(0), gaussian_filter(specks, 1.0) + film), labels


def render(scene: Scene, microscope: Microscope, generator: np.random.Generator) -> np.ndarray:
    """What a microscope sees of a scene.

    Returns:
        An RGB image of shape (3, y, x), uint8.
    """
    shape = scene.body.shape
    light = _illumination(shape, microscope.shading, generator)
    absorbances = (microscope.body_absorbance, microscope.nucleus_absorbance, microscope.debris_absorbance)
    image = np.empty((3, *shape), np.float32)
    for channel in range(3):
        depth = np.zeros(shape, np.float32)
        for amount, absorbance in zip((scene.body, scene.nucleus, scene.debris), absorbances, strict=True):
            depth += np.float32(absorbance[channel]) * amount
        seen = gaussian_filter(microscope.lamp[channel] * np.exp(-depth), microscope.blur_px) * light
        noise = generator.standard_normal(shape, np.float32)
        image[channel] = seen + noise * np.sqrt(microscope.shot_noise**2 * seen + microscope.read_noise**2)
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)


def _draw_cell(
    shape: tuple[int, int],
    center: np.ndarray,
    radius: float,
    elongation: float,
    irregularity: float,
    generator: np.random.Generator,
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """One cell in the window of the image that holds it: how full its body and its nucleus are, each from 0 to 1."""
    reach = radius * np.sqrt(elongation) * (1 + max(0.4, 3 * irregularity)) + 3
    window = tuple(
        slice(max(0, int(c - reach)), min(size, int(c + reach) + 2)) for c, size in zip(center, shape, strict=True)
    )
    y, x = np.ogrid[window[0], window[1]]
    y, x = (y - center[0]).astype(np.float32), (x - center[1]).astype(np.float32)
    angle = generator.uniform(0, np.pi)
    along, across = y * np.sin(angle) + x * np.cos(angle), y * np.cos(angle) - x * np.sin(angle)
    # Elongation at constant area, then an outline that waves around the ellipse two to four times.
    along, across = along / np.sqrt(elongation), across * np.sqrt(elongation)
    distance, direction = np.hypot(along, across), np.arctan2(across, along)
    outline = np.ones_like(distance)
    for waves in (2, 3, 4):
        outline += generator.normal(0, irregularity / waves) * np.cos(
            waves * direction + generator.uniform(0, 2 * np.pi)
        )
    inside = _soft_step(radius * outline.clip(0.3) - distance, softness_px=0.8)
    offset = generator.normal(0, 0.12 * radius, 2)
    from_core = np.hypot(along - offset[0], across - offset[1])
    return (window[0], window[1]), inside, _soft_step(0.45 * radius - from_core, softness_px=0.7)


def _soft_step(depth_px: np.ndarray, softness_px: float) -> np.ndarray:
    """0 far outside, 0.5 on the outline, 1 far inside."""
    return 0.5 * (1 + np.tanh(depth_px / (2 * softness_px)))


def _smooth_noise(shape: tuple[int, ...], scale_px: float, generator: np.random.Generator) -> np.ndarray:
    """A random field of mean 0 and standard deviation about 1 whose hills are ``scale_px`` wide."""
    field = gaussian_filter(generator.standard_normal(shape, np.float32), scale_px, mode="wrap")
    # A Gaussian filter of white noise has this standard deviation, up to pixelation.
    return field * (2 * np.sqrt(np.pi) * scale_px)


def _illumination(shape: tuple[int, ...], shading: float, generator: np.random.Generator) -> np.ndarray:
    """Illumination of each pixel: 1 at a random bright place near the middle, falling off to ``1 - shading``."""
    place = generator.uniform(0.3, 0.7, 2)
    y, x = np.ogrid[: shape[0], : shape[1]]
    squared = (y / shape[0] - place[0]) ** 2 + (x / shape[1] - place[1]) ** 2
    return (1 - shading * squared / squared.max()).astype(np.float32)
