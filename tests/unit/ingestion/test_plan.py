from __future__ import annotations

import pytest

from raydom.errors import ConfigError
from raydom.ingestion.plan import pair_stems, safe_id


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/a/b/cell 01.tif", "cell_01"),
        ("s3://bucket/x.ome.tiff", "x"),
        ("x.y.png", "x.y"),
        ("plate/image.ome.zarr/", "image"),
        ("müller.png", "m_ller"),
        ("noend", "noend"),
    ],
)
def test_ids_are_safe_stems(name: str, expected: str) -> None:
    assert safe_id(name) == expected


def test_labels_belong_to_the_longest_stem_that_they_begin_with() -> None:
    images = ["01", "01_b", "02", "03", "1"]
    labels = ["01_mask", "01_b_mask", "02", "02_old", "10"]
    assert pair_stems(images, labels, "label") == {"01": "01_mask", "01_b": "01_b_mask", "02": "02"}


def test_labels_that_could_both_be_meant_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"image 01L could have the label label of 01L_1stHO or 01L_2ndHO"):
        pair_stems(["01L"], ["01L_2ndHO", "01L_1stHO"], "label")
