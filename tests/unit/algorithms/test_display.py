"""What is shown to a feature network, of images of any range."""

import pytest
import torch

from raydom.algorithms.display import DisplayRange
from raydom.types import PERCENTILE_LEVELS, ImageStatistics


def statistics(*spans: tuple[float, float]) -> ImageStatistics:
    """Channels that are uniform between two values."""
    low, high = zip(*spans, strict=True)
    levels = [tuple(a + (b - a) * level / 100 for level in PERCENTILE_LEVELS) for a, b in spans]
    none = (0.0,) * len(spans)
    return ImageStatistics(minimum=low, maximum=high, mean=none, std=none, percentiles=tuple(levels))


def test_a_narrow_range_is_shown_stretched_and_a_wide_one_as_it_is() -> None:
    assert DisplayRange.of(statistics((0.0, 1.0))) == DisplayRange((0.0,), (1.0,))
    narrow = DisplayRange.of(statistics((0.0, 1 / 16)))
    assert narrow.high[0] == pytest.approx(1 / 16, rel=0.01)
    assert DisplayRange.of(statistics((0.3, 0.3))) == DisplayRange((0.0,), (1.0,))
    rgb = DisplayRange.of(statistics((0.0, 0.1), (0.1, 0.2), (0.0, 0.3)))
    assert len(set(rgb.low)) == len(set(rgb.high)) == 1  # colours stay
    stains = DisplayRange.of(statistics((0.0, 0.1), (0.1, 0.2)))
    assert stains.high[0] < stains.high[1]
    pixels = torch.rand(1, 2, 11, 8) * 0.1
    torch.testing.assert_close(stains.restore(stains.stretch(pixels)), pixels)
