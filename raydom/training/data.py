"""Training images: which images train and which validate, the range of their intensities, and random crops of them."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from raydom.algorithms.phases import Batch
from raydom.config import ModelSpec, TrainConfig
from raydom.errors import ConfigError, DataError
from raydom.images.augment import Crop, augment
from raydom.images.intensity import fraction_statistics, pooled_statistics, to_fraction
from raydom.training.seeds import derived_generator
from raydom.types import ImageRecord, Region

logger = logging.getLogger(__name__)

MEMORY_BYTES = 2 * 1024**3
"""Images are kept in memory by each worker if together they need no more than this."""
ORDER, CROP = 0, 1
"""Streams of random numbers: the order of the images, and what is cut from them."""


@runtime_checkable
class ImageSource(Protocol):
    """A collection, or whatever else gives its images by their id."""

    def __getitem__(self, image_id: str) -> Any: ...


def split_by_group(
    records: Sequence[ImageRecord], fraction: float, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which images train and which validate. Images of the split ``test`` do neither.

    - Images marked ``val`` in the manifest validate; the others train, or only those marked ``train`` if there are any.
    - Without marks, whole groups are drawn for validation until about ``fraction`` of the images are; an image without
      a group is its own.
    - Where all images are of one group (a stack), the last ones in the order of their ids validate, and the one before
      them is left out of both, since neighbouring sections look alike. A warning says so.
    - A single image does both, with a warning.

    Returns:
        Ids for training and for validation, each sorted.

    Raises:
        DataError: If no image is left for training.
    """
    usable = sorted((r for r in records if r.split != "test"), key=lambda r: r.image_id)
    if not usable:
        raise DataError(
            f"none of the {len(records)} images may be used for training: all are of split 'test'. "
            "Ingest training images with --split train, or without a split."
        )
    validation = [r.image_id for r in usable if r.split == "val"]
    if validation:
        others = [r for r in usable if r.split != "val"]
        training = [r.image_id for r in others if r.split == "train"] or [r.image_id for r in others]
        if not training:
            raise DataError("all images that are not of split 'test' are of split 'val'; none is left for training.")
        unused = len(usable) - len(validation) - len(training)
        if unused:
            logger.warning("%d images of neither split 'train' nor 'val' are not used.", unused)
        return tuple(training), tuple(validation)
    if len(usable) == 1:
        logger.warning(
            "there is one image only: it is used for training and for validation, whose score is optimistic."
        )
        return (usable[0].image_id,), (usable[0].image_id,)
    groups: dict[tuple[str, str], list[str]] = {}
    for record in usable:
        key = ("image", record.image_id) if record.group is None else ("group", record.group)
        groups.setdefault(key, []).append(record.image_id)
    wanted = min(max(1, round(fraction * len(usable))), len(usable) - 1)
    if len(groups) == 1:
        return _split_stack([r.image_id for r in usable], wanted)
    order = derived_generator(seed, ORDER).permutation(len(groups))
    drawn: list[str] = []
    for members in (list(groups.values())[i] for i in order[:-1]):  # the last group is always left for training
        if not drawn or abs(len(drawn) + len(members) - wanted) < abs(len(drawn) - wanted):
            drawn += members
    chosen = set(drawn)
    return tuple(r.image_id for r in usable if r.image_id not in chosen), tuple(sorted(drawn))


def _split_stack(image_ids: list[str], wanted: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    gap = 1 if len(image_ids) > wanted + 1 else 0
    training, validation = image_ids[: len(image_ids) - wanted - gap], image_ids[len(image_ids) - wanted :]
    logger.warning(
        "all %d images are of one group: %d consecutive ones (%s to %s) validate, %d next to them left out.",
        len(image_ids), len(validation), validation[0], validation[-1], gap,
    )  # fmt: skip
    return tuple(training), tuple(validation)


def intensity_range(records: Sequence[ImageRecord]) -> tuple[float, float]:
    """The fractions of the legal range that a network is to see as 0 and 1.

    All of it (0, 1) where 8-bit and bool images leave no choice; else the 0.1 and 99.9 percentiles of all pixels of the
    training images together (cameras of 12 bits fill a sixteenth of a 16-bit range).
    """
    if all(record.dtype in ("uint8", "bool") for record in records):
        return 0.0, 1.0
    pooled = pooled_statistics(
        [fraction_statistics(record.statistics, record.dtype) for record in records],
        [float(math.prod(record.spatial_shape)) for record in records],
    )
    channels = range(len(pooled.mean))
    low = min(pooled.percentile(channel, 0.1) for channel in channels)
    high = max(pooled.percentile(channel, 99.9) for channel in channels)
    if high > low:
        return low, high
    logger.warning("all training images are constant: their intensities are not stretched.")
    return 0.0, 1.0


class CropReader:
    """Reads normalised images with their labels; keeps them in memory while they all fit.

    Args:
        collection: Where the images are.
        image_ids: The images that may be asked for.
        spec: The model's intensity range, label and number of classes.
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
        needed = sum(_memory_bytes(record) for record in self.records.values())
        self._keep = needed <= memory_bytes
        self._kept: dict[str, _Layers] = {}
        self._lock = threading.Lock()

    def read(self, image_id: str, region: Region) -> Crop:
        """Image (C, h, w) float32 about 0 to 1, label (h, w) int64 and validity (h, w) bool of a region of an image.

        Raises:
            DataError: For a class that the model does not have.
        """
        spec, record = self._spec, self.records[image_id]
        layers = self._layers(image_id, region)
        image = (to_fraction(layers.pixels, record.statistics) - np.float32(spec.low)) / np.float32(
            spec.high - spec.low
        )
        if spec.num_classes == 2:
            label = (layers.label > 0).astype(np.int64)
        else:
            label = layers.label.astype(np.int64)
            if label.size and not 0 <= label.min() <= label.max() < spec.num_classes:
                raise DataError(
                    f"image {image_id}: label {spec.label!r} holds the classes {label.min()} to {label.max()}, but the "
                    f"model has classes 0 to {spec.num_classes - 1}. Raise --num-classes, or correct the label."
                )
        valid = np.ones(label.shape, bool) if layers.mask is None else layers.mask > 0
        return image, label, valid

    def _layers(self, image_id: str, region: Region) -> _Layers:
        if not self._keep:
            return self._load(image_id, region)
        with self._lock:
            if image_id not in self._kept:
                whole = Region.whole(flat_shape(self.records[image_id]))
                self._kept[image_id] = self._load(image_id, whole)
        return self._kept[image_id].cut(region)

    def _load(self, image_id: str, region: Region) -> _Layers:
        image = self._collection[image_id]
        label = image.labels(self._spec.label).numpy(region)
        mask = None if self._mask is None else image.labels(self._mask).numpy(region)
        return _Layers(image.numpy(region), label, mask)


@dataclass(frozen=True)
class _Layers:
    pixels: np.ndarray
    label: np.ndarray
    mask: np.ndarray | None

    def cut(self, region: Region) -> _Layers:
        y, x = region.slices
        return _Layers(self.pixels[:, y, x], self.label[y, x], None if self.mask is None else self.mask[y, x])


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
        images, labels, valids = zip(*(self.crop(number) for number in range(first, first + size)), strict=True)
        return Batch(
            torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)), torch.from_numpy(np.stack(valids))
        )

    def crop(self, number: int) -> Crop:
        """The crop of a number. Images smaller than the crop are mirrored to its size; that part is not valid."""
        seed, side = self._config.seed, self._config.crop_px
        epoch, position = divmod(number, len(self._image_ids))
        order = derived_generator(seed, ORDER, epoch).permutation(len(self._image_ids))
        image_id = self._image_ids[order[position]]
        generator = derived_generator(seed, CROP, number)
        shape = flat_shape(self._reader.records[image_id])
        start = tuple(int(generator.integers(max(0, length - side) + 1)) for length in shape)
        region = Region(start, tuple(min(s + side, length) for s, length in zip(start, shape, strict=True)))
        image, label, valid = padded_crop(self._reader.read(image_id, region), side)
        return augment(image, label, valid, self._config.augment, generator)


def padded_crop(crop: Crop, side: int) -> Crop:
    """Mirror a crop at the bottom and right up to ``side`` px; the new pixels are not valid."""
    image, label, valid = crop
    missing = [(0, max(0, side - length)) for length in label.shape]
    if not any(after for _, after in missing):
        return crop
    return (
        np.pad(image, [(0, 0), *missing], mode="reflect"),
        np.pad(label, missing, mode="reflect"),
        np.pad(valid, missing, constant_values=False),
    )


def check_trainable(records: Sequence[ImageRecord], label: str, mask: str | None) -> tuple[ImageRecord, ...]:
    """The labelled images, if a network can be trained on them.

    Raises:
        DataError: If no image has the label, or the labelled ones differ in their number of channels, are not flat, or
            lack the mask.
    """
    if not records:
        raise DataError(
            "no image is chosen: the collection is empty, or no image has the domain, split and group asked for."
        )
    labelled = tuple(record for record in records if label in record.labels)
    if not labelled:
        known = sorted({name for record in records for name in record.labels})
        there = f"there is {', '.join(known)}; choose with --label." if known else "ingest them with --labels."
        raise DataError(f"none of the {len(records)} images has labels {label!r}: {there}")
    if len(labelled) < len(records):
        logger.warning(
            "%d of %d images have no label %r and are not used.", len(records) - len(labelled), len(records), label
        )
    first = labelled[0]
    for record in labelled:
        if any(size > 1 for axis, size in zip(record.axes, record.shape, strict=True) if axis not in "cyx"):
            raise DataError(
                f"image {record.image_id} has axes {record.axes} and shape {record.shape}; training takes flat images "
                "(y, x and channels). Ingest the planes as single images."
            )
        if record.num_channels != first.num_channels:
            raise DataError(
                f"image {first.image_id} has {first.num_channels} channels but {record.image_id} has "
                f"{record.num_channels}; one network needs the same number. Put them into separate collections."
            )
        if mask is not None and mask not in record.labels:
            raise DataError(
                f"image {record.image_id} has no mask {mask!r}; it has {', '.join(record.labels)}. "
                "Ingest it with --labels, or leave out --mask."
            )
    return labelled


def common_pixel_size(records: Sequence[ImageRecord]) -> float | None:
    """The pixel size of the images, µm; their median, with a warning, where they differ; None where none is known."""
    sizes = [record.pixel_size_um for record in records if record.pixel_size_um is not None]
    if not sizes:
        return None
    if len(sizes) < len(records):
        logger.warning("%d of %d images do not state their pixel size.", len(records) - len(sizes), len(records))
    middle = float(np.median(sizes))
    if max(sizes) > 1.01 * min(sizes):
        logger.warning(
            "the training images have pixels of %g to %g um; the model is recorded with %g um.",
            min(sizes), max(sizes), middle,
        )  # fmt: skip
    return middle


def check_crops(config: TrainConfig, total_stride: int, needs_statistics: bool) -> None:
    """Refuse crops that the network cannot be trained on.

    Args:
        config: Crop and batch size.
        total_stride: Of the network, px.
        needs_statistics: Whether the network normalises over the batch, and so needs two pixels of its lowest level.
    """
    side = config.crop_px
    if side % total_stride:
        below, above = side // total_stride * total_stride, -(-side // total_stride) * total_stride
        choice = f"{below} or {above}" if below else f"{above}"
        raise ConfigError(
            f"crop_px must be a multiple of the network's total stride of {total_stride} px; got {side}. "
            f"Choose {choice}."
        )
    if needs_statistics and config.batch_size * (side // total_stride) ** 2 < 2:
        raise ConfigError(
            f"one crop of {side} px is a single pixel at the network's lowest level (total stride {total_stride} px), "
            "which batch normalisation cannot use. Choose a larger crop_px or batch_size, or norm none."
        )


def flat_shape(record: ImageRecord) -> tuple[int, int]:
    """Height and width of an image, px."""
    return record.shape[record.axes.index("y")], record.shape[record.axes.index("x")]


def _memory_bytes(record: ImageRecord) -> int:
    pixels = math.prod(record.spatial_shape)
    return pixels * (record.num_channels * np.dtype(record.dtype).itemsize + 4 + 1)
