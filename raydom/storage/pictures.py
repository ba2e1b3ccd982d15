"""What every reader gives: single planes (or volumes) of channels, y and x, with what the file says of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from raydom.errors import DataError
from raydom.types import Extra

LARGEST_RATIO = 1100
"""Decoded over stored bytes beyond which a large file is taken for a decompression bomb; deflate reaches 1032."""
LARGE_BYTES = 1 << 30
LAZY_BYTES = 256 << 20
"""Planes that are larger when decoded are read piece by piece, where their format allows it."""
PIECE_ROWS = 256
"""Rows of such a plane that are looked at in one go."""
FEWEST_ROWS = 8
"""The same of a volume, however many planes it has."""

MICROMETRES = {
    "pm": 1e-6, "angstrom": 1e-4, "å": 1e-4, "nm": 1e-3, "nanometer": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0,
    "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "\\u00b5m": 1.0, "mm": 1e3, "millimeter": 1e3, "cm": 1e4,
    "m": 1e6, "inch": 25_400.0,
}  # fmt: skip
"""Length of the units that files name, in micrometres."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What a reader is told that the file may not say."""

    pages: str = "planes"
    """What TIFF pages are that do not say so: ``planes`` or ``channels``."""
    as_labels: bool = False
    """Read the numbers that stand for objects: the index where a palette has colours."""
    axes: str | None = None
    """A letter an axis of an array, such as ``zyx``; None takes what the file says or leaves no doubt about."""
    fps: float | None = None
    """How many frames of a second of a video; None takes every frame."""
    part: str | None = None
    """Which array of a file that holds several, such as ``/volumes/raw``."""


@runtime_checkable
class Pixels(Protocol):
    """What pixels are read from by ``[..., rows, columns]``: arrays in memory, of Zarr, or of a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, index: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class LazyPixels:
    """Pixels of a large plane or volume (``cyx`` or ``czyx``; labels without ``c``), read from its file when asked for,
    while that is open."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[slice, slice], np.ndarray]
    """Gives all channels and planes of some rows and columns."""

    def __getitem__(self, index: tuple[Any, slice, slice]) -> np.ndarray:
        channels, rows, columns = index
        return self.read(rows, columns)[channels]

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self.read(slice(0, self.shape[-2]), slice(0, self.shape[-1])).astype(dtype or self.dtype, copy=False)


def piece_rows(num_planes: int) -> int:
    """Rows that are looked at in one go, of an image of so many planes."""
    return PIECE_ROWS if num_planes == 1 else max(FEWEST_ROWS, PIECE_ROWS // num_planes)


def is_large(shape: Sequence[int], dtype: np.dtype) -> bool:
    """Whether pixels are to be read piece by piece."""
    return math.prod(shape) * dtype.itemsize > LAZY_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a table, whose image is one of its own."""

    number: int
    name: str | None
    """What no other row of the file is called; None if its rows have only numbers."""
    group: str | None
    extra: Extra
    """What else the row says of the image."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One plane of an image file, or one volume."""

    pixels: np.ndarray | LazyPixels
    """Axes ``cyx``, or ``czyx`` of a volume; gray has one channel. Large planes of TIFF and HDF5 files are not read
    before they are used."""
    channels: tuple[str, ...]
    """Names of the channels."""
    pixel_sides_um: tuple[float, float] | None
    """Height and width of a pixel; None if the file does not state them."""
    plane: str = ""
    """Which plane of a stack, such as ``_z003``; empty if the file has only one."""
    notes: tuple[str, ...] = ()
    """What was left out or taken otherwise than a reader might think."""
    row: Row | None = None
    """Of a file that is a table, whose pictures are no stack."""
    plane_distance_um: float | None = None
    """Distance of the planes of a z stack; None if the file does not state it."""

    @property
    def pixel_size_um(self) -> float | None:
        """Side of a pixel, µm; None if the file does not state it.

        Raises:
            DataError: If pixels are not square.
        """
        return square_pixel(self.pixel_sides_um)


def default_channels(number: int) -> tuple[str, ...]:
    """Names of channels that have none: gray, or red, green and blue, or numbers."""
    named = {1: ("gray",), 3: ("red", "green", "blue")}
    return named.get(number, tuple(f"channel_{channel}" for channel in range(number)))


def plane_name(axes: Sequence[str], sizes: Sequence[int], index: Sequence[int]) -> str:
    """The suffix that tells a plane of a stack; unnamed axes count as z. Axes of one plane are not told."""
    letters = {"I": "z", "Q": "z"}
    return "".join(
        f"_{letters.get(axis, axis.lower())}{number:03d}"
        for axis, size, number in zip(axes, sizes, index, strict=True)
        if size > 1
    )


def as_cyx(plane: np.ndarray, axes: str) -> np.ndarray:
    """A plane with axes y, x and perhaps c, in any order, as contiguous ``cyx`` in the machine's byte order."""
    ordered = plane.transpose([axes.index(axis) for axis in "cyx" if axis in axes])
    pixels = ordered.reshape((-1, *ordered.shape[-2:]))
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * 255
    return np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))


def array_planes(pixels: np.ndarray, axes: str) -> Iterator[Picture]:
    """The planes of an array with axes y, x and perhaps c, and others that are stacked.

    Raises:
        DataError: If it is no image.
    """
    if pixels.dtype.kind not in "buif" or not pixels.size:
        raise DataError(f"an array of shape {pixels.shape} and dtype {pixels.dtype} is no image.")
    stacked = [axis for axis in axes if axis not in "cyx"]
    sizes = [pixels.shape[axes.index(axis)] for axis in stacked]
    for index in np.ndindex(*sizes):
        place = dict(zip(stacked, index, strict=True))
        plane = pixels[tuple(place.get(axis, slice(None)) for axis in axes)]
        samples = as_cyx(plane, "".join(axis for axis in axes if axis in "cyx"))
        yield Picture(samples, default_channels(len(samples)), None, plane_name(stacked, sizes, index))


def lengths_um(values: Sequence[float], units: Sequence[str]) -> tuple[float, float] | None:
    """Height and width in micrometres, if both are known."""
    height, width = (length_um(value, unit) for value, unit in zip(values, units, strict=True))
    return None if height is None or width is None else (height, width)


def length_um(value: float, unit: str) -> float | None:
    """A length in micrometres, if it is known."""
    factor = MICROMETRES.get(unit.lower())
    return value * factor if factor is not None and np.isfinite(value) and value > 0 else None


def square_pixel(sides_um: tuple[float, float] | None) -> float | None:
    """The side of a pixel, if its height and width agree within 1 %.

    Raises:
        DataError: If they do not.
    """
    if sides_um is None:
        return None
    height, width = sides_um
    if abs(height - width) > 0.01 * max(height, width):
        raise DataError(
            f"pixels are not square ({height:g} x {width:g} um): resample the image first, or say by --pixel-size "
            "what to take."
        )
    return width


def check_size(num_bytes: int, stored_bytes: int) -> None:
    """Refuse headers that promise what no file of this size can hold.

    Raises:
        DataError: If so.
    """
    if num_bytes > LARGE_BYTES and num_bytes > LARGEST_RATIO * stored_bytes:
        raise DataError(
            f"claims {num_bytes / 2**30:.1f} GiB of pixels in {stored_bytes} bytes: corrupt, or a decompression bomb."
        )
