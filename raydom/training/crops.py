"""Training images as the network sees them: normalised regions with their labels, and random crops of them."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from raydom.algorithms.phases import Batch
from raydom.config import ModelSpec, TrainConfig
from raydom.errors import DataError
from raydom.images.augment import augment
from raydom.images.intensity import to_fraction
from raydom.images.targets import MARGIN_PX, instance_targets
from raydom.training.seeds import CROP, ORDER, derived_generator
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


class CropReader:
    """Reads normalised images with their labels; keeps them in memory while they all fit.

    Args:
        collection: Where the images are.
        image_ids: The images that may be asked for.
        spec: The model's intensity range, label, output and number of classes.
        mask: Label layer whose zero pixels are not valid; None: all pixels are.
        memory_bytes: Above this the images are read from storage, region by region.
    """

    def __init__(
        self,
        collection: ImageSource,
        image_ids: Sequence[str],
        spec: ModelSpec,
        mask: str | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.records: dict[str, ImageRecord] = {image_id: collection[image_id].record for image_id in image_ids}
        self._collection, self._spec, self._mask = collection, spec, mask
        self._with_targets = spec.network.output in ("boundary", "distance")
        needed = sum(_memory_bytes(record, self._with_targets) for record in self.records.values())
        self._keep = needed <= memory_bytes
        self._kept: dict[str, _Layers] = {}
        self._lock = threading.Lock()

    def read(self, image_id: str, region: Region) -> Sample:
        """A region of an image.

        Targets are those of the whole image, but where objects reach more than ``MARGIN_PX`` beyond the region of an
        image that is not kept in memory.

        Raises:
            DataError: For a class that the model does not have.
        """
        spec, record = self._spec, self.records[image_id]
        layers = self._layers(image_id, region)
        image = (to_fraction(layers.pixels, record.statistics) - np.float32(spec.low)) / np.float32(
            spec.high - spec.low
        )
        label = layers.label.astype(np.int64)
        if spec.network.output == "classes" and spec.num_classes == 2:
            label = (layers.label > 0).astype(np.int64)
        elif spec.network.output == "classes" and label.size and not 0 <= label.min() <= label.max() < spec.num_classes:
            raise DataError(
                f"image {image_id}: label {spec.label!r} holds the classes {label.min()} to {label.max()}, but the "
                f"model has classes 0 to {spec.num_classes - 1}. Raise --num-classes, or correct the label."
            )
        valid = np.ones(label.shape, bool) if layers.mask is None else layers.mask > 0
        return Sample(image, label, valid, layers.targets)

    def _layers(self, image_id: str, region: Region) -> _Layers:
        whole = Region.whole(flat_shape(self.records[image_id]))
        if not self._keep:
            seen = region.grown(MARGIN_PX if self._with_targets else 0).clipped(whole)
            return self._load(image_id, seen).cut(region.relative_to(seen))
        with self._lock:
            if image_id not in self._kept:
                self._kept[image_id] = self._load(image_id, whole)
        return self._kept[image_id].cut(region)

    def _load(self, image_id: str, region: Region) -> _Layers:
        image = self._collection[image_id]
        label = image.labels(self._spec.label).numpy(region)
        mask = None if self._mask is None else image.labels(self._mask).numpy(region)
        targets = instance_targets(label, self._spec.network.output) if self._with_targets else None
        return _Layers(image.numpy(region), label, mask, targets)


@dataclass(frozen=True)
class _Layers:
    pixels: np.ndarray
    label: np.ndarray
    mask: np.ndarray | None
    targets: np.ndarray | None

    def cut(self, region: Region) -> _Layers:
        y, x = region.slices
        return _Layers(
            self.pixels[:, y, x],
            self.label[y, x],
            None if self.mask is None else self.mask[y, x],
            None if self.targets is None else self.targets[:, y, x],
        )


class CropSampler:
    """Random crops of the training images; a batch is a function of the seed, the step and the rank alone.

    Crops are numbered over all steps and workers. Each run of as many crops as there are images visits every image
    once, in an order of its own (so images, not pixels, are seen equally often), and two workers with a batch of four
    see exactly what one worker with a batch of eight sees.

    Args:
        reader: Gives the pixels.
        config: Crop size, batch size, augmentation and seed.
    """

    def __init__(self, reader: CropReader, config: TrainConfig) -> None:
        self._reader, self._config = reader, config
        self._image_ids = sorted(reader.records)

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
        epoch, position = divmod(number, len(self._image_ids))
        order = derived_generator(seed, ORDER, epoch).permutation(len(self._image_ids))
        image_id = self._image_ids[order[position]]
        generator = derived_generator(seed, CROP, number)
        shape = flat_shape(self._reader.records[image_id])
        start = tuple(int(generator.integers(max(0, length - side) + 1)) for length in shape)
        region = Region(start, tuple(min(s + side, length) for s, length in zip(start, shape, strict=True)))
        image, label, valid, targets = padded_sample(self._reader.read(image_id, region), side)
        # Labels and targets follow the image as where each pixel came from does.
        pixels = np.arange(label.size).reshape(label.shape)
        image, pixels, valid = augment(image, pixels, valid, self._config.augment, generator)
        followed = None if targets is None else targets.reshape(len(targets), -1)[:, pixels]
        return Sample(image, label.reshape(-1)[pixels], valid, followed)


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


def _memory_bytes(record: ImageRecord, with_targets: bool) -> int:
    pixels = math.prod(record.spatial_shape)
    return pixels * (record.num_channels * np.dtype(record.dtype).itemsize + 4 + 1 + (8 if with_targets else 0))
