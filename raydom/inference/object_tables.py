"""The tables of objects that a job writes, and what their measurements are kept as meanwhile."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from raydom.images import objects
from raydom.images.objects import Parts
from raydom.storage import files

MERGES = pa.schema(
    [
        ("image_id", pa.string()),
        ("block_a", pa.string()),
        ("block_b", pa.string()),
        ("label_a", pa.uint64()),
        ("label_b", pa.uint64()),
        ("iou", pa.float64()),
        ("merged", pa.bool_()),
    ]
)
"""The table of pairs: the views of two blocks that overlap, the objects they ended in (the same if they were merged),
and their IoU. A pixel of object ``label_a`` that block ``block_a`` writes is of its view, so merges can be undone. Of a
network that tells objects as a list these are cells, named as blocks of their size would be."""


OBJECTS = pa.schema(
    [
        ("image_id", pa.string()),
        ("label", pa.uint64()),
        ("centroid_y", pa.float64()),
        ("centroid_x", pa.float64()),
        *((side, pa.int64()) for side in ("top", "left", "bottom", "right")),
        ("area_px", pa.int64()),
        ("area_um2", pa.float64()),
        ("eccentricity", pa.float64()),
        ("solidity", pa.float64()),
        ("mean_intensity", pa.list_(pa.float64())),
        ("confidence", pa.float64()),
        ("touches_border", pa.bool_()),
    ]
)
"""The object table, an object a row; see ``images.objects.table``. ``area_um2`` is null where the pixel size is not
known."""


def table_uri(out: str, name: str, image_id: str) -> str:
    """A table of an image: ``objects``, or ``merges``. The folder of them reads as one table."""
    return files.join(out, name, f"{image_id}.parquet")


def keep_tables(out: str, name: str, kept: Set[str]) -> None:
    """Remove the tables of that name of other images than these: of what an earlier run made of them."""
    wanted = {table_uri(out, name, image_id) for image_id in kept}
    for uri in files.list_files(files.join(out, name), ".parquet"):
        if uri not in wanted:
            files.remove(uri)


def object_table(image_id: str, parts: Parts, shape: tuple[int, int], pixel_size_um: float | None) -> pa.Table:
    """The object table of some whole objects of an image."""
    columns: dict[str, Any] = objects.table(parts, shape, pixel_size_um)
    columns["mean_intensity"] = pa.array(list(columns["mean_intensity"]), pa.list_(pa.float64()))
    if pixel_size_um is None:
        columns["area_um2"] = pa.nulls(len(parts), pa.float64())
    return pa.table({"image_id": [image_id] * len(parts), **columns}, schema=OBJECTS)


def pack_parts(parts: Parts) -> dict[str, np.ndarray]:
    """Parts as plain arrays."""
    packed = {one.name: getattr(parts, one.name) for one in fields(Parts) if one.name != "hull"}
    corners = np.concatenate([np.empty((0, 2), np.int64), *parts.hull])
    return packed | {"corners": corners, "num_corners": np.array([len(hull) for hull in parts.hull], np.int64)}


def unpack_parts(arrays: dict[str, np.ndarray]) -> Parts:
    """What ``pack_parts`` gave."""
    ends, corners = np.cumsum(arrays["num_corners"]), arrays["corners"]
    hull = tuple(np.split(corners, ends[:-1])) if len(ends) else ()
    return Parts(**{one.name: arrays[one.name] for one in fields(Parts) if one.name != "hull"}, hull=hull)
