"""Writing of an image that is at hand, with its labels, as the manifest describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raydom.storage.pictures import Pixels
from raydom.storage.pyramids import write_levels
from raydom.storage.zarr_images import create_image, create_labels
from raydom.types import ImageRecord, ImageStatistics


def write_image(
    uri: str,
    record: ImageRecord,
    pixels: Pixels,
    labels: Mapping[str, Pixels],
    properties: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """Write an image with all its levels; what was there is replaced.

    Args:
        uri: The new OME-Zarr group.
        record: Its row in the manifest.
        pixels: Axes ``cyx``, of the shape and dtype of the record.
        labels: By name, axes ``yx``.
        properties: By the name of a label, what is known of its objects.
    """
    levels = create_image(
        uri,
        name=record.image_id,
        axes="cyx",
        shape=record.shape,
        dtype=record.dtype,
        pixel_size_um=record.pixel_size_um,
        channels=record.channels,
        windows=_windows(record.statistics, np.dtype(pixels.dtype)),
        overwrite=True,
    )
    write_levels(levels, pixels)
    for name, layer in labels.items():
        levels = create_labels(
            uri,
            name,
            shape=layer.shape,
            dtype=layer.dtype,
            pixel_size_um=record.pixel_size_um,
            properties=(properties or {}).get(name, ()),
        )
        write_levels(levels, layer, method="nearest")


def _windows(statistics: ImageStatistics, dtype: np.dtype) -> list[tuple[float, float]] | None:
    """What viewers show as black and white: all of 8 bits; of other dtypes what all but 0.1 % of the pixels use."""
    if dtype.itemsize == 1:
        return None
    channels = range(len(statistics.mean))
    return [(statistics.percentile(channel, 0.1), statistics.percentile(channel, 99.9)) for channel in channels]
