"""Writing of an image or volume that is at hand, with its labels, as the manifest describes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raydom.storage.pictures import Pixels
from raydom.storage.pyramids import write_levels
from raydom.storage.zarr_images import create_image, create_labels
from raydom.types import ImageRecord, ImageStatistics

SHARD_PX = 1024
SMALLEST_SHARD_PX = 64
SHARD_BYTES = 32 << 20
"""Shards of volumes are smaller where they would hold more: a row of 8 is in memory at once."""


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
        pixels: Of the axes, shape and dtype of the record.
        labels: By name, axes ``yx``; of a volume ``zyx``.
        properties: By the name of a label, what is known of its objects.
    """
    levels = create_image(
        uri,
        name=record.image_id,
        axes=record.axes,
        shape=record.shape,
        dtype=record.dtype,
        pixel_size_um=record.pixel_size_um,
        plane_distance_um=record.plane_distance_um,
        channels=record.channels,
        windows=_windows(record.statistics, np.dtype(pixels.dtype)),
        shard_px=_shard_px(record, pixels),
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
            plane_distance_um=record.plane_distance_um,
            shard_px=_shard_px(record, layer),
            properties=(properties or {}).get(name, ()),
        )
        write_levels(levels, layer, method="nearest")


def _shard_px(record: ImageRecord, pixels: Pixels) -> int:
    """Side of the shards of an image or label."""
    side, column_bytes = SHARD_PX, math.prod(pixels.shape[:-2]) * pixels.dtype.itemsize
    while record.is_volume and side > SMALLEST_SHARD_PX and side**2 * column_bytes > SHARD_BYTES:
        side //= 2
    return side


def _windows(statistics: ImageStatistics, dtype: np.dtype) -> list[tuple[float, float]] | None:
    """What viewers show as black and white: all of 8 bits; of other dtypes what all but 0.1 % of the pixels use."""
    if dtype.itemsize == 1:
        return None
    channels = range(len(statistics.mean))
    return [(statistics.percentile(channel, 0.1), statistics.percentile(channel, 99.9)) for channel in channels]
