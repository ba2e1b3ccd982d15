"""Intensity matching: what its definition promises, on small images."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from raydom.algorithms.matching import histogram, meanstd, reinhard
from raydom.errors import ConfigError
from raydom.images.intensity import image_statistics
from raydom.types import ImageStatistics

Match = Callable[[Tensor, ImageStatistics, ImageStatistics], Tensor]


def picture(seed: int, channels: int = 3, shape: tuple[int, int] = (31, 23)) -> tuple[Tensor, ImageStatistics]:
    """A smooth-histogrammed image within 0.2..0.8, and its statistics."""
    rng = np.random.default_rng(seed)
    pixels = (0.2 + 0.6 * rng.beta(2, 2 + seed, (channels, *shape))).astype(np.float32)
    return torch.from_numpy(pixels)[None], image_statistics(pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_meanstd_gives_the_mean_and_deviation_of_the_style(channels: int) -> None:
    (content, own), (_, style) = picture(0, channels), picture(3, channels, (9, 40))
    result = meanstd(content, own, style)[0].double()
    np.testing.assert_allclose(result.mean(dim=(1, 2)), style.mean, atol=1e-6)
    np.testing.assert_allclose(result.std(dim=(1, 2), correction=0), style.std, atol=1e-6)


def test_histogram_gives_the_quantiles_of_the_style() -> None:
    (content, own), (other, style) = picture(0), picture(3, shape=(40, 40))
    result = histogram(content, own, style)
    for level in (0.0, 0.1, 0.5, 0.9, 1.0):
        expected = torch.quantile(other[0].flatten(1), level, dim=1)
        torch.testing.assert_close(torch.quantile(result[0].flatten(1), level, dim=1), expected, atol=6e-3, rtol=0)


def test_histogram_is_monotone() -> None:
    (content, own), (_, style) = picture(0, 1), picture(3, 1)
    order = content.flatten().argsort()
    assert bool((histogram(content, own, style).flatten()[order].diff() >= 0).all())


@pytest.mark.parametrize(("match", "tolerance"), [(meanstd, 1e-7), (histogram, 0.0), (reinhard, 2e-6)])
@pytest.mark.parametrize("channels", [1, 3])
def test_matching_an_image_to_itself_changes_nothing(match: Match, tolerance: float, channels: int) -> None:
    content, own = picture(1, channels)
    torch.testing.assert_close(match(content, own, own), content, atol=tolerance, rtol=0)


def test_histogram_keeps_integers_with_ties_when_matched_to_themselves() -> None:
    pixels = np.minimum(np.random.default_rng(0).integers(0, 40, (1, 30, 30)), 9).astype(np.float32) / 255
    own = image_statistics(pixels)
    content = torch.from_numpy(pixels)[None]
    assert torch.equal(histogram(content, own, own), content)


def test_reinhard_gives_the_lab_mean_of_the_style() -> None:
    (content, own), (_, style) = picture(0), picture(3)
    result = image_statistics(reinhard(content, own, style)[0].numpy())
    assert style.lab_mean is not None and style.lab_std is not None
    np.testing.assert_allclose(result.lab_mean, style.lab_mean, atol=0.5)  # a few colours leave the gamut
    np.testing.assert_allclose(result.lab_std, style.lab_std, rtol=0.02)


@pytest.mark.parametrize("match", [meanstd, histogram, reinhard])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_block_comes_out_as_within_its_image(match: Match, channels: int) -> None:
    (content, own), (_, style) = picture(0, channels), picture(3, channels)
    whole = match(content, own, style)
    block = match(content[:, :, 5:18, 3:14], own, style)
    assert torch.equal(block, whole[:, :, 5:18, 3:14])
    assert torch.equal(match(content[:, :, 5:18, 3:14].contiguous(), own, style), block)


@pytest.mark.parametrize("match", [meanstd, histogram, reinhard])
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_constant_image_becomes_the_mean_of_the_style(match: Match, value: float) -> None:
    pixels = np.full((1, 6, 7), value, np.float32)
    _, style = picture(3, 1)
    result = match(torch.from_numpy(pixels)[None], image_statistics(pixels), style)
    # Reinhard's mean is that of lightness, which is not linear in intensity.
    torch.testing.assert_close(result, torch.full_like(result, style.mean[0]), atol=0.03, rtol=0)
    assert len(result.unique()) == 1


@pytest.mark.parametrize("match", [meanstd, histogram])
def test_a_constant_style_makes_a_constant_image(match: Match) -> None:
    content, own = picture(0, 1)
    style = image_statistics(np.full((1, 4, 4), 0.25, np.float32))
    torch.testing.assert_close(match(content, own, style), torch.full_like(content, 0.25))


def test_channels_that_cannot_be_paired_are_refused() -> None:
    content, own = picture(0, 3)
    with pytest.raises(ConfigError, match="3 channels and the style image 1"):
        meanstd(content, own, picture(1, 1)[1])
    with pytest.raises(ConfigError, match="3 channels and its statistics have 2"):
        histogram(content, picture(0, 2)[1], picture(1, 3)[1])
    with pytest.raises(ConfigError, match="1 or 3 channels"):
        reinhard(*picture(0, 4), picture(1, 4)[1])
