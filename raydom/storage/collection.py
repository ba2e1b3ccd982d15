"""A collection of images: a folder or object-store prefix whose manifest, ``images.parquet``, has a row an image.

The manifest is the truth: what is not in it does not belong to the collection. It is written last and atomically, so
every image in it is complete.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import dask.array as da
import numpy as np
import pyarrow as pa
import zarr

from raydom.config import Condition
from raydom.errors import ConfigError, DataError
from raydom.storage import files
from raydom.storage.columns import columns_of, extra_columns, extras_of, matching
from raydom.storage.names import check_manifest_names
from raydom.storage.packed import PackedLevels, is_packed
from raydom.storage.tables import read_table, write_table
from raydom.storage.zarr_images import (
    READ_ERRORS,
    RegionLike,
    as_region,
    check_inside,
    has_shard,
    open_array,
    read_multiscale,
    read_properties,
    shards_of,
)
from raydom.types import PERCENTILE_LEVELS, ImageRecord, ImageStatistics, Region

MANIFEST = "images.parquet"

_NUMBERS = pa.list_(pa.float64())
_NAMES = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("axes", pa.string(), nullable=False),
        pa.field("shape", pa.list_(pa.int64()), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        ("pixel_size_um", pa.float64()),
        ("channels", _NAMES),
        ("domain", pa.string()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("labels", _NAMES),
        ("label_kinds", _NAMES),
        ("minimum", _NUMBERS),
        ("maximum", _NUMBERS),
        ("mean", _NUMBERS),
        ("std", _NUMBERS),
        ("percentiles", pa.list_(_NUMBERS)),
        ("lab_mean", _NUMBERS),
        ("lab_std", _NUMBERS),
        ("source_file", pa.string()),
        ("sha256", pa.string()),
    ],
    metadata={"raydom_format": "1", "percentile_levels": json.dumps(PERCENTILE_LEVELS)},
)
"""Columns of the manifest. The statistics (minimum to lab_std) have one entry a channel, in units of the dtype."""

_STATISTICS = ("minimum", "maximum", "mean", "std", "percentiles", "lab_mean", "lab_std")
_FACTS = tuple(name for name in SCHEMA.names if name not in _STATISTICS)

Names = str | Sequence[str] | None


class Image:
    """One image of a collection. Opening it reads nothing; it can be pickled and read in another process."""

    def __init__(self, record: ImageRecord, collection_uri: str) -> None:
        self.record = record
        is_absolute = files.is_url(record.uri) or record.uri.startswith("/")
        self.uri = record.uri if is_absolute else files.join(collection_uri, record.uri)
        self._is_ours = not is_absolute
        self._levels = open_levels(self.uri, all_stored=self._is_ours)
        self._labels: dict[str, LabelImage] = {}

    def __repr__(self) -> str:
        return f"Image({self.image_id!r}, {self.record.axes} {self.record.shape} {self.record.dtype}, {self.uri!r})"

    @property
    def image_id(self) -> str:
        return self.record.image_id

    @property
    def pixel_size_um(self) -> float | None:
        """Side of a pixel of level 0, µm; None if the file did not state it."""
        return self.record.pixel_size_um

    @property
    def statistics(self) -> ImageStatistics:
        """Statistics of the whole image, in the units of its dtype."""
        return self.record.statistics

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Height and width, px; of a volume (planes, height, width)."""
        return self.record.spatial_shape

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Height and width of a plane, px: what regions are in."""
        return self.record.plane_shape

    @property
    def is_volume(self) -> bool:
        return self.record.is_volume

    @property
    def num_planes(self) -> int:
        """Planes of a volume; 1 of other images."""
        return self.record.num_planes

    @property
    def plane_distance_um(self) -> float | None:
        """Distance of the planes of a volume, µm; None if it is not known."""
        return self.record.plane_distance_um

    @property
    def num_channels(self) -> int:
        return self.record.num_channels

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.record.dtype)

    @property
    def num_levels(self) -> int:
        """Levels of the pyramid; level 0 is the full resolution."""
        return self._levels.number

    def level_shape(self, level: int = 0) -> tuple[int, int]:
        """Height and width of a level, px."""
        return self._levels.shape(level)

    def numpy(self, region: RegionLike = None, level: int = 0) -> np.ndarray:
        """Pixels, axes ``cyx``; of a volume ``czyx``, all planes of the region.

        Args:
            region: In y and x, px of that level. Default: all.
            level: Of the pyramid, in which only y and x become smaller.

        Raises:
            ConfigError: If the region is not inside the image, or there is no such level.
            DataError: If the pixels are missing or damaged.
        """
        return self._with_channels(self._levels.read(region, level))

    def dask(self, level: int = 0) -> da.Array:
        """The same pixels as a lazy Dask array; one chunk is one shard of the store."""
        return self._with_channels(self._levels.lazy(level))

    def _with_channels(self, pixels: Any) -> Any:
        return pixels if "c" in self._levels.axes else pixels[None]

    def labels(self, name: str = "label") -> LabelImage:
        """One of the image's labels.

        Raises:
            ConfigError: If it has none of that name.
        """
        if name not in self.record.labels:
            there = f"it has {', '.join(self.record.labels)}" if self.record.labels else "it has no labels"
            raise ConfigError(f"image {self.image_id} has no label {name!r}; {there}.")
        if name not in self._labels:  # it reads its metadata once
            self._labels[name] = LabelImage(self, name)
        return self._labels[name]


class LabelImage:
    """One label of an image: integers in y and x (and z, of a volume), 0 for background."""

    def __init__(self, image: Image, name: str) -> None:
        self.name = name
        self.uri = files.join(image.uri, "labels", name)
        kinds = dict(zip(image.record.labels, image.record.label_kinds, strict=False))
        self.kind = kinds.get(name)
        """``binary``, ``instance``, ``semantic``, or None if it was not recorded."""
        self._levels = open_levels(image.uri, f"labels/{name}", all_stored=image._is_ours)

    def __repr__(self) -> str:
        return f"LabelImage({self.name!r}, {self.uri!r})"

    @property
    def num_levels(self) -> int:
        return self._levels.number

    @property
    def dtype(self) -> np.dtype:
        return self._levels.dtype

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Height and width, px; of a volume (planes, height, width)."""
        planes = (self._levels.num_planes,) if "z" in self._levels.axes else ()
        return (*planes, *self._levels.shape(0))

    def properties(self) -> list[dict[str, Any]]:
        """What is known of the objects, such as their ``category``, under their number as ``label-value``."""
        return self._levels.properties()

    def numpy(self, region: RegionLike = None, level: int = 0) -> np.ndarray:
        """The labels of a region, axes ``yx``; of a volume ``zyx``."""
        return self._without_channels(self._levels.read(region, level))

    def dask(self, level: int = 0) -> da.Array:
        """The same labels as a lazy Dask array."""
        return self._without_channels(self._levels.lazy(level))

    def _without_channels(self, labels: Any) -> Any:
        if "c" not in self._levels.axes:
            return labels
        if labels.shape[0] != 1:
            raise DataError(f"{self.uri}: labels with {labels.shape[0]} channels; store each as a label of its own.")
        return labels[0]


class Collection:
    """Images in the order of their ``image_id``, with the manifest as an Arrow table."""

    def __init__(self, uri: str, table: pa.Table, known: pa.Table | None = None) -> None:
        self.uri = uri
        self.table = table.take(_order(table))
        """The manifest: a row an image, sorted by ``image_id``."""
        self._known = self.table if known is None else known
        self._row = {image_id: row for row, image_id in enumerate(self.table["image_id"].to_pylist())}

    def __repr__(self) -> str:
        return f"Collection({self.uri!r}, {len(self)} images)"

    def __len__(self) -> int:
        return len(self._row)

    def __iter__(self) -> Iterator[Image]:
        return (Image(record, self.uri) for record in self.records)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._row

    def __getitem__(self, image_id: str) -> Image:
        """The image of that id.

        Raises:
            DataError: If there is none, naming the nearest.
        """
        if image_id not in self._row:
            near = difflib.get_close_matches(str(image_id), self._row, n=1, cutoff=0.4)
            hint = f"the nearest is {near[0]}" if near else f"it has {', '.join(itertools.islice(self._row, 5))}"
            raise DataError(f"{self.uri}: no image {image_id!r} among {len(self)}; {hint}.")
        return Image(table_to_records(self.table.slice(self._row[image_id], 1))[0], self.uri)

    @functools.cached_property
    def records(self) -> tuple[ImageRecord, ...]:
        """The manifest as typed rows."""
        return table_to_records(self.table)

    def filter(
        self, domain: Names = None, split: Names = None, group: Names = None, keep: str | Sequence[str] = ()
    ) -> Collection:
        """The images that have one of the given values in each column; None takes all.

        Args:
            keep: Conditions on any column, all of which must hold, such as ``cell_type=A172`` or ``height>=500``.

        Raises:
            ConfigError: For a value that no image of the whole collection has, and an unknown column.
        """
        chosen = np.ones(len(self), dtype=bool)
        for column, wanted in (("domain", domain), ("split", split), ("group", group)):
            if wanted is None:
                continue
            names = {wanted} if isinstance(wanted, str) else set(wanted)
            known = {value for value in self._known[column].to_pylist() if value is not None}
            if names - known:
                there = f"there is {', '.join(sorted(known)[:20])}" if known else "none is set"
                raise ConfigError(f"{self.uri}: no image has {column} {', '.join(sorted(names - known))}; {there}.")
            chosen &= np.array([value in names for value in self.table[column].to_pylist()], dtype=bool)
        for condition in (keep,) if isinstance(keep, str) else keep:
            chosen &= matching(Condition.parse(condition), self.table, self._known, self.uri)
        return Collection(self.uri, self.table.filter(pa.array(chosen)), self._known)


def open_collection(uri: str) -> Collection:
    """Open a collection by its folder or URL.

    Raises:
        DataError: If there is none, or its manifest cannot be read.
    """
    uri = files.absolute(str(uri))
    manifest = files.join(uri, MANIFEST)
    try:
        table = read_table(manifest)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise DataError(
            f"{uri}: no collection here ({MANIFEST} is missing). Make one: raydom ingest SOURCE... --out {uri}"
        ) from error
    except (DataError, OSError) as error:
        raise DataError(f"{manifest}: not a readable manifest ({error}). Ingest the images again.") from error
    return Collection(uri, _checked(table, manifest))


def write_manifest(uri: str, records: Iterable[ImageRecord]) -> None:
    """Write the manifest of the collection at ``uri``, atomically, sorted by ``image_id``.

    Raises:
        DataError: If two rows have one ``image_id``.
    """
    ordered = sorted(records, key=lambda record: record.image_id)
    for one, other in itertools.pairwise(ordered):
        if one.image_id == other.image_id:
            raise DataError(f"{uri}: two images have the id {one.image_id}: {one.source_file} and {other.source_file}.")
    write_table(files.join(uri, MANIFEST), records_to_table(ordered, uri))


def records_to_table(records: Sequence[ImageRecord], where: str = "manifest") -> pa.Table:
    """Records as an Arrow table, the inverse of ``table_to_records``: there each record has every further column.

    Raises:
        DataError: For a further column that has the name of one of ``SCHEMA``, or values of several kinds.
    """
    rows = [
        {name: getattr(record, name) for name in _FACTS}
        | {name: getattr(record.statistics, name) for name in _STATISTICS}
        for record in records
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    for name, values in columns_of([record.extra for record in records], SCHEMA.names, where).items():
        table = table.append_column(name, values)
    return table


def table_to_records(table: pa.Table) -> tuple[ImageRecord, ...]:
    """The rows of a manifest as records."""

    def tuples(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return tuple(map(tuples, value)) if value and isinstance(value[0], list) else tuple(value)

    records = []
    for row, extra in zip(table.select(SCHEMA.names).to_pylist(), extras_of(table, SCHEMA.names), strict=True):
        facts = {name: tuples(row[name]) for name in _FACTS}
        statistics = ImageStatistics(**{name: tuples(row[name]) for name in _STATISTICS})
        records.append(ImageRecord(**facts, statistics=statistics, extra=extra))
    return tuple(records)


class Levels:
    """The levels of an OME-Zarr image or label: arrays opened when first needed, their axes told apart.

    A z axis of several planes is kept: a volume. Further axes may only be one plane thick, and are left out.

    Args:
        all_stored: That every shard was written, as raydom does it, so that a missing one is a fault. Other programs
            leave out those that hold nothing but zeros.
    """

    def __init__(self, uri: str, group_path: str = "", *, all_stored: bool = False) -> None:
        self._uri = uri
        self._group_path = group_path
        self._all_stored = all_stored
        self._forget()

    def _forget(self) -> None:
        self._paths: tuple[str, ...] | None = None
        self._stored = ""
        self._arrays: dict[int, zarr.Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_uri": self._uri, "_group_path": self._group_path, "_all_stored": self._all_stored}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._uri, self._group_path, self._all_stored = state["_uri"], state["_group_path"], state["_all_stored"]
        self._forget()

    @property
    def where(self) -> str:
        return files.join(self._uri, self._group_path)

    @property
    def paths(self) -> tuple[str, ...]:
        if self._paths is None:
            multiscale = read_multiscale(self._uri, self._group_path)
            self._stored = multiscale.axes
            self._paths = multiscale.paths
        return self._paths

    @property
    def number(self) -> int:
        return len(self.paths)

    def array(self, level: int) -> zarr.Array:
        if level not in self._arrays:
            if not 0 <= level < self.number:
                raise ConfigError(f"{self.where}: no level {level}; there are levels 0 to {self.number - 1}.")
            path = self.paths[level]
            array = open_array(self._uri, files.join(self._group_path, path) if self._group_path else path)
            check_axes(self._axes, array.shape, self.where)
            self._arrays[level] = array
        return self._arrays[level]

    def shape(self, level: int) -> tuple[int, int]:
        """Height and width, px."""
        sizes = self._sizes(level)
        return sizes["y"], sizes["x"]

    @property
    def axes(self) -> str:
        """Of what is read: ``yx``, with ``z`` of a volume, and ``c`` if there is a channel axis."""
        return "".join(axis for axis in self._axes if axis in "cyx" or (axis == "z" and self.num_planes > 1))

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.array(0).dtype)

    def properties(self) -> list[dict[str, Any]]:
        """What is known of the objects of a label, each with its number as ``label-value``; [] if nothing is."""
        return read_properties(self._uri, self._group_path.removeprefix("labels/"))

    def num_channels(self) -> int:
        """1 if there is no channel axis."""
        return self._sizes(0).get("c", 1)

    @property
    def num_planes(self) -> int:
        """Planes of a volume; else 1."""
        return self._sizes(0)["z"] if "z" in self._axes else 1

    def regions(self, level: int = 0, side_px: int = 2048) -> Iterator[Region]:
        """The level in pieces of whole chunks, of about ``side_px`` (of volumes, of as many pixels) or of one chunk."""
        array = self.array(level)
        stored = dict(zip(self._sizes(level), array.shards or array.chunks, strict=True))
        side_px //= math.isqrt(self.num_planes)
        rows, columns = (max(1, side_px // stored[axis]) * stored[axis] for axis in "yx")
        height, width = self.shape(level)
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                yield Region((top, left), (min(top + rows, height), min(left + columns, width)))

    def read(self, region: RegionLike, level: int) -> np.ndarray:
        array = self.array(level)
        bounds = Region.whole(self.shape(level))
        part = bounds if region is None else as_region(region, bounds)
        check_inside(part, bounds.shape, self.where)
        try:
            pixels = np.asarray(array[self._index(part)])
        except READ_ERRORS as error:
            raise DataError(
                f"{self.where} level {level}: pixels {part.start} to {part.stop} are missing or damaged "
                f"({type(error).__name__}: {error}). Write or ingest this image again."
            ) from error

        if self._all_stored:
            self._check_stored(array, part, pixels)
        return pixels

    def _check_stored(self, array: zarr.Array, part: Region, pixels: np.ndarray) -> None:
        """Zarr reads a missing shard as zeros, so zeros are what it is looked for in."""
        rows, columns = shards_of(array)[-2:]
        for top in range(part.start[0] // rows * rows, part.stop[0], rows):
            for left in range(part.start[1] // columns * columns, part.stop[1], columns):
                shard = Region((top, left), (top + rows, left + columns))
                rows_seen, columns_seen = shard.clipped(part).relative_to(part).slices
                if not pixels[..., rows_seen, columns_seen].any() and not has_shard(array, shard):
                    raise DataError(
                        f"{self.where}/{array.basename}: the shard at {shard.start} is missing. Write or ingest this "
                        "image again."
                    )

    def lazy(self, level: int) -> da.Array:
        array = self.array(level)
        # In line: Dask on Ray takes apart the dataclasses that its tasks share, and a Zarr array is one.
        pixels = da.from_array(array, chunks=array.shards or array.chunks, inline_array=True)
        return pixels[self._index(Region.whole(self.shape(level)))]

    @property
    def _axes(self) -> str:
        """Those of the stored arrays."""
        return self._stored if self.paths else ""

    def _sizes(self, level: int) -> dict[str, int]:
        """By stored axis, in their order."""
        return dict(zip(self._axes, self.array(level).shape, strict=True))

    def _index(self, region: Region) -> tuple[slice | int, ...]:
        """Spatial slices, all channels and planes, and the only entry of other axes."""
        part, kept = dict(zip("yx", region.slices, strict=True)), self.axes
        return tuple(part.get(axis, slice(None) if axis in kept else 0) for axis in self._axes)


def open_levels(uri: str, group_path: str = "", *, all_stored: bool = False) -> Levels | PackedLevels:
    """The levels of an image, or of its label ``labels/<name>``, however it is stored; see ``Levels``."""
    return PackedLevels(uri, group_path) if is_packed(uri) else Levels(uri, group_path, all_stored=all_stored)


def check_axes(axes: str, shape: Sequence[int], where: str) -> None:
    """Refuse arrays that are no plane or volume: channels, z, y and x, of which the last two must be there.

    Raises:
        DataError: Naming the axis.
    """
    kept = "".join(axis for axis, size in zip(axes, shape, strict=False) if axis in "cyx" or (axis == "z" and size > 1))
    if len(axes) != len(shape) or kept not in ("yx", "cyx", "zyx", "czyx"):
        raise DataError(f"{where}: axes {axes!r} of shape {tuple(shape)} are not understood; expected some of tczyx.")
    for axis, size in zip(axes, shape, strict=True):
        if axis not in "czyx" and size != 1:
            raise DataError(
                f"{where}: axis {axis} has {size} entries (axes {axes}, shape {tuple(shape)}); only one is read. "
                "Store each as an image of its own."
            )


def _order(table: pa.Table) -> np.ndarray:
    """Row order by id, in the order of Python strings."""
    ids = table["image_id"].to_pylist()
    return np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)


def _checked(table: pa.Table, where: str) -> pa.Table:
    """The table with the columns and types of ``SCHEMA``; further ones are kept, after them.

    Other programs drop the metadata when they write the table anew, so that it is known by its columns.
    """
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise DataError(f"{where}: not a manifest of raydom; columns {', '.join(missing)} are missing.")
    levels = json.loads((table.schema.metadata or {}).get(b"percentile_levels", json.dumps(PERCENTILE_LEVELS)))
    if len(levels) != len(PERCENTILE_LEVELS) or not all(
        math.isclose(a, b) for a, b in zip(levels, PERCENTILE_LEVELS, strict=True)
    ):
        raise DataError(f"{where}: written by another version of raydom ({len(levels)} percentiles); ingest again.")
    extra = extra_columns(table, SCHEMA.names, where)
    own = table.select(SCHEMA.names).cast(SCHEMA)
    check_manifest_names(own, where)
    for name in extra.column_names:
        own = own.append_column(name, extra[name])
    return own
