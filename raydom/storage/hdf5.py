"""Arrays of HDF5 files as pictures, a plane at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from raydom.errors import ConfigError, DataError
from raydom.storage.pictures import (
    LazyPixels,
    Picture,
    ReadOptions,
    as_cyx,
    check_size,
    default_channels,
    is_large,
    plane_name,
)

DATASETS_SHOWN = 12
MOST_CHANNELS = 4
"""A last axis that is not longer holds channels: planes of so few columns are no images."""
CHUNK_CACHE_BYTES = 64 << 20
"""So that a chunk several planes thick is decompressed once, not once a plane."""


def read_hdf5(path: Path, options: ReadOptions) -> Iterator[Picture]:
    """The planes of one dataset: of ``options.part``, or of the only one that can be an image.

    Axes are those of ``options``, else those of the dataset (axis tags of vigra and ilastik, or dimension labels),
    else ``yx``, ``yxc`` if the last axis has at most four entries, or ``zyx``. The pixel size is that of the
    attribute ``element_size_um``, as ilastik and the HDF5 plug-in of Fiji write it, and with it the distance of planes.

    Raises:
        ConfigError: If it is not clear which dataset or which axes are meant.
        DataError: If the dataset is no image, or is not wholly in this file.
    """
    import h5py

    with h5py.File(path, "r", locking="best-effort", rdcc_nbytes=CHUNK_CACHE_BYTES) as file:
        dataset = _choose(file, options.part)
        notes = _check_stored(dataset, path)
        axes = _axes_of(dataset, options)
        if options.axes is None and len(axes) == 3 and axes[0] == "z" and dataset.shape[0] <= MOST_CHANNELS:
            notes = (*notes, "a 3-D dataset with few planes was read as planes; for channels give --axes cyx")
        stacked = [axis for axis in axes if axis not in "cyx"]
        sizes = [dataset.shape[axes.index(axis)] for axis in stacked]
        sides, distance = _pixel_sides(dataset)
        for index in np.ndindex(*sizes):
            place = dict(zip(stacked, index, strict=True))

            def read(rows: slice, columns: slice, place: dict[str, Any] = place) -> np.ndarray:
                at = place | {"y": rows, "x": columns}
                plane = dataset[tuple(at.get(axis, slice(None)) for axis in axes)]
                return as_cyx(np.asarray(plane), "".join(axis for axis in axes if axis in "cyx"))

            height, width = (dataset.shape[axes.index(axis)] for axis in "yx")
            pixels: Any = read(slice(0, 1), slice(0, width))
            shape = (len(pixels), height, width)
            if is_large(shape, pixels.dtype):
                pixels = LazyPixels(shape, pixels.dtype, read)
            else:
                pixels = read(slice(0, height), slice(0, width))
            channels = default_channels(pixels.shape[0])
            plane = plane_name(stacked, sizes, index)
            yield Picture(pixels, channels, sides, plane, notes, plane_distance_um=distance if "z" in axes else None)


def _choose(file: Any, part: str | None) -> Any:
    """The dataset called ``part``, or the only one that can be an image."""
    import h5py

    found: list[Any] = []
    file.visititems(lambda name, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    if part is not None:
        named = file.get(part)
        if isinstance(named, h5py.Dataset):
            if not _can_be_image(named):
                raise DataError(f"dataset {part} of shape {named.shape} and dtype {named.dtype} is no image.")
            return named
        raise ConfigError(f"there is no dataset {part}; {_listed(found)}")
    images = [dataset for dataset in found if _can_be_image(dataset)]
    if len(images) != 1:
        raise ConfigError(f"{len(images)} datasets can be an image; name one by FILE:/DATASET. {_listed(found)}")
    return images[0]


def _can_be_image(dataset: Any) -> bool:
    shape = dataset.shape or ()
    return dataset.dtype.kind in "buif" and sum(size > 1 for size in shape) >= 2 and min(shape) >= 1


def _listed(datasets: list[Any]) -> str:
    shown = [
        f"{one.name} ({'x'.join(map(str, one.shape or ())) or 'scalar'} {one.dtype})"
        for one in datasets[:DATASETS_SHOWN]
    ]
    more = f" and {len(datasets) - DATASETS_SHOWN} more" if len(datasets) > DATASETS_SHOWN else ""
    return f"the file has {', '.join(shown) or 'none'}{more}."


def _check_stored(dataset: Any, path: Path) -> tuple[str, ...]:
    """Refuse what HDF5 would fill in silently; tell what it fills in rightly."""
    if Path(dataset.file.filename) != path or dataset.is_virtual or dataset.external:
        raise DataError(f"the pixels of {dataset.name} lie in other files; copy them into one file (h5repack).")
    check_size(dataset.size * dataset.dtype.itemsize, path.stat().st_size)
    if dataset.chunks is None:
        if not dataset.id.get_storage_size():
            raise DataError(f"{dataset.name} was never written: it has no data.")
        return ()
    expected = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    missing = expected - dataset.id.get_num_chunks()
    if missing == expected:
        raise DataError(f"{dataset.name} was never written: it has no data.")
    return (f"{missing} of {expected} chunks were never written and hold {dataset.fillvalue}",) if missing else ()


def _axes_of(dataset: Any, options: ReadOptions) -> str:
    axes, number = options.axes, len(dataset.shape)
    if axes is not None and options.as_labels and "c" in axes and len(axes) == number + 1:
        axes = axes.replace("c", "")  # labels of an image with channels
    axes = axes or _stated_axes(dataset)
    if axes is None:
        if number > 3:
            raise ConfigError(
                f"the {number} axes of {dataset.name}, shape {dataset.shape}, are not named; give --axes, such as "
                f"{'tzcyx'[-number:]}."
            )
        thin = number == 3 and dataset.shape[-1] <= MOST_CHANNELS < min(dataset.shape[:2])
        axes = "yxc" if thin else "zyx"[-number:]
    if len(axes) != number:
        raise ConfigError(f"--axes {axes} are {len(axes)}, but {dataset.name} has shape {dataset.shape}.")
    return axes


def _stated_axes(dataset: Any) -> str | None:
    """What vigra's axis tags or the dimension labels say; None if they do not, or not of all axes."""
    try:
        axes = "".join(axis["key"] for axis in json.loads(dataset.attrs["axistags"])["axes"])
    except (KeyError, ValueError, TypeError):
        axes = "".join(dimension.label or "?" for dimension in dataset.dims)
    axes = axes.lower()
    known = set(axes) <= set("tzcyx") and {"y", "x"} <= set(axes) and len(set(axes)) == len(axes)
    return axes if known and len(axes) == len(dataset.shape) else None


def _pixel_sides(dataset: Any) -> tuple[tuple[float, float] | None, float | None]:
    """Height and width of a pixel, and the distance of planes."""
    sides = np.ravel(dataset.attrs.get("element_size_um", ()))
    if sides.dtype.kind not in "uif" or len(sides) < 2 or not (np.isfinite(sides).all() and (sides > 0).all()):
        return None, None
    return (float(sides[-2]), float(sides[-1])), float(sides[-3]) if len(sides) > 2 else None
