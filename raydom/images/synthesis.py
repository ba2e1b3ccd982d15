"""Synthetic images in any number: image k of a configuration, whatever the other images are.

Training data of Aarnio et al. 2022, "Domain adaptation of microscope cell images", section 3.1, which had them drawn by
the Unity engine, all with one setting of noise and crowded with cells, and names both as what to vary next (section 5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8, UInt16

from raydom.config import CellConfig
from raydom.images.synthetic import MICROSCOPES, make_cells, render

SYNTHESIS_VERSION = 1
"""Raised when the same configuration would give other images."""
NO_CELLS = "none"
"""Cell type of an image without cells."""
SHAPES: dict[str, tuple[tuple[float, float], float]] = {
    "round": ((1.0, 1.2), 0.04),
    "elongated": ((2.0, 4.0), 0.08),
    "irregular": ((1.0, 1.8), 0.3),
}
"""By cell type, the ratios of a cell's axes and the irregularity of its outline; see ``make_cells``."""
SIZE_SPREAD = 0.2
"""Radii of the cells of an image lie within this share of their mean."""


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticImage:
    """An image with its cells, and what is known of them."""

    pixels: UInt8[np.ndarray, "channels height width"]
    labels: UInt16[np.ndarray, "height width"]
    """Instances, 1 to the number of cells."""
    cell_type: str
    """``round``, ``elongated``, ``irregular``, or ``none`` where there is no cell."""
    density: float
    """Share of the area that cells cover."""
    object_size_px: float | None
    """Median diameter of the cells: that of discs of their areas. None where there is no cell."""

    @property
    def num_cells(self) -> int:
        return int(self.labels.max())


def synthetic_image(config: CellConfig, number: int) -> SyntheticImage:
    """The image of a number (0 is the first), a function of the configuration and the number alone."""
    generator = np.random.default_rng((config.seed, number))
    is_empty = generator.random() < config.empty
    cell_type = config.cell_types[int(generator.integers(len(config.cell_types)))]
    elongation, irregularity = SHAPES[cell_type]
    radius, density, texture, blur, noise = (
        float(generator.uniform(pair[0], pair[1]))
        for pair in (config.radius_px, config.density, config.texture, config.blur_px, config.noise)
    )
    scene, labels = make_cells(
        (config.size_px, config.size_px),
        generator,
        density=0.0 if is_empty else density,
        radius_px=((1 - SIZE_SPREAD) * radius, (1 + SIZE_SPREAD) * radius),
        elongation=elongation,
        irregularity=irregularity,
        texture=texture,
    )
    # A camera's read noise is about a third of its shot noise at full well.
    microscope = replace(MICROSCOPES[config.microscope], blur_px=blur, shot_noise=noise, read_noise=noise / 3)
    pixels = render(scene, microscope, generator)
    if config.gray:
        pixels = np.rint(pixels.mean(axis=0, keepdims=True)).astype(np.uint8)
    areas_px = np.bincount(labels.ravel())[1:]
    return SyntheticImage(
        pixels=pixels,
        labels=labels,
        cell_type=cell_type if areas_px.size else NO_CELLS,
        density=float(np.mean(labels > 0)),
        object_size_px=float(np.median(2 * np.sqrt(areas_px / np.pi))) if areas_px.size else None,
    )
