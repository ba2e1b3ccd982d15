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
    halo_px: int | None = None
    """How far beyond its own pixels a block (or a cell, see ``cell_px``) looks for objects, px; best no less than their
    diameter. Default: 64; of networks that tell objects as a list their receptive field, 128."""
    cell_px: int = 256
    """Networks that tell objects as a list (Mask R-CNN) are asked about squares of this side, each with ``halo_px``
    around it, which lie the same in an image whatever the blocks: what they find does not depend on the block size,
    which is a multiple of this (or smaller: then blocks are asked about)."""
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
        require(self.cell_px >= 32 and self.cell_px % 32 == 0, f"cell_px must be a multiple of 32; got {self.cell_px}.")
        require(
            self.halo_px is None or self.halo_px >= 8,
            f"halo_px must be >= 8, to compare what two blocks see; got {self.halo_px}.",
        )
