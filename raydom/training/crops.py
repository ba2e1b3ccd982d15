"""Training images as the network sees them: normalised regions with their labels, and random crops of them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from raydom.algorithms.phases import Batch
from raydom.config import ModelSpec, TrainConfig
from raydom.errors import DataError
from raydom.images.augment import EMPTY_SHARE, augment, without_objects
from raydom.images.intensity import to_fraction
from raydom.images.resample import grid_size, resample, source_region
from raydom.images.targets import MARGIN_PX, instance_targets
from raydom.training.seeds import CROP, EMPTY, ORDER, RESTYLE, derived_generator
from raydom.types import ImageRecord, Region

MEMORY_BYTES = 2 * 1024**3
"""Images are kept in memory by each worker if together they need no more than this."""


@runtime_checkable
class ImageSource(Protocol):
    """A collection, or whatever else gives its images by their id."""

    def __getitem__(self, image_id: str) -> Any: ...


class Sample(NamedTuple):
    """A region of an image, or a crop."""

    image: np.ndarray
    """(C, h, w) float32, about 0 to 1."""
    label: np.ndarray
    """(h, w) int64: the class of each pixel, or for instances the number of its object."""
    valid: np.ndarray
    """(h, w) bool."""
    targets: np.ndarray | None
    """(2, h, w) float32: what outputs boundary and distance learn; None for the others."""


SAME_SIZE = 0.01
"""Pixel sizes that differ by no more than this share count as equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CropView:
    """How a network sees images, and what it learns of them."""

    low: float
    high: float
    """Intensities, as fractions of the legal range, that it sees as 0 and 1."""
    pixel_size_um: float | None
    """Images of another pixel size are resampled to this one; None: all are taken as they are."""
    label: str | None
    """Name of the labels; None: there are none."""
    output: str = "classes"
    num_classes: int = 2

    @classmethod
    def of(cls, spec: ModelSpec, *, labelled: bool = True) -> CropView:
        """That of a segmentation model."""
        return cls(
            low=spec.low,
            high=spec.high,
            pixel_size_um=spec.pixel_size_um,
            label=spec.label if labelled else None,
            output=spec.network.output,
            num_classes=spec.num_classes,
        )


class CropReader:
    """Reads normalised images with their labels, on the view's pixel grid; keeps them in memory while they all fit.

    Args:
        collection: Where the images are.
        image_ids: The images that may be asked for.
        view: How they are seen.
        mask: Label layer whose zero pixels are not valid; None: all pixels are.
        memory_bytes: Above this the images are read from storage, region by region.
    """

    def __init__(
        self,
        collection: ImageSource,
        image_ids: Sequence[str],
        view: CropView,
        mask: str | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.records: dict[str, ImageRecord] = {image_id: collection[image_id].record for image_id in image_ids}
        self._collection, self._view, self._mask = collection, view, mask
        self._with_targets = view.label is not None and view.output in ("boundary", "distance")
        needed = sum(self._memory_bytes(image_id) for image_id in self.records)
        self._keep = needed <= memory_bytes
        self._kept: dict[str, _Layers] = {}
        self._lock = threading.Lock()

    def shape(self, image_id: str) -> tuple[int, int]:
        """Height and width of an image as it is seen, px."""
        record = self.records[image_id]
        height, width = flat_shape(record)
        wanted, own = self._view.pixel_size_um, record.pixel_size_um
        if wanted is None or own is None or abs(own / wanted - 1) <= SAME_SIZE:
            return height, width
        return grid_size(height, own / wanted), grid_size(width, own / wanted)

    def read(self, image_id: str, region: Region) -> Sample:
        """A region of an image.

        Targets are those of the whole image, but where objects reach more than ``MARGIN_PX`` beyond the region of an
        image that is not kept in memory.

        Raises:
            DataError: For a class that the model does not have.
        """
        view, record = self._view, self.records[image_id]
        layers = self._layers(image_id, region)
        fractions = layers.pixels if self._is_resampled(image_id) else to_fraction(layers.pixels, record.statistics)
        image = (fractions - np.float32(view.low)) / np.float32(view.high - view.low)
        label = np.zeros(image.shape[1:], np.int64) if layers.label is None else layers.label.astype(np.int64)
        if view.output == "classes" and view.num_classes == 2:
            label = (label > 0).astype(np.int64)
        elif view.output == "classes" and label.size and not 0 <= label.min() <= label.max() < view.num_classes:
            raise DataError(
                f"image {image_id}: label {view.label!r} holds the classes {label.min()} to {label.max()}, but the "
                f"model has classes 0 to {view.num_classes - 1}. Raise --num-classes, or correct the label."
            )
        valid = np.ones(label.shape, bool) if layers.mask is None else layers.mask > 0
        return Sample(image, label, valid, layers.targets)

    def _is_resampled(self, image_id: str) -> bool:
        return self.shape(image_id) != flat_shape(self.records[image_id])

    def _layers(self, image_id: str, region: Region) -> _Layers:
        whole = Region.whole(self.shape(image_id))
        if not self._keep:
            seen = region.grown(MARGIN_PX if self._with_targets else 0).clipped(whole)
            return self._load(image_id, seen).cut(region.relative_to(seen))
        with self._lock:
            if image_id not in self._kept:
                self._kept[image_id] = self._load(image_id, whole)
        return self._kept[image_id].cut(region)

    def _load(self, image_id: str, region: Region) -> _Layers:
        image, record = self._collection[image_id], self.records[image_id]
        shape, grid = flat_shape(record), self.shape(image_id)
        source = source_region(region, shape, grid)
        pixels = image.numpy(source)
        if shape != grid:
            pixels = resample(to_fraction(pixels, record.statistics), source, region, shape, grid)
        rows, columns = (
            # The pixel of the image under the centre of each pixel of the grid; labels are not interpolated.
            (np.arange(start, stop) * 2 + 1) * size // (2 * new) - first
            for start, stop, size, new, first in zip(region.start, region.stop, shape, grid, source.start, strict=True)
        )

        def layer(name: str | None) -> np.ndarray | None:
            if name is None:
                return None
            values: np.ndarray = image.labels(name).numpy(source)
            return values if shape == grid else values[np.ix_(rows, columns)]

        label = layer(self._view.label)
        targets = instance_targets(label, self._view.output) if self._with_targets and label is not None else None
        return _Layers(pixels, label, layer(self._mask), targets)

    def _memory_bytes(self, image_id: str) -> int:
        record = self.records[image_id]
        itemsize = 4 if self._is_resampled(image_id) else np.dtype(record.dtype).itemsize
        return math.prod(self.shape(image_id)) * (
            record.num_channels * itemsize + 4 + 1 + (8 if self._with_targets else 0)
        )


@dataclass(frozen=True)
class _Layers:
    pixels: np.ndarray
    """Of the image's dtype; fractions of its legal range where it is resampled."""
    label: np.ndarray | None
    mask: np.ndarray | None
    targets: np.ndarray | None

    def cut(self, region: Region) -> _Layers:
        y, x = region.slices
        return _Layers(
            self.pixels[:, y, x],
            None if self.label is None else self.label[y, x],
            None if self.mask is None else self.mask[y, x],
            None if self.targets is None else self.targets[:, y, x],
        )


Restyle = Callable[[str, Region, np.ndarray, np.random.Generator], np.ndarray]
"""The crop of an image in another look, from its id, region and normalised pixels, or the crop as it is."""


class CropSampler:
    """Random crops of the training images; a batch is a function of the seed, the step and the rank alone.

    Crops are numbered over all steps and workers. Each run of as many crops as there are images visits every image
    once, in an order of its own (so images, not pixels, are seen equally often), and two workers with a batch of four
    see exactly what one worker with a batch of eight sees.

    Args:
        reader: Gives the pixels.
        config: Crop size, batch size, augmentation and seed.
        domain: Number of the domain; those of one training draw independently of each other.
        shares: How often each image is drawn, in the order of the ids, adding up to 1. Default: each once an epoch.
        restyle: Gives crops another look, before all other augmentation.
    """

    def __init__(
        self,
        reader: CropReader,
        config: TrainConfig,
        domain: int = 0,
        shares: Sequence[float] | None = None,
        restyle: Restyle | None = None,
    ) -> None:
        self._reader, self._config, self._shares, self._restyle = reader, config, shares, restyle
        self._image_ids = sorted(reader.records)
        self._domain = (domain,) if domain else ()

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Crops of one step (0 is the first) of one worker."""
        size = self._config.batch_size
        first = (step * world_size + rank) * size
        images, labels, valids, targets = zip(*(self.crop(n) for n in range(first, first + size)), strict=True)
        return Batch(
            torch.from_numpy(np.stack(images)),
            torch.from_numpy(np.stack(labels)),
            torch.from_numpy(np.stack(valids)),
            None if targets[0] is None else torch.from_numpy(np.stack(targets)),
        )

    def crop(self, number: int) -> Sample:
        """The crop of a number. Images smaller than the crop are mirrored to its size; that part is not valid."""
        seed, side = self._config.seed, self._config.crop_px
        image_id = self._image_ids[self._drawn(number)]
        generator = derived_generator(seed, CROP, number, *self._domain)
        shape = self._reader.shape(image_id)
        start = tuple(int(generator.integers(max(0, length - side) + 1)) for length in shape)
        region = Region(start, tuple(min(s + side, length) for s, length in zip(start, shape, strict=True)))
        sample = padded_sample(self._reader.read(image_id, region), side)
        if self._restyle is not None:
            draws = derived_generator(seed, RESTYLE, number, *self._domain)
            sample = sample._replace(image=self._restyle(image_id, region, sample.image, draws))
        if "empty" in self._config.augment:
            sample = emptied_sample(sample, derived_generator(seed, EMPTY, number, *self._domain))
        image, label, valid, targets = sample
        # Labels and targets follow the image as where each pixel came from does.
        pixels = np.arange(label.size).reshape(label.shape)
        image, pixels, valid = augment(image, pixels, valid, self._config.augment, generator, self._config.particles_px)
        followed = None if targets is None else targets.reshape(len(targets), -1)[:, pixels]
        return Sample(image, label.reshape(-1)[pixels], valid, followed)

    def _drawn(self, number: int) -> int:
        """Of which image the crop of a number is."""
        seed, count = self._config.seed, len(self._image_ids)
        if self._shares is not None:
            return int(derived_generator(seed, ORDER, number, *self._domain).choice(count, p=self._shares))
        epoch, position = divmod(number, count)
        return int(derived_generator(seed, ORDER, epoch, *self._domain).permutation(count)[position])


def emptied_sample(sample: Sample, generator: np.random.Generator) -> Sample:
    """One sample in ten without its objects: background in their place, and in the labels.

    One that has too little background to do that stays as it is.
    """
    if generator.random() >= EMPTY_SHARE:
        return sample
    image = without_objects(sample.image, sample.label > 0, generator)
    if image is None:
        return sample
    targets = None if sample.targets is None else np.zeros_like(sample.targets)
    return Sample(image, np.zeros_like(sample.label), sample.valid, targets)


def padded_sample(sample: Sample, side: int) -> Sample:
    """Mirror a sample at the bottom and right up to ``side`` px; the new pixels are not valid."""
    image, label, valid, targets = sample
    missing = [(0, max(0, side - length)) for length in label.shape]
    if not any(after for _, after in missing):
        return sample
    return Sample(
        np.pad(image, [(0, 0), *missing], mode="reflect"),
        np.pad(label, missing, mode="reflect"),
        np.pad(valid, missing, constant_values=False),
        None if targets is None else np.pad(targets, [(0, 0), *missing], mode="reflect"),
    )


def flat_shape(record: ImageRecord) -> tuple[int, int]:
    """Height and width of an image, px."""
    return record.shape[record.axes.index("y")], record.shape[record.axes.index("x")]
