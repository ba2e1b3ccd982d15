"""Annotations in COCO's JSON (polygons and run lengths), as label images.

Source: Lin et al. 2014, arXiv:1405.0312; the compressed run lengths
are those of its API (https://github.com/cocodataset/cocoapi, common/maskApi.c).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from skimage.draw import polygon

from raydom.errors import ConfigError, DataError
from raydom.storage import files

Box = tuple[slice, slice, np.ndarray]
"""Rows, columns, and a mask of them."""
KEPT = ("id", "category_id", "segmentation", "iscrowd")


def read_coco(uri: str) -> tuple[dict[str, str], bool]:
    """What a file of annotations says of each image, by file name.

    Returns:
        JSON with ``height``, ``width`` and ``annotations``, as text that can be sent and hashed; and whether any
        annotation of the file is a crowd.

    Raises:
        ConfigError: If the file is no COCO JSON, or two of its images have one name.
    """
    try:
        content = files.read_json(uri)
        images, annotations = content["images"], content["annotations"]
        if isinstance(annotations, dict):  # by id, as LIVECell's files for single cell types have them
            annotations = list(annotations.values())
        categories = {entry["id"]: str(entry["name"]) for entry in content.get("categories", ())}
        by_image = defaultdict(list)
        for annotation in annotations:
            kept = {name: annotation[name] for name in KEPT if name in annotation}
            kept["category"] = categories.get(annotation.get("category_id"))
            by_image[annotation["image_id"]].append(kept)
        has_crowds = any(annotation.get("iscrowd") for annotation in annotations)
        found: dict[str, str] = {}
        for image in images:
            name = str(image["file_name"])
            if name in found:
                raise ConfigError(f"{uri}: two images have the file name {name}.")
            height, width = image["height"], image["width"]
            if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
                raise ConfigError(f"{uri}: image {name} has the height {height} and the width {width}.")
            entry = {"height": height, "width": width, "annotations": by_image.pop(image["id"], [])}
            found[name] = json.dumps(entry)
    except (DataError, KeyError, TypeError, AttributeError) as error:
        missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"{uri}: no annotations in the form of COCO: {missing}.") from error
    if by_image:
        raise ConfigError(f"{uri}: annotations of images that the file does not list: {list(by_image)[:5]}.")
    return found, has_crowds


def annotation_boxes(annotations: Sequence[Mapping[str, Any]], height: int, width: int) -> Iterator[Box]:
    """The mask of each annotation.

    Raises:
        DataError: Naming the annotation, if its segmentation cannot be understood.
    """
    for annotation in annotations:
        try:
            shape = annotation.get("segmentation") or []
            yield polygons_box(shape, height, width) if isinstance(shape, list) else runs_box(shape, height, width)
        except (DataError, KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"annotation {annotation.get('id')}: {type(error).__name__}: {error}") from error


def polygons_box(polygons: Sequence[Any], height: int, width: int) -> Box:
    """The pixels whose centre lies in any of the polygons; what lies outside of the image is cut off.

    Args:
        polygons: Each ``x, y, x, y, ...``, px; the first pixel reaches from 0 to 1, its centre is at 0.5.
    """
    if not polygons:
        raise DataError("has neither polygons nor run lengths.")
    corners = []
    for points in polygons:
        line = np.asarray(points, np.float64)
        if line.ndim != 1 or len(line) % 2 or not len(line) or not np.isfinite(line).all():
            raise DataError(f"a polygon is x, y, x, y, ...; got {len(points)} values, or such as are no numbers.")
        corners.append(line.reshape(-1, 2)[:, ::-1] - 0.5)
    every = np.concatenate(corners)
    top, left = (int(value) for value in np.clip(np.floor(every.min(axis=0)), 0, (height, width)))
    bottom, right = (int(value) for value in np.clip(np.ceil(every.max(axis=0)) + 1, (top, left), (height, width)))
    mask = np.zeros((bottom - top, right - left), bool)
    for line in corners:
        mask[polygon(line[:, 0] - top, line[:, 1] - left, mask.shape)] = True
    return slice(top, bottom), slice(left, right), mask


def runs_box(runs: Mapping[str, Any], height: int, width: int) -> Box:
    """Run lengths as a mask: of zeros, ones, zeros, ..., down the columns; a list, or text in COCO's code.

    Raises:
        DataError: If they do not make up exactly the image.
    """
    if list(runs["size"]) != [height, width]:
        raise DataError(f"run lengths are of size {runs['size']}, the image is {[height, width]} (height, width).")
    counts = runs["counts"]
    lengths = np.asarray(decode_counts(counts) if isinstance(counts, str) else counts, np.int64)
    if (lengths < 0).any() or lengths.sum() != height * width:
        raise DataError(f"run lengths add up to {lengths.sum()} px, the image has {height * width}.")
    values = np.arange(len(lengths)) % 2 == 1
    return slice(None), slice(None), np.repeat(values, lengths).reshape((width, height)).T


def decode_counts(text: str) -> list[int]:
    """COCO's text for run lengths.

    A number is written five bits a character, the lowest first: the character's code less 48 holds them, and 32 if
    more characters follow; the last character's 16 is the sign. From the fourth on, it is the difference to the
    number two before.
    """
    counts: list[int] = []
    position = 0
    while position < len(text):
        value = shift = 0
        more = True
        while more:
            code = ord(text[position]) - 48
            if not 0 <= code < 64:
                raise DataError(f"run lengths have the character {text[position]!r} at {position}.")
            value |= (code & 31) << shift
            shift, position, more = shift + 5, position + 1, bool(code & 32)
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts
