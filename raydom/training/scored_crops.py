"""The crops that label-free scores look at: drawn once by a seed, mostly valid, and the same in every process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from raydom.config import ModelSpec
from raydom.errors import DataError
from raydom.images.intensity import fraction_statistics
from raydom.label_free.combined import Crops
from raydom.label_free.visibility import Visibility
from raydom.storage.collection import Collection
from raydom.training.crops import CropReader, CropView, Sample, padded_sample
from raydom.training.seeds import CROP, ORDER, derived_generator
from raydom.types import ImageRecord, ImageStatistics, Region

SOURCE_CROPS = 16
"""Crops of the source that say how a segmenter behaves where it is right."""
TRIES = 20
"""Positions tried for a crop of which at least half is valid."""


@dataclass(frozen=True)
class ScoredCrop:
    """A crop as it is."""

    sample: Sample
    """Fractions of the legal range, on the model's grid."""
    statistics: ImageStatistics
    """Of the whole image, in fractions."""
    record: ImageRecord
    labelled: bool


def cut_crops(
    collection: Collection,
    image_ids: Sequence[str],
    num_crops: int,
    spec: ModelSpec,
    *,
    crop_px: int,
    seed: int,
    stream: int,
    label: str | None = None,
    mask: str | None = None,
) -> list[ScoredCrop]:
    """Crops of images in turn; of each, the first of ``TRIES`` positions of which half is valid, or the best.

    Args:
        collection: Where the images are.
        image_ids: Of which, in this order.
        num_crops: How many.
        spec: Says on which grid they are seen.
        crop_px: Their side, model px. Smaller images are mirrored to it; that part is not valid.
        seed: Of the positions.
        stream: Sets of crops with one seed draw independently of each other.
        label: Labels that are read where all images have them, as they are stored.
        mask: Label whose zero pixels are not valid.

    Raises:
        DataError: If no valid pixel is found in an image.
    """
    records = [collection[image_id].record for image_id in image_ids]
    labelled = label is not None and all(label in record.labels for record in records)
    # Fractions (0 to 1 seen as they are), and labels as they are stored, which output objects leaves alone.
    view = CropView(
        low=0.0,
        high=1.0,
        pixel_size_um=spec.pixel_size_um,
        label=label if labelled else None,
        output="objects",
        num_classes=spec.num_classes,
    )
    reader = CropReader(collection, image_ids, view, mask)
    crops = []
    for number in range(num_crops):
        record = records[number % len(records)]
        shape = reader.shape(record.image_id)
        generator = derived_generator(seed, CROP, stream, number)
        best: Sample | None = None
        for _ in range(TRIES):
            start = tuple(int(generator.integers(max(0, length - crop_px) + 1)) for length in shape)
            stop = tuple(min(s + crop_px, length) for s, length in zip(start, shape, strict=True))
            sample = padded_sample(reader.read(record.image_id, Region(start, stop)), crop_px)
            if best is None or sample.valid.sum() > best.valid.sum():
                best = sample
            if best.valid.mean() >= 0.5:
                break
        assert best is not None
        if not best.valid.any():
            raise DataError(
                f"{collection.uri}: no valid pixel of {record.image_id} was found in {TRIES} crops of {crop_px} "
                f"px: its mask {mask!r} is nearly empty. Correct the mask, or leave it out."
            )
        crops.append(ScoredCrop(best, fraction_statistics(record.statistics, np.dtype(record.dtype)), record, labelled))
    return crops


def fractions(crops: Sequence[ScoredCrop]) -> Float[Tensor, "n c h w"]:
    """The pixels of crops, of the legal range."""
    return torch.from_numpy(np.stack([crop.sample.image for crop in crops]))


def valid_pixels(crops: Sequence[ScoredCrop]) -> Bool[Tensor, "n h w"]:
    """Which of them count."""
    return torch.from_numpy(np.stack([crop.sample.valid for crop in crops]))


def asked(crops: Sequence[ScoredCrop]) -> Crops:
    """What is asked of crops, whatever a segmenter tells of them."""
    valid = valid_pixels(crops)
    return Crops(valid, Visibility(fractions(crops).numpy(), valid.numpy()))


def drawn(image_ids: Sequence[str], most: int, seed: int, stream: int) -> tuple[str, ...]:
    """At most so many images, in the order drawn."""
    order = derived_generator(seed, ORDER, stream).permutation(len(image_ids))[:most]
    return tuple(image_ids[index] for index in order)
