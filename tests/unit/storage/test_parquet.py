from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raydom.errors import ConfigError, DataError
from raydom.storage.readers import read_pictures

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 9), np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def flat(images: Any) -> list[list[int]]:
    return [np.ravel(image).tolist() for image in images]


def told(kind: str, metadata: Any) -> dict[bytes, bytes]:
    """How a program that does not know an extension type finds it in a file."""
    return {b"ARROW:extension:name": kind.encode(), b"ARROW:extension:metadata": json.dumps(metadata).encode()}


def struct(data: pa.Array, shape: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([data, shape], ["data", "shape"])


def shaped(kind: str, metadata: Any, sizes: pa.DataType, list_type: Callable[[Any], pa.DataType]) -> tuple:
    data = struct(pa.array(flat(PIXELS), list_type(pa.uint8())), pa.array([[6, 9]] * 5, sizes))
    return data, told(kind, metadata)


COLUMNS: dict[str, Callable[[], tuple[pa.Array, dict[bytes, bytes] | None]]] = {
    "encoded": lambda: (pa.array([png(image) for image in PIXELS]), None),
    "encoded as Hugging Face has it": lambda: (
        pa.array([{"bytes": png(image), "path": None} for image in PIXELS]), None),
    "tensors of Arrow": lambda: (pa.FixedShapeTensorArray.from_numpy_ndarray(PIXELS), None),
    "tensors of Ray": lambda: (
        pa.array(flat(PIXELS), pa.large_list(pa.uint8())), told("ray.data.arrow_tensor_v2", [6, 9])),
    "tensors of Ray of any shape": lambda: shaped(
        "ray.data.arrow_variable_shaped_tensor", 2, pa.list_(pa.int64()), pa.large_list),
    "tensors of Arrow of any shape": lambda: shaped(
        "arrow.variable_shape_tensor", {"permutation": [0, 1]}, pa.list_(pa.int32(), 2), pa.list_),
    "lists of lists": lambda: (pa.array(PIXELS.tolist(), pa.list_(pa.list_(pa.uint8()))), None),
}  # fmt: skip


def write(where: Path, column: tuple[pa.Array, dict[bytes, bytes] | None], **others: Any) -> Path:
    data, metadata = column
    fields = [
        pa.field("image", data.type, metadata=metadata),
        *(pa.field(n, pa.array(v).type) for n, v in others.items()),
    ]
    table = pa.table([data, *map(pa.array, others.values())], schema=pa.schema(fields))
    pq.write_table(table, where, row_group_size=2)
    return where


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_row_is_an_image_however_it_is_stored(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", COLUMNS[kind](), cell=list("abcde"), size=[1, 2, 3, 4, None])
    pictures = list(read_pictures(str(path)))
    np.testing.assert_array_equal([picture.pixels[0] for picture in pictures], PIXELS)
    assert [(p.plane, p.row.number, p.row.name) for p in pictures if p.row] == [("", n, None) for n in range(5)]
    assert pictures[4].row is not None
    assert pictures[4].row.extra == (("cell", "e"), ("size", None))


def test_further_columns_are_kept_exactly_or_left_out_and_told(tmp_path: Path) -> None:
    barcodes = [1, 2**53 + 1, 2**63, 2**64 - 1, None]
    others = {"barcode": pa.array(barcodes, pa.uint64()), "when": pa.array([0] * 5, pa.timestamp("s", tz="No/Where"))}
    path = write(tmp_path / "a.parquet", COLUMNS["encoded"](), **others, boxes=[[1]] * 5)
    pictures = list(read_pictures(str(path)))
    told = [None if barcode is None else str(barcode) for barcode in barcodes]
    assert [picture.row.extra for picture in pictures if picture.row] == [(("barcode", text),) for text in told]
    assert pictures[0].notes == ("column boxes, when is left out: only text, numbers and truth values are kept",)


def test_rows_are_called_by_the_first_column_that_tells_them_apart(tmp_path: Path) -> None:
    others = {"id": [1, 1, 2, 3, 4], "path": [f"train/cell {n}.ome.tif" for n in range(5)], "group": list("xxyyz")}
    path = write(tmp_path / "a.parquet", COLUMNS["encoded"](), **others, split=["train"] * 5)
    rows = [picture.row for picture in read_pictures(str(path)) if picture.row is not None]
    assert [row.name for row in rows] == [f"cell_{number}" for number in range(5)]
    assert [row.group for row in rows] == list("xxyyz")
    assert rows[0].extra == (("path", "train/cell 0.ome.tif"),)
    assert next(read_pictures(str(path))).notes == ("column split is left out: raydom has columns of that name",)
    path = write(tmp_path / "a.parquet", COLUMNS["encoded"](), group=[[1]] * 5)  # a list is no group
    assert {picture.row.group for picture in read_pictures(str(path)) if picture.row} == {None}
    content = [{"bytes": png(image), "path": f"{number}.png"} for number, image in enumerate(PIXELS)]
    path = write(tmp_path / "b.parquet", (pa.array(content), None))
    assert [picture.row.name for picture in read_pictures(str(path)) if picture.row] == list("01234")


@pytest.mark.parametrize(("shape", "axes", "expected"), [
    ((7, 8, 3), None, (3, 7, 8)),
    ((3, 7, 8), None, (3, 7, 8)),
    ((7, 8, 5), "yxc", (5, 7, 8)),
    ((2, 7, 8), "zyx", (1, 7, 8)),
])  # fmt: skip
def test_axes_of_tensors(shape: tuple[int, ...], axes: str | None, expected: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.arange(2 * np.prod(shape), dtype=np.uint16).reshape(2, *shape)
    path = write(tmp_path / "a.parquet", (pa.FixedShapeTensorArray.from_numpy_ndarray(pixels), None))
    pictures = list(read_pictures(str(path), axes=axes))
    assert pictures[0].pixels.shape == expected
    if axes == "zyx":
        assert [picture.plane for picture in pictures] == ["_z000", "_z001"] * 2


def test_what_is_unclear_or_faulty_is_refused_by_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    images = [png(image) for image in PIXELS]
    faults: list[tuple[tuple[pa.Array, None], type[Exception], str]] = [
        ((pa.array([*images[:3], None, images[4]]), None), DataError, r"a\.parquet: row 3: has no image"),
        ((pa.array([*images[:4], images[4][:50]]), None), DataError, r"row 4: the image: the PNG file is truncated"),
        ((pa.array([[[1, 2], [3]]] * 5), None), DataError, "row 0: has lists of 2 lengths"),
        ((pa.array([[[1, 2], [3, None]]] * 5), None), DataError, r"1 of 4 numbers are missing"),
        ((pa.array([[[[1] * 5] * 5] * 5] * 5), None), ConfigError, "3 axes of a tensor .* not named"),
        ((pa.array(list("abcde")), None), ConfigError, r"0 columns can hold images; .* image .string."),
    ]
    for column, error, message in faults:
        write(path, column)
        with pytest.raises(error, match=message):
            list(read_pictures(str(path)))
    write(path, COLUMNS["encoded"](), second=images)
    with pytest.raises(ConfigError, match="2 columns can hold images; name one by FILE:/COLUMN"):
        list(read_pictures(str(path)))
    assert len(list(read_pictures(f"{path}:/second"))) == 5
    with pytest.raises(ConfigError, match=r"there is no column third; the file has image .binary., second"):
        list(read_pictures(f"{path}:/third"))
    content = path.read_bytes()
    for size in (4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"a\.parquet"):
            list(read_pictures(f"{path}:/image"))
    write(
        path, COLUMNS["encoded"](), image_id=list("abcde"), uri=list("abcde"), sha256=list("abcde"), percentiles=[1] * 5
    )
    with pytest.raises(ConfigError, match="is the manifest of a collection; give its folder"):
        list(read_pictures(str(path)))
