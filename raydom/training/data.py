"""Which images train and which validate, what is common to them, and whether they can be trained on at all."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from raydom.config import TrainConfig
from raydom.errors import ConfigError, DataError
from raydom.images.intensity import fraction_statistics, pooled_statistics
from raydom.images.tiles import cut_blocks
from raydom.training.crops import ImageSource, flat_shape
from raydom.training.seeds import ORDER, derived_generator
from raydom.types import ImageRecord

logger = logging.getLogger(__name__)

COUNTED_PX = 2048
"""Labels are counted in blocks of this size, px, so that no image is in memory whole."""


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


def check_trainable(
    records: Sequence[ImageRecord], label: str, mask: str | None, instances: bool = False
) -> tuple[ImageRecord, ...]:
    """The labelled images, if a network can be trained on them.

    Args:
        records: The images.
        label: What is learnt.
        mask: What marks the pixels that count.
        instances: Whether the labels must number objects.

    Raises:
        DataError: If no image has the label, or the labelled ones differ in their number of channels, are not flat,
            lack the mask, or all tell objects from background alone where they must number them.
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
    # One image may well have a single object; that none has more is no accident.
    if instances and all(_kind(record, label) == "binary" for record in labelled):
        raise DataError(
            f"label {label!r} is of kind binary (0 and 1) in all {len(labelled)} images, but outputs boundary, "
            "distance and objects learn from labels that number each object. Ingest such labels, or learn "
            "--output classes."
        )
    check_alike(labelled)
    for record in labelled:
        if mask is not None and mask not in record.labels:
            raise DataError(
                f"image {record.image_id} has no mask {mask!r}; it has {', '.join(record.labels)}. "
                "Ingest it with --labels, or leave out --mask."
            )
    return labelled


def check_alike(records: Sequence[ImageRecord]) -> None:
    """Refuse images that no network can take together.

    Raises:
        DataError: If one is not flat, or they differ in their number of channels.
    """
    first = records[0]
    for record in records:
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
            "the training images have pixels of %g to %g um; they are resampled to %g um.",
            min(sizes), max(sizes), middle,
        )  # fmt: skip
    return middle


def balanced_weights(
    collection: ImageSource, records: Sequence[ImageRecord], label: str, mask: str | None, num_classes: int
) -> tuple[float, ...]:
    """Weights of the classes under which each has the same share in all valid pixels; their mean over the pixels is 1.

    A class without a pixel has weight 1.

    Raises:
        DataError: For a class that there is not.
    """
    counts = np.zeros(num_classes, np.int64)
    for record in records:
        layers = collection[record.image_id].labels
        for block in cut_blocks(record.image_id, flat_shape(record), COUNTED_PX):
            values = layers(label).numpy(block.write)
            if mask is not None:
                values = values[layers(mask).numpy(block.write) > 0]
            values = (values > 0).astype(np.int64) if num_classes == 2 else values.astype(np.int64).ravel()
            found = np.bincount(values.ravel(), minlength=num_classes)
            if len(found) > num_classes:
                raise DataError(
                    f"image {record.image_id}: label {label!r} holds the class {len(found) - 1}, but the model has "
                    f"classes 0 to {num_classes - 1}. Raise --num-classes, or correct the label."
                )
            counts += found
    present = int(np.count_nonzero(counts))
    return tuple(float(counts.sum() / (present * count)) if count else 1.0 for count in counts.tolist())


def check_crops(config: TrainConfig, total_stride: int, needs_statistics: bool, pools_globally: bool = False) -> None:
    """Refuse crops that the network cannot be trained on.

    Args:
        config: Crop and batch size.
        total_stride: Of the network, px.
        needs_statistics: Whether the network normalises over the batch, and so needs two pixels of its lowest level.
        pools_globally: Whether it normalises features of whole crops, and so needs two crops.
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
    if pools_globally and config.batch_size < 2:
        raise ConfigError(
            "this network normalises features pooled over each whole crop, which it cannot over a single one; "
            f"batch_size must be >= 2, got {config.batch_size}."
        )


def _kind(record: ImageRecord, label: str) -> str | None:
    return dict(zip(record.labels, record.label_kinds, strict=False)).get(label)
