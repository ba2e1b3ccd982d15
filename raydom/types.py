"""Shared nouns: regions, blocks, image records and the statistics of a whole image.

Every value here is frozen and hashable, holds plain Python numbers, and imports nothing but numpy, so that the
driver, the workers and the files on disk speak of the same things.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PERCENTILE_LEVELS = tuple(sorted({*np.linspace(0.0, 100.0, 257).tolist(), 0.1, 99.9}))
"""Levels, in percent, of the intensity percentiles kept for each channel of each image. 0.1 and 99.9 are among them
because the scale of floating point images must not hang on a single outlier."""


Extra = tuple[tuple[str, str | float | bool | None], ...]
"""Further columns of an image, as (name, value) sorted by name."""

PLANE_DISTANCE = "plane_distance_um"
"""The further column that has the distance of the planes of volumes, where it is known."""


@dataclass(frozen=True, slots=True, order=True)
class Region:
    """A half-open box of pixels, one (start, stop) pair for each spatial axis, in (y, x) or (z, y, x) order."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Region:
        """The region that covers an image of the given spatial shape."""
        return cls((0,) * len(shape), tuple(int(size) for size in shape))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        return tuple(slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))

    @property
    def index(self) -> tuple[Any, ...]:
        """Into arrays whose last axes are those of the region."""
        return (..., *self.slices)

    def grown(self, margin: int) -> Region:
        """Grown by ``margin`` px on every side; the result may reach outside the image."""
        return Region(tuple(s - margin for s in self.start), tuple(s + margin for s in self.stop))

    def clipped(self, bounds: Region) -> Region:
        """The part of this region that lies inside ``bounds``; they must overlap."""
        return Region(
            tuple(max(a, b) for a, b in zip(self.start, bounds.start, strict=True)),
            tuple(min(a, b) for a, b in zip(self.stop, bounds.stop, strict=True)),
        )

    def joined(self, other: Region) -> Region:
        """The smallest region with all of both."""
        return Region(
            tuple(min(a, b) for a, b in zip(self.start, other.start, strict=True)),
            tuple(max(a, b) for a, b in zip(self.stop, other.stop, strict=True)),
        )

    def shifted(self, by: Sequence[int]) -> Region:
        """Moved by so many px along each axis."""
        return Region(
            tuple(s + n for s, n in zip(self.start, by, strict=True)),
            tuple(s + n for s, n in zip(self.stop, by, strict=True)),
        )

    def relative_to(self, origin: Region) -> Region:
        """The same pixels, counted from the first pixel of ``origin``."""
        return Region(
            tuple(a - b for a, b in zip(self.start, origin.start, strict=True)),
            tuple(a - b for a, b in zip(self.stop, origin.start, strict=True)),
        )


@dataclass(frozen=True, slots=True)
class Block:
    """The unit of work, of retry and of resume: one write region of one image.

    ``write`` is in pixels of the output (the image's level 0) and covers whole output shards, so that no two blocks
    share one. What must be read for it follows from the recipe (halo, stride, scale) and is worked out where it is
    needed.
    """

    image_id: str
    write: Region

    @property
    def block_id(self) -> str:
        """Stable across runs and cluster sizes: the image and the first pixel written."""
        return f"{self.image_id}@{'-'.join(str(start) for start in self.write.start)}"


@dataclass(frozen=True, slots=True)
class ImageStatistics:
    """Intensity statistics of a whole image, one entry a channel, in the units of the stored dtype."""

    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Population standard deviation."""
    percentiles: tuple[tuple[float, ...], ...]
    """For each channel, the percentiles at ``PERCENTILE_LEVELS``."""
    lab_mean: tuple[float, ...] | None = None
    """CIE Lab mean (L in 0..100) of a three-channel image taken as sRGB; else None."""
    lab_std: tuple[float, ...] | None = None

    def percentile(self, channel: int, level: float) -> float:
        """Percentile of one channel, interpolated linearly between the kept levels."""
        return float(np.interp(level, PERCENTILE_LEVELS, self.percentiles[channel]))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One row of a collection's manifest."""

    image_id: str
    uri: str
    """Where the OME-Zarr group is, or the row of a packed image: relative to the collection, or absolute for an image
    indexed in place."""
    axes: str
    """Order of the axes of the stored array: ``cyx``, or ``czyx`` of a volume."""
    shape: tuple[int, ...]
    dtype: str
    pixel_size_um: float | None
    channels: tuple[str, ...]
    domain: str | None
    split: str | None
    group: str | None
    """What a split must not cut: a patient, a plate, a video, a stack."""
    labels: tuple[str, ...]
    statistics: ImageStatistics
    source_file: str
    sha256: str
    """Hash of the content of the image (and its labels), so that a change is noticed."""
    label_kinds: tuple[str, ...] = ()
    """For each of ``labels``: ``binary`` (0 and 1), ``instance`` (a number for each object; 0: none) or ``semantic`` (a
    number for each class). Files do not tell numbers of classes from those of objects: ingested ones are instances."""
    extra: Extra = ()
    """Columns that users added to the manifest, such as the cell type; of a volume also its ``PLANE_DISTANCE``."""

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Height and width, px; of a volume (planes, height, width)."""
        return tuple(n for axis, n in zip(self.axes, self.shape, strict=True) if axis in "zyx")

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Height and width of a plane, px: what blocks and regions are cut from, of a volume too."""
        height, width = self.spatial_shape[-2:]
        return height, width

    @property
    def is_volume(self) -> bool:
        """Whether the image has a z axis; its blocks and regions are squares in y and x through all planes."""
        return "z" in self.axes

    @property
    def num_planes(self) -> int:
        """Planes of a volume; 1 of other images."""
        return self.shape[self.axes.index("z")] if self.is_volume else 1

    @property
    def plane_distance_um(self) -> float | None:
        """Distance of two neighbouring planes of a volume, µm; None if it is not known, or there is only one plane."""
        distance = dict(self.extra).get(PLANE_DISTANCE)
        return float(distance) if self.is_volume and isinstance(distance, int | float) else None

    @property
    def num_channels(self) -> int:
        return self.shape[self.axes.index("c")] if "c" in self.axes else 1
