"""The content score: what must not count, and what must."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from raydom.images.content import FLOOR, content_score

SHAPE = (130, 117)


def picture(seed: int, channels: int = 3) -> np.ndarray:
    """Blobs of about 6 px with channels of their own, mean 0.5 and deviation 0.1."""
    blobs = gaussian_filter(np.random.default_rng(seed).standard_normal((channels, *SHAPE)), (0, 3, 3))
    return (0.5 + 0.1 * blobs / blobs.std(axis=(1, 2), keepdims=True)).astype(np.float32)


def score(content: np.ndarray, result: np.ndarray) -> float:
    std = (image.std(axis=(1, 2)).tolist() for image in (content, result))
    return content_score(content, result.astype(np.float32), *std)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_gain_offset_and_inverted_contrast_keep_all_content(channels: int) -> None:
    image = picture(0, channels)
    for result in (image, 0.3 * image + 0.2, 1 - image):
        assert score(image, result) == pytest.approx(1.0, abs=2e-3)


def test_other_colours_keep_all_content() -> None:
    image = picture(0)
    mixed = np.einsum("kc,chw->khw", [[0.2, 0.1, 0.9], [-1.0, 0.3, 0.1], [0.1, 0.8, 0.2]], image)
    assert score(image, image[[2, 0, 1]]) == pytest.approx(1.0, abs=2e-3)
    assert score(image, mixed) == pytest.approx(1.0, abs=5e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_gamma_keeps_nearly_all_content(channels: int) -> None:
    image = picture(0, channels)
    assert min(score(image, image**2), score(image, np.sqrt(image))) > 0.95


def test_a_gray_image_scores_alike_as_gray_and_as_rgb() -> None:
    image, other = picture(0, 1), picture(0, 1) + 0.5 * picture(1, 1)
    as_rgb = score(np.repeat(image, 3, axis=0), np.repeat(other, 3, axis=0))
    assert as_rgb == pytest.approx(score(image, other), abs=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_has_nothing_to_do_with_the_content_scores_low(channels: int) -> None:
    image = picture(0, channels)
    noise = np.random.default_rng(1).standard_normal(image.shape)
    assert score(image, noise) < 0.1
    assert score(image, picture(1, channels)) < 0.35
    assert score(image, np.roll(image, (20, 20), axis=(1, 2))) < 0.35


def test_more_added_texture_scores_lower() -> None:
    image, texture = picture(0), picture(1)
    scores = [score(image, image + share * texture) for share in (0, 0.2, 0.5, 1, 2)]
    assert scores == sorted(scores, reverse=True)


def test_a_window_is_scored_as_its_formula_says() -> None:
    """Of two independent signals of equal variance, a sum shares one half, and each of them half of the sum."""
    rng = np.random.default_rng(0)
    image, other = (rng.standard_normal((1, 512, 512)).astype(np.float32) for _ in range(2))
    assert content_score(image, image + other, [1.0], [2**0.5]) == pytest.approx(0.5, abs=0.02)


def test_flat_blocks_of_both_keep_all_content() -> None:
    flat = np.full((3, *SHAPE), 0.3, np.float32)
    assert content_score(flat, 2 * flat, [0.1] * 3, [0.1] * 3) == 1.0
    assert content_score(flat, flat, [0.0] * 3, [0.0] * 3) == 1.0


def test_noise_far_below_the_image_may_change() -> None:
    noise = [0.003 * np.random.default_rng(seed).standard_normal((3, *SHAPE)).astype(np.float32) for seed in (0, 1)]
    assert content_score(noise[0], noise[1], [0.2] * 3, [0.2] * 3) > 0.9


def test_structure_that_is_lost_or_invented_scores_low() -> None:
    image, flat = picture(0), np.full((3, *SHAPE), 0.5, np.float32)
    for content, result in ((image, flat), (flat, image)):
        assert content_score(content, result, [0.1] * 3, [0.1] * 3) < 3 * FLOOR**0.5


@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (16, 16), (64, 1)])
def test_blocks_of_any_size_have_a_score(shape: tuple[int, int]) -> None:
    image = picture(0)[:, : shape[0], : shape[1]]
    assert content_score(image, 1 - image, [0.1] * 3, [0.1] * 3) == pytest.approx(1.0, abs=0.01)
