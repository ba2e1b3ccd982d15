"""The ingestion of one file, or of one OME-Zarr image that stays where it is: plain values in, plain values out.

A file is written completely (pixels, pyramid, labels) before its rows are handed back, so that a manifest never lists
half an image, whatever kills the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from raydom.errors import DataError
from raydom.images.intensity import image_statistics, stream_statistics
from raydom.ingestion.plan import IngestTask, LabelSource, find_files
from raydom.ingestion.truth import LabelPlane, label_planes
from raydom.storage import files
from raydom.storage.collection import Levels
from raydom.storage.pictures import LazyPixels, Picture, default_channels, piece_rows, square_pixel
from raydom.storage.pyramids import bands
from raydom.storage.readers import read_pictures, reader_version, split_part
from raydom.storage.video import is_video_name
from raydom.storage.whole_images import write_image
from raydom.storage.zarr_images import list_labels, read_multiscale
from raydom.types import PLANE_DISTANCE, Extra, ImageRecord

FORMAT = 1
"""Raised when the same files would be stored differently, so that they are ingested again. When it is those of one kind
only, its reader's version is raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A file that was not ingested, and why."""

    source_file: str
    label_file: str | None
    """The label file, if that is where the fault lies."""
    error_type: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOutcome:
    """What became of one task."""

    task: IngestTask
    records: tuple[ImageRecord, ...] = ()
    """New rows."""
    replaced: tuple[ImageRecord, ...] = ()
    """Rows that they stand for."""
    skipped: bool = False
    """The collection has this very content already; ``records`` only differ from ``replaced`` by what was asked."""
    refusal: Refusal | None = None
    notes: tuple[str, ...] = ()
    overlap_px: int = 0
    """Label pixels that several objects claim."""
    num_hidden: int = 0
    """Objects that have no label pixel of their own."""


Labels = list[tuple[LabelSource, tuple[Path, ...]]]
"""The labels of an image, each with local copies of its files."""


def ingest_file(task: IngestTask) -> IngestOutcome:
    """Read one file (or index one OME-Zarr image), and write its images; never raises for what the file holds."""
    try:
        return _index(task) if task.config.index_only else _read_and_write(task)
    except _LabelError as error:
        cause = error.__cause__ or error
        return refused(task, error.uri, cause)
    except Exception as error:  # one bad file never stops the others
        return refused(task, None, error)


def refused(task: IngestTask, label_file: str | None, error: BaseException) -> IngestOutcome:
    """The outcome of a file that is not ingested, and of which label file that is the fault, if it is one's."""
    named = error if str(error) else type(error).__name__
    refusal = Refusal(source_file=task.source, label_file=label_file, error_type=type(error).__name__, error=str(named))
    return IngestOutcome(task=task, refusal=refusal)


class _LabelError(DataError):
    """A fault of a label file; the cause is the error itself."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri


# ---------------------------------------------------------------------------------------------------------- one file


def _read_and_write(task: IngestTask) -> IngestOutcome:
    with contextlib.ExitStack() as stack:
        source = _copied(stack, task.source)
        labels: Labels = []
        for label in task.labels:
            with _blaming(label.uri):
                labels.append((label, _copied_label(stack, label)))
        content = _content_hash(task, source, labels)
        same = _same_content(task, content)
        if same:
            return IngestOutcome(task=task, records=_relabelled(task, same), replaced=same, skipped=True)
        mine = tuple(record for record in task.existing if record.source_file == task.source)
        given = {name for label in task.labels for name in label.label_names}
        lost = sorted({name for record in mine for name in record.labels} - given)
        if lost:
            raise DataError(
                f"{task.source} is in the collection with label {', '.join(lost)}, which this run would drop. Give its "
                "--labels again, or ingest into another --out."
            )
        known = {record.image_id: record for record in task.existing}
        taken = {record.uri for record in task.existing}
        written: list[str] = []
        records: dict[str, ImageRecord] = {}
        notes: list[str] = []
        overlap_px = num_hidden = 0
        try:
            for picture, planes in _in_step(task, source, labels):
                notes += picture.notes + _unknown_distance(task, picture)
                overlap_px += sum(plane.overlap_px for plane in planes.values())
                num_hidden += sum(plane.num_hidden for plane in planes.values())
                record = _prepare(task, picture, planes, content, known)
                # A changed file goes to a new place: the row that exists must not point at half of its successor.
                if record.uri in taken:
                    record = replace(record, uri=f"{record.uri.removesuffix('.zarr')}-{record.sha256[:8]}.zarr")
                _check_unclaimed(task, record, known)
                if record.image_id in records:
                    raise DataError(f"{task.source}: two of its images have the id {record.image_id}.")
                written.append(files.join(task.config.out, record.uri))
                write_image(
                    written[-1],
                    record,
                    picture.pixels,
                    {name: plane.pixels for name, plane in planes.items()},
                    {name: plane.properties for name, plane in planes.items()},
                )
                records[record.image_id] = record
        except BaseException:
            for uri in written:
                files.remove(uri)
            raise
    return IngestOutcome(
        task=task,
        records=tuple(records.values()),
        replaced=mine,
        notes=tuple(notes),
        overlap_px=overlap_px,
        num_hidden=num_hidden,
    )


def _unknown_distance(task: IngestTask, picture: Picture) -> tuple[str, ...]:
    """What is told of a volume whose pixels are known in um and the distance of its planes is not."""
    known = (task.config.plane_distance_um, picture.plane_distance_um)
    sized = task.config.pixel_size_um or picture.pixel_sides_um
    if len(picture.pixels.shape) < 4 or known != (None, None) or not sized:
        return ()
    return ("the distance of planes is not known, and viewers take it for 1; give --plane-distance",)


def _copied(stack: contextlib.ExitStack, uri: str) -> Path:
    try:
        path = stack.enter_context(files.local_copy(split_part(uri)[0]))
    except FileNotFoundError as error:
        raise DataError(f"{uri}: there is no such file.") from error
    if not path.is_file():
        raise DataError(f"{uri}: there is no such file.")
    return path


def _copied_label(stack: contextlib.ExitStack, label: LabelSource) -> tuple[Path, ...]:
    """Local copies of the files of a label, in the order of their names; of annotations there is no need for any."""
    if label.annotations is not None:
        return ()
    if not label.one_mask_per_object:
        return (_copied(stack, label.uri),)
    masks = find_files([label.uri])
    if not masks:
        raise DataError(f"{label.uri}: has no mask of an object.")
    return tuple(_copied(stack, mask) for mask in masks)


def _content_hash(task: IngestTask, source: Path, labels: Labels) -> str:
    """Of the bytes of the files, and of the settings that change what is stored."""
    config = task.config
    settings: list[Any] = [FORMAT, config.invert_labels, config.pixel_size_um, config.pages]
    settings += [config.axes] if config.axes is not None else []
    versions = [reader_version(path) for path in (source, *itertools.chain.from_iterable(paths for _, paths in labels))]
    settings += [["readers", versions]] if max(versions) > 1 else []
    settings += [["volumes", config.plane_distance_um]] if config.volumes else []
    settings += [["fps", config.fps]] if config.fps is not None and is_video_name(task.source) else []
    settings += [
        [*label.label_names, label.ignore_value, label.boundary_px]
        for label, _ in labels
        if label.label_names != (label.name,)
    ]
    digest = hashlib.sha256(json.dumps(settings).encode())
    ordered = sorted((label.name, label.uri, paths, label.annotations) for label, paths in labels)
    for name, uri, paths, text in [("", task.source, (source,), None), *ordered]:
        for path in paths:
            with path.open("rb") as file:
                digest.update(f"\0{name}\0".encode() + hashlib.file_digest(file, "sha256").digest())
        digest.update((split_part(uri)[1] or "").encode())
        if text is not None:
            digest.update(f"\0{name}\0{text}".encode())
    return digest.hexdigest()


def _plane_hash(content: str, plane: str) -> str:
    return hashlib.sha256((content + plane).encode()).hexdigest() if plane else content


def _same_content(task: IngestTask, content: str) -> tuple[ImageRecord, ...]:
    """The rows that hold exactly this content, here or from a copy of the file elsewhere; () if it is new."""
    same = tuple(
        record
        for record in task.existing
        if record.sha256 == _plane_hash(content, record.image_id.removeprefix(task.image_id))
    )
    ids = {record.image_id for record in same}
    changed = any(record.source_file == task.source and record.image_id not in ids for record in task.existing)
    return () if changed else same


def _relabelled(task: IngestTask, records: Sequence[ImageRecord]) -> tuple[ImageRecord, ...]:
    """The rows with the domain, split, group and columns that were asked for now."""
    asked = {"domain": task.config.domain, "split": task.config.split, "group": task.group}
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    return tuple(replace(record, **changes, extra=_extra(task, record)) for record in records)


def _extra(task: IngestTask, known: ImageRecord | None, told: Extra = (), plane_distance: float | None = None) -> Extra:
    """What the manifest says of the image already, with what its file tells and the columns asked for now.

    Args:
        plane_distance: Of a volume, um, where it is known.
    """
    extra = known.extra if known is not None else ()
    distance: Extra = () if plane_distance is None else ((PLANE_DISTANCE, plane_distance),)
    return tuple(sorted((dict(extra) | dict(told) | dict(distance) | dict(task.columns)).items()))


def _in_step(task: IngestTask, source: Path, labels: Labels) -> Iterator[tuple[Picture, dict[str, LabelPlane]]]:
    """The pictures of the image file, each with the labels of the same plane by name."""
    config = task.config
    streams = [(label.uri, label_planes(label, paths, config)) for label, paths in labels]
    number = 0
    pictures = read_pictures(
        task.source, pages=config.pages, axes=config.axes, fps=config.fps, volumes=config.volumes, copy=source
    )
    for picture in pictures:
        planes: dict[str, LabelPlane] = {}
        for uri, stream in streams:
            with _blaming(uri):
                found = next(stream, None)
                if found is None:
                    raise DataError(f"{uri}: has {number} planes, the image has more.")
                for plane in found.values():
                    if picture.row is not None and plane.row is not None and picture.row.name != plane.row:
                        raise DataError(
                            f"{uri}: row {number} is of {plane.row}, in {task.source} of {picture.row.name}; both "
                            "must have their rows in the same order."
                        )
                    if plane.pixels.shape != picture.pixels.shape[1:]:
                        raise DataError(
                            f"{uri}: the label is {_size(plane.pixels.shape)}, its image {task.source} "
                            f"{_size(picture.pixels.shape[1:])}."
                        )
                planes |= found
        number += 1
        yield picture, planes
    for uri, stream in streams:
        with _blaming(uri):
            if next(stream, None) is not None:
                raise DataError(f"{uri}: has more planes than the image, which has {number}.")


@contextlib.contextmanager
def _blaming(uri: str) -> Iterator[None]:
    """Faults inside are those of this label file."""
    try:
        yield
    except Exception as error:
        raise _LabelError(uri) from error


def _size(shape: Sequence[int]) -> str:
    names = " x ".join(("planes", "height", "width")[-len(shape) :])
    return f"{' x '.join(str(size) for size in shape)} px ({names})"


def _prepare(
    task: IngestTask,
    picture: Picture,
    planes: dict[str, LabelPlane],
    content: str,
    known: Mapping[str, ImageRecord],
) -> ImageRecord:
    """The row of a picture that is yet to be written.

    Args:
        known: Rows of the collection, by image id.
    """
    config, pixels, row = task.config, picture.pixels, picture.row
    base, group = task.image_id, task.group
    if row is not None:  # an image of its own, which no other of the file is grouped with
        base = row.name or f"{task.image_id}_r{row.number:06d}"
        group = group if group is not None else row.group
    is_volume = len(pixels.shape) == 4
    distance = config.plane_distance_um if config.plane_distance_um is not None else picture.plane_distance_um
    image_id = base + picture.plane
    sha256 = _plane_hash(content, image_id.removeprefix(task.image_id))
    folder = f"images/{task.image_id}/" if picture.plane or row is not None else "images/"
    try:
        pixel_size = config.pixel_size_um if config.pixel_size_um is not None else picture.pixel_size_um
        if isinstance(pixels, LazyPixels):
            num_rows = piece_rows(math.prod(pixels.shape[1:-2]))
            statistics = stream_statistics(lambda: bands(pixels, num_rows))
        else:
            statistics = image_statistics(pixels)
    except DataError as error:
        raise DataError(f"{task.source}{f' ({image_id})' if image_id != task.image_id else ''}: {error}") from error
    return ImageRecord(
        image_id=image_id,
        uri=f"{folder}{image_id}.zarr",
        axes="czyx" if is_volume else "cyx",
        shape=pixels.shape,
        dtype=str(pixels.dtype),
        pixel_size_um=pixel_size,
        channels=picture.channels,
        domain=config.domain,
        split=config.split,
        group=group if group is not None or not picture.plane else base,
        labels=tuple(planes),
        statistics=statistics,
        source_file=task.source,
        sha256=sha256,
        label_kinds=tuple(plane.kind for plane in planes.values()),
        extra=_extra(task, known.get(image_id), () if row is None else row.extra, distance if is_volume else None),
    )


def _check_unclaimed(task: IngestTask, record: ImageRecord, known: Mapping[str, ImageRecord]) -> None:
    other = known.get(record.image_id)
    if other is not None and other.source_file != task.source:
        raise DataError(
            f"the collection has another image with the id {record.image_id}: {other.source_file}, not "
            f"{task.source}. Rename one, or ingest it into another collection."
        )


# ---------------------------------------------------------------------------------------------- OME-Zarr made elsewhere


def _index(task: IngestTask) -> IngestOutcome:
    """The row of an OME-Zarr image that stays where it is; its pixels are read in blocks."""
    config, metadata, levels = task.config, read_multiscale(task.source), Levels(task.source)
    dtype, num_channels, is_volume = levels.array(0).dtype, levels.num_channels(), levels.num_planes > 1
    if is_volume and not config.volumes:
        raise DataError(
            f"{task.source}: axis z has {levels.num_planes} planes. List it as a volume, by --volumes, or store each "
            "plane as an image of its own."
        )
    shape = _spatial_shape(levels)
    settings = [FORMAT, config.pixel_size_um, *([config.plane_distance_um] if is_volume else [])]
    digest, kinds = hashlib.sha256(json.dumps(settings).encode()), []
    for block in _blocks(levels):
        digest.update(np.ascontiguousarray(block).data)
    labels = list_labels(task.source)
    for name in labels:
        label, highest = Levels(task.source, f"labels/{name}"), 0
        if _spatial_shape(label) != shape:
            raise DataError(f"{label.where}: the label is {_size(_spatial_shape(label))}, its image {_size(shape)}.")
        for block in _blocks(label):
            highest = max(highest, int(block.max()))
            digest.update(np.ascontiguousarray(block).data)
        kinds.append("binary" if highest <= 1 else "instance")
    content = digest.hexdigest()
    same = _same_content(task, content)
    if same:
        return IngestOutcome(task=task, records=_relabelled(task, same), replaced=same, skipped=True)
    named = len(metadata.channels) == num_channels
    pixel_size = config.pixel_size_um
    distance = config.plane_distance_um if config.plane_distance_um is not None else metadata.plane_distance_um
    try:
        statistics = stream_statistics(lambda: _blocks(levels))
        pixel_size = pixel_size if pixel_size is not None else square_pixel(metadata.pixel_sides_um)
    except DataError as error:
        raise DataError(f"{task.source}: {error}") from error
    known = {record.image_id: record for record in task.existing}
    record = ImageRecord(
        image_id=task.image_id,
        uri=task.source,
        axes="czyx" if is_volume else "cyx",
        shape=(num_channels, *shape),
        dtype=str(np.dtype(dtype)),
        pixel_size_um=pixel_size,
        channels=metadata.channels if named else default_channels(num_channels),
        domain=config.domain,
        split=config.split,
        group=task.group,
        labels=labels,
        statistics=statistics,
        source_file=task.source,
        sha256=content,
        label_kinds=tuple(kinds),
        extra=_extra(task, known.get(task.image_id), (), distance if is_volume else None),
    )
    _check_unclaimed(task, record, known)
    mine = tuple(record for record in task.existing if record.source_file == task.source)
    return IngestOutcome(task=task, records=(record,), replaced=mine)


def _blocks(levels: Levels) -> Iterator[np.ndarray]:
    """Level 0 in blocks, channels first."""
    for region in levels.regions():
        pixels = levels.read(region, 0)
        yield pixels if "c" in levels.axes else pixels[None]


def _spatial_shape(levels: Levels) -> tuple[int, ...]:
    """Height and width, px; of a volume (planes, height, width)."""
    return (*([levels.num_planes] if levels.num_planes > 1 else []), *levels.shape(0))
