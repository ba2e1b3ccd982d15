"""The labels of an image, plane by plane, from whatever holds them: a file, a folder of masks, or annotations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from raydom.config import IngestConfig
from raydom.errors import DataError
from raydom.ingestion.coco import annotation_boxes
from raydom.ingestion.labels import as_labels
from raydom.ingestion.plan import LabelSource
from raydom.storage.readers import read_pictures


@dataclass(frozen=True, slots=True)
class LabelPlane:
    """One label of one plane."""

    pixels: np.ndarray
    """Axes ``yx``."""
    kind: str
    """``binary`` or ``instance``."""
    overlap_px: int = 0
    """Pixels that several objects claim."""
    num_hidden: int = 0
    """Objects that have no pixel of their own, so that their number does not occur."""
    properties: tuple[dict[str, Any], ...] = ()
    """What is known of each object, under its number as ``label-value``."""


def label_planes(source: LabelSource, paths: Sequence[Path], config: IngestConfig) -> Iterator[dict[str, LabelPlane]]:
    """The labels that a source gives to each plane of its image, by name.

    Args:
        source: Where they come from.
        paths: Local copies of its files.

    Raises:
        DataError: Naming the file.
    """
    if source.one_mask_per_object:
        yield {source.name: merge_masks(source, paths)}
        return
    if source.annotations is not None:
        yield _annotated(source, source.annotations)
        return
    (path,) = paths
    for picture in read_pictures(source.uri, axes=config.axes, as_labels=True, copy=path):
        try:
            yield {source.name: LabelPlane(*as_labels(picture.pixels, config.invert_labels))}
        except DataError as error:
            raise DataError(f"{source.uri}: {error}") from error


def merge_masks(source: LabelSource, paths: Sequence[Path]) -> LabelPlane:
    """Instances numbered from 1 in the order of the files, each a mask of one object.

    Raises:
        DataError: If a mask has another size than the first, or several values.
    """
    shapes: list[tuple[int, ...]] = []

    def masks() -> Iterator[tuple[slice, slice, np.ndarray]]:
        for path in paths:
            where = f"{source.uri}{path.name}"
            pictures = list(read_pictures(where, as_labels=True, copy=path))
            if len(pictures) != 1:
                raise DataError(f"{where}: holds {len(pictures)} planes; the mask of an object is one.")
            try:
                mask, _ = as_labels(pictures[0].pixels)
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
            if mask.max() and not ((mask == 0) | (mask == mask.max())).all():
                raise DataError(f"{where}: has {len(np.unique(mask))} values; the mask of one object has two.")
            shapes.append(mask.shape)
            if mask.shape != shapes[0]:
                raise DataError(f"{where}: the mask is {mask.shape} px (height, width), the first one {shapes[0]}.")
            yield slice(None), slice(None), mask > 0

    first = next(read_pictures(f"{source.uri}{paths[0].name}", as_labels=True, copy=paths[0]))
    return merge_objects(first.pixels.shape[1:], masks())


def _annotated(source: LabelSource, annotations: str) -> dict[str, LabelPlane]:
    """Annotations as instances in their order. Where there is a crowd and no object, pixels do not count."""
    content = json.loads(annotations)
    height, width = content["height"], content["width"]
    objects = [annotation for annotation in content["annotations"] if not annotation.get("iscrowd")]
    crowds = [annotation for annotation in content["annotations"] if annotation.get("iscrowd")]
    valid = np.ones((height, width), np.uint8)
    try:
        plane = merge_objects((height, width), annotation_boxes(objects, height, width))
        for rows, columns, mask in annotation_boxes(crowds, height, width):
            valid[rows, columns][mask] = 0
    except DataError as error:
        raise DataError(f"{source.uri}: {error}") from error
    properties = tuple(
        {
            "label-value": number,
            "annotation_id": entry.get("id"),
            "category_id": entry.get("category_id"),
            "category": entry.get("category"),
        }
        for number, entry in enumerate(objects, start=1)
    )
    planes = {source.name: replace(plane, properties=properties)}
    if source.has_valid:
        planes[f"{source.name}-valid"] = LabelPlane(valid | (plane.pixels > 0), "binary")
    return planes


def merge_objects(shape: Sequence[int], objects: Iterable[tuple[slice, slice, np.ndarray]]) -> LabelPlane:
    """Objects as instances, numbered from 1 in their order; a pixel that several claim belongs to the first.

    Args:
        shape: Height and width.
        objects: Rows and columns of a box, and a mask of that box.
    """
    labels = np.zeros(tuple(shape), np.uint32)
    overlap_px = num_hidden = number = 0
    for number, (rows, columns, mask) in enumerate(objects, start=1):
        box = labels[rows, columns]
        free = mask & (box == 0)
        box[free] = number
        overlap_px += int(mask.sum() - free.sum())
        num_hidden += not free.any()
    return LabelPlane(labels.astype(np.min_scalar_type(number)), "instance", overlap_px, num_hidden)
