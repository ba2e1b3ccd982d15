"""The output of a job: an image and its labels are made, written block by block, and finished with their pyramids.

What was written and cannot be read any more is declared lost, so that the next run does it again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import zarr

from raydom.config import to_dict
from raydom.errors import DataError
from raydom.images.intensity import RunningStatistics
from raydom.inference.job import Job, output_uri
from raydom.inference.layout import Layout
from raydom.inference.tasks import Task
from raydom.storage import files, zarr_images
from raydom.storage.collection import Image
from raydom.storage.pyramids import LEVELS_AT_ONCE, bands, parts, writable_levels, write_coarser, write_levels
from raydom.storage.receipts import Receipt
from raydom.storage.zarr_images import READ_ERRORS
from raydom.types import Block, ImageRecord, ImageStatistics, Region

logger = logging.getLogger(__name__)

OPEN_ARRAYS = 16
"""Arrays that a worker keeps open; its tasks come image by image."""


class Output:
    """Writes the images of a job.

    Args:
        job: What is done.
        layout: What an output consists of.
    """

    def __init__(self, job: Job, layout: Layout) -> None:
        self.job, self.layout = job, layout
        self._open = functools.lru_cache(maxsize=OPEN_ARRAYS)(
            lambda uri, path: zarr_images.open_array(uri, path, mode="r+")
        )

    def create(self, image: Image) -> Mapping[str, Sequence[zarr.Array]]:
        """Make the output of an image; level 0 is cut into the shards that the blocks write.

        An output of the same make is kept: a worker that a dead driver or a lost machine left behind may get here while
        the pixels are already there.

        Returns:
            The levels of the image (at ``""``) and of its labels (at ``labels/<name>``).
        """
        uri = output_uri(self.job, image.image_id)
        if files.is_file(files.join(uri, "zarr.json")):
            pattern = f"memory://raydom/{uuid.uuid4().hex}"
            try:
                self._create(pattern, image)
                if zarr_images.is_made_alike(uri, pattern):
                    return {path: writable_levels(uri, path) for path, _ in self._pyramids(image)}
            finally:
                files.remove(pattern)
        return self._create(uri, image)

    def write_block(self, image: Image, block: Region, pixels: np.ndarray, labels: Mapping[str, np.ndarray]) -> None:
        """Write the pixels (c, h, w) of a block of several, and its labels by name."""
        uri = output_uri(self.job, image.image_id)
        arrays = [("0", pixels), *((f"labels/{name}/0", array) for name, array in labels.items())]
        for path, array in arrays:
            zarr_images.write_region(uri, path, block, array, self._open(uri, path))

    def write_alone(self, image: Image, task: Task, pixels: np.ndarray, labels: Mapping[str, np.ndarray]) -> str:
        """Write an image that is one block: nothing of it need be read again.

        Returns:
            Its manifest row as JSON.

        Raises:
            DataError: If a shard that was written is gone.
        """
        levels, running = self.create(image), self._running_statistics(image)
        running.add(pixels)
        for path, method in self._pyramids(image):
            write_levels(levels[path], labels[path.removeprefix("labels/")] if path else pixels, method)
            if zarr_images.lost_shards(levels[path][0]):
                raise DataError(f"{files.join(output_uri(self.job, image.image_id), path)}: its shard is missing.")
        return self._row(image, task, running.statistics(lambda: [pixels]))

    def write_part(self, image: Image, task: Task) -> None:
        """The coarser levels of a part of a large image, as far as they are only its own."""
        sums = self._write_coarser(image, task, task.block.write)
        files.write_bytes_atomic(self._part_uri(image, task.block.write), sums.to_bytes())

    def in_parts(self, image: Image) -> bool:
        """Whether the image is so large that its coarser levels are written in parts."""
        return len(parts(writable_levels(output_uri(self.job, image.image_id))[0])) > 1

    def finish(self, image: Image, task: Task) -> str:
        """What is left of a written image: pyramid and statistics; returns its manifest row as JSON.

        Raises:
            DataError: If a shard that was written is gone; its block is then one that failed.
        """
        uri = output_uri(self.job, image.image_id)
        for path, _ in self._pyramids(image):
            lost = zarr_images.missing_shards(uri, files.join(path, "0") if path else "0")
            if lost:
                error = DataError(f"{uri}: {len(lost)} shards are missing, the first at {lost[0].start}.")
                self._declare_lost(image, task, lost, error)
                raise error
        levels = writable_levels(uri)
        cut = parts(levels[0])
        running = self._running_statistics(image)
        known = len(cut) > 1 and not self._lacks_coarser(uri, image)
        for part in cut:
            sums = self._stored_sums(image, part) if known else None
            running.merge(self._write_coarser(image, task, part) if sums is None else sums)
        if len(levels) > LEVELS_AT_ONCE + 1:
            try:
                self._write_coarsest(uri, image)
            except READ_ERRORS as error:  # the levels that the parts have written; those they were made from are there
                logger.warning("%s: coarser levels are damaged and are made again (%s).", uri, error)
                for part in cut:
                    self._write_coarser(image, task, part)
                self._write_coarsest(uri, image)
        num_rows = zarr_images.shards_of(levels[0])[-2]
        try:
            statistics = running.statistics(lambda: (band for part in cut for band in bands(levels[0], num_rows, part)))
        except READ_ERRORS as error:
            whole = Region.whole(image.plane_shape)
            self._declare_lost(image, task, zarr_images.unreadable_shards(uri, "0", whole), error)
            raise
        return self._row(image, task, statistics)

    @contextmanager
    def told_of_losses(self, image: Image, task: Task, *errors: type[Exception]) -> Iterator[None]:
        """When what an earlier stage kept is gone or damaged (a DataError, or one of these errors), it is to be done
        again."""
        caught: tuple[type[Exception], ...] = (DataError, *errors)
        try:
            yield
        except caught as error:
            uri, whole = output_uri(self.job, image.image_id), Region.whole(image.plane_shape)
            if self.layout.blocks_keep:
                lost = list(zarr_images.shard_regions(zarr_images.open_array(uri, "0"), whole))
            else:
                lost = zarr_images.unreadable_shards(uri, "0", whole)
            self._declare_lost(image, task, lost, error)
            raise

    def _create(self, uri: str, image: Image) -> Mapping[str, Sequence[zarr.Array]]:
        channels = self.layout.channels(image)
        size = self.job.blocks.block_size
        chunk = next(chunk for chunk in (256, 128, 64, 32, 16) if size % chunk == 0)
        made = {}
        made[""] = zarr_images.create_image(
            uri,
            name=image.image_id,
            axes=f"c{'zyx'[-len(image.spatial_shape) :]}",
            shape=(len(channels), *image.spatial_shape),
            dtype=self.layout.dtype(image),
            pixel_size_um=self.layout.pixel_size_um(image),
            plane_distance_um=image.plane_distance_um,
            channels=channels,
            shard_px=size,
            chunk_px=chunk,
            overwrite=True,
        )
        for label, dtype in self.layout.labels(image).items():
            made[f"labels/{label}"] = zarr_images.create_labels(
                uri,
                label,
                shape=image.spatial_shape,
                dtype=dtype,
                pixel_size_um=self.layout.pixel_size_um(image),
                plane_distance_um=image.plane_distance_um,
                shard_px=size,
                chunk_px=chunk,
            )
        return made

    def _pyramids(self, image: Image) -> list[tuple[str, str]]:
        """The groups of an output that have levels, and how these are made."""
        return [("", "mean"), *((f"labels/{label}", "nearest") for label in self.layout.labels(image))]

    def _write_coarser(self, image: Image, task: Task, part: Region) -> RunningStatistics:
        """The coarser levels of a part of an image, as far as they are only its own; returns its statistics."""
        uri = output_uri(self.job, image.image_id)
        running = self._running_statistics(image)
        for path, method in self._pyramids(image):
            watch = running.add if not path else _unwatched
            try:
                write_coarser(writable_levels(uri, path), method, part=part, watch=watch)
            except READ_ERRORS as error:
                damaged = zarr_images.unreadable_shards(uri, files.join(path, "0") if path else "0", part)
                self._declare_lost(image, task, damaged, error)
                raise
        return running

    def _lacks_coarser(self, uri: str, image: Image) -> bool:
        """Whether shards of the levels that the parts have written are gone; they would be read as zeros."""
        return any(
            zarr_images.lost_shards(level)
            for path, _ in self._pyramids(image)
            for level in writable_levels(uri, path)[1 : LEVELS_AT_ONCE + 1]
        )

    def _write_coarsest(self, uri: str, image: Image) -> None:
        """The levels that no part has alone."""
        for path, method in self._pyramids(image):
            write_coarser(writable_levels(uri, path), method, start=LEVELS_AT_ONCE)

    def _running_statistics(self, image: Image) -> RunningStatistics:
        return RunningStatistics(self.layout.dtype(image), len(self.layout.channels(image)))

    def _stored_sums(self, image: Image, part: Region) -> RunningStatistics | None:
        """What was summed over a part of an output, unless it is gone or damaged."""
        uri = self._part_uri(image, part)
        try:
            return RunningStatistics.from_bytes(files.read_bytes(uri))
        except FileNotFoundError:
            return None
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            logger.warning("%s: these sums over a part of an image are damaged and are made again (%s).", uri, error)
            return None

    def _part_uri(self, image: Image, part: Region) -> str:
        return self.job.folder.part_uri(image.image_id, image.record.sha256, part)

    def _row(self, image: Image, task: Task, statistics: ImageStatistics) -> str:
        """The manifest row of an image that is written, as JSON."""
        channels = self.layout.channels(image)
        record = dataclasses.replace(
            image.record,
            uri=f"images/{image.image_id}.zarr",
            axes=f"c{'zyx'[-len(image.spatial_shape) :]}",
            shape=(len(channels), *image.spatial_shape),
            dtype=self.layout.dtype(image),
            channels=channels,
            labels=tuple(self.layout.labels(image)),
            label_kinds=self.layout.label_kinds(image),
            pixel_size_um=self.layout.pixel_size_um(image),
            # Of the input and all that was done to it, so that whoever builds on this output notices a change.
            sha256=hashlib.sha256(f"{image.record.sha256}{task.fingerprint}".encode()).hexdigest(),
            statistics=statistics,
        )
        return json.dumps(to_dict(record))

    def _declare_lost(self, image: Image, task: Task, regions: Sequence[Region], error: Exception) -> None:
        """Blocks whose pixels are gone or damaged, and what was made of them, are to be done again."""
        side = self.job.blocks.block_size << LEVELS_AT_ONCE
        lost = {("block", region.start) for region in regions}
        lost |= self.layout.follow(image)
        lost |= {("pyramid", tuple(start // side * side for start in region.start)) for region in regions}
        receipts = []
        for kind, start in sorted(lost):
            block = Block(image.image_id, Region(start, start))
            receipts.append(
                Receipt(
                    block_id=block.block_id,
                    image_id=image.image_id,
                    kind=kind,
                    fingerprint=task.fingerprint,
                    status="failed",
                    attempts=1,
                    error=f"it was done, but what was stored cannot be read any more: {error}",
                    finished_at=time.time(),
                )
            )
        self.job.folder.write_receipts(receipts)


def _unwatched(band: np.ndarray) -> None:
    """Labels have no statistics."""


def record_from_json(text: str) -> ImageRecord:
    """The manifest row that a finished image's receipt holds."""
    from raydom.config import from_dict

    return from_dict(ImageRecord, json.loads(text))
