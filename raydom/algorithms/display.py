"""Which intensities a feature network is shown: those that a viewer would see."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from raydom.types import ImageStatistics


@dataclass(frozen=True)
class DisplayRange:
    """Per channel, the fractions of the legal range that are shown to the feature network as 0 and 1.

    An image that fills more than half of the legal range is shown as it is. Others (12-bit data in 16-bit files, dim
    fluorescence) are stretched from their outermost kept percentiles (0.4 and 99.6), all three channels of an RGB image
    alike and other channels each on its own. A constant channel is shown as it is.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, statistics: ImageStatistics) -> DisplayRange:
        """The display range of a whole image, from its statistics in fractions."""
        low = [percentiles[1] for percentiles in statistics.percentiles]
        high = [percentiles[-2] for percentiles in statistics.percentiles]
        if len(low) == 3:
            low, high = [min(low)] * 3, [max(high)] * 3
        spans = [_shown_span(a, b) for a, b in zip(low, high, strict=True)]
        return cls(tuple(a for a, _ in spans), tuple(b for _, b in spans))

    def stretch(self, fractions: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        low, span = self._columns(fractions)
        return (fractions - low) / span

    def restore(self, shown: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The inverse of ``stretch``."""
        low, span = self._columns(shown)
        return shown * span + low

    def _columns(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (like.new_tensor(values).reshape(1, -1, 1, 1) for values in (self.low, self.high))
        return low, high - low


def _shown_span(low: float, high: float) -> tuple[float, float]:
    fills_legal_range = low >= 0 and high <= 1 and high - low > 0.5
    return (0.0, 1.0) if fills_legal_range or high <= low else (low, high)
