"""Seam scores: known steps, and images that were never cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from raydom.images.seams import FLOOR, SeamScore, seam_region, seam_scores
from raydom.types import Region

SHAPE = (342, 456)


def texture(seed: int, channels: int = 2) -> np.ndarray:
    """Smooth random texture, mean 0.5 and deviation 0.1."""
    noise = np.random.default_rng(seed).standard_normal((channels, *SHAPE))
    smooth = uniform_filter(noise, (0, 9, 9))
    return 0.5 + 0.1 * smooth / smooth.std(axis=(1, 2), keepdims=True)


def checkers(block_size: int, height: float) -> np.ndarray:
    """Neighbouring blocks that differ by a height."""
    y, x = np.indices(SHAPE) // block_size
    return height * ((y + x) % 2)


def scores(output: np.ndarray, source: np.ndarray, block_size: int = 64) -> dict[tuple[int, ...], SeamScore]:
    std = output.std(axis=(1, 2)).tolist(), source.std(axis=(1, 2)).tolist()
    found = seam_scores(
        lambda region: output[:, *region.slices], lambda region: source[:, *region.slices], SHAPE, block_size, *std
    )
    return {block.start: score for block, score in found}


def pooled(output: np.ndarray, source: np.ndarray, block_size: int = 64) -> SeamScore:
    return sum(scores(output, source, block_size).values(), SeamScore())


def test_an_image_against_itself_scores_one_in_every_block() -> None:
    image = texture(0)
    assert {score.value for score in scores(image, image).values()} == {1.0}


def test_gain_offset_and_inverted_contrast_change_nothing() -> None:
    image = texture(0)
    assert pooled(3 - 7 * image, image).value == pytest.approx(1.0, abs=1e-9)


def test_a_map_of_each_pixel_makes_no_seams() -> None:
    image = texture(0)
    for mapped in (image**2, np.sqrt(np.clip(image, 0, None)), np.tanh(4 * (image - 0.4))):
        assert pooled(mapped, image).value == pytest.approx(1.0, abs=0.02)


def test_other_texture_is_no_seam_beyond_its_standard_error() -> None:
    score = pooled(texture(1), texture(0))
    assert 0 < score.standard_error < 0.05
    assert abs(math.log(score.value)) < 3 * score.standard_error


def test_a_step_on_flat_ground_has_the_ratio_of_its_energy_to_the_floor() -> None:
    image = np.broadcast_to(np.arange(SHAPE[1]) / 1000, (1, *SHAPE))
    step = image + 0.004 * (np.arange(SHAPE[1]) >= 64)
    std = float(step.std())
    found = seam_scores(lambda r: step[:, *r.slices], lambda r: image[:, *r.slices], SHAPE, 64, (std,), (std,))
    ratio = (0.005**2 / std**2 + FLOOR) / (0.001**2 / std**2 + FLOOR)
    by_block = {block.start: score for block, score in found}
    # Blocks of the first column have one vertical border and one or two horizontal ones, all of 64 px or less.
    first = by_block[0, 0]
    assert first.num_segments == 4 + 4
    assert first.total == pytest.approx(4 * math.log(ratio))
    assert by_block[0, 192].value == pytest.approx(1.0)


@pytest.mark.parametrize("height", [0.02, 0.04])
def test_steps_of_a_few_gray_values_between_blocks_are_found(height: float) -> None:
    image = texture(0)
    clean, cut = pooled(image, image).value, pooled(image + checkers(64, height), image).value
    assert clean == 1.0 and cut > 1.05


def test_steps_elsewhere_are_not_taken_for_seams() -> None:
    image = texture(0)
    assert pooled(image + checkers(50, 0.05), image, 64).value < 1.02


def test_traces_of_jpeg_blocks_are_no_seams() -> None:
    image = texture(0)
    y, x = np.indices(SHAPE) // 8
    blocky = image + 0.02 * np.random.default_rng(0).standard_normal((y.max() + 1, x.max() + 1))[y, x]
    assert pooled(image, blocky).value == pytest.approx(1.0, abs=0.08)  # where a mere ratio to other lines is 0.5


def test_flat_images_score_one() -> None:
    flat, image = np.full((2, *SHAPE), 0.3), texture(0)
    for output, source in ((flat, flat), (flat, image), (image, flat)):
        assert pooled(output, source).value == pytest.approx(1.0, abs=0.1)


def test_a_single_block_has_no_borders() -> None:
    (score,) = scores(texture(0), texture(1), 512).values()
    assert score.num_segments == 0 and score.value == 1.0 and score.standard_error == math.inf


def test_no_more_than_a_block_and_its_neighbours_pixels_are_read() -> None:
    image, seen = texture(0), []

    def read(region: Region) -> np.ndarray:
        seen.append(region)
        return image[:, *region.slices]

    list(seam_scores(read, lambda region: image[:, *region.slices], SHAPE, 64, (0.1, 0.1), (0.1, 0.1)))
    assert max(max(region.shape) for region in seen) == 66
    assert seam_region(Region((64, 128), (128, 192)), SHAPE) == Region((63, 127), (129, 193))
    assert seam_region(Region((320, 448), SHAPE), SHAPE) == Region((319, 447), SHAPE)
