"""Scores of predicted labels against the truth, for each image, by domain, and over the whole collection."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from raydom.errors import ConfigError
from raydom.images.metrics import Confusion, confusion, scores
from raydom.images.tiles import cut_blocks
from raydom.storage.collection import Collection, Image

logger = logging.getLogger(__name__)

BLOCK_PX = 2048
"""Side of the squares that are read and compared, px, so that no image is in memory whole."""
NAMES_SHOWN = 5
GROUPINGS = ("domain", "split", "group")
SCORES = ("f1", "iou", "dice", "precision", "recall")
COUNTS = ("tp", "fp", "fn", "tn")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("scope", "image_id", *GROUPINGS)),
        *((name, pa.int64()) for name in ("num_images", "num_missing")),
        *((name, pa.float64()) for name in SCORES),
        *((name, pa.int64()) for name in COUNTS),
    ]
)


def evaluate(
    prediction: Collection,
    truth: Collection,
    *,
    label: str = "label",
    prediction_label: str | None = None,
    mask: str | None = None,
    by: str | None = None,
) -> pa.Table:
    """Compare the labels of two collections pixel by pixel; images are paired by their id.

    Every label but 0 is foreground, so instances are scored as the area that they cover.

    Args:
        prediction: The collection with the predicted labels.
        truth: The collection with the true labels; its images may outnumber the predicted ones.
        label: Name of the true label.
        prediction_label: Name of the predicted label. Default: ``label``, or the only one that there is.
        mask: Name of a label of the truth, such as a field of view; pixels where it is 0 are not scored.
        by: domain, split or group (as the truth has them): adds a row for each of its values.

    Returns:
        Rows of five kinds, told apart by ``scope``: ``image``; ``domain``, ``split`` or ``group`` (as in ``by``) and
        ``pooled`` (scores of the summed counts); and ``mean`` (the mean of the images' scores, without counts).
        ``num_images`` is the number of images scored, ``num_missing`` of those that the truth has and the prediction
        lacks. Without foreground in truth and prediction the scores are 1, with it in one of them only, 0.

    Raises:
        ConfigError: If no image is in both, a label or mask is missing, or the shapes of a pair differ.
    """
    if by is not None and by not in GROUPINGS:
        raise ConfigError(f"by must be one of {', '.join(GROUPINGS)}; got {by!r}.")
    predicted = {image.image_id: image for image in prediction}
    true = {image.image_id: image for image in truth}
    common = [image_id for image_id in true if image_id in predicted]
    if not common:
        raise ConfigError(
            f"{prediction.uri} and {truth.uri} have no image in common: {_named(predicted)} against {_named(true)}. "
            "Images are paired by image_id; evaluate labels that were predicted for this collection."
        )
    _warn(predicted.keys() - true.keys(), f"are in {prediction.uri} but not in {truth.uri} and are not scored")
    unlabelled = {image_id for image_id in true if label not in true[image_id].record.labels}
    if unlabelled.issuperset(common):
        raise _no_label(label, [true[image_id] for image_id in common], truth)
    _warn(unlabelled, f"have no label {label!r} in {truth.uri} and are not scored")
    missing = true.keys() - predicted.keys() - unlabelled
    _warn(missing, f"of {truth.uri} are missing from {prediction.uri}: the scores are those of the others")

    scored = [image_id for image_id in common if image_id not in unlabelled]
    name = _prediction_label([predicted[image_id] for image_id in scored], prediction_label, label, prediction)
    unmasked = [true[image_id] for image_id in scored if mask is not None and mask not in true[image_id].record.labels]
    if unmasked:
        raise _no_label(str(mask), unmasked, truth)
    _check_shapes([(predicted[image_id], true[image_id]) for image_id in scored])

    counts = {image_id: _compare(predicted[image_id], true[image_id], name, label, mask) for image_id in scored}
    rows = [
        _row("image", [counts[i]], 0, image_id=i, **{g: getattr(true[i].record, g) for g in GROUPINGS}) for i in scored
    ]
    if by is not None:
        group_of = {image_id: getattr(image.record, by) for image_id, image in true.items()}
        for value in sorted({group_of[i] for i in scored}, key=lambda value: (value is None, value or "")):
            members = [counts[i] for i in scored if group_of[i] == value]
            rows.append(_row(by, members, sum(group_of[i] == value for i in missing), **{by: value}))
    rows.append(_row("pooled", list(counts.values()), len(missing)))
    rows.append(_mean_row(rows[: len(scored)], len(missing)))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def check_scorable(truth: Collection, label: str, mask: str | None) -> None:
    """Make sure, before any work, that a collection can be scored against.

    Raises:
        ConfigError: If no image has the label, or an image that has it lacks the mask.
    """
    labelled = [image for image in truth if label in image.record.labels]
    if not labelled:
        raise _no_label(label, list(truth), truth)
    unmasked = [image for image in labelled if mask is not None and mask not in image.record.labels]
    if unmasked:
        raise _no_label(str(mask), unmasked, truth)


def _compare(predicted: Image, true: Image, predicted_label: str, label: str, mask: str | None) -> Confusion:
    """Counts over one image, read block by block."""
    found, wanted = predicted.labels(predicted_label), true.labels(label)
    kept = None if mask is None else true.labels(mask)
    total = Confusion()
    for block in cut_blocks(true.image_id, true.spatial_shape, BLOCK_PX):
        region = block.write
        scored = None if kept is None else kept.numpy(region)
        total += confusion(found.numpy(region), wanted.numpy(region), scored)
    return total


def _row(scope: str, counts: Sequence[Confusion], num_missing: int, **where: str | None) -> dict[str, Any]:
    pooled = sum(counts, Confusion())
    totals = {name: getattr(pooled, name) for name in COUNTS}
    return {"scope": scope, **where, "num_images": len(counts), "num_missing": num_missing, **scores(pooled), **totals}


def _mean_row(images: Sequence[dict[str, Any]], num_missing: int) -> dict[str, Any]:
    seen = [row for row in images if sum(row[name] for name in COUNTS)] or images  # a mask may leave nothing to score
    means = {name: sum(row[name] for row in seen) / len(seen) for name in SCORES}
    return {"scope": "mean", "num_images": len(seen), "num_missing": num_missing, **means}


def _prediction_label(images: Sequence[Image], wanted: str | None, label: str, prediction: Collection) -> str:
    """The name of the predicted label: as asked for, else as in the truth, else the only one."""
    shared = set.intersection(*(set(image.record.labels) for image in images))
    if wanted is None and label not in shared and len(shared) == 1:
        return shared.pop()
    name = wanted or label
    if name not in shared:
        raise _no_label(name, [image for image in images if name not in image.record.labels], prediction)
    return name


def _check_shapes(pairs: Iterable[tuple[Image, Image]]) -> None:
    for predicted, true in pairs:
        if predicted.spatial_shape != true.spatial_shape:
            raise ConfigError(
                f"{true.image_id}: the prediction has {predicted.spatial_shape} px and the truth "
                f"{true.spatial_shape} px. Labels are compared on the grid of the truth; segment that collection."
            )


def _no_label(label: str, images: Sequence[Image], collection: Collection) -> ConfigError:
    known = sorted({name for image in images for name in image.record.labels})
    return ConfigError(
        f"{collection.uri} has no label {label!r} for {_named(image.image_id for image in images)}; "
        f"there is {', '.join(known) or 'no label at all'}."
    )


def _warn(image_ids: Iterable[str], what: str) -> None:
    names = list(image_ids)
    if names:
        logger.warning("%d images %s: %s", len(names), what, _named(names))


def _named(image_ids: Iterable[str]) -> str:
    """The first few names, in order, and the number of the others."""
    names = sorted(image_ids)
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
