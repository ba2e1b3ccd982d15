from __future__ import annotations

import numpy as np
import pytest

from raydom.errors import ConfigError
from raydom.images.synthetic import MICROSCOPES, make_cells, render

SHAPE = (96, 131)


def test_the_same_seed_gives_the_same_cells_and_image() -> None:
    first, second = (np.random.default_rng(3) for _ in range(2))
    (scene, labels), (again, labels_again) = make_cells(SHAPE, first), make_cells(SHAPE, second)
    np.testing.assert_array_equal(labels, labels_again)
    for name in MICROSCOPES:
        np.testing.assert_array_equal(render(scene, MICROSCOPES[name], first), render(again, MICROSCOPES[name], second))


def test_cells_are_numbered_without_gaps_and_cover_about_what_was_asked() -> None:
    _, labels = make_cells((256, 256), np.random.default_rng(0), density=0.25)
    np.testing.assert_array_equal(np.unique(labels), np.arange(labels.max() + 1))
    assert np.mean(labels > 0) == pytest.approx(0.25, abs=0.03)


def test_a_density_without_room_ends_and_zero_is_empty() -> None:
    _, full = make_cells(SHAPE, np.random.default_rng(0), density=0.95)
    assert 0.4 < np.mean(full > 0) < 0.95
    _, empty = make_cells(SHAPE, np.random.default_rng(0), density=0.0)
    assert not empty.any()


@pytest.mark.parametrize("name", MICROSCOPES)
def test_cells_are_darker_than_their_surroundings_in_every_colour(name: str) -> None:
    generator = np.random.default_rng(1)
    scene, labels = make_cells((256, 256), generator)
    image = render(scene, MICROSCOPES[name], generator)
    assert image.shape == (3, 256, 256) and image.dtype == np.uint8
    for channel in image.astype(float):
        inside, outside = channel[labels > 0], channel[labels == 0]
        assert inside.mean() < outside.mean() - outside.std()


def test_the_target_is_darker_and_has_half_the_contrast_at_most() -> None:
    generator = np.random.default_rng(2)
    scene, labels = make_cells((256, 256), generator)
    seen = {name: render(scene, microscope, generator).astype(float) for name, microscope in MICROSCOPES.items()}
    empty = {name: image[:, labels == 0].mean() for name, image in seen.items()}
    contrast = {name: empty[name] - image[:, labels > 0].mean() for name, image in seen.items()}
    assert empty["target"] < 0.6 * empty["source"]
    assert contrast["target"] < 0.5 * contrast["source"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"density": 1.0}, "density"),
        ({"radius_px": (9.0, 3.0)}, "radius_px"),
        ({"elongation": (0.5, 1.0)}, "elongation"),
    ],
)
def test_impossible_cells_are_refused(options: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make_cells(SHAPE, np.random.default_rng(0), **options)
