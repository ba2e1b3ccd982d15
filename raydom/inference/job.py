"""What a block job is, and its plan: everything that can be refused is refused here, before the first block."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from raydom.algorithms.large import LARGE_VERSION
from raydom.algorithms.style_interface import StyleInput
from raydom.algorithms.styles import get_method, weights_digest, with_features
from raydom.algorithms.translation import made_domain, made_style, made_units
from raydom.config import (
    TRAINED,
    BlockConfig,
    ImageFilter,
    InstanceConfig,
    ModelSpec,
    PredictionConfig,
    StyleConfig,
    fingerprint,
    to_dict,
)
from raydom.errors import ConfigError
from raydom.images.intensity import fraction_statistics, image_statistics, to_fraction
from raydom.images.resample import grid_size
from raydom.inference.models import Model, absolute_model, open_model
from raydom.inference.tasks import Cut, Tasks
from raydom.networks.features import FORCED_CONVENTIONS
from raydom.storage import files
from raydom.storage.collection import Collection, Image, open_levels
from raydom.storage.packed import is_packed
from raydom.storage.planes import open_planes
from raydom.storage.pyramids import LEVELS_AT_ONCE
from raydom.storage.readers import read_image
from raydom.storage.receipts import RunFolder
from raydom.types import PERCENTILE_LEVELS, ImageRecord, ImageStatistics

logger = logging.getLogger(__name__)

BLOCK_VERSION = 1
"""Raised when the pixels that a block writes change for a reason that no other version number tells."""
OBJECT_HALO_PX = 64
"""How far beyond a block objects are looked for by watershed."""
SAME_SIZE = 0.01
"""Pixel sizes that differ by no more than this share count as equal."""


@runtime_checkable
class Job(Protocol):
    """What the runner must know of a job."""

    @property
    def name(self) -> str: ...

    @property
    def out(self) -> str: ...

    @property
    def blocks(self) -> BlockConfig: ...

    @property
    def folder(self) -> RunFolder: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockJob:
    """What is done to each block of a collection: resample, normalise, stylise, segment, label.

    With a model the output holds probabilities and labels; without one, the stylised pixels.
    """

    name: str
    """Shown in the progress."""
    collection: str
    out: str
    style: StyleConfig = field(default_factory=StyleConfig)
    model: str | None = None
    pixel_size_um: float | None = None
    """Pixel size of the images, instead of the one they state."""
    scale: float | None = None
    """Resampling factor before the network, instead of the one that the pixel sizes give."""
    threshold: float | None = None
    """Foreground probability from which a pixel is labelled, instead of the model's."""
    prediction: PredictionConfig = field(default_factory=PredictionConfig)
    instances: InstanceConfig = field(default_factory=InstanceConfig)
    blocks: BlockConfig = field(default_factory=BlockConfig)
    images: ImageFilter = field(default_factory=ImageFilter)

    def __post_init__(self) -> None:
        """Make every path absolute: a worker has another working directory than the command."""
        for name in ("collection", "out"):
            object.__setattr__(self, name, files.absolute(getattr(self, name)))
        if self.model is not None:
            object.__setattr__(self, "model", absolute_model(self.model))
        object.__setattr__(self, "style", _absolute_style(self.style))

    @property
    def folder(self) -> RunFolder:
        return RunFolder.of(self.out)

    def makes_objects(self, spec: ModelSpec) -> bool:
        """Whether labels are objects one by one, and not classes of pixels."""
        return spec.network.output != "classes" or (self.instances.components and spec.num_classes == 2)

    def cell_px(self, spec: ModelSpec | None, block_size: int | None = None) -> int:
        """Side of the squares in which objects are looked for one by one: of a network that tells them as a list those
        of ``instances``, whatever the block size (by default the job's); else the blocks. An image that is one of them
        is done at once."""
        size = self.blocks.block_size if block_size is None else block_size
        return min(size, self.instances.cell_px) if spec is not None and spec.network.output == "objects" else size

    def object_halo_px(self, spec: ModelSpec) -> int:
        """How far beyond their own pixels cells look for objects, px."""
        if self.instances.halo_px is not None:
            return self.instances.halo_px
        return spec.receptive_field_px if spec.network.output == "objects" else OBJECT_HALO_PX

    def chosen_images(self) -> Collection:
        """The images of the collection that this job is for."""
        chosen = open_planes(self.collection, self.images)
        if not len(chosen):
            raise ConfigError(f"{self.collection}: no image is chosen. See raydom info {self.collection}.")
        return chosen

    def scale_of(self, record: ImageRecord, spec: ModelSpec | None) -> float:
        """By what factor an image is resampled for the network.

        Raises:
            ConfigError: When the model knows its pixel size and that of the image cannot be told.
        """
        if self.scale is not None:
            return self.scale
        if spec is None or spec.pixel_size_um is None:
            return 1.0
        pixel_size_um = self.pixel_size_um if self.pixel_size_um is not None else record.pixel_size_um
        if pixel_size_um is None:
            raise ConfigError(
                f"{record.image_id}: the model was trained at {spec.pixel_size_um} um/px, and this image does not "
                "state its pixel size. Give it with --pixel-size UM, or the resampling factor with --scale F "
                "(--scale 1 for none)."
            )
        return pixel_size_um / spec.pixel_size_um


STAGES = ("overview", "block", "view", "pair", "number", "label", "pyramid", "finish")
"""Kinds of tasks, in their order."""


@dataclass(frozen=True, slots=True)
class JobPlan:
    """The settings and the tasks of a job, in their stages."""

    job: Job
    settings: dict[str, Any]
    stages: dict[str, Tasks]
    """By kind, in their order: of an image, each waits for those before it."""
    model: Model | None = None
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The tables that the output has of an image for which one of these stages is done; finish: that is whole."""

    @property
    def num_tasks(self) -> int:
        return sum(len(tasks) for tasks in self.stages.values())

    @property
    def num_images(self) -> int:
        return len(self.stages["block"].image_ids())


def plan_job(job: BlockJob, number: int = 0) -> JobPlan:
    """Check a job and cut its images into tasks.

    An image of one block (and one cell, see ``BlockJob.cell_px``) is overviewed, written and finished within that
    block; larger ones have an overview before their blocks (for methods that need one), the objects of their blocks put
    together after them (see ``inference.objects``), and are finished then, the largest in parts.

    Raises:
        ConfigError: For what cannot be done, before anything is computed.
        DataError: For a model or collection that is not complete.
    """
    check_job(job)
    images = job.chosen_images()
    model = open_model(job.model, images) if job.model is not None else None
    makes_objects = model is not None and job.makes_objects(model.spec)
    method = get_method(job.style.method)
    style_hash = _style_hash(job.style.style) if job.style.style else None
    style = job.style.settings() | {"style": style_hash, "version": method.version}
    if not method.pointwise:  # What the weights are counts, not where they lie.
        style |= {"weights": weights_digest(job.style), "large": LARGE_VERSION}
    settings = {
        "collection": job.collection,
        "style": style,
        "model": model.content_hash if model else None,
        "pixel_size_um": job.pixel_size_um,
        "scale": job.scale,
        "threshold": job.threshold,
        "prediction": to_dict(job.prediction) if model else None,
        "instances": to_dict(job.instances) if makes_objects else None,
        "blocks": to_dict(job.blocks),
        "images": job.images.settings(),
        "version": BLOCK_VERSION,
    }
    recipe = fingerprint({name: value for name, value in settings.items() if name not in ("collection", "images")})
    tables = {"objects": ("finish",), "merges": ("number",)} if makes_objects else {}
    cuts: dict[str, list[Cut]] = {kind: [] for kind in STAGES}
    for image in images:
        record = image.record
        size = job.blocks.block_size
        content = fingerprint(recipe, record.sha256, to_dict(record.statistics), list(record.shape))
        whole = max(record.spatial_shape)
        sides = {"block": size}
        if whole > job.cell_px(model.spec if model is not None else None):
            if makes_objects:
                views = () if model is not None and model.spec.network.output == "objects" else ("view",)
                sides |= dict.fromkeys((*views, "pair", "label"), size) | {"number": whole}
            sides["finish"] = whole
            if whole > size << LEVELS_AT_ONCE:
                sides["pyramid"] = size << LEVELS_AT_ONCE
            if not method.pointwise:
                sides["overview"] = whole
        for kind, side in sides.items():
            cuts[kind].append(Cut(number, kind, record.image_id, record.spatial_shape, side, content))
    return JobPlan(job, settings, {kind: Tasks(cuts[kind]) for kind in STAGES}, model, tables)


def _absolute_style(config: StyleConfig) -> StyleConfig:
    config = with_features(config)
    features, weights = config.features, config.weights
    if features is not None and features.startswith("encoder:"):
        features = "encoder:" + files.absolute(features.removeprefix("encoder:"))
    if weights is not None:
        prefix = next((forced for forced in FORCED_CONVENTIONS if weights.startswith(forced)), "")
        weights = prefix + files.absolute(weights.removeprefix(prefix))
    style = None if config.style is None else files.absolute(config.style)
    generator = None if config.generator is None else files.absolute(config.generator)
    return replace(config, features=features, weights=weights, style=style, generator=generator)


def model_shape(shape: tuple[int, ...], scale: float) -> tuple[int, ...]:
    """Spatial shape of the grid that the network sees, px."""
    return tuple(grid_size(size, scale) for size in shape)


def output_uri(job: Job, image_id: str) -> str:
    return files.join(job.out, "images", f"{image_id}.zarr")


NO_STYLE = StyleInput(
    torch.zeros(1, 1, 1, 1), ImageStatistics((0.0,), (0.0,), (0.0,), (0.0,), ((0.0,) * len(PERCENTILE_LEVELS),))
)
"""What method none is prepared with."""


def style_of(config: StyleConfig, device: str = "cpu") -> StyleInput:
    """What a method is prepared with: its style image, or what stands for it."""
    if config.method in TRAINED and config.style is None:
        return made_style(config, device)
    return NO_STYLE if config.style is None else style_input(config.style, device)


def style_units(config: StyleConfig) -> ImageStatistics | None:
    """The scale of the style's pixels, if they are floating point."""
    if config.method in TRAINED:
        return made_units(config)
    stored = None if config.style is None else style_pixels(config.style)
    return None if stored is None or stored.dtype.kind != "f" else image_statistics(stored)


def style_input(uri: str, device: str = "cpu") -> StyleInput:
    """A style image as the methods take it: fractions of its legal range and its own statistics.

    Args:
        uri: An image file, or an image of a collection (OME-Zarr or packed).
        device: Where the pixels are to be.
    """
    stored = style_pixels(uri)
    raw = image_statistics(stored)
    return StyleInput(
        torch.from_numpy(to_fraction(stored, raw))[None].to(device), fraction_statistics(raw, stored.dtype)
    )


@functools.lru_cache(maxsize=2)
def style_pixels(uri: str) -> np.ndarray:
    """Pixels (c, h, w) of a style image as they are stored."""
    if not is_packed(uri) and not files.is_folder(uri):
        return np.asarray(read_image(uri).pixels)
    levels = open_levels(uri)
    if levels.num_planes > 1:
        raise ConfigError(f"{uri} is a volume of {levels.num_planes} planes; a style image is one plane.")
    pixels = levels.read(None, 0)
    return pixels if pixels.ndim == 3 else pixels[None]


def _style_hash(uri: str) -> str:
    pixels = style_pixels(uri)
    return hashlib.sha256(f"{pixels.dtype}{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def check_job(job: BlockJob) -> None:
    """Refuse a job that cannot be done, before anything is computed.

    Raises:
        ConfigError: For images, model, style and options that do not fit each other, and for feature weights that
            cannot be had.
        DataError: For a model or collection that is not complete.
    """
    for option in ("pixel_size_um", "scale", "threshold"):
        value = getattr(job, option)
        if value is not None and value <= 0:
            raise ConfigError(f"{option} must be > 0; got {value}.")
    if job.threshold is not None and job.threshold >= 1:
        raise ConfigError(f"threshold is a probability and must be < 1; got {job.threshold}.")
    if job.scale is not None and job.pixel_size_um is not None:
        raise ConfigError("give --pixel-size or --scale, not both: each says how the images are resampled.")
    images = job.chosen_images()
    spec = None
    if job.model is not None:
        spec = open_model(job.model, images).spec
        _check_model(job, spec, images)
        if spec.pixel_size_um is None and job.pixel_size_um is not None:
            raise ConfigError(
                f"{job.model} does not know the pixel size it was trained at, so --pixel-size {job.pixel_size_um:g} "
                "cannot tell how to resample. Give --scale F instead, or train on images with a pixel size."
            )
    for image in images:
        job.scale_of(image.record, spec)
    style = style_of(job.style)
    if job.style.method != "none":
        channels = {image.num_channels for image in images}
        if channels != {style.pixels.shape[1]}:
            trained = job.style.style is None
            what = f"{job.style.generator}: the generator" if trained else f"{job.style.style}: the style image"
            raise ConfigError(
                f"{what} has {style.pixels.shape[1]} channels, the images of {job.collection} have "
                f"{', '.join(str(n) for n in sorted(channels))}. Choose a {'generator' if trained else 'style image'} "
                "with as many channels, or ingest the images so that they agree."
            )
    if job.style.method in TRAINED:
        _warn_of_pixel_sizes(job, spec, images)
    get_method(job.style.method).prepare(style, job.style)


def _warn_of_pixel_sizes(job: BlockJob, spec: ModelSpec | None, images: Iterable[Image]) -> None:
    """A generator is not asked at other pixel sizes without a word."""
    known = made_domain(job.style)[1].pixel_size_um
    sizes = [(job.pixel_size_um or image.record.pixel_size_um, job.scale_of(image.record, spec)) for image in images]
    others = [size / scale for size, scale in sizes if size is not None]
    others = [size for size in others if known is not None and abs(size / known - 1) > SAME_SIZE]
    if others:
        logger.warning(
            "%s was trained at %g um/px; %d of %d images are shown to it at other sizes, such as %g um/px.",
            job.style.generator, known, len(others), len(sizes), others[0],
        )  # fmt: skip


def _check_model(job: BlockJob, spec: ModelSpec, images: Iterable[Image]) -> None:
    for image in images:
        if image.num_channels != len(spec.channels):
            raise ConfigError(
                f"{image.image_id} has {image.num_channels} channels ({', '.join(image.record.channels)}), the model "
                f"{job.model} takes {len(spec.channels)} ({', '.join(spec.channels)}). Choose a model trained on such "
                "images, or ingest the images with those channels."
            )
    output = spec.network.output
    if job.threshold is not None and (output == "objects" or spec.num_classes > 2):
        raise ConfigError(
            f"--threshold {job.threshold:g} means nothing to {job.model}, which tells "
            + ("objects, not pixels." if output == "objects" else f"which of {spec.num_classes} classes is likeliest.")
            + " Leave it out."
        )
    if job.instances.components and output == "classes" and spec.num_classes > 2:
        raise ConfigError(
            f"--instances.components makes objects of a foreground, and {job.model} tells {spec.num_classes} classes. "
            "Leave it out."
        )
    size, cell_px = job.blocks.block_size, job.cell_px(spec)
    if size % cell_px:
        raise ConfigError(
            f"--block-size {size} px cannot be cut into squares of {cell_px} px, one by one of which {job.model} is "
            f"asked for objects. Choose --block-size {size // cell_px * cell_px}, or another --instances.cell-px."
        )
    halo = job.blocks.halo
    if halo is not None and not spec.exact:
        raise ConfigError(
            f"--halo {halo} means nothing to {job.model}: {spec.network.name} looks at whole images, in windows. Leave "
            "it out, or choose --window-px (of objects: --instances.halo-px)."
        )
    if halo is not None and halo < spec.receptive_field_px:
        raise ConfigError(
            f"--halo {halo} px is smaller than the network's receptive field of {spec.receptive_field_px} px: labels "
            f"would change at the borders of blocks. Give at least {spec.receptive_field_px}, or leave it out."
        )
