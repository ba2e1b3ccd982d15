from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from raydom.errors import ConfigError, DataError
from raydom.ingestion.coco import annotation_boxes, decode_counts, polygons_box, read_coco, runs_box


def drawn(box: tuple, height: int, width: int) -> np.ndarray:
    image = np.zeros((height, width), int)
    image[box[0], box[1]] = box[2]
    return image


def test_a_polygon_covers_the_pixels_whose_centre_it_holds() -> None:
    square = drawn(polygons_box([[1, 1, 4, 1, 4, 3, 1, 3]], 5, 6), 5, 6)
    expected = np.zeros((5, 6), int)
    expected[1:3, 1:4] = 1
    np.testing.assert_array_equal(square, expected)
    narrow = drawn(polygons_box([[0.6, 0.6, 1.4, 0.6, 1.4, 1.4, 0.6, 1.4]], 5, 6), 5, 6)
    assert not narrow.any()
    two = drawn(polygons_box([[0, 0, 1, 0, 1, 1, 0, 1], [4, 4, 9, 4, 9, 9, 4, 9]], 5, 6), 5, 6)
    assert np.argwhere(two).tolist() == [[0, 0], [4, 4], [4, 5]]  # what lies outside is cut off


def test_run_lengths_go_down_the_columns_and_begin_with_zeros() -> None:
    mask = runs_box({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3)[2]
    np.testing.assert_array_equal(mask, [[0, 1, 0], [1, 0, 0]])


def test_compressed_run_lengths_are_those_of_cocos_own_api() -> None:
    # A 7 x 8 image whose rows 2 to 4 and columns 2 to 5 are set, as pycocotools 2.0.11 encodes it.
    assert decode_counts("`03400000<") == [16, 3, 4, 3, 4, 3, 4, 3, 16]
    expected = np.zeros((7, 8), bool)
    expected[2:5, 2:6] = True
    np.testing.assert_array_equal(runs_box({"size": [7, 8], "counts": "`03400000<"}, 7, 8)[2], expected)


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        ([[0, 0, 1]], "a polygon is x, y"),
        ([["a", "b"]], "could not convert"),
        ([], "neither polygons nor"),
        ({"size": [2, 3], "counts": [1, 2]}, "add up to 3 px, the image has 6"),
        ({"size": [3, 2], "counts": [6]}, r"of size \[3, 2\]"),
        ({"size": [2, 3], "counts": "`0\n"}, "the character '.n' at 2"),
        ({"size": [2, 3], "counts": "`"}, "IndexError"),
        ({"counts": [6]}, "size"),
        (None, "neither polygons nor"),
    ],
)
def test_segmentations_that_are_none_are_refused_with_their_annotation(segmentation: object, told: str) -> None:
    with pytest.raises(DataError, match=f"annotation 9.*{told}"):
        list(annotation_boxes([{"id": 9, "segmentation": segmentation}], 2, 3))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([], "no annotations in the form of COCO"),
        ({"images": []}, "'annotations' is missing"),
        ({"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}, "'height' is missing"),
        ({"images": [{"id": 1, "file_name": "a.png", "height": -1, "width": 2}], "annotations": []}, "the height -1"),
        ({"images": [], "annotations": [{"image_id": 3}]}, r"does not list: \[3\]"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, content: object, told: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=told):
        read_coco(str(tmp_path / "a.json"))
    (tmp_path / "a.json").write_text(json.dumps(content)[:-1])
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_coco(str(tmp_path / "a.json"))
