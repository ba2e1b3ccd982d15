"""Volumes of files that give planes: the planes along z of one stack, put together as one picture."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import IO

import numpy as np

from raydom.errors import DataError
from raydom.storage.pictures import PIECE_ROWS, LazyPixels, Picture, is_large
from raydom.storage.pyramids import bands

PLANE_OF_Z = re.compile(r"(.*)_z\d{3,}(.*)")
"""The suffix of a plane of a z stack, as ``pictures.plane_name`` makes it."""


def joined_planes(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """The pictures of a file, those that differ in z alone as one of axes ``czyx``; others as they are.

    Planes are read once each, and lie in a temporary file (in ``TMPDIR``) until the volume is used, so that no more
    than one of them is in memory.

    Raises:
        DataError: If the planes of a stack differ in size or dtype.
    """
    stacks: dict[tuple[int | None, str], _Stack] = {}
    try:
        for picture in pictures:
            found = PLANE_OF_Z.fullmatch(picture.plane)
            if found is None:
                yield picture
                continue
            name, is_innermost = found[1] + found[2], not found[2]
            key = (None if picture.row is None else picture.row.number, name)
            if is_innermost and key not in stacks:  # the stacks before it are complete
                yield from _volumes(stacks)
            if key not in stacks:
                stacks[key] = _Stack(replace(picture, plane=name))
            stacks[key].add(picture)
        yield from _volumes(stacks)
    finally:
        for stack in stacks.values():
            stack.close()


def _volumes(stacks: dict[tuple[int | None, str], _Stack]) -> Iterator[Picture]:
    """What the stacks make, which are forgotten."""
    for key in list(stacks):
        yield stacks[key].volume()
        stacks.pop(key).close()


class _Stack:
    """Planes of one stack, one after another in a file, each as rows of all channels (axes ``ycx``)."""

    def __init__(self, first: Picture) -> None:
        self._first = first
        self._notes: dict[str, None] = {}
        self._num_planes = 0
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="raydom-volume-")  # noqa: SIM115 - closed by close()

    def add(self, picture: Picture) -> None:
        known, pixels = self._first.pixels, picture.pixels
        if (pixels.shape, pixels.dtype) != (known.shape, known.dtype):
            raise DataError(
                f"plane {picture.plane} is {pixels.dtype} of shape {pixels.shape} (channels, height, width), the first "
                f"one of the volume {known.dtype} of {known.shape}. Read them as planes, or export them alike."
            )
        for band in bands(pixels, PIECE_ROWS):
            self._file.write(np.ascontiguousarray(band.swapaxes(0, 1)).data)
        self._notes |= dict.fromkeys(picture.notes)
        self._num_planes += 1

    def volume(self) -> Picture:
        channels, height, width = self._first.pixels.shape
        dtype = np.dtype(self._first.pixels.dtype)
        self._file.flush()
        stored = np.memmap(self._file, dtype, "r", shape=(self._num_planes, height, channels, width))
        planes = stored.transpose(2, 0, 1, 3)

        def read(rows: slice, columns: slice) -> np.ndarray:
            return np.array(planes[..., rows, columns])

        pixels: np.ndarray | LazyPixels
        if is_large(planes.shape, dtype):
            pixels = LazyPixels(planes.shape, dtype, read)
        else:
            pixels = read(slice(0, height), slice(0, width))
        return replace(self._first, pixels=pixels, notes=tuple(self._notes))

    def close(self) -> None:
        """What ``volume`` gave can be read nonetheless."""
        self._file.close()
