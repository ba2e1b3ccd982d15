"""Packing of a collection, whole images or crops, into few Parquet files that are a collection again."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raydom.errors import ConfigError
from raydom.storage import files
from raydom.storage.collection import Collection, Image, write_manifest
from raydom.storage.packed import SHARD_BYTES, Row, ShardWriter, shard_name
from raydom.types import ImageRecord, Region

logger = logging.getLogger(__name__)

MAX_ROW_BYTES = 512 * 2**20
"""The largest image that is packed whole: it is in memory several times while it is packed, and whenever it is read."""
NUM_READERS = 8
"""Images read at the same time."""
FEW_SHARDS, FEW_SHARDS_PER_ROW = 10, 0.1
"""More shards than both allow are not what a pack is for."""


@dataclass(frozen=True, slots=True)
class Piece:
    """An image, or a part of one, that becomes a row."""

    source_id: str
    region: Region
    record: ImageRecord
    """Its row in the new manifest; where it lies is not known yet."""


@dataclass(frozen=True, slots=True)
class PackReport:
    """What was packed."""

    num_images: int
    """Of the collection that was packed."""
    num_rows: int
    num_shards: int
    num_bytes: int
    """Of all shards."""
    num_small: int
    """Images smaller than the crops in either direction."""


def pack(
    collection: Collection,
    out: str,
    crop_px: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PackReport:
    """Write the images of a collection, with their labels, as a collection of Parquet shards.

    Args:
        collection: Images of any storage.
        out: Folder or URL of the new collection; there must be nothing yet.
        crop_px: Cut images into squares of this side. They cover every pixel: the last of a row or column reaches back
            over its neighbour, to be of full size; of a smaller image there is what there is. A crop is an image of
            its own, of the group of its image (or its id). Its statistics stay those of the whole image, so that
            training and block jobs normalise and match all crops of an image alike, as they would the image. What
            needs the pixels around a crop (labels at its border, a style method with context) does not have them.
            Default: images stay whole.
        progress: Called with the number of rows done and of all.

    Raises:
        ConfigError: For an output that is not empty, images that are too large to be one row, and crops that would have
            the id of another image.
        DataError: For pixels that cannot be read.
    """
    out = files.absolute(out)
    _check_new(out)
    pieces = [piece for record in collection.records for piece in _pieces(record, crop_px)]
    _check_pieces(collection, pieces)
    small = sum(crop_px is not None and min(record.spatial_shape) < crop_px for record in collection.records)
    if small:
        logger.warning("%d images are smaller than crops of %d px; they are as large as they are.", small, crop_px)
    by_kind: dict[Any, list[Piece]] = defaultdict(list)
    for piece in pieces:
        by_kind[piece.record.shape, piece.record.dtype, tuple(sorted(piece.record.labels))].append(piece)
    if len(by_kind) > max(FEW_SHARDS, FEW_SHARDS_PER_ROW * len(pieces)):
        logger.warning(
            "%d files or more for %d images: those of one size, dtype and set of labels share files. --crop PX, with "
            "squares%s that fit into most images, makes most of one size.",
            len(by_kind),
            len(pieces),
            "" if crop_px is None else f" of less than {crop_px} px",
        )
    done = itertools.count(1)

    def tick() -> None:
        progress(next(done), len(pieces))

    packed: list[ImageRecord] = []
    num_shards = num_bytes = 0
    for alike in by_kind.values():
        for records, content in _shards(_rows(collection, alike, tick)):
            name = f"shards/{shard_name(num_shards, content)}"
            files.write_bytes_atomic(files.join(out, name), content)
            packed += [replace(record, uri=f"{name}#{row}") for row, record in enumerate(records)]
            num_shards, num_bytes = num_shards + 1, num_bytes + len(content)
    write_manifest(out, packed)
    return PackReport(len(collection), len(packed), num_shards, num_bytes, small)


def _shards(rows: Iterable[tuple[Piece, Row]]) -> Iterator[tuple[list[ImageRecord], bytes]]:
    """The files of rows of one shape, each with the records of its rows.

    Labels may differ in dtype, which is only known when they are read: each dtype has a shard of its own.
    """
    writers: dict[Any, tuple[ShardWriter, list[ImageRecord]]] = {}
    for piece, row in rows:
        writer, records = writers.setdefault(row.kind, (ShardWriter(), []))
        writer.add(row)
        records.append(piece.record)
        if writer.nbytes + row.nbytes > SHARD_BYTES:
            yield records, writers.pop(row.kind)[0].content()
    for writer, records in writers.values():
        yield records, writer.content()


def _rows(collection: Collection, pieces: Sequence[Piece], tick: Callable[[], None]) -> Iterator[tuple[Piece, Row]]:
    """Pieces with what is read of them, in their order; read on threads, a few ahead."""
    image = functools.lru_cache(maxsize=2 * NUM_READERS)(collection.__getitem__)  # crops of one image come together
    record = pieces[0].record
    ahead = max(1, min(4 * NUM_READERS, SHARD_BYTES // _num_bytes(record)))
    with ThreadPoolExecutor(min(NUM_READERS, ahead), thread_name_prefix="pack") as pool:
        for first in range(0, len(pieces), ahead):
            batch = pieces[first : first + ahead]
            for piece, row in zip(batch, pool.map(lambda p: _read(image(p.source_id), p), batch), strict=True):
                yield piece, row
                tick()


def _read(image: Image, piece: Piece) -> Row:
    labels, properties = {}, {}
    for name in sorted(image.record.labels):
        label = image.labels(name)
        labels[name] = label.numpy(piece.region)
        known = label.properties()
        if known:
            there = set(np.unique(labels[name]).tolist())
            properties[name] = [entry for entry in known if entry.get("label-value") in there]
    return Row(piece.record.image_id, image.numpy(piece.region), labels, properties)


def _pieces(record: ImageRecord, crop_px: int | None) -> Iterator[Piece]:
    """The rows that an image becomes."""
    whole = Region.whole(record.spatial_shape)
    plane = replace(record, axes="cyx", shape=(record.num_channels, *whole.shape))
    if crop_px is None:
        yield Piece(record.image_id, whole, plane)
        return
    for top, left in itertools.product(*(_starts(size, crop_px) for size in whole.shape)):
        region = Region((top, left), (top + crop_px, left + crop_px)).clipped(whole)
        image_id = f"{record.image_id}_y{top:05d}_x{left:05d}"
        content = hashlib.sha256(json.dumps([record.sha256, region.start, region.stop]).encode()).hexdigest()
        crop = replace(
            plane,
            image_id=image_id,
            shape=(record.num_channels, *region.shape),
            group=record.group if record.group is not None else record.image_id,
            sha256=content,
        )
        yield Piece(record.image_id, region, crop)


def _num_bytes(record: ImageRecord) -> int:
    return math.prod(record.shape) * np.dtype(record.dtype).itemsize


def _starts(size: int, crop_px: int) -> list[int]:
    """First pixels of crops that cover ``size`` px, the last shifted back inside."""
    return [*range(0, size - crop_px, crop_px), size - crop_px] if size > crop_px else [0]


def _check_new(out: str) -> None:
    there = [*files.list_files(out), *files.list_folders(out)]
    if there:
        names = ", ".join(path.rsplit("/", 1)[-1] for path in there[:5])
        raise ConfigError(
            f"{out} is not empty ({names}): shards are written once and not added to. Choose another --out, or, if "
            "this is a pack that was interrupted, remove the folder and pack again."
        )


def _check_pieces(collection: Collection, pieces: Sequence[Piece]) -> None:
    if not pieces:
        raise ConfigError(f"{collection.uri}: no image is chosen. See raydom info {collection.uri}.")
    seen: dict[str, str] = {}
    for piece in pieces:
        record = piece.record
        num_bytes = _num_bytes(record)
        if num_bytes > MAX_ROW_BYTES:
            raise ConfigError(
                f"{piece.source_id} would be a row of {num_bytes / 2**20:.0f} MiB, which must be in memory whole "
                f"whenever a part is read; {MAX_ROW_BYTES / 2**20:.0f} MiB are the most. Cut it: --crop 512."
            )
        if record.image_id in seen:
            raise ConfigError(
                f"crops of {seen[record.image_id]} and {piece.source_id} would have one id, {record.image_id}; rename "
                "one of the images."
            )
        seen[record.image_id] = piece.source_id
