"""Images in a column of a Parquet file: encoded (PNG, JPEG, TIFF, ...) or as tensors; each row is an image of its own.

Rows are read in batches of some megabytes, never a whole file. A file of which any row cannot be read is refused, as
a stack is of which a plane cannot be read.
"""

from __future__ import annotations

import functools
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydom.errors import ConfigError, DataError
from raydom.storage import files
from raydom.storage.collection import SCHEMA
from raydom.storage.columns import COMPUTED, plain_type, plain_values
from raydom.storage.pictures import Picture, ReadOptions, Row, array_planes

PARQUET_SUFFIXES = (".parquet", ".pq")
BATCH_BYTES = 32 << 20
MOST_ROWS = 1024
"""Rows of a batch."""
MANIFEST_COLUMNS = {"image_id", "uri", "sha256", "percentiles"}
"""What no other table has beside each other."""
IDS, FILE_NAMES, GROUP = ("image_id", "id"), ("file_name", "filename", "path"), "group"
"""Columns that may name images, the earlier rather; and the column of what a split must not cut."""
MOST_CHANNELS = 4

Tensor = Callable[[Any], np.ndarray]
"""Makes an array of an Arrow scalar."""


def read_parquet(path: Path, options: ReadOptions) -> Iterator[Picture]:
    """The images of one column: of ``options.part``, or of the only one that can hold images.

    A row is called by the first of the columns ``image_id``, ``id``, ``file_name``, ``filename`` and ``path`` (also
    the ``path`` beside the bytes, as Hugging Face has it) that has another value in each row, or by its number. Text,
    numbers and truth values of other columns are told of each row.

    Axes of tensors are those of ``options``, else ``yx``, ``yxc`` if the last has at most four entries, or ``cyx`` if
    the first has.

    Raises:
        ConfigError: If it is not clear which column or which axes are meant.
        DataError: If a row has no image, or one that cannot be read.
    """
    with (
        pq.ParquetFile(path, buffer_size=1 << 20, page_checksum_verification=True) as file,
        tempfile.TemporaryDirectory(prefix="raydom-") as folder,
    ):
        fields = {field.name: field for field in file.schema_arrow}
        if set(fields) >= MANIFEST_COLUMNS:
            raise ConfigError("this is the manifest of a collection; give its folder as --collection, as it is.")
        if not file.metadata.num_rows:
            raise DataError("has no rows.")
        image = _choose(fields, options.part)
        tensor = _tensor_of(image)
        names = _row_names(file, fields, image)
        kept, notes = ({}, ()) if options.as_labels else _further_columns(fields, image)
        has_groups = not options.as_labels and GROUP in fields and plain_type(fields[GROUP].type) is not None
        columns = [image.name, *([GROUP] if has_groups else []), *kept]
        rows_bytes = sum(file.metadata.row_group(n).total_byte_size for n in range(file.metadata.num_row_groups))
        batch_size = min(MOST_ROWS, max(1, BATCH_BYTES * file.metadata.num_rows // max(1, rows_bytes)))
        number = 0
        for batch in file.iter_batches(batch_size=batch_size, columns=columns, use_threads=False):
            table = pa.table({name: batch.column(name) for name in columns})
            extra = [(name, plain_values(table[name].cast(kind))) for name, kind in sorted(kept.items())]
            groups = plain_values(table[GROUP]) if has_groups else [None] * len(batch)
            for place, scalar in enumerate(batch.column(image.name)):
                row = Row(
                    number=number,
                    name=None if names is None else names[number],
                    group=None if groups[place] is None else str(groups[place]),
                    extra=tuple((name, values[place]) for name, values in extra),
                )
                for picture in _row_pictures(tensor, scalar, row, options, Path(folder) / "image"):
                    yield replace(picture, row=row, notes=(*notes, *picture.notes))
                number += 1


def is_manifest(uri: str) -> bool:
    """Whether a Parquet file, local or remote, is the manifest of a collection."""
    fs, path = files.file_system(uri)

    def columns() -> list[str]:
        with fs.open(path, "rb") as file:
            return list(pq.read_schema(file).names)

    try:
        return set(files.steady(columns, uri)) >= MANIFEST_COLUMNS
    except (pa.ArrowException, OSError):
        return False


def _row_pictures(tensor: Tensor | None, scalar: Any, row: Row, options: ReadOptions, copy: Path) -> Iterator[Picture]:
    """The pictures of one row: of a tensor or of an encoded stack, several; ``copy`` is where bytes may be put."""
    from raydom.storage.readers import read_pictures  # which reads Parquet by this module

    try:
        value = (
            scalar["bytes"] if isinstance(scalar, pa.StructScalar) and tensor is None and scalar.is_valid else scalar
        )
        if not value.is_valid:
            raise DataError("has no image; drop it from the file.")
        if tensor is not None:
            pixels = tensor(value)
            yield from array_planes(pixels, _axes_of(pixels.shape, options))
            return
        copy.write_bytes(value.as_buffer())  # the readers check files
        yield from read_pictures(
            "the image", pages=options.pages, axes=options.axes, as_labels=options.as_labels, copy=copy
        )
    except (DataError, ConfigError) as error:
        raise type(error)(f"row {row.number}{f' ({row.name})' if row.name else ''}: {error}") from error


# ------------------------------------------------------------------------------------------------------------- columns


def _choose(fields: dict[str, pa.Field], part: str | None) -> pa.Field:
    """The column called ``part``, or the only one that can hold images."""
    listed = ", ".join(f"{name} ({_kind_name(field.type)})" for name, field in fields.items())
    if part is not None:
        field = fields.get(part.removeprefix("/"))
        if field is None:
            raise ConfigError(f"there is no column {part.removeprefix('/')}; the file has {listed}.")
        if not _can_be_image(field):
            raise DataError(f"column {field.name} of type {_kind_name(field.type)} holds no images.")
        return field
    found = [field for field in fields.values() if _can_be_image(field)]
    if len(found) != 1:
        raise ConfigError(f"{len(found)} columns can hold images; name one by FILE:/COLUMN. The file has {listed}.")
    return found[0]


def _kind_name(kind: pa.DataType) -> str:
    return getattr(kind, "extension_name", None) or str(kind)


def _can_be_image(field: pa.Field) -> bool:
    return _is_bytes(field.type) or _is_bytes_struct(field.type) or _tensor_of(field) is not None


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_bytes_struct(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)


def _row_names(file: pq.ParquetFile, fields: dict[str, pa.Field], image: pa.Field) -> list[str] | None:
    """A name for each row that no other has; None if no column has such."""
    beside = _is_bytes_struct(image.type) and image.type.get_field_index("path") >= 0
    for column in (*(name for name in (*IDS, *FILE_NAMES) if name in fields), *([image.name] if beside else [])):
        if column == image.name:
            values = pc.struct_field(file.read(columns=[f"{column}.path"])[column].combine_chunks(), "path").to_pylist()
        elif plain_type(fields[column].type) in (pa.string(), pa.int64()):
            values = file.read(columns=[column])[column].to_pylist()
        else:
            continue
        if None in values or "" in values:
            continue
        names = [files.safe_name(str(value)) if column in IDS else files.safe_stem(str(value)) for value in values]
        if len(set(names)) == len(names):
            return names
    return None


def _further_columns(fields: dict[str, pa.Field], image: pa.Field) -> tuple[dict[str, pa.DataType], tuple[str, ...]]:
    """The columns that the manifest can take over, and what is told of the others."""
    reserved = {*SCHEMA.names, *COMPUTED}
    others = {
        name: plain_type(field.type)
        for name, field in fields.items()
        if name not in (image.name, GROUP, *IDS) and not name.startswith("__index_level_")
    }
    taken = sorted(name for name, kind in others.items() if kind is not None and name in reserved)
    unfit = sorted(name for name, kind in others.items() if kind is None)
    notes = [f"column {', '.join(taken)} is left out: raydom has columns of that name"] if taken else []
    notes += [f"column {', '.join(unfit)} is left out: only text, numbers and truth values are kept"] if unfit else []
    return {name: kind for name, kind in others.items() if kind is not None and name not in reserved}, tuple(notes)


# ------------------------------------------------------------------------------------------------------------- tensors


def _tensor_of(field: pa.Field) -> Tensor | None:
    """How to make an array of a value of a column: Arrow's tensors, Ray's, or lists of lists; None if it has none."""
    kind = field.type
    if isinstance(kind, pa.FixedShapeTensorType):
        return (lambda scalar: scalar.to_numpy()) if len(kind.shape) >= 2 else None
    described = (field.metadata or {}).get(b"ARROW:extension:metadata", b"")
    if isinstance(kind, pa.BaseExtensionType):  # known in this process: Ray's are once Ray is imported
        described, kind = _described(kind), kind.storage_type
    if pa.types.is_struct(kind):
        parts = {kind.field(n).name: kind.field(n).type for n in range(kind.num_fields)}
        if set(parts) == {"data", "shape"} and _depth(parts["data"]) == 1:
            return functools.partial(_shaped, order=_stated(described, "permutation"))
        return None
    shape = _stated(described, "shape")
    if _depth(kind) == 1 and shape is not None:
        return functools.partial(_reshaped, shape=shape)
    return _nested if _depth(kind) >= 2 else None


def _depth(kind: pa.DataType) -> int:
    """How many lists are around numbers; 0 if there are no lists, or other than numbers in them."""
    depth = 0
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return depth if is_number else 0


def _described(kind: Any) -> bytes:
    """What a known extension type would write of itself; of Arrow's own, pyarrow shows it only as text."""
    if isinstance(kind, pa.ExtensionType):
        return bytes(kind.__arrow_ext_serialize__())
    order = re.search(r"permutation=(\[[\d,]+\])", str(kind))
    return f'{{"permutation": {order[1]}}}'.encode() if order else b""


def _stated(described: bytes, name: str) -> list[int] | None:
    """What an extension type says of itself, if it says so in JSON: Ray has the bare shape."""
    try:
        told = json.loads(described)
    except (ValueError, UnicodeDecodeError):
        return None
    told = told.get(name) if isinstance(told, dict) else told
    return told if isinstance(told, list) and len(told) >= 2 and all(isinstance(size, int) for size in told) else None


def _storage(scalar: Any) -> Any:
    return scalar.value if isinstance(scalar, pa.ExtensionScalar) else scalar


def _numbers(values: pa.Array) -> np.ndarray:
    if values.null_count:
        raise DataError(f"{values.null_count} of {len(values)} numbers are missing (null).")
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _reshaped(scalar: Any, shape: list[int]) -> np.ndarray:
    return _shape_of(_numbers(_storage(scalar).values), shape)


def _shaped(scalar: Any, order: list[int] | None) -> np.ndarray:
    parts = _storage(scalar)
    if not (parts["data"].is_valid and parts["shape"].is_valid):
        raise DataError("has a tensor without numbers or without a shape.")
    pixels = _shape_of(_numbers(parts["data"].values), parts["shape"].as_py())
    return pixels if order is None else pixels.transpose(order)


def _shape_of(numbers: np.ndarray, shape: list[int]) -> np.ndarray:
    if math.prod(shape) != len(numbers):
        raise DataError(f"has {len(numbers)} numbers, not the {math.prod(shape)} of its shape {tuple(shape)}.")
    return numbers.reshape(shape)


def _nested(scalar: Any) -> np.ndarray:
    values = _storage(scalar).values
    shape = [len(values)]
    while _depth(values.type):
        lengths = np.unique(_numbers(pc.list_value_length(values)))
        if len(lengths) != 1:
            raise DataError(f"has lists of {len(lengths)} lengths in one list; an image has lines of one length.")
        shape.append(int(lengths[0]))
        values = values.flatten()
    return _numbers(values).reshape(shape)


def _axes_of(shape: tuple[int, ...], options: ReadOptions) -> str:
    axes, number = options.axes, len(shape)
    if axes is not None and options.as_labels and "c" in axes and len(axes) == number + 1:
        axes = axes.replace("c", "")  # labels of an image with channels
    if axes is None and number == 2:
        axes = "yx"
    if axes is None and number == 3:
        axes = "yxc" if shape[-1] <= MOST_CHANNELS else "cyx" if shape[0] <= MOST_CHANNELS else None
    if axes is None:
        raise ConfigError(f"the {number} axes of a tensor of shape {shape} are not named; give --axes, such as zyx.")
    if len(axes) != number:
        raise ConfigError(f"--axes {axes} are {len(axes)}, but the tensor has shape {shape}.")
    return axes
