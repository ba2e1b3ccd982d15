"""CZI (Zeiss) and LIF (Leica) files, by readers that are extras of this package."""

from __future__ import annotations

import importlib
import math
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from raydom.errors import DataError
from raydom.storage.pictures import Picture, ReadOptions, as_cyx, check_size, default_channels, length_um, plane_name

ZSTD_0, ZSTD_1 = 5, 6
"""Numbers of compressions in CZI."""


def import_extra(module: str, extra: str) -> Any:
    """A library that is an extra of this package.

    Raises:
        DataError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"a {extra} file needs the extra {extra} of raydom: uv run --extra {extra} raydom ..., or, if pip "
            f"installed raydom, pip install -e '.[{extra}]' in its folder; or export TIFF."
        ) from error


# ------------------------------------------------------------------------------------------------------- CZI (czifile)


def read_czi(path: Path, options: ReadOptions) -> Iterator[Picture]:
    """The planes of each scene of a CZI file at full resolution, the tiles of a mosaic put together.

    Raises:
        DataError: If planes are missing.
    """
    czifile = import_extra("czifile", "czi")
    _check_segments(path)
    with czifile.CziFile(str(path)) as file:
        scenes: dict[int, list[Any]] = defaultdict(list)
        entries = _full_resolution(file)
        for entry in entries:
            scenes[entry.start[entry.axes.index("S")] if "S" in entry.axes else 0].append(entry)
        metadata = ElementTree.fromstring(file.metadata())
        sides, distance = _czi_pixel_sides(metadata)
        names = tuple(entry.get("Name", "") for entry in metadata.findall(".//Image/Dimensions/Channels/Channel"))
        for number, scene in enumerate(sorted(scenes)):
            prefix = plane_name("p", [len(scenes)], [number])
            for plane, samples in _scene_planes(scenes[scene], entries, path.stat().st_size):
                known = all(names) and len(names) == len(samples) == len(set(names))
                channels = names if known else default_channels(len(samples))
                yield Picture(samples, channels, sides, prefix + plane, plane_distance_um=distance)


def _check_segments(path: Path) -> None:
    """Refuse a file that ends inside one of its segments; pixels that are cut off would be read as far as they go."""
    position, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            name, allocated = struct.unpack("<16sq8x", file.read(32).ljust(32, b"\0"))
            if allocated < 0 or not name.strip(b"\0"):
                raise DataError(f"truncated or corrupt: there is no segment at byte {position}.")
            position += 32 + allocated
    if position != size:
        raise DataError(f"truncated: it ends {position - size} bytes inside its last segment.")


def _full_resolution(file: Any) -> list[Any]:
    """The entries of the tiles without those of the pyramid, whose pixels are fewer than they stand for."""
    entries = [entry for entry in file.subblock_directory if entry.stored_shape == entry.shape]
    if not entries:
        raise DataError("holds no image.")
    axes = str(entries[0].axes)
    if "Y" not in axes or "X" not in axes or any(entry.axes != axes for entry in entries):
        raise DataError(f"axes {', '.join(sorted({entry.axes for entry in entries}))} are no image.")
    return sorted(entries, key=lambda entry: entry.mosaic_index or 0)  # where tiles overlap, the last is on top


def _scene_planes(entries: list[Any], others: list[Any], stored_bytes: int) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels of each plane of one scene; all scenes of a file have as many planes, but for z.

    Raises:
        DataError: If planes are missing, which would be black.
    """
    axes = str(entries[0].axes)
    starts = np.array([entry.start for entry in entries])
    (low, high), (lowest, highest) = _bounds(entries), _bounds(others)
    common = np.array([axis not in "SZYX" for axis in axes])
    low, high = np.where(common, lowest, low), np.where(common, highest, high)
    sizes = {axis: int(size) for axis, size in zip(axes, high - low, strict=True)}
    dtype = np.result_type(*(entry.dtype[-2:] for entry in entries))
    if dtype.kind not in "uf":
        raise DataError(f"dtype {dtype} is no image.")
    shape = (sizes.get("C", 1), sizes["Y"], sizes["X"], sizes["0"])
    check_size(math.prod(shape) * dtype.itemsize, stored_bytes)
    by_plane: dict[tuple[int, ...], list[tuple[int, Any]]] = defaultdict(list)
    stacked = [axis for axis in axes if axis not in "SCYX0"]
    for entry, start in zip(entries, starts - low, strict=True):
        place = dict(zip(axes, start.tolist(), strict=True))
        by_plane[tuple(place[axis] for axis in stacked)].append((place.get("C", 0), entry))
    present = sum(len({channel for channel, _ in tiles}) for tiles in by_plane.values())
    expected = math.prod(sizes[axis] for axis in stacked) * shape[0]
    if present != expected:
        raise DataError(f"{expected - present} of {expected} planes are missing.")
    top, left = low[axes.index("Y")], low[axes.index("X")]
    for index in np.ndindex(*(sizes[axis] for axis in stacked)):
        pixels = np.zeros(shape, dtype)
        for channel, entry in by_plane[index]:
            tile = _czi_tile(entry)
            if math.prod(tile.shape) != math.prod(tile.shape[axes.index(axis)] for axis in "YX0"):
                raise DataError(f"a tile of shape {tile.shape} reaches over several planes.")
            y, x = entry.start[axes.index("Y")] - top, entry.start[axes.index("X")] - left
            height, width = (tile.shape[axes.index(axis)] for axis in "YX")
            pixels[channel, y : y + height, x : x + width] = tile.reshape(height, width, -1)
        name = plane_name([axis.lower() for axis in stacked], [sizes[axis] for axis in stacked], index)
        yield name, _plane(pixels, "cyxs")


def _bounds(entries: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.array([entry.start for entry in entries])
    return starts.min(axis=0), (starts + [entry.shape for entry in entries]).max(axis=0)


def _czi_tile(entry: Any) -> np.ndarray:
    """The pixels of a tile; czifile does not know Zstandard.

    Source: the CZI format's description of its compressions (github.com/ZEISS/libczi, docs).
    """
    segment = entry.data_segment()
    if entry.compression not in (ZSTD_0, ZSTD_1):
        return segment.data()
    import imagecodecs

    content = segment.data(raw=True)
    header = content[: content[0]] if entry.compression == ZSTD_1 else b""
    decoded = imagecodecs.zstd_decode(content[len(header) :])
    if len(header) == 3 and header[2] & 1:  # all low bytes, then all high ones
        decoded = np.frombuffer(decoded, np.uint8).reshape(2, -1).T.tobytes()
    pixels = np.frombuffer(decoded, np.dtype(entry.dtype)).reshape(entry.stored_shape)
    return pixels[..., ::-1] if pixels.shape[-1] == 3 else pixels  # blue comes first


def _czi_pixel_sides(metadata: ElementTree.Element) -> tuple[tuple[float, float] | None, float | None]:
    """Height and width of a pixel, and the distance of planes; CZI states lengths in metres."""
    found = [metadata.findtext(f".//Scaling/Items/Distance[@Id='{axis}']/Value") for axis in "ZYX"]
    distance, height, width = (length_um(float(length), "m") if length else None for length in found)
    return None if height is None or width is None else (height, width), distance


# ------------------------------------------------------------------------------------------------------- LIF (liffile)


def read_lif(path: Path, options: ReadOptions) -> Iterator[Picture]:
    """The planes of each image of a LIF file, read one at a time; planes along x and z have z as their height.

    Raises:
        DataError: If the file holds no image.
    """
    with import_extra("liffile", "lif").LifFile(path) as file:
        images = [image for image in file.images if len(image.shape) >= 2 and not image.is_flim]
        lifetimes = [image.name for image in file.images if image.is_flim]
        notes = (f"photon counts by lifetime (FLIM) were left out: {', '.join(lifetimes)}",) if lifetimes else ()
        if not images:
            raise DataError("holds no image.")
        for number, image in enumerate(images):
            check_size(int(np.prod(image.shape, dtype=np.int64)) * image.dtype.itemsize, path.stat().st_size)
            axes = "".join(image.dims).lower()
            spatial = [axis for axis in axes if axis not in "cs"][-2:]
            lengths = [_lif_step_um(image, axis) for axis in spatial]
            sides = None if lengths[0] is None or lengths[1] is None else (lengths[0], lengths[1])
            distance = _lif_step_um(image, "z") if "z" not in spatial else None
            # An xz scan has no y; its y then is what the planes are stacked along.
            renamed = {spatial[0]: "y", spatial[1]: "x"} | ({"y": "v"} if "y" in axes and "y" not in spatial else {})
            prefix = plane_name("p", [len(images)], [number])
            for plane, samples in _lif_planes(image, {axis: renamed.get(axis, axis) for axis in axes}):
                yield Picture(
                    samples, default_channels(len(samples)), sides, prefix + plane, notes, plane_distance_um=distance
                )


def _lif_planes(image: Any, names: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels of each plane of an image; ``names`` are ours for its axes, in their order."""
    stacked = [axis for axis, name in names.items() if name not in "csyx"]
    sizes = [image.sizes[axis.upper()] for axis in stacked]
    for index in np.ndindex(*sizes):
        frames = image.frames(**{axis.upper(): place for axis, place in zip(stacked, index, strict=True)})
        axes = "".join(names[axis.lower()] for axis in frames.dims)
        yield plane_name([names[axis] for axis in stacked], sizes, index), _plane(frames.asarray(), axes)


def _lif_step_um(image: Any, axis: str) -> float | None:
    """The distance of two neighbours along an axis, from the positions of all, in metres."""
    positions = np.asarray(image.coords.get(axis.upper(), ()), np.float64)
    if len(positions) < 2:
        return None
    return length_um(abs(positions[-1] - positions[0]).item() / (len(positions) - 1), "m")


# --------------------------------------------------------------------------------------------------------------- both


def _plane(pixels: np.ndarray, axes: str) -> np.ndarray:
    """One plane as channels, y and x; samples (axis s) are channels.

    Raises:
        DataError: If there are both channels and samples.
    """
    if {"c", "s"} <= set(axes):
        one = "s" if pixels.shape[axes.index("s")] == 1 else "c"
        if pixels.shape[axes.index(one)] != 1:
            raise DataError("has colour in each of several channels; export the channels as single files.")
        pixels, axes = pixels.squeeze(axes.index(one)), axes.replace(one, "")
    return as_cyx(pixels, axes.replace("s", "c"))
