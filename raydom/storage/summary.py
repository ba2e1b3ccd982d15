"""What a collection holds, in a few plain facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from raydom.storage.collection import Collection

KINDS = ("binary", "instance", "semantic")


def describe(collection: Collection) -> dict[str, Any]:
    """Facts about a collection, from its manifest alone, as JSON values.

    Returns:
        ``images``: their number; ``domains``, ``splits``, ``groups``, ``axes``, ``planes`` (more than 1: a volume),
        ``dtypes``, ``channels``, ``pixel_sizes_um`` and ``labels``: the number of images for each value (``"none"``
        where it is not set); ``columns``: for each column that was added, the number of images with a value;
        ``label_kinds``: for each label, binary, instance or semantic; ``height_px`` and ``width_px``: smallest and
        largest;
        ``total_bytes``: of level 0, uncompressed; ``stored_in_place``: images that are only indexed.
    """
    records = collection.records
    heights, widths = ([record.spatial_shape[axis] for record in records] for axis in (-2, -1))
    kinds: dict[str, set[str]] = {}
    for record in records:
        for name, kind in zip(record.labels, record.label_kinds, strict=False):
            kinds.setdefault(name, set()).add(kind)
    return {
        "uri": collection.uri,
        "images": len(records),
        "domains": _counts(record.domain for record in records),
        "splits": _counts(record.split for record in records),
        "groups": _counts(record.group for record in records),
        "axes": _counts(record.axes for record in records),
        "planes": _counts(str(record.num_planes) for record in records),
        "dtypes": _counts(record.dtype for record in records),
        "channels": _counts(", ".join(record.channels) for record in records),
        "pixel_sizes_um": _counts(
            None if record.pixel_size_um is None else f"{record.pixel_size_um:.4g}" for record in records
        ),
        "columns": _counts(name for record in records for name, value in record.extra if value is not None),
        "labels": _counts(name for record in records for name in record.labels),
        # An instance label with at most one object in an image looks binary there.
        "label_kinds": {name: max(found, key=KINDS.index) for name, found in sorted(kinds.items())},
        "height_px": [min(heights), max(heights)] if records else [],
        "width_px": [min(widths), max(widths)] if records else [],
        "total_bytes": sum(int(np.prod(record.shape)) * np.dtype(record.dtype).itemsize for record in records),
        "stored_in_place": sum(record.uri.startswith("/") or "://" in record.uri for record in records),
    }


def _counts(values: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter("none" if value is None else value for value in values).items()))
