"""How much work the tasks of a job are, in units that a pilot can price, and how much an output holds.

A task's seconds are taken to grow with what it looks at: a block's with its pixels and those around it that are read, a
pair's with its neighbours, an image's with its pixels. What a unit costs is measured, stage by stage.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from raydom.algorithms.large import Styler
from raydom.algorithms.styles import get_method
from raydom.inference.job import BlockJob, JobPlan, model_shape, style_of
from raydom.inference.models import open_model
from raydom.inference.neuron_job import NeuronJob
from raydom.inference.tasks import Task
from raydom.storage import files
from raydom.storage.collection import Image
from raydom.storage.zarr_images import shards_of
from raydom.types import ImageRecord, Region

LEFT_OF_PARTS = 1 / 16
"""Of finishing an image, when the finer levels of its pyramid were made in parts: assumed."""

Halo = Callable[[Image], int]
"""How far beyond its own pixels a block of an image is read, px."""


def halo_of(job: BlockJob | NeuronJob) -> Halo:
    """The context that costs time in proportion: that of a network that sees a block at once, and of a style method.

    What looks at windows or cells looks at so many of them, whatever is around a block: 0.
    """
    if isinstance(job, NeuronJob):
        return lambda image: 0
    images = job.chosen_images()
    spec = None if job.model is None else open_model(job.model, images).spec
    styler = Styler(get_method(job.style.method), style_of(job.style), job.style)
    network_px = 0
    if spec is not None and spec.exact and spec.network.output != "objects":
        network_px = spec.receptive_field_px if job.blocks.halo is None else job.blocks.halo

    def halo_px(image: Image) -> int:
        scale = job.scale_of(image.record, spec)
        looking = styler.looking(model_shape(image.spatial_shape, scale))
        return math.ceil((network_px + (0 if looking is None else looking.halo_px)) / scale)

    return halo_px


def seen_px(write: Region, halo_px: int, shape: tuple[int, int]) -> int:
    """Pixels that a block looks at: its own and those around it, as far as the image goes."""
    sides = zip(write.start, write.stop, shape, strict=True)
    return math.prod(min(stop + halo_px, size) - max(start - halo_px, 0) for start, stop, size in sides)


def num_neighbours(write: Region, shape: tuple[int, int]) -> int:
    """Of the blocks that touch a block, corners included, those that come after it."""
    (_, left), (bottom, right) = write.start, write.stop
    below, beside = bottom < shape[0], right < shape[1]
    return beside + below * (1 + beside + (left > 0))


def units(task: Task, record: ImageRecord, halo_px: int, *, overview_px: int, in_parts: bool) -> float:
    """How much work a task is, compared with others of its stage.

    Args:
        task: It.
        record: Of its image.
        halo_px: See ``halo_of``.
        overview_px: Longest side of what a style method sees of a whole image.
        in_parts: Whether the image has tasks of kind pyramid.
    """
    shape, planes, write = record.plane_shape, record.num_planes, task.block.write
    if task.kind == "block":
        return float(seen_px(write, halo_px, shape) * planes)
    if task.kind == "pair":
        return 1.0 + num_neighbours(write, shape)
    if task.kind == "overview":
        return float(min(math.prod(shape), overview_px**2))
    own = float(math.prod(write.stop[axis] - write.start[axis] for axis in (0, 1)) * planes)
    return own * LEFT_OF_PARTS if task.kind == "finish" and in_parts else own


def units_of(plan: JobPlan, job: BlockJob | NeuronJob, halo: Halo) -> dict[str, np.ndarray]:
    """The units of all tasks of a plan, in their order, by stage."""
    images = job.chosen_images()
    overview_px = job.style.overview_px if isinstance(job, BlockJob) else 1
    in_parts = plan.stages["pyramid"].image_ids()
    opened = {image.image_id: (image.record, halo(image)) for image in images}

    def of(task: Task) -> float:
        record, halo_px = opened[task.block.image_id]
        parted = task.block.image_id in in_parts
        return units(task, record, halo_px, overview_px=overview_px, in_parts=parted)

    return {kind: np.array([of(task) for task in tasks], float) for kind, tasks in plan.stages.items()}


# ---------------------------------------------------------------------------------------------------------------- bytes


@dataclass(frozen=True, slots=True)
class Size:
    """What images hold."""

    num_bytes: int
    """Of the pixels and labels, all levels, without compression."""
    num_objects: int
    """Files, or objects of a store: shards and metadata."""


def input_bytes(record: ImageRecord) -> int:
    """Of the pixels of an image, without compression."""
    return int(math.prod(record.shape)) * np.dtype(record.dtype).itemsize


def output_sizes(
    job: BlockJob | NeuronJob, open_processor: Callable[[Any, str], Any], images: Iterable[Image]
) -> dict[str, Size]:
    """What the output of each image will hold, of the empty arrays that the job itself makes, in memory."""
    where = f"memory://raydom-plan/{uuid.uuid4().hex}"
    output = open_processor(replace(job, out=where), "cpu").output
    known: dict[tuple[object, ...], Size] = {}
    sizes = {}
    try:
        for image in images:
            alike = (image.record.shape, image.record.dtype, image.record.channels, image.record.labels)
            if alike not in known:
                known[alike] = _size(output.create(image), files.join(where, "images"))
                files.remove(where)
            sizes[image.image_id] = known[alike]
    finally:
        files.remove(where)
    return sizes


def _size(made: Mapping[str, Any], uri: str) -> Size:
    levels = [level for levels in made.values() for level in levels]
    shards = sum(
        math.prod(-(-size // shard) for size, shard in zip(level.shape, shards_of(level), strict=True))
        for level in levels
    )
    num_bytes = sum(math.prod(level.shape) * level.dtype.itemsize for level in levels)
    return Size(int(num_bytes), int(shards) + stored(uri).num_objects)


def stored(uri: str) -> Size:
    """Bytes and objects below a URI."""
    fs, path = files.file_system(uri)
    found = fs.find(path, detail=True)
    return Size(int(sum(entry["size"] or 0 for entry in found.values())), len(found))


@dataclass(frozen=True, slots=True)
class Workload:
    """What there is to do."""

    images: int
    blocks: int
    tasks: dict[str, int]
    """By stage."""
    units: dict[str, np.ndarray]
    """Of each task, by stage; see ``workload.units``."""
    input_bytes: int
    """Of the pixels, once, without compression."""
    seen_ratio: float
    """Pixels that blocks look at, over those that there are: context is read several times."""
    output_bytes: int
    objects: int
    """Files, or objects of a store, that are written."""
    memory_gib: float
    """Of a worker, its process and its block."""
