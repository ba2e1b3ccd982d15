"""What synthetic images are to show."""

from __future__ import annotations

from dataclasses import dataclass, field

from raydom.config.base import require

CELL_TYPES = ("round", "elongated", "irregular")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellConfig:
    """Images of procedural cells. What is a pair of numbers is drawn between them, for each image anew."""

    size_px: int = field(default=256, metadata={"flag": "--size"})
    """Height and width of the images, px."""
    cell_types: tuple[str, ...] = field(default=CELL_TYPES, metadata={"comma": True})
    """Shapes of cells, with commas between; an image has cells of one: round, elongated or irregular."""
    radius_px: tuple[float, ...] = field(default=(5.0, 16.0), metadata={"flag": "--radius"})
    """Mean radius of the cells, px; within an image it varies by a fifth."""
    density: tuple[float, ...] = (0.02, 0.5)
    """Share of the area that cells cover. Above about 0.5 there is no room, and fewer are drawn."""
    empty: float = 0.1
    """Share of the images that have no cell."""
    texture: tuple[float, ...] = (0.1, 0.5)
    """How uneven cells are: standard deviation of their matter, as a share of it."""
    blur_px: tuple[float, ...] = field(default=(0.5, 2.0), metadata={"flag": "--blur"})
    """Standard deviation of the focus, px."""
    noise: tuple[float, ...] = (0.005, 0.05)
    """Standard deviation of the noise of a white pixel, as a fraction of white."""
    microscope: str = "source"
    """source (bright, stained) or target (dim, yellowish, half the contrast)."""
    gray: bool = False
    """One channel instead of red, green and blue."""
    seed: int = 0
    """Image k is a function of these settings, the seed and k alone."""

    def __post_init__(self) -> None:
        require(self.size_px >= 16, f"size must be >= 16 px; got {self.size_px}.")
        unknown = set(self.cell_types) - set(CELL_TYPES)
        require(
            not unknown and len(self.cell_types) > 0,
            f"cell_types are one or more of {', '.join(CELL_TYPES)}; got {', '.join(self.cell_types) or 'none'}.",
        )
        bounds = {
            "radius_px": (1.0, self.size_px / 2), "density": (0.0, 0.9), "texture": (0.0, 2.0), "blur_px": (0.0, 20.0),
            "noise": (0.0, 1.0),
        }  # fmt: skip
        for name, (lowest, highest) in bounds.items():
            pair = getattr(self, name)
            require(
                len(pair) == 2 and lowest <= pair[0] <= pair[1] <= highest,
                f"{name} must be two rising numbers from {lowest:g} to {highest:g}; got {pair}.",
            )
        require(0 <= self.empty <= 1, f"empty must be from 0 to 1; got {self.empty}.")
        require(
            self.microscope in ("source", "target"), f"microscope must be source or target; got {self.microscope!r}."
        )
        require(self.seed >= 0, f"seed must be >= 0; got {self.seed}.")
