"""The labels of an image, plane by plane, from whatever holds them: a file, a folder of masks, or annotations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter

from raydom.commands import IngestConfig
from raydom.errors import DataError
from raydom.ingestion.coco import annotation_boxes
from raydom.ingestion.labels import as_labels, label_rule
from raydom.ingestion.plan import LabelSource
from raydom.storage.pictures import LazyPixels, piece_rows
from raydom.storage.pyramids import bands
from raydom.storage.readers import read_pictures

BEYOND = 1 << 40
"""Larger than any label, and exact as the float that SciPy's filters go through."""


@dataclass(frozen=True, slots=True)
class LabelPlane:
    """One label of one plane, or of one volume."""

    pixels: np.ndarray | LazyPixels
    """Axes ``yx``, or ``zyx``; not read yet if they are many."""
    kind: str
    """``binary`` or ``instance``."""
    overlap_px: int = 0
    """Pixels that several objects claim."""
    num_hidden: int = 0
    """Objects that have no pixel of their own, so that their number does not occur."""
    properties: tuple[dict[str, Any], ...] = ()
    """What is known of each object, under its number as ``label-value``."""
    row: str | None = None
    """Of a file that is a table, what the row is called."""


def label_planes(source: LabelSource, paths: Sequence[Path], config: IngestConfig) -> Iterator[dict[str, LabelPlane]]:
    """The labels that a source gives to each plane of its image, by name.

    Args:
        source: Where they come from.
        paths: Local copies of its files.

    Raises:
        DataError: Naming the file.
    """
    for plane, valid in _planes(source, paths, config):
        planes = {source.name: plane}
        if source.has_valid:
            counted = np.ones(plane.pixels.shape, np.uint8) if valid is None else valid
            planes[f"{source.name}-valid"] = LabelPlane(counted, "binary")
        if source.boundary_px is not None:
            planes[f"{source.name}-boundary"] = LabelPlane(
                _boundaries(plane.pixels, source.boundary_px, valid), "binary"
            )
        yield planes


def _boundaries(
    labels: np.ndarray | LazyPixels, reach_px: float, valid: np.ndarray | LazyPixels | None
) -> np.ndarray | LazyPixels:
    """``instance_boundaries`` of labels of any size, uint8."""
    height, width = labels.shape[-2:]
    reach, step = math.floor(reach_px), piece_rows(math.prod(labels.shape[:-2]))

    def read(rows: slice, columns: slice) -> np.ndarray:
        starts = range(rows.start, rows.stop, step)  # the filters hold some 30 bytes a pixel
        return np.concatenate([part(slice(top, min(top + step, rows.stop)), columns) for top in starts], axis=-2)

    def part(rows: slice, columns: slice) -> np.ndarray:
        top, left = max(0, rows.start - reach), max(0, columns.start - reach)
        seen = (..., slice(top, min(rows.stop + reach, height)), slice(left, min(columns.stop + reach, width)))
        boundary = instance_boundaries(labels[seen], reach_px, None if valid is None else valid[seen] > 0)
        inner = boundary[..., rows.start - top :, columns.start - left :]
        return inner[..., : rows.stop - rows.start, : columns.stop - columns.start].astype(np.uint8)

    return _like(labels, labels.shape, read, np.uint8)


def _like(
    pixels: np.ndarray | LazyPixels,
    shape: tuple[int, ...],
    read: Callable[[slice, slice], np.ndarray],
    dtype: np.dtype | type,
) -> np.ndarray | LazyPixels:
    """What ``read`` makes of rows and columns: at once, or when it is asked for if the pixels are so too."""
    if isinstance(pixels, LazyPixels):
        return LazyPixels(shape, np.dtype(dtype), read)
    return read(slice(0, shape[-2]), slice(0, shape[-1]))


def _planes(
    source: LabelSource, paths: Sequence[Path], config: IngestConfig
) -> Iterator[tuple[LabelPlane, np.ndarray | LazyPixels | None]]:
    """Each plane, and where it counts (uint8); None if it does everywhere."""
    if source.one_mask_per_object:
        yield merge_masks(source, paths), None
        return
    if source.annotations is not None:
        yield _annotated(source, source.annotations)
        return
    (path,) = paths
    for picture in read_pictures(
        source.uri, axes=config.axes, fps=config.fps, as_labels=True, volumes=config.volumes, copy=path
    ):
        try:
            plane, valid = _file_plane(picture.pixels, source.ignore_value, config.invert_labels)
        except DataError as error:
            raise DataError(f"{source.uri}: {error}") from error
        yield replace(plane, row=picture.row.name if picture.row is not None else None), valid


def _file_plane(
    pixels: np.ndarray | LazyPixels, ignored: int | None, invert: bool
) -> tuple[LabelPlane, np.ndarray | LazyPixels | None]:
    """A plane (or volume) of a label file, of any size, and where it counts."""
    shape = pixels.shape[1:]

    def counts(piece: np.ndarray) -> np.ndarray:
        return (piece != ignored).all(axis=0)

    def cleared(piece: np.ndarray) -> np.ndarray:
        return piece if ignored is None else np.where(counts(piece), piece, np.zeros((), piece.dtype))

    rule = label_rule((cleared(piece) for piece in bands(pixels, piece_rows(math.prod(shape[:-2])))), invert)

    def labels(rows: slice, columns: slice) -> np.ndarray:
        piece = pixels[..., rows, columns]
        found = rule.apply(cleared(piece))
        return found if ignored is None else np.where(counts(piece), found, 0).astype(rule.dtype)

    def valid(rows: slice, columns: slice) -> np.ndarray:
        return counts(pixels[..., rows, columns]).astype(np.uint8)

    plane = LabelPlane(_like(pixels, shape, labels, rule.dtype), rule.kind)
    return plane, None if ignored is None else _like(pixels, shape, valid, np.uint8)


def instance_boundaries(labels: np.ndarray, reach_px: float, valid: np.ndarray | None = None) -> np.ndarray:
    """The pixels that have two different values within ``reach_px``, background being one; the image's edge is none.

    Pixels that are not valid have no value: between two objects that they part there is a boundary, if it is in reach.
    Of a volume each plane is looked at alone: its planes may be further apart than its pixels.

    Args:
        labels: Axes ``yx`` or ``zyx``, whole numbers.
        reach_px: Euclidean, between centres of pixels; 1 marks the pixels on both sides.

    Source: after Javanmardi and Tasdizen 2018, who take as membranes what objects lose when their complement grows;
    they do not say by how much.
    """
    steps = np.arange(-math.floor(reach_px), math.floor(reach_px) + 1)
    disc = steps[:, None] ** 2 + steps[None] ** 2 <= reach_px**2
    disc = disc.reshape((1,) * (labels.ndim - 2) + disc.shape)
    values = labels.astype(np.int64)
    highest = values if valid is None else np.where(valid, values, -1)
    lowest = values if valid is None else np.where(valid, values, BEYOND)
    highest = maximum_filter(highest, footprint=disc, mode="nearest")
    # Where nothing is valid, the highest is below the lowest.
    return highest > minimum_filter(lowest, footprint=disc, mode="nearest")


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
                mask, _ = as_labels(np.asarray(pictures[0].pixels))
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


def _annotated(source: LabelSource, annotations: str) -> tuple[LabelPlane, np.ndarray]:
    """Annotations as instances in their order, and where they count: not where there is a crowd and no object."""
    content = json.loads(annotations)
    height, width = content["height"], content["width"]
    objects = [annotation for annotation in content["annotations"] if not annotation.get("iscrowd")]
    crowds = [annotation for annotation in content["annotations"] if annotation.get("iscrowd")]
    valid = np.ones((height, width), bool)
    try:
        plane = merge_objects((height, width), annotation_boxes(objects, height, width))
        for rows, columns, mask in annotation_boxes(crowds, height, width):
            valid[rows, columns][mask] = False
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
    counted = valid | (np.asarray(plane.pixels) > 0)
    return replace(plane, properties=properties), counted.astype(np.uint8)


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
