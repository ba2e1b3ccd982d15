"""What a neuron job is, and its plan: superpixels, the graph of their borders, its multicut, and labels.

Like a block job it is cut into blocks, and what it may not do is refused before the first; see ``neuron_stages`` for
what is done.
"""

from __future__ import annotations

import functools
import logging
import math
from dataclasses import asdict, dataclass, field

from raydom.config import (
    BlockConfig,
    ForestSpec,
    ImageFilter,
    MulticutConfig,
    NeuronConfig,
    RunConfig,
    fingerprint,
    to_dict,
)
from raydom.errors import ConfigError
from raydom.images.tiles import cut_blocks
from raydom.inference.job import JobPlan
from raydom.inference.layout import Lost
from raydom.inference.memory import allowed_gib
from raydom.inference.tasks import Cut, Tasks
from raydom.neurons.evidence import context_px
from raydom.storage import files
from raydom.storage.collection import Collection, Image, open_collection
from raydom.storage.model_run import ModelRun, open_forest_run
from raydom.storage.pyramids import LEVELS_AT_ONCE
from raydom.storage.receipts import RunFolder

logger = logging.getLogger(__name__)

NEURON_VERSION = 1
"""Raised when the labels change for a reason that no setting tells."""
STAGES = ("block", "pair", "number", "graph", "solve", "label", "pyramid", "finish")
"""Kinds of tasks, in their order: superpixels of each cell, which of them two cells see, their numbers, the graph of a
block, the multicut of an image, the labels of a block. An image of one cell is done by a single block."""
SUPERPIXELS, NEURONS = "superpixels", "neurons"
"""Names of the labels that are written."""
BYTES_PER_PX = 260
"""What the filters of a block or the watershed of a cell hold for each pixel that they see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronJob:
    """Segments the neurons of a collection."""

    name: str
    """Shown in the progress."""
    collection: str
    out: str
    forest: str
    """Run of a forest."""
    boundary: str | None = None
    """Collection with the probabilities of membranes, for a forest that was trained with such."""
    inside: bool = False
    """The probabilities are of the inside of neurons."""
    channel: int = 0
    """Of the images, counted from 0."""
    multicut: MulticutConfig = field(default_factory=MulticutConfig)
    blocks: BlockConfig = field(default_factory=BlockConfig)
    images: ImageFilter = field(default_factory=ImageFilter)

    def __post_init__(self) -> None:
        """Make every path absolute: a worker has another working directory than the command."""
        for name in ("collection", "out", "forest", "boundary"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, files.absolute(getattr(self, name)))

    @property
    def folder(self) -> RunFolder:
        return RunFolder.of(self.out)

    @property
    def spec(self) -> ForestSpec:
        return _forest_run(self.forest).spec

    def forest_run(self) -> ModelRun[ForestSpec]:
        return _forest_run(self.forest)

    def chosen_images(self) -> Collection:
        """The images of the collection that this job is for."""
        collection = open_collection(self.collection)
        chosen = collection.filter(**asdict(self.images))
        if not len(chosen):
            raise ConfigError(f"{self.collection}: no image is chosen. See raydom info {self.collection}.")
        return chosen

    def is_alone(self, image: Image) -> bool:
        """Whether an image is one cell and one block, and done at once."""
        return max(image.plane_shape) <= min(self.spec.neurons.superpixels.cell_px, self.blocks.block_size)


@functools.lru_cache(maxsize=4)
def _forest_run(uri: str) -> ModelRun[ForestSpec]:
    return open_forest_run(uri)


class NeuronLayout:
    """The output of a neuron job: the evidence of membranes, and labels of superpixels and neurons."""

    blocks_keep = True  # what each cell sees

    def __init__(self, job: NeuronJob) -> None:
        self.job = job

    def channels(self, image: Image) -> tuple[str, ...]:
        return ("membrane evidence",)

    def dtype(self, image: Image) -> str:
        return "uint8"

    def labels(self, image: Image) -> dict[str, str]:
        return {SUPERPIXELS: "uint32", NEURONS: "uint32"}

    def label_kinds(self, image: Image) -> tuple[str, ...]:
        return ("instance", "instance")

    def pixel_size_um(self, image: Image) -> float | None:
        return image.pixel_size_um

    def follow(self, image: Image) -> Lost:
        if self.job.is_alone(image):
            return set()
        cut = cut_blocks(image.image_id, image.plane_shape, self.job.blocks.block_size)
        whole = {(kind, (0, 0)) for kind in ("number", "solve")}
        return whole | {(kind, block.write.start) for kind in ("pair", "graph", "label") for block in cut}


def plan_neurons(job: NeuronJob, number: int = 0) -> JobPlan:
    """Check a job and cut its images into tasks.

    Raises:
        ConfigError: For what cannot be done, before anything is computed.
        DataError: For a forest or a collection that is not complete.
    """
    check_neurons(job)
    run = job.forest_run()
    boundaries = None if job.boundary is None else open_collection(job.boundary)
    settings = {
        "collection": job.collection,
        "boundary": job.boundary,
        "inside": job.inside,
        "channel": job.channel,
        "forest": run.content_hash,
        "multicut": to_dict(job.multicut),
        "blocks": to_dict(job.blocks),
        "images": job.images.settings(),
        "version": NEURON_VERSION,
    }
    recipe = fingerprint({k: v for k, v in settings.items() if k not in ("collection", "boundary", "images")})
    tables = dict.fromkeys(("edges", SUPERPIXELS), ("solve", "finish")) | {"merges": ("number",)}
    cuts: dict[str, list[Cut]] = {kind: [] for kind in STAGES}
    for image in job.chosen_images():
        record = image.record
        evidence = None if boundaries is None else boundaries[image.image_id].record.sha256
        content = fingerprint(recipe, record.sha256, to_dict(record.statistics), list(record.shape), evidence)
        size, whole = job.blocks.block_size, max(image.plane_shape)
        sides = {"block": size}
        if not job.is_alone(image):
            sides |= dict.fromkeys(("pair", "graph", "label"), size)
            sides |= dict.fromkeys(("number", "solve", "finish"), whole)
            if whole > size << LEVELS_AT_ONCE:
                sides["pyramid"] = size << LEVELS_AT_ONCE
        for kind, side in sides.items():
            cuts[kind].append(Cut(number, kind, image.image_id, image.plane_shape, side, content))
    return JobPlan(job, settings, {kind: Tasks(cuts[kind]) for kind in STAGES}, tables=tables)


def check_neurons(job: NeuronJob) -> None:
    """Refuse a job that cannot be done.

    Raises:
        ConfigError: For images, a forest and boundaries that do not fit each other.
        DataError: For a forest or a collection that is not complete.
    """
    spec, images = job.spec, job.chosen_images()
    cell_px = spec.neurons.superpixels.cell_px
    if job.blocks.block_size % cell_px and any(not job.is_alone(image) for image in images):
        raise ConfigError(
            f"--block-size {job.blocks.block_size} px cannot be cut into the squares of {cell_px} px for which "
            f"{job.forest} makes superpixels. Choose --block-size {-(-job.blocks.block_size // cell_px) * cell_px}."
        )
    check_evidence(job.collection, images, job.boundary, job.channel)
    if (job.boundary is None) != (spec.boundary == "frangi"):
        has = "the raw image" if spec.boundary == "frangi" else "probabilities of membranes"
        wrong = "Leave --boundary and --model out" if spec.boundary == "frangi" else "Give --boundary or --model"
        raise ConfigError(f"{job.forest} was trained on {has}. {wrong}, or train another forest.")
    for option, now, then in (("inside", job.inside, spec.inside), ("channel", job.channel, spec.channel)):
        if now != then:  # right where the model or the images are others than in training
            logger.warning("%s was trained with --%s %s, and is asked with %s.", job.forest, option, then, now)
    for image in images:
        if image.is_volume == spec.planes:
            kinds = ("single planes", "volumes")
            raise ConfigError(
                f"{image.image_id} is {'a volume' if image.is_volume else 'a single plane'}, and {job.forest} was "
                f"trained on {kinds[not spec.planes]}. Ingest the images {'without' if spec.planes else 'with'} "
                "--volumes, or train another forest."
            )
        known, size = spec.pixel_size_um, image.pixel_size_um
        if known is not None and size is not None and abs(size / known - 1) > 0.2:
            raise ConfigError(
                f"{image.image_id} has {size:g} um/px, and {job.forest} was trained at {known:g} um/px: what is so "
                "many px wide is something else there. Resample the images, or train a forest at that pixel size."
            )


def check_evidence(collection: str, images: Collection, boundary: str | None, channel: int) -> None:
    """Refuse images without that channel, and boundaries that are not of these images.

    Raises:
        ConfigError: Naming the image.
        DataError: For a collection that is not complete.
    """
    boundaries = None if boundary is None else open_collection(boundary)
    several = max((image.num_channels for image in images), default=1)
    if several > 1:
        logger.warning(
            "%s: of up to %d channels only channel %d is looked at (--channel).", collection, several, channel
        )
    for image in images:
        if not 0 <= channel < image.num_channels:
            raise ConfigError(
                f"{collection}: {image.image_id} has {image.num_channels} channels; there is no {channel}."
            )
        if boundaries is None:
            continue
        if image.image_id not in boundaries:
            raise ConfigError(
                f"{boundary}: there is no {image.image_id}. Make the probabilities of all images of {collection} with "
                "raydom segment."
            )
        evidence = boundaries[image.image_id]
        if evidence.spatial_shape != image.spatial_shape:
            raise ConfigError(
                f"{boundary}: {image.image_id} is {evidence.spatial_shape} px, and the image {image.spatial_shape} px."
            )
        if evidence.dtype.kind not in "uf":
            raise ConfigError(f"{boundary}: {image.image_id} is {evidence.dtype}; probabilities are uint8 or float.")


def check_neuron_memory(job: NeuronJob, run: RunConfig) -> None:
    """Refuse blocks that do not fit the memory of a worker.

    Raises:
        ConfigError: With what the largest needs and what is allowed.
    """
    allowed = allowed_gib(run)
    if allowed is None:
        return
    for image in job.chosen_images():
        needed = needed_gib(job.spec.neurons, image, job.blocks.block_size)
        if needed > allowed:
            raise ConfigError(
                f"{image.image_id}: a block of {job.blocks.block_size} px of {image.num_planes} planes needs about "
                f"{needed:.2g} GiB and a worker may use {allowed:.2g} GiB. Choose a smaller --block-size (and a forest "
                "of smaller --superpixels.cell-px), or allow more with --memory-gib or fewer --workers."
            )


def needed_gib(neurons: NeuronConfig, image: Image, block_size: int = 0) -> float:
    """About what is held at once of a cell of an image, or of a block if that is larger, GiB."""
    context = context_px(neurons.evidence)
    cell = neurons.superpixels.cell_px + 2 * (neurons.superpixels.halo_px + context)
    block = block_size + 1 + 2 * context
    seen = max(math.prod(min(side, size) for size in image.plane_shape) for side in (cell, block))
    return seen * image.num_planes * BYTES_PER_PX / 2**30
