"""What a job does with a task: read, resample, stylise, segment, write.

The pixel grids: *output* px are those of the stored image (labels come back on them); *model* px are those that the
style method and the network see, after resampling by the job's scale.
"""

from __future__ import annotations

import functools
import io
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raydom.config import ModelSpec
from raydom.errors import DataError
from raydom.images.intensity import from_fraction
from raydom.images.objects import Parts
from raydom.images.resample import source_region
from raydom.inference.cells import Seen
from raydom.inference.job import BlockJob
from raydom.inference.layout import BlockLayout
from raydom.inference.models import network_on, open_model
from raydom.inference.objects import KINDS as OBJECT_STAGES
from raydom.inference.objects import ObjectStages
from raydom.inference.output import Output
from raydom.inference.segmenter import NetworkInput, Pass, Segmenter
from raydom.inference.styling import BlockPixels, BlockStyler
from raydom.inference.tasks import Task
from raydom.storage import files
from raydom.storage.collection import Image
from raydom.storage.zarr_images import READ_ERRORS
from raydom.types import Block, Region

OPEN_IMAGES = 16
"""Images that a worker keeps open; its tasks come image by image."""


@dataclass(frozen=True, slots=True)
class BlockInput:
    """What a block is made of."""

    block: BlockPixels
    asked: Sequence[tuple[Region, Sequence[Pass]]]
    """The parts of the image that the network is asked about, px, and how it sees each."""


@dataclass(frozen=True, slots=True)
class BlockOutput:
    pixels: np.ndarray
    """(c, h, w) of the write region: probabilities as uint8 0..255, or stylised pixels."""
    labels: dict[str, np.ndarray]
    """(h, w) of the write region, by name: the segmentation, or the labels that a stylised image keeps."""
    fields: dict[str, Any]
    objects: Parts | None = None
    """Of an image that is one block."""
    views: Sequence[tuple[Block, Seen]] = ()
    """What a network that tells objects as a list sees in each cell, of an image of several."""


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
        self.styler = BlockStyler(job, self.spec, self.device)
        self.output = Output(job, BlockLayout(job, self.spec))
        self.image = functools.lru_cache(maxsize=OPEN_IMAGES)(self.images.__getitem__)

    @functools.cached_property
    def segmenter(self) -> Segmenter | None:
        if self.model is None:
            return None
        network = network_on(self.device, self.model)
        return Segmenter(network, self.model.spec, self.job.prediction, self.job.blocks.halo, self.device)

    def read(self, task: Task) -> Any:
        image = self.image(task.block.image_id)
        if self.objects is not None and task.kind in OBJECT_STAGES:
            with self.output.told_of_losses(image, task, *READ_ERRORS):
                return self.objects.read(task, image)
        if task.kind != "block":
            return image
        shape = image.spatial_shape
        grid = self.styler.grid(image)
        core = source_region(task.block.write, grid, shape)
        segmenter, wanted = self.segmenter, self._wanted(task, image)
        asked = [] if segmenter is None else [(one, segmenter.passes(one, shape, grid)) for one in wanted]
        needed = [core, *(source_region(one.inner, grid, one.grid) for _, passes in asked for one in passes)]
        inner = functools.reduce(Region.joined, needed)
        return BlockInput(self.styler.read(image, core, inner), asked)

    @torch.inference_mode(False)
    def compute(self, task: Task, inputs: Any) -> Any:
        if task.kind in ("pyramid", "finish"):
            return inputs
        if task.kind == "overview":
            return self.styler.make_global_pass(inputs)
        image = self.image(task.block.image_id)
        if self.objects is not None and task.kind in OBJECT_STAGES:
            with self.output.told_of_losses(image, task):
                return self.objects.compute(task, inputs, image)
        styled, fields = self.styler.guarded(image, inputs.block, task.block.block_id)
        if not np.isfinite(styled).all():
            which = "" if self.job.style.method == "none" else "stylised "
            raise DataError(f"{task.block.block_id}: the {which}pixels are not finite.")
        if self.segmenter is None or self.spec is None:
            undone = fields.get("content_lost") and self.job.style.on_content_loss == "fallback"
            units = image.statistics if undone else self.styler.units(image)
            pixels = from_fraction(styled, np.dtype(image.record.dtype), units)
            kept = {name: image.labels(name).numpy(task.block.write) for name in image.record.labels}
            return BlockOutput(pixels, kept, fields)
        grid, shape = self.styler.grid(image), image.spatial_shape
        parts = [
            NetworkInput(styled, inputs.block.inner, grid, passes, wanted, shape) for wanted, passes in inputs.asked
        ]
        if self.spec.network.output == "objects":
            return self._detected(task, image, self.segmenter.objects(parts), fields)
        (part,) = parts
        probability = self.segmenter.maps(part)
        if not np.isfinite(probability).all():
            raise DataError(f"{task.block.block_id}: the network's output is not finite.")
        return self._labelled(task, image, probability, fields)

    def write(self, task: Task, outputs: Any) -> dict[str, Any]:
        if task.kind == "pyramid":
            self.output.write_part(outputs, task)
            return {"seam_score": self.styler.score_seams(outputs, task)}
        if self.objects is not None and task.kind in OBJECT_STAGES:
            return self.objects.write(task, outputs, self.image(task.block.image_id))
        if task.kind == "finish":
            if self.objects is not None:
                with self.output.told_of_losses(outputs, task):
                    self.objects.write_table(outputs, self.objects.bands_of(outputs))
            in_parts, row = self.output.in_parts(outputs), self.output.finish(outputs, task)
            score = None if in_parts else self.styler.score_seams(outputs, task)
            return {"record": row, "seam_score": score}
        if task.kind == "overview":
            sink = io.BytesIO()
            np.savez(sink, **outputs)
            record = self.image(task.block.image_id).record
            uri = self.job.folder.overview_uri(record.image_id, record.sha256)
            files.write_bytes_atomic(uri, sink.getvalue())
            return {"checksum": f"{zlib.crc32(sink.getvalue()):08x}"}
        image = self.image(task.block.image_id)
        checksum = zlib.crc32(np.ascontiguousarray(outputs.pixels).tobytes())
        for labels in outputs.labels.values():
            checksum = zlib.crc32(np.ascontiguousarray(labels).tobytes(), checksum)
        fields = outputs.fields | {"checksum": f"{checksum:08x}"}
        if self._is_alone(image):
            row = self.output.write_alone(image, task, outputs.pixels, outputs.labels)
            if self.objects is not None and outputs.objects is not None:
                self.objects.write_table(image, [outputs.objects])
            return fields | {"record": row}
        for cell, seen in outputs.views:
            assert self.objects is not None
            self.objects.cells.keep(image, cell, seen)
        self.output.write_block(image, task.block.write, outputs.pixels, outputs.labels)
        return fields

    def _is_alone(self, image: Image) -> bool:
        """Whether an image is done at once, in one task."""
        return max(image.spatial_shape) <= self.job.cell_px(self.spec)

    def _wanted(self, task: Task, image: Image) -> list[Region]:
        """What the network is to tell of: a block's own pixels; of objects told as a list, what each cell sees."""
        if self.spec is not None and self.spec.network.output == "objects" and self.objects is not None:
            return [self.objects.cells.region(image, cell) for cell in self.objects.cells.of(task.block)]
        return [task.block.write]

    def _detected(
        self, task: Task, image: Image, found: Iterable[tuple[np.ndarray, np.ndarray]], fields: dict[str, Any]
    ) -> BlockOutput:
        """What a block's objects come to: those of an image that is one cell, or what each cell sees of them.

        Args:
            task: It.
            image: Of the block.
            found: Of each cell, labels of what it sees, and how sure each object is.
            fields: Of the receipt.
        """
        assert self.objects is not None and self.spec is not None
        confidence, views = np.zeros(task.block.write.shape, np.uint8), []
        inside = np.zeros(task.block.write.shape, bool)
        for cell, (labels, scores) in zip(self.objects.cells.of(task.block), found, strict=True):
            own = labels[cell.write.relative_to(self.objects.cells.region(image, cell)).slices]
            sure = np.rint(255 * np.concatenate([[0.0], scores])).astype(np.uint8)
            here = cell.write.relative_to(task.block.write).slices
            confidence[here], inside[here] = sure[own], own > 0
            views.append((cell, self.objects.cells.look(image, cell, labels)))
        fields |= {"num_foreground_px": int(inside.sum())}
        if inside.any():
            fields |= {"mean_confidence": float(confidence[inside].mean()) / 255}
        if not self._is_alone(image):
            return BlockOutput(confidence[None], {}, fields, views=views)
        numbered, parts = self.objects.of_labels(image, views[0][1].labels, confidence)
        fields |= {"num_objects": len(parts)}
        return BlockOutput(confidence[None], {self.spec.label: numbered}, fields, parts)

    def _labelled(self, task: Task, image: Image, probability: np.ndarray, fields: dict[str, Any]) -> BlockOutput:
        """What a block's probabilities (k, h, w) come to: labels of its pixels; or, if the job makes objects, those of
        an image that is one block (of larger ones they come later)."""
        assert self.spec is not None
        stored = np.rint(probability * 255).astype(np.uint8)
        threshold = self.job.threshold if self.job.threshold is not None else self.spec.threshold
        parts = None
        if self.objects is not None and self._is_alone(image):
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
