"""CZI (Zeiss) and LIF (Leica) files, by readers that are extras of this package."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from raydom.errors import DataError
from raydom.storage.pictures import Picture, ReadOptions, as_cyx, check_size, default_channels, plane_name


def import_extra(module: str, extra: str) -> Any:
    """A library that is an extra of this package.

    Raises:
        DataError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"a {extra} file needs the extra {extra} of raydom (pip install {module}), or export TIFF."
        ) from error


# ------------------------------------------------------------------------------------------------------- CZI (czifile)


def read_czi(path: Path, options: ReadOptions) -> Iterator[Picture]:
    """The planes of a CZI file at full resolution, the tiles of a mosaic put together.

    Raises:
        DataError: If planes are missing, or the file holds several scenes.
    """
    czifile = import_extra("czifile", "czi")
    _check_segments(path)
    with czifile.CziFile(str(path)) as file:
        axes, shape = str(file.axes), tuple(file.shape)
        entries = file.filtered_subblock_directory
        check_size(int(np.prod(shape, dtype=np.int64)) * file.dtype.itemsize, path.stat().st_size)
        _check_planes(file, axes, shape, entries)
        pixels = np.zeros(shape, file.dtype)
        for entry in entries:  # what CziFile.asarray does, but it leaves out tiles that do not fit, with a warning
            tile = entry.data_segment().data()
            corner = [start - first for start, first in zip(entry.start, file.start, strict=True)]
            place = tuple(slice(start, start + size) for start, size in zip(corner, tile.shape, strict=True))
            if pixels[place].shape != tile.shape:
                raise DataError(f"corrupt: a tile of shape {tile.shape} at {corner} does not fit into {shape}.")
            pixels[place] = tile
        metadata = ElementTree.fromstring(file.metadata())
        sides = _czi_pixel_sides(metadata)
        names = tuple(entry.get("Name", "") for entry in metadata.findall(".//Image/Dimensions/Channels/Channel"))
        for plane, samples in _planes(pixels, axes.replace("0", "s").lower()):
            known = all(names) and len(names) == len(samples) == len(set(names))
            yield Picture(samples, names if known else default_channels(len(samples)), sides, plane)


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


def _check_planes(file: Any, axes: str, shape: tuple[int, ...], entries: Any) -> None:
    """Refuse files that lack planes, which the reader would fill with zeros."""
    if "Y" not in axes or "X" not in axes or file.dtype.kind not in "uf":
        raise DataError(f"axes {axes} of shape {shape} and dtype {file.dtype} are no image.")
    if "S" in axes and shape[axes.index("S")] > 1:
        raise DataError(f"holds {shape[axes.index('S')]} scenes; export each as a file.")
    over = [axis for axis in axes if axis not in "YX0M"]
    found = {tuple(entry.start[entry.axes.index(axis)] for axis in over) for entry in entries}
    expected = int(np.prod([shape[axes.index(axis)] for axis in over]))
    if len(found) != expected:
        raise DataError(f"{expected - len(found)} of {expected} planes are missing.")


def _czi_pixel_sides(metadata: ElementTree.Element) -> tuple[float, float] | None:
    """CZI states lengths in metres."""
    sides = [metadata.findtext(f".//Scaling/Items/Distance[@Id='{axis}']/Value") for axis in "YX"]
    lengths = [1e6 * float(side) for side in sides if side]
    return (lengths[0], lengths[1]) if len(lengths) == 2 and min(lengths) > 0 else None


# ------------------------------------------------------------------------------------------------------- LIF (liffile)


def read_lif(path: Path, options: ReadOptions) -> Iterator[Picture]:
    """The planes of each image of a LIF file; planes along x and z have z as their height.

    Raises:
        DataError: If the file holds no image.
    """
    with import_extra("liffile", "lif").LifFile(path) as file:
        images = [image for image in file.images if len(image.shape) >= 2]
        if not images:
            raise DataError("holds no image.")
        for number, image in enumerate(images):
            check_size(int(np.prod(image.shape, dtype=np.int64)) * image.dtype.itemsize, path.stat().st_size)
            axes = "".join(image.dims).lower()
            spatial = [axis for axis in axes if axis not in "cs"][-2:]
            sides = _lif_pixel_sides(image, spatial)
            # An xz scan has no y; its y then is what the planes are stacked along.
            renamed = {spatial[0]: "y", spatial[1]: "x"} | ({"y": "v"} if "y" in axes and "y" not in spatial else {})
            prefix = plane_name("p", [len(images)], [number])
            for plane, samples in _planes(image.asarray(), "".join(renamed.get(axis, axis) for axis in axes)):
                yield Picture(samples, default_channels(len(samples)), sides, prefix + plane)


def _lif_pixel_sides(image: Any, spatial: list[str]) -> tuple[float, float] | None:
    """From the positions of the pixels, in metres."""
    sides = []
    for axis in spatial:
        positions = np.asarray(image.coords.get(axis.upper(), ()), np.float64)
        if len(positions) < 2:
            return None
        sides.append(1e6 * abs(positions[-1] - positions[0]) / (len(positions) - 1))
    return (float(sides[0]), float(sides[1])) if min(sides) > 0 else None


# --------------------------------------------------------------------------------------------------------------- both


def _planes(pixels: np.ndarray, axes: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels of each plane; samples (axis s) are channels.

    Raises:
        DataError: If there are both channels and samples.
    """
    if {"c", "s"} <= set(axes):
        one = "s" if pixels.shape[axes.index("s")] == 1 else "c"
        if pixels.shape[axes.index(one)] != 1:
            raise DataError("has colour in each of several channels; export the channels as single files.")
        pixels, axes = pixels.squeeze(axes.index(one)), axes.replace(one, "")
    axes = axes.replace("s", "c")
    stacked = [axis for axis in axes if axis not in "cyx"]
    sizes = [pixels.shape[axes.index(axis)] for axis in stacked]
    within = "".join(axis for axis in axes if axis in "cyx")
    for index in np.ndindex(*sizes):
        place = dict(zip(stacked, index, strict=True))
        plane = pixels[tuple(place.get(axis, slice(None)) for axis in axes)]
        yield plane_name(stacked, sizes, index), as_cyx(plane, within)
