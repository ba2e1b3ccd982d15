"""What a job does with a block: read, resample, stylise, segment, write.

The pixel grids: *output* px are those of the stored image (labels come back on them); *model* px are those that the
style method and the network see, after resampling by the job's scale.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import logging
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import zarr

from raydom.algorithms.large import Styler, global_pass, styled_region
from raydom.algorithms.style_interface import StyleInput
from raydom.algorithms.styles import get_method
from raydom.config import ModelSpec, to_dict
from raydom.errors import DataError
from raydom.images.content import content_score
from raydom.images.intensity import (
    RunningStatistics,
    fraction_statistics,
    from_fraction,
    to_fraction,
)
from raydom.images.objects import Parts
from raydom.images.resample import resample, source_region
from raydom.images.seams import SeamScore, seam_scores
from raydom.images.tiles import cut_blocks
from raydom.inference.job import BlockJob, model_shape, output_uri, style_of, style_units
from raydom.inference.models import network_on, open_model
from raydom.inference.objects import KINDS as OBJECT_STAGES
from raydom.inference.objects import ObjectStages, Seen
from raydom.inference.segmenter import Pass, Segmenter
from raydom.inference.worker import Task
from raydom.storage import files, zarr_images
from raydom.storage.collection import Image
from raydom.storage.pyramids import LEVELS_AT_ONCE, bands, parts, writable_levels, write_coarser, write_levels
from raydom.storage.receipts import Receipt
from raydom.storage.zarr_images import READ_ERRORS
from raydom.types import Block, ImageRecord, ImageStatistics, Region

logger = logging.getLogger(__name__)

OPEN_IMAGES = 16
"""Images that a worker keeps open; its tasks come image by image."""
BAND_PX = 1024
"""Height of the bands in which an overview is read, px of what is read."""


@dataclass(frozen=True, slots=True)
class BlockInput:
    """What was read for a block, as fractions of the legal range, on the model's grid."""

    pixels: np.ndarray
    """float32 (c, h, w) of ``seen``."""
    seen: Region
    """The part of the image that was read: ``inner`` and what styling it needs to see around it, model px."""
    inner: Region
    """The part of the image that the network needs, model px."""
    core: Region
    """What is wanted of it, model px."""
    passes: Sequence[Pass]
    """What the network is asked about."""


@dataclass(frozen=True, slots=True)
class BlockOutput:
    pixels: np.ndarray
    """(c, h, w) of the write region: probabilities as uint8 0..255, or stylised pixels."""
    labels: dict[str, np.ndarray]
    """(h, w) of the write region, by name: the segmentation, or the labels that a stylised image keeps."""
    fields: dict[str, Any]
    objects: Parts | None = None
    """Of an image that is one block."""
    view: Seen | None = None
    """What a network that tells objects as a list sees in a block of several."""


class Predictor:
    """The processor of a block job; loads the model and the style once, when a task first needs them.

    Args:
        job: What to do.
        device: Where to compute.
    """

    def __init__(self, job: BlockJob, device: str = "cpu") -> None:
        self.job = job
        self.images = job.chosen_images()
        self.device = torch.device(device)
        self.model = None if job.model is None else open_model(job.model, self.images)
        self.spec: ModelSpec | None = None if self.model is None else self.model.spec
        self.objects = ObjectStages(job, self.spec) if self.spec is not None and job.makes_objects(self.spec) else None
        self._passed: tuple[str, dict[str, np.ndarray]] | None = None
        self.image = functools.lru_cache(maxsize=OPEN_IMAGES)(self.images.__getitem__)
        self._output = functools.lru_cache(maxsize=OPEN_IMAGES)(
            lambda uri, path: zarr_images.open_array(uri, path, mode="r+")
        )

    @functools.cached_property
    def segmenter(self) -> Segmenter | None:
        if self.model is None:
            return None
        network = network_on(self.device, self.model)
        return Segmenter(network, self.model.spec, self.job.prediction, self.job.blocks.halo, self.device)

    @functools.cached_property
    def styler(self) -> Styler:
        style = self.job.style
        return Styler(get_method(style.method), style_of(style, str(self.device)), style)

    def stylised(self, image: Image, region: Region) -> np.ndarray:
        """What the network sees of a region, on the output's grid: (c, h, w) pixels of the image's dtype."""
        shape, grid = image.spatial_shape, self._grid(image)
        inner = source_region(region, grid, shape)
        seen = self.styler.context(inner, grid)
        styled = self._styled(image, self._read_part(image, seen, grid), seen, inner)
        styled = resample(styled, inner, region, grid, shape)
        return self._to_pixels(styled, image)

    # ---------------------------------------------------------------------------------------------- the processor

    def read(self, task: Task) -> Any:
        image = self.image(task.block.image_id)
        if self.objects is not None and task.kind in OBJECT_STAGES:
            with self._told_of_losses(image, task, *READ_ERRORS):
                return self.objects.read(task, image)
        if task.kind != "block":
            return image
        shape = image.spatial_shape
        grid = self._grid(image)
        core = source_region(task.block.write, grid, shape)
        passes = [] if self.segmenter is None else self.segmenter.passes(self._wanted(task, image), shape, grid)
        needed = [core, *(source_region(one.inner, grid, one.grid) for one in passes)]
        inner = functools.reduce(Region.joined, needed)
        seen = self.styler.context(inner, grid)
        return BlockInput(self._read_part(image, seen, grid), seen, inner, core, passes)

    @torch.inference_mode(False)
    def compute(self, task: Task, inputs: Any) -> Any:
        if task.kind in ("pyramid", "finish"):
            return inputs
        if task.kind == "overview":
            return self._make_global_pass(inputs)
        image = self.image(task.block.image_id)
        if self.objects is not None and task.kind in OBJECT_STAGES:
            with self._told_of_losses(image, task):
                return self.objects.compute(task, inputs, image)
        styled, fields = self._guarded(task, image, inputs)
        if not np.isfinite(styled).all():
            which = "" if self.job.style.method == "none" else "stylised "
            raise DataError(f"{task.block.block_id}: the {which}pixels are not finite.")
        if self.segmenter is None or self.spec is None:
            undone = fields.get("content_lost") and self.job.style.on_content_loss == "fallback"
            units = image.statistics if undone else self._units(image)
            pixels = from_fraction(styled, np.dtype(image.record.dtype), units)
            kept = {name: image.labels(name).numpy(task.block.write) for name in image.record.labels}
            return BlockOutput(pixels, kept, fields)
        wanted = self._wanted(task, image)
        told = (styled, inputs.inner, self._grid(image), inputs.passes, wanted, image.spatial_shape)
        if self.spec.network.output == "objects":
            return self._detected(task, image, *self.segmenter.objects(*told), fields)
        probability = self.segmenter.maps(*told)
        if not np.isfinite(probability).all():
            raise DataError(f"{task.block.block_id}: the network's output is not finite.")
        return self._labelled(task, image, probability, fields)

    def _wanted(self, task: Task, image: Image) -> Region:
        """What the network is to tell of: a block's own pixels; of objects told as a list, what it sees of them."""
        if self.spec is not None and self.spec.network.output == "objects" and self.objects is not None:
            return self.objects.region(image, task.block)
        return task.block.write

    def _detected(
        self, task: Task, image: Image, labels: np.ndarray, scores: np.ndarray, fields: dict[str, Any]
    ) -> BlockOutput:
        """What a block's objects come to: those of an image that is one block, or what the block sees of them."""
        assert self.objects is not None and self.spec is not None
        own = labels[task.block.write.relative_to(self._wanted(task, image)).slices]
        confidence = np.rint(255 * np.concatenate([[0.0], scores])).astype(np.uint8)[own]
        fields |= {"num_foreground_px": int((own > 0).sum())}
        if (own > 0).any():
            fields |= {"mean_confidence": float(confidence[own > 0].mean()) / 255}
        if task.block.write == Region.whole(image.spatial_shape):
            found, parts = self.objects.of_labels(image, labels, confidence)
            fields |= {"num_objects": len(parts)}
            return BlockOutput(confidence[None], {self.spec.label: found}, fields, parts)
        return BlockOutput(confidence[None], {}, fields, view=self.objects.seen(image, task.block, labels))

    def _labelled(self, task: Task, image: Image, probability: np.ndarray, fields: dict[str, Any]) -> BlockOutput:
        """What a block's probabilities (k, h, w) come to: labels of its pixels; or, if the job makes objects, those of
        an image that is one block (of larger ones they come later)."""
        assert self.spec is not None
        stored = np.rint(probability * 255).astype(np.uint8)
        threshold = self.job.threshold if self.job.threshold is not None else self.spec.threshold
        parts = None
        if self.objects is not None and task.block.write == Region.whole(image.spatial_shape):
            labels, parts = self.objects.of_whole(image, stored)
            fields |= {"num_objects": len(parts)}
        elif len(probability) == 1 or self.objects is not None:
            labels = (probability[0] >= threshold).astype(np.uint8)
        else:
            labels = probability.argmax(axis=0).astype(np.uint8)
        if self.spec.num_classes == 2:
            confidence = np.where(labels > 0, probability[0], 1 - probability[0])
        else:
            confidence = probability.max(axis=0)
        fields |= {"num_foreground_px": int((labels > 0).sum()), "mean_confidence": float(confidence.mean())}
        later = self.objects is not None and parts is None
        return BlockOutput(stored, {} if later else {self.spec.label: labels}, fields, parts)

    def write(self, task: Task, outputs: Any) -> dict[str, Any]:
        if task.kind == "pyramid":
            sums = self._write_coarser(outputs, task, task.block.write)
            files.write_bytes_atomic(self._part_uri(outputs, task.block.write), sums.to_bytes())
            return {"seam_score": self._score_seams(outputs, task)}
        if self.objects is not None and task.kind in OBJECT_STAGES:
            return self.objects.write(task, outputs, self.image(task.block.image_id))
        if task.kind == "finish":
            if self.objects is not None:
                with self._told_of_losses(outputs, task):
                    self.objects.write_table(outputs, self.objects.bands_of(outputs))
            in_parts = len(parts(writable_levels(output_uri(self.job, outputs.image_id))[0])) > 1
            row = self._finish(outputs, task)
            return {"record": row, "seam_score": None if in_parts else self._score_seams(outputs, task)}
        if task.kind == "overview":
            sink = io.BytesIO()
            np.savez(sink, **outputs)
            record = self.image(task.block.image_id).record
            uri = self.job.folder.overview_uri(record.image_id, record.sha256)
            files.write_bytes_atomic(uri, sink.getvalue())
            return {"checksum": f"{zlib.crc32(sink.getvalue()):08x}"}
        image = self.image(task.block.image_id)
        uri = output_uri(self.job, task.block.image_id)
        checksum = zlib.crc32(np.ascontiguousarray(outputs.pixels).tobytes())
        for labels in outputs.labels.values():
            checksum = zlib.crc32(np.ascontiguousarray(labels).tobytes(), checksum)
        fields = outputs.fields | {"checksum": f"{checksum:08x}"}
        if task.block.write == Region.whole(image.spatial_shape):
            return fields | {"record": self._write_alone(image, task, outputs)}
        if self.objects is not None and outputs.view is not None:
            self.objects.keep(image, task.block, outputs.view)
        zarr_images.write_region(uri, "0", task.block.write, outputs.pixels, self._output(uri, "0"))
        for name, labels in outputs.labels.items():
            path = f"labels/{name}/0"
            zarr_images.write_region(uri, path, task.block.write, labels, self._output(uri, path))
        return fields

    # -------------------------------------------------------------------------------------------------- the output

    def create_output(self, image: Image) -> Mapping[str, Sequence[zarr.Array]]:
        """Make the output of an image; level 0 is cut into the shards that the blocks write.

        An output of the same make is kept: a worker that a dead driver or a lost machine left behind may get here while
        the pixels are already there.

        Returns:
            The levels of the image (at ``""``) and of its labels (at ``labels/<name>``).
        """
        uri = output_uri(self.job, image.image_id)
        if files.exists(files.join(uri, "zarr.json")):
            pattern = f"memory://raydom/{uuid.uuid4().hex}"
            try:
                self._create_output(pattern, image)
                if zarr_images.is_made_alike(uri, pattern):
                    return {path: writable_levels(uri, path) for path, _ in self._pyramids(image)}
            finally:
                files.remove(pattern)
        return self._create_output(uri, image)

    def _create_output(self, uri: str, image: Image) -> Mapping[str, Sequence[zarr.Array]]:
        channels = self._output_channels(image)
        size = self.job.blocks.block_size
        chunk = next(chunk for chunk in (256, 128, 64, 32, 16) if size % chunk == 0)
        made = {}
        made[""] = zarr_images.create_image(
            uri,
            name=image.image_id,
            axes="cyx",
            shape=(len(channels), *image.spatial_shape),
            dtype="uint8" if self.spec else image.record.dtype,
            pixel_size_um=self.job.pixel_size_um or image.pixel_size_um,
            channels=channels,
            shard_px=size,
            chunk_px=chunk,
            overwrite=True,
        )
        for label, dtype in self._output_labels(image).items():
            made[f"labels/{label}"] = zarr_images.create_labels(
                uri,
                label,
                shape=image.spatial_shape,
                dtype=dtype,
                pixel_size_um=self.job.pixel_size_um or image.pixel_size_um,
                shard_px=size,
                chunk_px=chunk,
            )
        return made

    def _output_labels(self, image: Image) -> dict[str, str]:
        """Names and dtypes of the labels that are written."""
        if self.spec is not None:
            return {self.spec.label: "uint8" if self.objects is None else self.job.instances.ids}
        return {name: str(image.labels(name).dtype) for name in image.record.labels}

    def _output_channels(self, image: Image) -> tuple[str, ...]:
        if self.spec is None:
            return image.record.channels
        if self.spec.num_classes == 2:
            if self.spec.network.output == "objects":
                return ("confidence",)
            more = {"boundary": ("border probability",), "distance": ("depth",)}
            return ("foreground probability", *more.get(self.spec.network.output, ()))
        return tuple(f"probability of class {number}" for number in range(self.spec.num_classes))

    def _write_alone(self, image: Image, task: Task, outputs: BlockOutput) -> str:
        """Write an image that is one block: nothing of it need be read again. Returns its manifest row as JSON.

        Raises:
            DataError: If a shard that was written is gone.
        """
        levels, running = self.create_output(image), self._running_statistics(image)
        running.add(outputs.pixels)
        for path, method in self._pyramids(image):
            write_levels(levels[path], outputs.labels[path.removeprefix("labels/")] if path else outputs.pixels, method)
            if zarr_images.lost_shards(levels[path][0]):
                raise DataError(f"{files.join(output_uri(self.job, image.image_id), path)}: its shard is missing.")
        if self.objects is not None and outputs.objects is not None:
            self.objects.write_table(image, [outputs.objects])
        return self._row(image, task, running.statistics(lambda: [outputs.pixels]))

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

    def _finish(self, image: Image, task: Task) -> str:
        """What is left of the pyramid of a written image, and its statistics; returns its manifest row as JSON.

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
            whole = Region.whole(image.spatial_shape)
            self._declare_lost(image, task, zarr_images.unreadable_shards(uri, "0", whole), error)
            raise
        return self._row(image, task, statistics)

    def _score_seams(self, image: Image, task: Task) -> float | None:
        """Write the seam score of each stylised block of the task's region; returns that of all of them."""
        if self.spec is not None or self.job.style.method == "none":
            return None
        level = writable_levels(output_uri(self.job, image.image_id))[0]
        source_std = self._statistics(image).std
        (_, style_statistics), *_ = self.styler.style.each()
        total, receipts = SeamScore(), []

        def read_output(region: Region) -> np.ndarray:
            return to_fraction(np.asarray(level[(slice(None), *region.slices)]), self._units(image))

        def read_source(region: Region) -> np.ndarray:
            return to_fraction(image.numpy(region), image.statistics)

        for write, score in seam_scores(
            read_output,
            read_source,
            image.spatial_shape,
            self.job.blocks.block_size,
            style_statistics.std,
            source_std,
            task.block.write,
        ):
            total += score
            receipts.append(
                Receipt(
                    block_id=Block(image.image_id, write).block_id,
                    image_id=image.image_id,
                    kind="seam",
                    fingerprint=task.fingerprint,
                    status="ok",
                    attempts=1,
                    finished_at=time.time(),
                    seam_score=score.value,
                )
            )
        self.job.folder.write_receipts(receipts)
        return total.value

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

    def _row(self, image: Image, task: Task, statistics: ImageStatistics) -> str:
        """The manifest row of an image that is written, as JSON."""
        labels = tuple(self._output_labels(image))
        kinds = image.record.label_kinds
        if self.spec is not None:
            kinds = ("instance" if self.objects else "binary" if self.spec.num_classes == 2 else "semantic",)
        channels = self._output_channels(image)
        record = dataclasses.replace(
            image.record,
            uri=f"images/{image.image_id}.zarr",
            axes="cyx",
            shape=(len(channels), *image.spatial_shape),
            dtype="uint8" if self.spec else image.record.dtype,
            channels=channels,
            labels=labels,
            label_kinds=kinds,
            pixel_size_um=self.job.pixel_size_um or image.pixel_size_um,
            # Of the input and all that was done to it, so that whoever builds on this output notices a change.
            sha256=hashlib.sha256(f"{image.record.sha256}{task.fingerprint}".encode()).hexdigest(),
            statistics=statistics,
        )
        return json.dumps(to_dict(record))

    def _pyramids(self, image: Image) -> list[tuple[str, str]]:
        """The groups of an output that have levels, and how these are made."""
        return [("", "mean"), *((f"labels/{label}", "nearest") for label in self._output_labels(image))]

    def _running_statistics(self, image: Image) -> RunningStatistics:
        dtype = "uint8" if self.spec else image.record.dtype
        return RunningStatistics(dtype, len(self._output_channels(image)))

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

    def _declare_lost(self, image: Image, task: Task, regions: Sequence[Region], error: Exception) -> None:
        """Blocks whose pixels are gone or damaged, and what was made of them, are to be done again."""
        side = self.job.blocks.block_size << LEVELS_AT_ONCE
        lost = {("block", region.start) for region in regions}
        if self.objects is not None:  # neighbours saw those pixels too, and all numbers follow from what was seen
            cut = cut_blocks(image.image_id, image.spatial_shape, self.job.blocks.block_size)
            lost |= {(kind, block.write.start) for kind in ("view", "pair", "label") for block in cut}
            lost.add(("number", (0, 0)))
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

    @contextmanager
    def _told_of_losses(self, image: Image, task: Task, *errors: type[Exception]) -> Iterator[None]:
        """When what an earlier stage of objects kept is gone or damaged (a DataError, or one of these errors), those
        stages are to be done again."""
        caught: tuple[type[Exception], ...] = (DataError, *errors)
        try:
            yield
        except caught as error:
            uri, whole = output_uri(self.job, image.image_id), Region.whole(image.spatial_shape)
            lost = zarr_images.unreadable_shards(uri, "0", whole)
            if self.spec is not None and self.spec.network.output == "objects":  # whose blocks make the views too
                lost = list(zarr_images.shard_regions(zarr_images.open_array(uri, "0"), whole))
            self._declare_lost(image, task, lost, error)
            raise

    # ------------------------------------------------------------------------------------------------- computation

    def _to_pixels(self, fractions: np.ndarray, image: Image) -> np.ndarray:
        """Pixels of the image's dtype."""
        return from_fraction(fractions, np.dtype(image.record.dtype), self._units(image))

    def _units(self, image: Image) -> ImageStatistics:
        """The scale of the stylised pixels: of floating point ones that of a floating point style, else their own."""
        units = style_units(self.job.style) if np.dtype(image.record.dtype).kind == "f" else None
        return image.statistics if units is None else units

    def _grid(self, image: Image) -> tuple[int, ...]:
        return model_shape(image.spatial_shape, self.job.scale_of(image.record, self.spec))

    def _generator(self, image: Image) -> torch.Generator:
        seed = hashlib.sha256(f"{self.job.style.seed}:{image.image_id}".encode()).digest()[:7]
        return torch.Generator().manual_seed(int.from_bytes(seed, "big"))

    def _statistics(self, image: Image) -> ImageStatistics:
        return fraction_statistics(image.statistics, np.dtype(image.record.dtype))

    def _styled(self, image: Image, pixels: np.ndarray, seen: Region, inner: Region) -> np.ndarray:
        """The stylised pixels of ``inner``, from ``seen`` and what is known of the whole image: as in any other cut."""
        content = StyleInput(torch.from_numpy(pixels)[None].to(self.device), self._statistics(image))
        generator = self._generator(image)
        if self.styler.method.pointwise:
            return self.styler.at(1.0)(content, generator)[0].float().cpu().numpy()
        passed = self._global_pass_of(image)
        return styled_region(self.styler, passed, content, seen, inner, self._grid(image), generator)

    def _guarded(self, task: Task, image: Image, inputs: BlockInput) -> tuple[np.ndarray, dict[str, Any]]:
        """The stylised pixels of a block's ``inner``, and what the content guard says of its core.

        Raises:
            DataError: If the block has lost its content and that is to be a failure.
        """
        styled = self._styled(image, inputs.pixels, inputs.seen, inputs.inner)
        style = self.job.style
        if style.method == "none":
            return styled, {}
        content = inputs.pixels[(slice(None), *inputs.inner.relative_to(inputs.seen).slices)]
        core = (slice(None), *inputs.core.relative_to(inputs.inner).slices)
        (_, style_statistics), *_ = self.styler.style.each()
        score = content_score(content[core], styled[core], self._statistics(image).std, style_statistics.std)
        lost = score < style.content_threshold
        if lost and style.on_content_loss == "fail":
            raise DataError(
                f"{task.block.block_id}: {style.method} has not kept the content: its score is {score:.2f}, below "
                f"{style.content_threshold:g}. Choose a gentler setting or another style image, or set "
                "--on-content-loss to flag or fallback."
            )
        if lost and style.on_content_loss == "fallback":
            styled = content
        return styled, {"content_score": score, "content_lost": lost}

    def _global_pass_of(self, image: Image) -> dict[str, np.ndarray]:
        if self._passed is None or self._passed[0] != image.image_id:
            uri = self.job.folder.overview_uri(image.image_id, image.record.sha256)
            try:
                with np.load(io.BytesIO(files.read_bytes(uri))) as stored:
                    passed = {name: stored[name] for name in stored.files}
            except FileNotFoundError:  # an image of one block has none
                passed = self._make_global_pass(image)
            except (ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
                logger.warning("%s: this global pass is damaged and is made again (%s).", uri, error)
                passed = self._make_global_pass(image)
            self._passed = (image.image_id, passed)
        return self._passed[1]

    def _make_global_pass(self, image: Image) -> dict[str, np.ndarray]:
        """What blocks must know of the whole image."""
        grid = self._grid(image)

        def read(region: Region, at: tuple[int, ...]) -> np.ndarray:
            return self._read_part(image, region, grid) if at == grid else self._read_resampled(image, region, at)

        return global_pass(self.styler, self._statistics(image), read, grid, self.device, self._generator(image))

    def _read_part(self, image: Image, region: Region, grid: tuple[int, ...]) -> np.ndarray:
        """A region of the image resampled to ``grid``, as fractions."""
        shape = image.spatial_shape
        source = source_region(region, shape, grid)
        return resample(to_fraction(image.numpy(source), image.statistics), source, region, shape, grid)

    def _read_resampled(self, image: Image, region: Region, shape: tuple[int, ...]) -> np.ndarray:
        """A region of the image at another size, read band by band from the smallest level that is no smaller."""
        level = 0
        while (
            level + 1 < image.num_levels
            and min(have - want for have, want in zip(image.level_shape(level + 1), shape, strict=True)) >= 0
        ):
            level += 1
        have = image.level_shape(level)
        bands, height = [], max(1, BAND_PX * shape[0] // have[0])
        for top in range(region.start[0], region.stop[0], height):
            band = Region((top, region.start[1]), (min(top + height, region.stop[0]), region.stop[1]))
            source = source_region(band, have, shape)
            fractions = to_fraction(image.numpy(source, level), image.statistics)
            bands.append(resample(fractions, source, band, have, shape))
        return np.concatenate(bands, axis=1)


def _unwatched(band: np.ndarray) -> None:
    """Labels have no statistics."""


def record_from_json(text: str) -> ImageRecord:
    """The manifest row that a finished image's receipt holds."""
    from raydom.config import from_dict

    return from_dict(ImageRecord, json.loads(text))
