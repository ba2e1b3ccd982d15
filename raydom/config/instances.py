"""How objects are told apart, and put together where blocks meet."""

from __future__ import annotations

from dataclasses import dataclass

from raydom.config.base import require


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceConfig:
    """Objects one by one, instead of their area."""

    components: bool = False
    """Make objects of what a model calls foreground: what hangs together is one. (Models with output boundary, distance
    or objects always make them.)"""
    seed_threshold: float = 0.5
    """From which certainty a pixel is the inside of an object (output boundary), or which share of an object's greatest
    depth is its core (output distance)."""
    min_seed_px: int = 4
    """Smaller cores begin no object of their own."""
    min_area_px: int = 1
    """Smaller objects are left out."""
    halo_px: int = 64
    """How far beyond its own pixels a block looks for objects, px; best no less than their diameter."""
    ids: str = "uint32"
    """Numbers of the labels that are written: uint32, or uint64 for more than 4 294 967 295 objects in an image."""
    merge_iou: float = 0.5
    """Two blocks' views of what lies in both are one object from this intersection over union on, which is above one
    half, so that a view has one partner in a block at most. (Components are one object where they meet at all.)"""

    def __post_init__(self) -> None:
        require(0 < self.seed_threshold <= 1, f"seed_threshold must be above 0, at most 1; got {self.seed_threshold}.")
        require(0.5 <= self.merge_iou <= 1, f"merge_iou must be from 0.5 to 1; got {self.merge_iou}.")
        for name in ("min_seed_px", "min_area_px"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1; got {getattr(self, name)}.")
        require(self.ids in ("uint32", "uint64"), f"ids must be uint32 or uint64; got {self.ids!r}.")
        require(self.halo_px >= 8, f"halo_px must be >= 8, to compare what two blocks see; got {self.halo_px}.")
