from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.io import imread

from raydom.errors import ConfigError
from raydom.report import pictures
from raydom.report.pictures import Panel, compared, displayed, grid, outlined

GRAY = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7


def test_eight_bit_rgb_is_shown_as_it_is() -> None:
    image = np.stack([GRAY, GRAY[::-1], GRAY[:, ::-1]])
    np.testing.assert_array_equal(displayed(image), image.transpose(1, 2, 0))


def test_fractions_are_shown_over_zero_to_one() -> None:
    np.testing.assert_array_equal(displayed((GRAY / 255).astype(np.float32))[..., 0], GRAY)


@pytest.mark.parametrize("image", [GRAY.astype(np.uint16), GRAY.astype(np.float32) * 9 - 100])
def test_images_that_use_little_of_their_range_or_leave_it_are_stretched(image: np.ndarray) -> None:
    shown = displayed(image)
    assert (shown.min(), shown.max()) == (0, 255)


def test_pixels_without_a_value_and_flat_images_are_black() -> None:
    image = np.full((2, 3), 0.5, np.float32)
    image[0, 0] = np.nan
    assert displayed(image)[0, 0, 0] == 0 and displayed(image)[1, 1, 0] == 128
    assert not displayed(np.zeros((2, 3), np.uint16)).any()


def test_right_and_wrong_pixels_have_their_colours() -> None:
    black = np.zeros((1, 4, 3), np.uint8)
    tinted = compared(black, np.array([[1, 0, 3, 0]]), np.array([[9, 1, 0, 0]]))
    expected = [
        np.rint(np.multiply(colour, pictures.OVERLAY_ALPHA))
        for colour in (pictures.CORRECT, pictures.MISSED, pictures.FALSE)
    ]
    np.testing.assert_array_equal(tinted[0], [*expected, (0, 0, 0)])


def test_an_outline_leaves_the_inside_and_the_background_alone() -> None:
    labels = np.zeros((7, 7), np.uint16)
    labels[1:6, 1:6] = 3
    changed = (outlined(np.zeros((7, 7, 3), np.uint8), labels) != 0).any(axis=-1)
    ring = labels > 0
    ring[2:5, 2:5] = False
    np.testing.assert_array_equal(changed, ring)


def test_a_grid_is_written_with_images_labels_texts_and_gaps(tmp_path: Path) -> None:
    labels = (GRAY > 90).astype(np.uint8)
    rows = [[GRAY, Panel(image=GRAY, labels=labels, caption="F1 1.000")], ["no weights", None]]
    grid(rows, ["a", "b"], ["target", "truth"], str(tmp_path / "plain.png"))
    grid([[Panel(image=GRAY, labels=labels, truth=labels)]], ["a"], ["compared"], str(tmp_path / "compared.png"))
    plain, coloured = (imread(tmp_path / name) for name in ("plain.png", "compared.png"))
    assert min(plain.shape[:2]) > 300
    in_legend = np.array(pictures.FALSE)
    assert (coloured[..., :3] == in_legend).all(axis=-1).sum() > 50
    assert not (plain[..., :3] == in_legend).all(axis=-1).any()


def test_titles_that_do_not_fit_and_labels_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 row titles and 2 column titles"):
        grid([[GRAY]], ["a"], ["x", "y"], str(tmp_path / "x.png"))
    with pytest.raises(ConfigError, match=r"labels of shape \(7, 5\)"):
        grid([[Panel(image=GRAY, labels=GRAY.T)]], ["a"], ["x"], str(tmp_path / "x.png"))
