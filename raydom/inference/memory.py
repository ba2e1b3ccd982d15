"""Whether the blocks of a job fit the memory of a worker."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from raydom.algorithms.large import Styler
from raydom.algorithms.styles import floats_per_px, get_method
from raydom.config import ModelSpec, RunConfig
from raydom.errors import ConfigError
from raydom.inference.cells import KEPT_VIEWS
from raydom.inference.job import BlockJob, model_shape, style_of
from raydom.inference.models import open_model
from raydom.storage.collection import Image

COPIES_OF_PIXELS = 8
"""Float copies of a block that reading, resampling and styling hold at a time."""
ACTIVATIONS_PER_CHANNEL = 10
"""Float maps of full size that a U-Net holds at its peak, for each channel of its first level; measured: 8 to 10."""
COPIES_OF_MAPS = 4
"""Float copies of what the windows of a block tell: one window's, their sum, that resampled, and the sum of passes."""
BYTES_OF_OBJECTS = 55
"""What looking for the objects of a block holds for each pixel; measured: 38 to 51."""
BYTES_OF_VIEW = 4
"""Of a label, in each of the views of blocks that are kept."""


def check_memory(job: BlockJob, run: RunConfig) -> None:
    """Refuse blocks that do not fit the memory of a worker.

    Raises:
        ConfigError: With what the largest block needs, what is allowed, and the block size that fits.
    """
    allowed = allowed_gib(run)
    if allowed is None:
        return
    for image, overview, gib in _needs(job):
        if overview > allowed:
            raise ConfigError(
                f"{image.image_id}: {job.style.method} on an overview of {job.style.overview_px} px needs about "
                f"{overview:.2g} GiB and a worker may use {allowed:.2g} GiB. Choose --overview-px "
                f"{int(job.style.overview_px * (allowed / overview) ** 0.5)} or less, or allow more with --memory-gib "
                "or fewer --workers."
            )
        needed = gib(job.blocks.block_size)
        if needed > allowed:
            fitting = [n for n in range(16, job.blocks.block_size, 16) if gib(n) <= allowed]
            remedy = f"Choose --block-size {fitting[-1]} or less" if fitting else "No block size is small enough here"
            raise ConfigError(
                f"{image.image_id}: a block of {job.blocks.block_size} px needs about {needed:.2g} GiB and a worker "
                f"may use {allowed:.2g} GiB. {remedy}, or allow more with --memory-gib or fewer --workers."
            )


def worker_gib(job: BlockJob) -> float:
    """About what a worker holds at its peak of any image, GiB."""
    return max(max(overview, gib(job.blocks.block_size)) for _, overview, gib in _needs(job))


def _needs(job: BlockJob) -> Iterator[tuple[Image, float, Callable[[int], float]]]:
    """Of each image what its overview needs, and its blocks by their size, GiB."""
    images = job.chosen_images()
    spec = open_model(job.model, images).spec if job.model is not None else None
    styler = Styler(get_method(job.style.method), style_of(job.style), job.style)
    for image in images:
        grid = model_shape(image.spatial_shape, job.scale_of(image.record, spec))
        style_floats = floats_per_px(job.style, image.num_channels)
        looking = styler.looking(grid)
        style_halo = 0 if looking is None else looking.halo_px
        overview_px = min(job.style.overview_px**2, math.prod(grid))
        overview = overview_px * style_floats * 4 / 2**30
        if max(grid) <= job.style.overview_px:  # blocks are cut out of the overview
            style_floats, style_halo = 0.0, 0
        gib = functools.partial(block_gib, job, spec, image, style_floats=style_floats, style_halo=style_halo)
        yield image, overview, gib


def allowed_gib(run: RunConfig) -> float | None:
    """What a worker may use: what the run says, or this machine's memory shared by its workers, GiB; None on a cluster
    that was joined, whose machines are not known here."""
    if run.memory_gib is not None:
        return run.memory_gib
    if run.address or os.environ.get("RAY_ADDRESS") or run.gpus_per_worker > 0:
        return None
    workers = 1 if run.serial else run.workers or max(1, int((os.cpu_count() or 1) / run.cpus_per_worker))
    return machine_memory_gib() / workers


def machine_memory_gib() -> float:
    """Memory of this machine, or of the container that this process is confined to, GiB."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    told = limit.read_text().strip() if limit.exists() else "max"
    return min(total, int(told) if told.isdigit() else total) / 2**30


def block_gib(
    job: BlockJob, spec: ModelSpec | None, image: Image, block_size: int, style_floats: float, style_halo: int
) -> float:
    """About what a worker holds of a block at its peak, GiB, with the neighbours that it reads and writes.

    Args:
        job: It.
        spec: Of its model.
        image: Whose blocks.
        block_size: Instead of the job's, px.
        style_floats: That the style method holds for each pixel of a block.
        style_halo: That it sees around a block, px.
    """
    return (
        max(
            _network_bytes(job, spec, image, block_size, style_floats, style_halo),
            _object_bytes(job, spec, image, block_size),
        )
        / 2**30
    )


def _network_bytes(
    job: BlockJob, spec: ModelSpec | None, image: Image, block_size: int, style_floats: float, style_halo: int
) -> float:
    """While blocks are read, stylised and segmented."""
    scale = job.scale_of(image.record, spec)

    def num_px(side: float) -> float:
        return math.prod(min(side, size * scale) for size in image.spatial_shape)

    pixel_floats = COPIES_OF_PIXELS * image.num_channels + style_floats
    side, network_floats = block_size * scale, 0.0
    if spec is not None:
        at_once, map_floats = 0.0, 0
        if spec.network.output == "objects":
            around = 2 * job.object_halo_px(spec)
            at_once, side = (job.cell_px(spec, block_size) + around) * scale, (block_size + around) * scale
        elif spec.exact:
            at_once = side = side + 2 * (job.blocks.halo or spec.receptive_field_px)
        else:  # it sees a window at a time; what they tell is kept where the block's windows lie
            at_once, map_floats = job.prediction.window_px or spec.window_px, COPIES_OF_MAPS * spec.network.num_outputs
            side += 2 * at_once
        network_floats = num_px(at_once) * ACTIVATIONS_PER_CHANNEL * spec.network.base_channels
        network_floats += num_px(side) * map_floats
    return 4 * (num_px(side + 2 * style_halo) * pixel_floats + network_floats)


def _object_bytes(job: BlockJob, spec: ModelSpec | None, image: Image, block_size: int) -> float:
    """While the objects of its blocks are found and compared, of an image of several."""
    cell_px = job.cell_px(spec, block_size)
    if spec is None or not job.makes_objects(spec) or max(image.spatial_shape) <= cell_px:
        return 0
    num_px = math.prod(min(cell_px + 2 * job.object_halo_px(spec), size) for size in image.spatial_shape)
    num_cells = math.prod(-(-size // cell_px) for size in image.spatial_shape)
    at_once = KEPT_VIEWS + (block_size // cell_px) ** 2 - 1  # those of a block, and those around the last of them
    return num_px * (BYTES_OF_OBJECTS + BYTES_OF_VIEW * min(at_once, num_cells))
