"""The few columns of a table of scores that matter for the kind of the labels."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

LEADING = {
    "binary": ("f1", "iou", "precision", "recall"),
    "instance": (
        "dsb2018", "ap_50", "object_f1_50", "pq", "aji", "rand_error", "rand_index_error", "vi_split", "vi_merge",
        "dice",
    ),
    "semantic": ("mean_dice", "mean_iou", "f1"),
}  # fmt: skip
"""By kind, the scores that are shown; the first with its interval."""

CLASSES_SHOWN = 12

IMAGES_SHOWN = 20
"""Where there are more images, only what sums them up is shown."""


def headline(table: pa.Table, by: str | None = None) -> pa.Table:
    """What a person reads of the table that ``evaluate`` makes.

    Args:
        table: All rows and columns.
        by: The column by which images were scored.

    Returns:
        A row for each set of images, and for each image unless there are many; the leading scores, and for the first of
        them its interval as text.
    """
    rows = table.to_pylist()
    if sum(row["scope"] == "image" for row in rows) > IMAGES_SHOWN:
        rows = [row for row in rows if row["scope"] != "image"]
    kind = rows[-1]["label_kind"]
    first, *others = LEADING[kind]
    if kind == "semantic":
        classes = [name for name in table.column_names if name.startswith("dice_class_") and name[-1].isdigit()]
        others += classes[:CLASSES_SHOWN]
    shown = [
        {name: row[name] for name in ("scope", "image_id", *([by] if by else []), "num_images", "num_missing")}
        | {first: row[first], f"{first}_95%": _interval(row, first)}
        | {name: row[name] for name in others}
        for row in rows
    ]
    columns = [
        name for name in shown[0] if any(row[name] not in (None, 0) for row in shown) or name in (first, *others)
    ]
    return pa.table({name: [row[name] for row in shown] for name in columns})


def _interval(row: dict[str, Any], score: str) -> str | None:
    low, high = row.get(f"{score}_low"), row.get(f"{score}_high")
    return None if low is None or high is None else f"{low:.3f}-{high:.3f}"
