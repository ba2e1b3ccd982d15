from __future__ import annotations

import pyarrow as pa
import pytest

from raydom.report.scores import IMAGES_SHOWN, LEADING, headline


def scores_table(kind: str, num_images: int, **further: float) -> pa.Table:
    def row(scope: str, image_id: str | None, interval: bool) -> dict:
        leading = dict.fromkeys(LEADING[kind], 0.5)
        ends = {
            f"{LEADING[kind][0]}_{end}": value if interval else None for end, value in (("low", 0.4), ("high", 0.6))
        }
        where = {"scope": scope, "label_kind": kind, "image_id": image_id, "plate": "A", "num_images": 1}
        return where | {"num_missing": 0, **leading, **ends, **further, "tp": 7}

    images = [row("image", f"image {n}", False) for n in range(num_images)]
    return pa.Table.from_pylist([*images, row("pooled", None, True)])


@pytest.mark.parametrize("kind", LEADING)
def test_the_leading_scores_of_the_kind_are_shown_the_first_with_its_interval(kind: str) -> None:
    shown = headline(scores_table(kind, 2), by="plate")
    first, *others = LEADING[kind]
    assert shown.column_names == ["scope", "image_id", "plate", "num_images", first, f"{first}_95%", *others]
    assert shown[f"{first}_95%"].to_pylist() == [None, None, "0.400-0.600"]


def test_many_images_are_summed_up_and_images_that_are_missing_counted() -> None:
    table = scores_table("binary", IMAGES_SHOWN + 1)
    shown = headline(table.set_column(5, "num_missing", pa.array([0] * (IMAGES_SHOWN + 1) + [3])))
    assert shown["scope"].to_pylist() == ["pooled"] and "image_id" not in shown.column_names
    assert shown["num_missing"].to_pylist() == [3]


def test_each_class_is_shown() -> None:
    shown = headline(scores_table("semantic", 1, dice_class_1=0.1, dice_class_12=0.2, dice_class_1_low=0.0))
    assert shown.column_names[-2:] == ["dice_class_1", "dice_class_12"]
