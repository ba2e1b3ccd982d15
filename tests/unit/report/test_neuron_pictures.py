from __future__ import annotations

import numpy as np
import pytest
from skimage.io import imread

from raydom.errors import ConfigError, DataError
from raydom.report import neurons
from raydom.report.neurons import draw_neurons

CELLS = np.kron(np.array([[1, 2], [3, 4]]), np.ones((20, 25), np.int32)).astype(np.int32)
UV = np.array([[1, 2], [1, 3], [2, 4], [3, 4]])
P = np.array([0.9, 0.1, 0.2, 0.8], np.float32)
RAW = np.tile(np.arange(50, dtype=np.uint8) * 5, (40, 1))
RESULT = np.where(CELLS % 2 == 1, 1, 2)


def colours(path):
    return set(map(tuple, imread(path)[..., :3].reshape(-1, 3).tolist()))


def test_mistakes_are_drawn_in_their_colours_where_there_are_some(tmp_path) -> None:
    path = str(tmp_path / "wrong.png")
    draw_neurons(RAW, CELLS, UV, P, RESULT, path, truth=np.where(CELLS == 3, 2, 1))
    assert {neurons.MERGED, neurons.SPLIT} <= colours(path)


def test_there_are_six_pictures_with_a_truth_and_four_without(tmp_path) -> None:
    with_truth, without = str(tmp_path / "six.png"), str(tmp_path / "four.png")
    draw_neurons(RAW, CELLS, UV, P, RESULT, with_truth, truth=RESULT)
    draw_neurons(RAW, CELLS, UV, P, RESULT, without)
    assert imread(with_truth).shape[1] / imread(without).shape[1] == pytest.approx(1.5, abs=0.05)


def test_a_plane_of_a_volume_is_drawn_like_an_image_of_it(tmp_path) -> None:
    image, volume = str(tmp_path / "image.png"), str(tmp_path / "volume.png")
    draw_neurons(RAW, CELLS, UV, P, RESULT, image)
    stacks = [np.stack([np.ones_like(of), of]) for of in (RAW, CELLS, RESULT)]
    draw_neurons(*stacks[:2], UV, P, stacks[2], volume, plane=1)
    np.testing.assert_array_equal(imread(volume), imread(image))


def test_one_superpixel_has_no_borders_to_draw(tmp_path) -> None:
    one = np.ones_like(CELLS)
    draw_neurons(RAW, one, np.empty((0, 2), np.int64), np.empty(0, np.float32), one, str(tmp_path / "one.png"))
    assert (tmp_path / "one.png").exists()


def test_borders_take_the_greater_probability_where_they_cross() -> None:
    drawn = neurons._borders(CELLS, UV).marked(P)
    assert drawn[0, 24] == pytest.approx(0.9) and drawn[19, 0] == pytest.approx(0.1)
    assert drawn[19, 24] == pytest.approx(0.9) and drawn[20, 25] == pytest.approx(0.8)
    assert drawn[0, 0] == -1


def test_edges_of_other_superpixels_other_shapes_and_planes_that_are_not_there_are_refused(tmp_path) -> None:
    path = str(tmp_path / "none.png")
    with pytest.raises(DataError, match="superpixels 3 and 4 touch"):
        draw_neurons(RAW, CELLS, UV[:3], P[:3], RESULT, path)
    with pytest.raises(DataError, match=r"truth of shape \(20, 50\)"):
        draw_neurons(RAW, CELLS, UV, P, RESULT, path, truth=RESULT[:20])
    with pytest.raises(ConfigError, match=r"no plane 1 of an image of shape \(40, 50\)"):
        draw_neurons(RAW, CELLS, UV, P, RESULT, path, plane=1)
    assert not (tmp_path / "none.png").exists()
