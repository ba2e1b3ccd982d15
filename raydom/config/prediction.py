"""How a network is asked."""

from __future__ import annotations

from dataclasses import dataclass

from raydom.config.base import require


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionConfig:
    """How a network is asked about the pixels of a block."""

    tta: int = 1
    """Test-time augmentation, the mean of so many views: 1 (as it is), 4 (flipped), or 8 (rotated by 90 degrees too).
    Objects of Mask R-CNN are kept when half of the views find them."""
    tta_scales: tuple[float, ...] = ()
    """Further views at other scales, such as 0.8 1.25."""
    tta_contrasts: tuple[float, ...] = ()
    """Further views with the intensities spread about their middle by these factors, such as 0.8 1.25."""
    window_px: int | None = None
    """Networks that look at whole images (Mask R-CNN apart) are asked about overlapping windows of this side, px, which
    lie the same for any cut. Default: the model's, twice its training crops; some networks do worse on larger ones."""
    window_overlap: float = 0.25
    """Share of a window's side within which neighbouring windows are blended."""
    precision: str = "float32"
    """float32 or bfloat16: what the network computes in."""

    def __post_init__(self) -> None:
        require(self.tta in (1, 4, 8), f"tta must be 1, 4 or 8; got {self.tta}.")
        for name in ("tta_scales", "tta_contrasts"):
            require(all(v > 0 for v in getattr(self, name)), f"{name} must be > 0; got {getattr(self, name)}.")
        require(self.window_px is None or self.window_px >= 64, f"window_px must be >= 64; got {self.window_px}.")
        require(
            0 < self.window_overlap <= 0.5, f"window_overlap must be above 0, at most 0.5; got {self.window_overlap}."
        )
        require(
            self.precision in ("float32", "bfloat16"), f"precision must be float32 or bfloat16; got {self.precision!r}."
        )
