"""Images and labels as OME-Zarr: written as 0.5 (Zarr 3, sharded, multiscale), read as 0.4 or 0.5.

An image is a Zarr group: its levels are the arrays ``0``, ``1``, ... (each half as large in y and x as the one
before), its labels the groups ``labels/<name>`` with levels of their own. A *chunk* is what is compressed and read
alone; a *shard* holds many chunks, is one object in the store, and can only be written whole: it is the unit that
writers share out among them. Shards span all axes but y and x; so a volume is cut in y and x only, and its coarser
levels have all its planes.

Source: https://ngff.openmicroscopy.org/0.5 and /0.4.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import sync
from zarr.storage import MemoryStore, StorePath

from raydom.errors import ConfigError, DataError
from raydom.storage import files
from raydom.storage.names import check_paths
from raydom.storage.zarr_stores import ReplacingStore, open_store
from raydom.types import Region

SMALLEST_LEVEL_PX = 512
"""Levels are added until the longer side is at most this."""
MAX_JOINT_CHANNELS = 4
"""Up to this many channels share a chunk; more are chunked one by one, so that one can be shown alone."""
MAX_JOINT_PLANES = 32
"""Up to this many planes of a volume share a chunk."""
READ_ERRORS = (ValueError, RuntimeError, OSError, KeyError)
"""What Zarr and its codecs raise for shards that are damaged."""
MICROMETRES = {"micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "meter": 1e6, "angstrom": 1e-4}
"""Length of the units that OME-Zarr names, in micrometres."""


RegionLike = Region | tuple[slice, ...] | None
"""How a caller may name a part of an image in y and x, px; None: all of it."""


@dataclass(frozen=True, slots=True)
class Multiscale:
    """What the metadata of an OME-Zarr image or label say."""

    axes: str
    """One letter an axis of the stored arrays, such as ``tczyx``."""
    paths: tuple[str, ...]
    """The levels, the finest first."""
    pixel_sides_um: tuple[float, float] | None
    """Height and width of a pixel of the finest level; None if no unit of length is given."""
    plane_distance_um: float | None
    """Distance of planes along z; None if there is no such axis, or it has no unit of length."""
    channels: tuple[str, ...]
    """Names of the channels; empty if none are given."""


def create_image(
    uri: str,
    *,
    name: str,
    axes: str,
    shape: Sequence[int],
    dtype: np.dtype | str,
    pixel_size_um: float | int | None,
    channels: Sequence[str],
    plane_distance_um: float | int | None = None,
    windows: Sequence[tuple[float, float]] | None = None,
    shard_px: int = 1024,
    chunk_px: int = 256,
    num_levels: int | None = None,
    overwrite: bool = False,
) -> tuple[zarr.Array, ...]:
    """Make an OME-Zarr 0.5 image: its metadata and its levels, with no pixels yet.

    Args:
        uri: The new group.
        axes: A letter an axis, ending in ``yx``, such as ``cyx``, or ``czyx`` for a volume.
        shape: Of level 0.
        pixel_size_um: Of y and x; None writes scales without a unit.
        channels: Names, one a channel.
        plane_distance_um: Of z; None writes a scale of 1 without a unit.
        windows: For each channel, the intensities that viewers show as black and white. Default: the legal range.
        shard_px: Side of the shards; cut down for images that fit into less.
        chunk_px: Side of the chunks; the largest divisor of ``shard_px`` that is not larger is taken.
        num_levels: Default: until the longer side is at most 512 px.
        overwrite: Replace what is there, its labels included.

    Returns:
        The levels, for ``pyramids.write_levels``.

    Raises:
        ConfigError: If there is an image and ``overwrite`` is not set, or the arguments do not fit together.
    """
    dtype = np.dtype(dtype)
    if len(axes) != len(shape) or not axes.endswith("yx") or min(shape, default=0) < 1:
        raise ConfigError(f"{uri}: axes {axes!r} and shape {tuple(shape)} do not fit; axes end in yx, sizes are >= 1.")
    num_channels = shape[axes.index("c")] if "c" in axes else 1
    if len(channels) != num_channels or (windows is not None and len(windows) != num_channels):
        raise ConfigError(f"{uri}: {len(channels)} channel names for {num_channels} channels: {', '.join(channels)}.")
    levels = _level_shapes(shape, num_levels)
    attributes = {
        "ome": {
            "version": "0.5",
            "multiscales": [_multiscales(name, axes, len(levels), pixel_size_um, plane_distance_um, "mean")],
            "omero": {"channels": _omero_channels(channels, dtype, windows)},
        }
    }
    if overwrite:
        files.remove(uri)
    elif files.is_file(files.join(uri, "zarr.json")):
        raise ConfigError(f"{uri}: there is an image already; choose another output, or overwrite it.")
    _write_group(uri, attributes)
    return _create_levels(uri, "", axes, levels, dtype, shard_px, chunk_px)


def create_labels(
    uri: str,
    label: str,
    *,
    shape: Sequence[int],
    dtype: np.dtype | str,
    pixel_size_um: float | int | None,
    plane_distance_um: float | int | None = None,
    shard_px: int = 1024,
    chunk_px: int = 256,
    num_levels: int | None = None,
    properties: Sequence[Mapping[str, Any]] = (),
) -> tuple[zarr.Array, ...]:
    """Add an empty label to the image at ``uri``; a label of the same name is replaced.

    The list of labels is read, extended and written: add the labels of one image from one process.

    Args:
        shape: Of level 0: height and width (axes ``yx``), or planes, height and width of a volume (``zyx``).
        properties: What is known of the objects; each has the number of its object as ``label-value``.
    """
    if not files.is_file(files.join(uri, "zarr.json")):
        raise DataError(f"{uri}: no OME-Zarr 0.5 image that labels could be added to.")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ConfigError(f"{uri}: a label of shape {tuple(shape)}; it is (height, width) or (planes, height, width).")
    axes = "zyx"[-len(shape) :]
    levels = _level_shapes(shape, num_levels)
    image_label: dict[str, Any] = {"version": "0.5", "source": {"image": "../../"}}
    if properties:
        image_label["properties"] = [dict(entry) for entry in properties]
    attributes = {
        "ome": {
            "version": "0.5",
            "multiscales": [_multiscales(label, axes, len(levels), pixel_size_um, plane_distance_um, "nearest")],
            "image-label": image_label,
        }
    }
    names = list_labels(uri)
    if label in names:
        files.remove(files.join(uri, "labels", label))
    _write_group(files.join(uri, "labels", label), attributes)
    arrays = _create_levels(uri, f"labels/{label}", axes, levels, np.dtype(dtype), shard_px, chunk_px)
    if label not in names:
        _write_group(files.join(uri, "labels"), {"ome": {"version": "0.5", "labels": [*names, label]}})
    return arrays


def write_region(
    uri: str, array_path: str, region: Region, pixels: np.ndarray, array: zarr.Array | None = None
) -> None:
    """Write whole shards of one level.

    Args:
        uri: The image.
        array_path: The level, such as ``0`` or ``labels/label/0``.
        region: In y and x, px of that level.
        pixels: All other axes whole, then y and x.
        array: That level, where it is open already.

    Raises:
        ConfigError: If the region splits a shard, or the pixels do not have its shape and the array's dtype.
        DataError: If there is no such array.
    """
    array = array if array is not None else open_array(uri, array_path, mode="r+")
    where = f"{uri}/{array_path}"
    check_whole_shards(region, shards_of(array)[-2:], array.shape[-2:], where)
    expected = (*array.shape[:-2], *region.shape)
    if pixels.shape != expected or pixels.dtype != array.dtype:
        raise ConfigError(
            f"{where}: pixels of shape {pixels.shape} and dtype {pixels.dtype} cannot be written where "
            f"{expected} and {array.dtype} are stored."
        )
    store_shards(array, region, pixels)


def store_shards(array: zarr.Array, region: Region, pixels: np.ndarray) -> None:
    """Put pixels in the place of whole shards, damaged ones too; what was there is not read."""
    place = StorePath(ReplacingStore(array.store), array.path)
    blind = zarr.AsyncArray(array.metadata, place, config={"write_empty_chunks": True})
    zarr.Array(blind)[(..., *region.slices)] = pixels


def read_multiscale(uri: str, group_path: str = "") -> Multiscale:
    """The metadata of an OME-Zarr 0.4 or 0.5 image, or of its label ``labels/<name>``.

    Raises:
        DataError: If there is no group, or it is no OME-Zarr image.
    """
    where = files.join(uri, group_path)
    attributes = _attributes(uri, group_path)
    try:
        multiscales = attributes["multiscales"][0]
        axes = [axis["name"] if isinstance(axis, dict) else axis for axis in multiscales["axes"]]
        datasets = multiscales["datasets"]
        paths = tuple(str(dataset["path"]) for dataset in datasets)
        scales = [
            step["scale"]
            for step in (*datasets[0]["coordinateTransformations"], *multiscales.get("coordinateTransformations", ()))
            if step["type"] == "scale"
        ]
        units = [axis.get("unit") if isinstance(axis, dict) else None for axis in multiscales["axes"]]
        channels = tuple(
            str(channel.get("label") or f"channel_{number}")
            for number, channel in enumerate(attributes.get("omero", {}).get("channels", ()))
        )
        sizes = [float(np.prod([scale[number] for scale in scales])) for number in range(len(axes))]
        factors = [MICROMETRES.get(unit or "") for unit in units]
        lengths = {a: size * factor for a, size, factor in zip(axes, sizes, factors, strict=True) if factor is not None}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{where}: no OME-Zarr 0.4 or 0.5 image ({type(error).__name__}: {error}); "
            "name the group that has the multiscales metadata (for a plate: one of its fields)."
        ) from error
    check_paths(paths, where)
    sides = (lengths["y"], lengths["x"]) if "y" in lengths and "x" in lengths else None
    return Multiscale("".join(axes), paths, sides, lengths.get("z"), channels)


def read_properties(uri: str, label: str) -> list[dict[str, Any]]:
    """What is known of the objects of a label, each with its number as ``label-value``; [] if nothing is."""
    image_label = _attributes(uri, f"labels/{label}").get("image-label", {})
    return [dict(entry) for entry in image_label.get("properties", ())]


def list_labels(uri: str) -> tuple[str, ...]:
    """Names of the labels of an image, in the order of its metadata."""
    if not any(files.is_file(files.join(uri, "labels", name)) for name in ("zarr.json", ".zattrs")):
        return ()
    names = tuple(str(name) for name in _attributes(uri, "labels").get("labels", ()))
    check_paths(names, uri)
    return names


def open_array(uri: str, array_path: str, mode: str = "r") -> zarr.Array:
    """One level of an image; writes through it store shards of zeros too, so that a missing shard can be told.

    Raises:
        DataError: If there is no such array.
    """
    where = files.join(uri, array_path)
    store = open_store(uri, read_only=mode == "r")
    try:
        stored = files.read_bytes(files.join(where, "zarr.json"))
    except (FileNotFoundError, NotADirectoryError):
        stored = None
    try:
        if stored is None:  # of Zarr 2
            return zarr.open_array(store=store, path=array_path, mode=mode)
        place, config = StorePath(store, array_path), {"write_empty_chunks": mode != "r"}
        return zarr.Array(zarr.AsyncArray(_stored_metadata(stored), place, config=config))
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: no such Zarr array, or it is damaged ({error}).") from error


@functools.lru_cache(maxsize=1024)
def _stored_metadata(stored: bytes) -> ArrayV3Metadata:
    """The metadata of an array as they are stored. Read directly: Zarr's own way looks for those of Zarr 2 as well."""
    return ArrayV3Metadata.from_dict(json.loads(stored))


def shard_regions(array: zarr.Array, part: Region | None = None) -> Iterator[Region]:
    """The regions of a level (or of a part of it, of whole shards) that are one shard each, in y and x."""
    part = Region.whole(array.shape[-2:]) if part is None else part
    rows, columns = shards_of(array)[-2:]
    for top in range(part.start[0], part.stop[0], rows):
        for left in range(part.start[1], part.stop[1], columns):
            yield Region((top, left), (top + rows, left + columns)).clipped(part)


def has_shard(array: zarr.Array, region: Region) -> bool:
    """Whether the shard that begins where ``region`` does is stored; Zarr would read a missing one as zeros."""
    return bool(sync(_stored_shard(array, region).exists()))


def _stored_shard(array: zarr.Array, region: Region) -> Any:
    place = [start // side for start, side in zip(region.start, shards_of(array)[-2:], strict=True)]
    return array.store_path / array.metadata.encode_chunk_key((*(0 for _ in array.shape[:-2]), *place))


def missing_shards(uri: str, array_path: str) -> list[Region]:
    """The regions of a level whose shards are not stored."""
    return lost_shards(open_array(uri, array_path))


def lost_shards(array: zarr.Array) -> list[Region]:
    """The same of a level that is open."""
    wanted = math.prod(-(-size // shard) for size, shard in zip(array.shape, shards_of(array), strict=True))
    if wanted > 1 and array._nshards_initialized == wanted:  # one listing; its public twin counts the chunks within
        return []
    return [region for region in shard_regions(array) if not has_shard(array, region)]


def unreadable_shards(uri: str, array_path: str, part: Region) -> list[Region]:
    """The regions of shards within a part of a level that are missing or cannot be read."""
    array, found = open_array(uri, array_path), []
    for region in shard_regions(array, part):
        try:
            readable = has_shard(array, region)
            array[(..., *region.slices)]
        except READ_ERRORS:
            readable = False
        if not readable:
            found.append(region)
    return found


def is_made_alike(uri: str, other: str) -> bool:
    """Whether an image has all the metadata of another one, those of its levels and labels included."""
    fs, path = files.file_system(other)
    found = files.steady(lambda: fs.find(path), other)
    documents = [one.removeprefix(path) for one in found if one.endswith("zarr.json")]
    try:
        return all(
            files.read_json(files.join(uri, one)) == files.read_json(files.join(other, one)) for one in documents
        )
    except (FileNotFoundError, DataError):
        return False


def check_whole_shards(region: Region, shards: Sequence[int], shape: Sequence[int], where: str) -> None:
    """Refuse a write that would share a shard with another writer."""
    check_inside(region, shape, where)
    for axis, part, shard, size in zip("yx", region.slices, shards, shape, strict=True):
        if part.start % shard or (part.stop % shard and part.stop != size):
            raise ConfigError(
                f"{where}: axis {axis} would be written from {part.start} to {part.stop} px, which "
                f"splits a shard of {shard} px; two workers could overwrite each other. "
                f"Choose a block size that is a multiple of {shard}."
            )


def as_region(region: Region | tuple[slice, ...], bounds: Region) -> Region:
    """The region that slices name; ends that count from the border, and open ones, are those of ``bounds``."""
    if isinstance(region, Region):
        return region
    if len(region) != len(bounds.shape) or any(part.step not in (None, 1) for part in region):
        raise ConfigError(f"a region is one slice each for y and x, with step 1; got {region}.")
    parts = [part.indices(size) for part, size in zip(region, bounds.shape, strict=True)]
    return Region(tuple(start for start, _, _ in parts), tuple(stop for _, stop, _ in parts))


def check_inside(region: Region, shape: Sequence[int], where: str) -> None:
    """Refuse a region that is empty or reaches out of the image (Zarr would cut it off in silence)."""
    if len(region.start) != len(shape) or any(
        not 0 <= start < stop <= size for start, stop, size in zip(region.start, region.stop, shape, strict=True)
    ):
        raise ConfigError(
            f"{where}: region {region.start} to {region.stop} px is not inside the image, {tuple(shape)}."
        )


def _attributes(uri: str, path: str = "") -> dict[str, Any]:
    """What OME-Zarr says of a group. Zarr 3 is read directly: Zarr's own way costs milliseconds, which add up."""
    where = files.join(uri, path)
    try:
        group = files.read_json(files.join(where, "zarr.json"))
        attributes = dict(group["attributes"])
    except (FileNotFoundError, NotADirectoryError):
        try:
            store = open_store(uri, read_only=True)
            attributes = dict(zarr.open_group(store=store, path=path, mode="r", use_consolidated=False).attrs)
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{where}: no Zarr group, or it is damaged ({error}).") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: no Zarr group, or it is damaged ({error}).") from error
    return dict(attributes.get("ome", attributes))


def shards_of(array: zarr.Array) -> tuple[int, ...]:
    """What is written whole, along each axis: shards, or chunks where there are none."""
    return tuple(array.shards or array.chunks)


def _level_shapes(shape: Sequence[int], num_levels: int | None) -> list[tuple[int, ...]]:
    levels = [tuple(int(size) for size in shape)]
    while len(levels) < num_levels if num_levels is not None else max(levels[-1][-2:]) > SMALLEST_LEVEL_PX:
        levels.append((*levels[-1][:-2], *((size + 1) // 2 for size in levels[-1][-2:])))
    return levels


def _write_group(uri: str, attributes: Mapping[str, Any]) -> None:
    """A Zarr 3 group. Written directly: Zarr's own way costs several round trips an image, which add up."""
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    files.write_bytes_atomic(files.join(uri, "zarr.json"), json.dumps(group).encode())


def _create_levels(
    uri: str,
    group_path: str,
    axes: str,
    levels: Sequence[tuple[int, ...]],
    dtype: np.dtype,
    shard_px: int,
    chunk_px: int,
) -> tuple[zarr.Array, ...]:
    store = open_store(uri)
    arrays = []
    for number, shape in enumerate(levels):
        path = files.join(group_path, str(number)) if group_path else str(number)
        metadata, stored = _array_metadata(
            tuple(axes), shape, dtype, *_chunks_and_shards(axes, shape, shard_px, chunk_px)
        )
        files.write_bytes_atomic(files.join(uri, path, "zarr.json"), stored)
        array = zarr.AsyncArray(metadata, StorePath(store, path), config={"write_empty_chunks": True})
        arrays.append(zarr.Array(array))
    return tuple(arrays)


@functools.lru_cache(maxsize=1024)
def _array_metadata(
    names: tuple[str, ...], shape: tuple[int, ...], dtype: np.dtype, chunks: tuple[int, ...], shards: tuple[int, ...]
) -> tuple[Any, bytes]:
    """The metadata of an array, and how they are stored. Zarr makes them: many images have the same."""
    array = zarr.create_array(
        store=MemoryStore(),
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        compressors=ZstdCodec(level=3, checksum=True),  # the checksum makes bit rot an error
        fill_value=0,
        dimension_names=names,
    )
    return array.metadata, json.dumps(array.metadata.to_dict()).encode()


def _chunks_and_shards(
    axes: str, shape: Sequence[int], shard_px: int, chunk_px: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes along each axis; both are cut down for small images, and a shard is a whole number of chunks."""
    divisor = next(side for side in range(min(chunk_px, shard_px), 0, -1) if shard_px % side == 0)
    chunks, shards = [], []
    for axis, size in zip(axes, shape, strict=True):
        if axis in "yx":
            chunk = min(divisor, size)
            shard = min(shard_px, -(-size // chunk) * chunk)
        elif axis == "z":
            chunk = -(-size // -(-size // MAX_JOINT_PLANES))
            shard = -(-size // chunk) * chunk
        else:
            chunk = size if axis == "c" and size <= MAX_JOINT_CHANNELS else 1
            shard = size
        chunks.append(chunk)
        shards.append(shard)
    return tuple(chunks), tuple(shards)


def _multiscales(
    name: str,
    axes: str,
    num_levels: int,
    pixel_size_um: float | int | None,
    plane_distance_um: float | int | None,
    method: str,
) -> dict[str, Any]:
    types = {"t": "time", "c": "channel"}
    known = {"z": plane_distance_um, "y": pixel_size_um, "x": pixel_size_um}
    unit = {"unit": "micrometer"}
    described = [{"name": a, "type": types.get(a, "space")} | (unit if known.get(a) is not None else {}) for a in axes]
    size, depth = (1.0 if one is None else float(one) for one in (pixel_size_um, plane_distance_um))
    datasets = []
    for level in range(num_levels):
        factor = 2**level
        scale = [size * factor if axis in "yx" else depth if axis == "z" else 1.0 for axis in axes]
        # The centre of a coarse pixel is that of the fine pixels it stands for, not that of the first of them.
        shift = [size * (factor - 1) / 2 if axis in "yx" else 0.0 for axis in axes]
        steps = [{"type": "scale", "scale": scale}]
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": steps + [{"type": "translation", "translation": shift}] * (level > 0),
            }
        )
    return {"name": name, "axes": described, "datasets": datasets, "type": method}


def _omero_channels(
    channels: Sequence[str], dtype: np.dtype, windows: Sequence[tuple[float, float]] | None
) -> list[dict[str, Any]]:
    """How viewers show the channels; also where their names are kept."""
    legal = (0.0, 1.0)
    if dtype.kind in "ui":
        legal = (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
    if len(channels) == 3:
        colors = ["FF0000", "00FF00", "0000FF"]
    else:
        palette = ["00FF00", "FF00FF", "00FFFF", "FFFF00", "FF0000", "0000FF", "FFFFFF"]
        colors = ["FFFFFF"] if len(channels) == 1 else [palette[n % len(palette)] for n in range(len(channels))]
    shown = [legal] * len(channels) if windows is None else windows
    return [
        {
            "label": name,
            "color": color,
            "active": True,
            "window": {
                "min": min(legal[0], float(start)),
                "max": max(legal[1], float(end)),
                "start": float(start),
                "end": float(end),
            },
        }
        for name, color, (start, end) in zip(channels, colors, shown, strict=True)
    ]
