from dataclasses import replace

import numpy as np
import pytest
from skimage.measure import regionprops

from raydom.config import CELL_TYPES, CellConfig
from raydom.errors import ConfigError
from raydom.images.synthesis import synthetic_image

CROWDED = CellConfig(size_px=160, empty=0.0, density=(0.3, 0.3), radius_px=(9.0, 9.0))


def test_an_image_comes_again_from_its_number_and_differs_from_its_neighbours():
    config = CellConfig(size_px=64)
    one, again, other = (synthetic_image(config, number) for number in (7, 7, 8))
    assert np.array_equal(one.pixels, again.pixels) and np.array_equal(one.labels, again.labels)
    assert not np.array_equal(one.pixels, other.pixels)
    assert not np.array_equal(one.pixels, synthetic_image(replace(config, seed=1), 7).pixels)


def test_what_is_told_of_an_image_is_what_its_labels_hold():
    drawn = synthetic_image(CROWDED, 0)
    areas = np.unique(drawn.labels[drawn.labels > 0], return_counts=True)[1]
    assert drawn.num_cells == len(areas) > 5
    assert drawn.density == np.mean(drawn.labels > 0) == pytest.approx(0.3, abs=0.03)
    assert np.pi * (drawn.object_size_px / 2) ** 2 == pytest.approx(np.median(areas))
    assert drawn.object_size_px == pytest.approx(18, abs=3)  # twice the mean radius


@pytest.mark.parametrize("microscope", ["source", "target"])
def test_every_cell_is_drawn_where_its_mask_is(microscope):
    config = replace(CROWDED, microscope=microscope, gray=True, blur_px=(0.5, 0.5), noise=(0.01, 0.01))
    drawn = synthetic_image(config, 1)
    assert drawn.pixels.shape == (1, 160, 160)
    background = np.median(drawn.pixels[0][drawn.labels == 0])
    inside = [np.median(drawn.pixels[0][drawn.labels == cell]) for cell in range(1, drawn.num_cells + 1)]
    assert max(inside) < background - 5


def test_cell_types_have_the_shapes_of_their_names():
    found = {}
    for name in CELL_TYPES:
        config = replace(CROWDED, cell_types=(name,), radius_px=(12.0, 12.0), density=(0.2, 0.2))
        cells = []
        for number in range(3):
            drawn = synthetic_image(config, number)
            assert drawn.cell_type == name
            inner = [cell for cell in regionprops(drawn.labels) if min(cell.bbox) > 0 and max(cell.bbox) < 160]
            cells += [(cell.axis_major_length / cell.axis_minor_length, cell.solidity) for cell in inner]
        found[name] = np.median(cells, axis=0)
    assert found["round"][0] < 1.3 < 1.8 < found["elongated"][0]
    assert found["irregular"][1] < found["round"][1] - 0.01


def test_empty_images_have_no_cell_and_their_share_is_as_asked():
    drawn = [synthetic_image(CellConfig(size_px=32, empty=0.5, radius_px=(3.0, 5.0)), number) for number in range(60)]
    empty = [image for image in drawn if image.cell_type == "none"]
    assert 18 <= len(empty) <= 42
    assert all(image.num_cells == 0 and image.density == 0 and image.object_size_px is None for image in empty)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"cell_types": ("square",)}, "round, elongated, irregular; got square"),
        ({"density": (0.5, 0.1)}, "density must be two rising numbers"),
        ({"radius_px": (3.0,)}, "radius_px must be two rising numbers"),
        ({"radius_px": (3.0, 999.0)}, "radius_px must be two rising numbers from 1 to 128"),
        ({"empty": 1.5}, "empty must be from 0 to 1; got 1.5"),
        ({"microscope": "electron"}, "source or target; got 'electron'"),
    ],
)
def test_impossible_images_are_refused(options, told):
    with pytest.raises(ConfigError, match=told):
        CellConfig(**options)
