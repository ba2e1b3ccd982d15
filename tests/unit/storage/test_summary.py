from __future__ import annotations

import numpy as np

from raydom.images.intensity import image_statistics
from raydom.storage.collection import Collection, records_to_table
from raydom.storage.summary import describe
from raydom.types import ImageRecord


def make_record(image_id: str, height: int, kind: str, domain: str | None) -> ImageRecord:
    return ImageRecord(
        image_id=image_id, uri=f"images/{image_id}.zarr", axes="cyx", shape=(1, height, 7), dtype="uint16",
        pixel_size_um=None, channels=("gray",), domain=domain, split=None, group=None, labels=("cells",),
        statistics=image_statistics(np.zeros((1, 2, 2), np.uint16)), source_file="", sha256="", label_kinds=(kind,),
        extra=(("cell", domain),),
    )  # fmt: skip


def test_a_collection_is_told_by_counts_and_ranges() -> None:
    records = [make_record("a", 5, "binary", "x"), make_record("b", 9, "instance", None)]
    facts = describe(Collection("/c", records_to_table(records)))
    assert facts["images"] == 2
    assert facts["domains"] == {"none": 1, "x": 1}
    assert (facts["height_px"], facts["width_px"]) == ([5, 9], [7, 7])
    assert facts["label_kinds"] == {"cells": "instance"}  # one image with more than one object suffices
    assert facts["columns"] == {"cell": 1}
    assert facts["total_bytes"] == 2 * 7 * (5 + 9)


def test_an_empty_collection_has_facts_too() -> None:
    facts = describe(Collection("/c", records_to_table([])))
    assert (facts["images"], facts["height_px"], facts["total_bytes"]) == (0, [], 0)
