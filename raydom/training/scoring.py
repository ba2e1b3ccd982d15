"""Scores of predicted labels against the truth, for each image, by domain, and over the whole collection."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import pyarrow as pa

from raydom.errors import ConfigError, DataError
from raydom.images.overlaps import Overlaps, count_overlaps, merged
from raydom.images.tiles import cut_blocks
from raydom.storage.collection import Collection, Image
from raydom.storage.columns import column_text, column_values
from raydom.training.score_rows import GROUPINGS, ScoreRows
from raydom.training.tallies import KINDS, ZEROS, Tally, tally, tally_scores
from raydom.types import ImageRecord

logger = logging.getLogger(__name__)

BLOCK_PX = 2048
"""Side of the squares that are read and compared, px, so that no image is in memory whole; of volumes, which are read
through all planes, they have as many pixels, but no less than this side."""
SMALLEST_BLOCK_PX = 128
NAMES_SHOWN = 5


def evaluate(
    prediction: Collection,
    truth: Collection,
    *,
    label: str = "label",
    prediction_label: str | None = None,
    mask: str | None = None,
    by: str | None = None,
    kind: str | None = None,
    zero: str = "boundary",
    bootstrap: int = 1000,
    seed: int = 0,
) -> pa.Table:
    """Compare the labels of two collections; images, and volumes as wholes, are paired by their id.

    Pixels are scored as foreground (every label but 0) and background. Where both collections number their objects,
    objects and partitions are scored as well, and where one has classes, each class; see ``tally_scores``.

    Args:
        prediction: The collection with the predicted labels.
        truth: The collection with the true labels; its images may outnumber the predicted ones.
        label: Name of the true label.
        prediction_label: Name of the predicted label. Default: ``label``, or the only one that there is.
        mask: Name of a label of the truth, such as a field of view; pixels where it is 0 are not scored.
        by: A column of the truth's manifest, such as domain: adds two rows for each of its values.
        kind: What both labels are, ``binary``, ``instance`` or ``semantic``, whatever the manifests say.
        zero: What the 0 of a true instance label means to scores of partitions (Rand errors, VI, CREMI): ``boundary``,
            pixels that are left out, or ``background``, one object more.
        bootstrap: Resamples for the intervals; 0 for none.
        seed: Of the resamples.

    Returns:
        Rows told apart by ``scope``: ``image``; ``pooled`` (scores of the summed counts) and ``mean`` (mean of the
        images' scores, without counts; where a score is not defined for an image, of the others); and for each value of
        the column ``by`` names, such as ``domain``, ``domain`` (pooled) and ``domain mean``. ``num_images`` is the
        number of images scored, ``num_missing`` of those that the truth has and the prediction lacks; ``label_kind``
        says which scores there are. ``<score>_low`` and ``<score>_high`` bound the 95 % bootstrap interval over images,
        or over groups where images have one (slices of a stack are not independent); null for an image and where there
        is only one to draw from.

    Raises:
        ConfigError: If no image is in both, a label, mask or column is missing, or the shapes of a pair differ.
    """
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}.")
    if zero not in ZEROS:
        raise ConfigError(f"zero must be {' or '.join(ZEROS)}; got {zero!r}.")
    if bootstrap < 0:
        raise ConfigError(f"bootstrap is a number of resamples, 0 or more; got {bootstrap}.")
    value_of = _values(by, truth)
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
    if kind is None:
        kind = _kind([true[i].record for i in scored], label, [predicted[i].record for i in scored], name)
    if zero != "boundary" and kind != "instance":
        raise ConfigError(
            f"zero {zero} is of labels that number objects; these are scored as {kind} labels, whose 0 is background "
            "always. Leave it out, or say by --kind instance that they number objects."
        )

    tallies = {i: _compare(predicted[i], true[i], name, label, mask, kind, zero) for i in scored}
    scores = ScoreRows(tallies, {i: _unit(true[i].record) for i in scored}, kind, bootstrap, seed)
    rows = [
        scores.pooled("image", [i], 0, image_id=i, **{g: getattr(true[i].record, g) for g in GROUPINGS}) for i in scored
    ]
    if by is not None:
        for row, image_id in zip(rows, scored, strict=True):
            row[by] = value_of[image_id]
        for value in sorted({value_of[i] for i in scored}, key=lambda value: (value is None, value or "")):
            members = [i for i in scored if value_of[i] == value]
            num_missing = sum(value_of[i] == value for i in missing)
            rows.append(scores.pooled(by, members, num_missing, **{by: value}))
            rows.append(scores.mean(f"{by} mean", members, num_missing, **{by: value}))
    rows.append(scores.pooled("pooled", scored, len(missing)))
    rows.append(scores.mean("mean", scored, len(missing)))
    return pa.Table.from_pylist(rows, schema=scores.schema(by))


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


def label_kinds(records: Sequence[ImageRecord], label: str) -> set[str | None]:
    """What the manifest says that a label is, in these images; None where it does not say."""
    return {dict(zip(record.labels, record.label_kinds, strict=False)).get(label) for record in records}


def _compare(
    predicted: Image, true: Image, predicted_label: str, label: str, mask: str | None, kind: str, zero: str
) -> Tally:
    """What is counted of one image, read block by block."""
    found, wanted = predicted.labels(predicted_label), true.labels(label)
    kept = None if mask is None else true.labels(mask)
    side = BLOCK_PX
    while side > SMALLEST_BLOCK_PX and side**2 * true.num_planes > BLOCK_PX**2:
        side //= 2

    def overlaps() -> Iterable[Overlaps]:
        for block in cut_blocks(true.image_id, true.plane_shape, side):
            region = block.write
            scored = None if kept is None else kept.numpy(region)
            yield count_overlaps(found.numpy(region), wanted.numpy(region), scored)

    try:
        return tally(merged(overlaps()), kind, zero)
    except (ConfigError, DataError) as error:
        raise type(error)(f"{true.image_id}: {error}") from error


def _kind(true: Sequence[ImageRecord], label: str, predicted: Sequence[ImageRecord], name: str) -> str:
    """What is scored, by what the manifests say that the labels are."""
    of_truth, of_prediction = label_kinds(true, label), label_kinds(predicted, name)
    if "semantic" in of_truth | of_prediction:
        return "semantic"
    # One image with objects suffices: an instance label with at most one object in an image looks binary there.
    numbered = ["instance" in of_truth, "instance" in of_prediction]
    if any(numbered) and not all(numbered):
        which, other = ("truth", "prediction") if numbered[0] else ("prediction", "truth")
        logger.warning(
            "the %s numbers its objects and the %s is binary: only pixels are scored (F1, IoU, Dice, precision, recall)"
            ", not objects. %s--kind instance scores each value of a label as an object.",
            which,
            other,
            "--instances.components of `raydom segment` makes objects of what hangs together. " if numbered[0] else "",
        )
    return "instance" if all(numbered) else "binary"


def _unit(record: ImageRecord) -> tuple[str, str]:
    """What the bootstrap draws: the group, since its images are alike, else the image."""
    return ("image", record.image_id) if record.group is None else ("group", record.group)


def _values(by: str | None, truth: Collection) -> dict[str, str | None]:
    """By image, its value in a column of the manifest, as text."""
    if by is None:
        return {}
    values = column_values(by, truth.table, truth.uri)
    nothing = tally(Overlaps.none(), "instance")
    if by in {"scope", "image_id", "num_images", "num_missing", *nothing, *tally_scores(nothing, "instance")}:
        raise ConfigError(f"by cannot be {by}, which the table of scores has already; give the column another name.")
    texts = [", ".join(column_text(value) for value in row) or None for row in values]
    return dict(zip(truth.table["image_id"].to_pylist(), texts, strict=True))


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
