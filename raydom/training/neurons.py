"""What a forest for neurons is trained on: labelled images, and stylised versions of them with the same truth."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.metrics import roc_auc_score

from raydom.commands import MembraneConfig, NeuronTrainConfig, TruthConfig
from raydom.config import ForestConfig, ForestSpec, ImageFilter, to_dict
from raydom.errors import ConfigError, DataError
from raydom.neurons.calibration import log_loss
from raydom.neurons.forest import EdgeForest, EdgeGraph
from raydom.storage import files
from raydom.storage.collection import Collection, Image, open_collection
from raydom.storage.model_run import open_model_run
from raydom.training.stylised import ORIGINALS, check_versions, open_stylised
from raydom.training.superpixel_graphs import (
    GRAPH_VERSION,
    GraphRecipe,
    GraphTask,
    LabelledGraph,
    LabelledImage,
    MadeGraph,
    graph_tasks,
    read_graph,
)

logger = logging.getLogger(__name__)

PIXEL_SIZE_TOLERANCE = 0.2
"""How far pixel sizes of training images may differ: features are in pixels."""
GRAPHS = "graphs"
"""Folder, within that of a run, of the graphs until the forest is trained."""
ERRORS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """Images of one collection that are trained on, with their truth."""

    style: str | None
    """Of stylised ones: the name of their collection's folder."""
    collection: str
    images: tuple[LabelledImage, ...]
    stylised: bool = False


def training_images(uri: str, images: ImageFilter) -> Collection:
    """The images of a collection that are trained on: those that are meant, without those of split ``test`` unless only
    such are meant."""
    chosen = open_collection(uri).filter(**asdict(images))
    kept = [record.image_id for record in chosen.records if record.split != "test"]
    if not kept or len(kept) == len(chosen):
        return chosen
    logger.warning("%s: %d images of split 'test' are not trained on.", uri, len(chosen) - len(kept))
    return Collection(chosen.uri, chosen.table.filter(pc.is_in(chosen.table["image_id"], pa.array(kept))))


def labelled_images(collection: Collection, truth: TruthConfig, membranes: MembraneConfig) -> tuple[LabelledImage, ...]:
    """The labelled images of a collection, if superpixels and their true borders can be made of them.

    Raises:
        ConfigError: For a channel or probabilities that an image lacks.
        DataError: If none has the label, or one's label is of another shape.
    """
    if not len(collection):
        raise ConfigError(f"{collection.uri}: no image is chosen. See raydom info {collection.uri}.")
    images = [image for image in collection if truth.label in image.record.labels]
    if not images:
        known = sorted({name for record in collection.records for name in record.labels})
        there = f"there is {', '.join(known)}; choose with --label" if known else "ingest them with --labels"
        raise DataError(f"{collection.uri}: none of {len(collection)} images has labels {truth.label!r}: {there}.")
    if len(images) < len(collection):
        logger.warning(
            "%d of %d images have no label %r and are not used.",
            len(collection) - len(images), len(collection), truth.label,
        )  # fmt: skip
    boundaries = None if membranes.boundary is None else open_collection(membranes.boundary)
    return tuple(_labelled(image, image, truth.label, membranes.channel, boundaries) for image in images)


def stylised_images(
    uris: Sequence[str],
    select: Sequence[str],
    originals: Collection,
    labelled: Mapping[str, LabelledImage],
    truth: TruthConfig,
    channel: int,
) -> tuple[TrainingImages, ...]:
    """Versions of images that are trained on, with their own labels or, where they have none, those of the original.

    Versions of other images of the collection (of another split, say) are left out.

    Args:
        uris: The collections.
        select: Conditions on their images, see ``open_stylised``.
        originals: The images that are trained on.
        labelled: The same by id.
        truth: What the labels say.
        channel: Of the images.

    Raises:
        ConfigError: If a collection has no version of any, or lacks the channel.
        DataError: If one differs from its original in size.
    """
    found = []
    for stylised in open_stylised(uris, select):
        ids = [image_id for image_id in check_versions(stylised, originals) if image_id in labelled]
        left = len(stylised.chosen) - len(ids)
        if left:
            logger.warning(
                "%s: %d images are versions of none that is trained on and are not used.", stylised.collection.uri, left
            )
        images = []
        for image_id in ids:
            version, original = stylised.collection[image_id], labelled[image_id].image
            own = version if truth.label in version.record.labels else original
            images.append(_labelled(version, own, truth.label, channel, None))
        found.append(TrainingImages(stylised.style, stylised.collection.uri, tuple(images), stylised=True))
    return tuple(found)


def _labelled(image: Image, of: Image, label: str, channel: int, boundaries: Collection | None) -> LabelledImage:
    """The image with the truth of itself or of its original."""
    if not 0 <= channel < image.num_channels:
        raise ConfigError(f"{image.uri}: the image has {image.num_channels} channels; there is no --channel {channel}.")
    truth = of.labels(label)
    if truth.spatial_shape != image.spatial_shape:
        raise DataError(
            f"{image.uri}: the image is {image.spatial_shape} px and its label {label!r} {truth.spatial_shape} px; "
            "they must cover the same pixels. Ingest the image with a label of its size."
        )
    boundary = None
    if boundaries is not None:
        if image.image_id not in boundaries:
            raise ConfigError(
                f"{boundaries.uri}: there is no {image.image_id}. Make the probabilities of all images with "
                "raydom segment."
            )
        boundary = boundaries[image.image_id]
        if boundary.spatial_shape != image.spatial_shape or boundary.dtype.kind not in "uf":
            raise ConfigError(
                f"{boundaries.uri}: {image.image_id} is {boundary.dtype} of {boundary.spatial_shape} px; probabilities "
                f"are uint8 or float and of the image's {image.spatial_shape} px."
            )
    return LabelledImage(image, truth, of.record.sha256, boundary)


def with_boundaries(images: TrainingImages, uri: str | None) -> TrainingImages:
    """The same images with the probabilities of a collection."""
    if uri is None:
        return images
    boundaries = open_collection(uri)
    found = (
        LabelledImage(one.image, one.truth, one.truth_hash, boundaries[one.image.image_id]) for one in images.images
    )
    return replace(images, images=tuple(found))


def common_pixel_size(images: Iterable[Image]) -> float | None:
    """Pixel size of images that are looked at together, um: that of the first that states it; None where none does.

    Raises:
        ConfigError: If they differ by more than a fifth: what is so many px wide would be something else.
    """
    sizes = {image.uri: image.pixel_size_um for image in images if image.pixel_size_um is not None}
    if not sizes:
        return None
    smallest, largest = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
    if sizes[largest] > (1 + PIXEL_SIZE_TOLERANCE) * sizes[smallest]:
        raise ConfigError(
            f"{smallest} has {sizes[smallest]:g} um/px and {largest} {sizes[largest]:g} um/px: what is so many px wide "
            "is something else there. Resample the images, or choose those of one size with --keep."
        )
    return next(iter(sizes.values()))


@dataclass(frozen=True, slots=True)
class ForestPlan:
    """A training, checked."""

    config: NeuronTrainConfig
    sources: tuple[TrainingImages, ...]
    """The labelled images first, then those of each collection of stylised ones."""
    pixel_size_um: float | None
    planes: bool
    model_hash: str | None
    """Of the model that tells of membranes."""

    @property
    def out(self) -> str:
        return files.absolute(self.config.out)

    @property
    def recipe(self) -> GraphRecipe:
        membranes = self.config.membranes
        return GraphRecipe(neurons=self.config.neurons, inside=membranes.inside, channel=membranes.channel)

    def settings(self) -> dict[str, Any]:
        """All that the forest depends on, as plain values."""
        config = self.config
        own = {name: to_dict(getattr(config, name)) for name in ("truth", "neurons", "forest")}
        return own | {
            "membranes": {
                "model": self.model_hash, "inside": config.membranes.inside, "channel": config.membranes.channel,
            },
            "images": told(self.sources[:1]),
            "augment": told(self.sources[1:]),
            "version": GRAPH_VERSION,
        }  # fmt: skip

    def tasks(self, boundaries: Mapping[str | None, str]) -> list[list[GraphTask]]:
        """The squares of each image; ``boundaries``: the collection of probabilities of each style, if there are any
        that a model told."""
        folder = files.join(self.out, GRAPHS)
        sources = (with_boundaries(source, boundaries.get(source.style)) for source in self.sources)
        return [graph_tasks(one, self.recipe, folder) for source in sources for one in source.images]

    def spec(self, names: tuple[str, ...]) -> ForestSpec:
        membranes = self.config.membranes
        raw = membranes.boundary is None and membranes.model is None
        return ForestSpec(
            neurons=self.config.neurons,
            forest=self.config.forest,
            features=names,
            boundary="frangi" if raw else "probability",
            planes=self.planes,
            pixel_size_um=self.pixel_size_um,
            inside=self.config.membranes.inside,
            channel=self.config.membranes.channel,
        )


def told(sources: Sequence[TrainingImages]) -> dict[str, Any]:
    """The hashes of images, of their truth and of their probabilities, by collection and id."""
    return {
        source.style or ORIGINALS: {
            one.image.image_id: [
                one.image.record.sha256, one.truth_hash, None if one.boundary is None else one.boundary.record.sha256,
            ]
            for one in source.images
        }
        for source in sources
    }  # fmt: skip


def plan_forest(config: NeuronTrainConfig) -> ForestPlan:
    """Check a training.

    Raises:
        ConfigError: For options that do not fit each other or the images.
        DataError: For images without a truth, or with one of another shape.
    """
    originals = training_images(config.collection, config.images)
    sources = all_sources(originals, config)
    images = [one.image for source in sources for one in source.images]
    return ForestPlan(config, sources, common_pixel_size(images), check_planes(images), model_hash(config.membranes))


def all_sources(originals: Collection, config: Any) -> tuple[TrainingImages, ...]:
    """The images that ``collection``, ``augment`` and ``select`` of a command's configuration mean."""
    labelled = labelled_images(originals, config.truth, config.membranes)
    by_id = {one.image.image_id: one for one in labelled}
    versions = stylised_images(config.augment, config.select, originals, by_id, config.truth, config.membranes.channel)
    return (TrainingImages(None, originals.uri, labelled), *versions)


def check_planes(images: Sequence[Image]) -> bool:
    """Whether images are single planes.

    Raises:
        ConfigError: If some are, and others are volumes.
    """
    volumes = [image for image in images if image.is_volume]
    if volumes and len(volumes) < len(images):
        flat = next(image for image in images if not image.is_volume)
        raise ConfigError(
            f"{volumes[0].uri} is a volume and {flat.uri} a single plane; a forest is trained on one or the other. "
            "Choose with --keep."
        )
    return not volumes


def model_hash(membranes: MembraneConfig) -> str | None:
    """Of the model that is asked about membranes; refuses one that is not finished."""
    return None if membranes.model is None else open_model_run(membranes.model).content_hash


def made(results: Iterable[MadeGraph], progress: Callable[[], None]) -> float:
    """Wait for all graphs; returns the seconds that they took, added.

    Raises:
        DataError: If some could not be made, with what was wrong.
    """
    seconds, errors = 0.0, []
    for result in results:
        seconds += result.seconds
        progress()
        if result.error is not None:
            errors.append(result.error)
    if errors:
        more = f" (and {len(errors) - ERRORS_SHOWN} more)" if len(errors) > ERRORS_SHOWN else ""
        raise DataError("; ".join(sorted(errors)[:ERRORS_SHOWN]) + more)
    return seconds


def learnable(
    graphs: Iterable[tuple[str, LabelledGraph]], truth: TruthConfig
) -> tuple[list[EdgeGraph], tuple[str, ...]]:
    """Graphs with the labels of their borders, and the names of the features.

    Args:
        graphs: With what each is of, for messages.
        truth: What the labels say.

    Raises:
        DataError: If none of them has a border, or a true boundary.
    """
    found, reasons, names = [], [], tuple[str, ...]()
    for where, graph in graphs:
        names = graph.names
        try:
            found.append(graph.to_train(truth.zero, truth.min_share))  # type: ignore[arg-type]
        except DataError as error:
            reasons.append(f"{where}: {error}")
    if not found:
        raise DataError(f"no image can be learned from. {reasons[0] if reasons else 'There is none.'}")
    if reasons:
        logger.warning(
            "%d of %d squares have nothing to learn from and are left out. The first: %s",
            len(reasons), len(reasons) + len(found), reasons[0],
        )  # fmt: skip
    return found, names


@dataclass(frozen=True, slots=True)
class TrainedForest:
    """A forest, and what is known of how well it learned."""

    forest: EdgeForest
    row: dict[str, float | int]


def fit_forest(
    graphs: Sequence[EdgeGraph], names: tuple[str, ...], config: ForestConfig, num_threads: int
) -> TrainedForest:
    """Train a forest; its metrics are of the votes of trees that had not seen an edge (out of bag).

    Raises:
        DataError: If there is no known boundary, or nothing else.
    """
    began = time.perf_counter()
    forest, said = EdgeForest.fit_and_judge(graphs, config, names, num_threads)
    labels = np.concatenate([graph.labels for graph in graphs])
    true = labels[labels >= 0]
    row: dict[str, float | int] = {
        "step": 1,
        "graphs": len(graphs),
        "edges": len(labels),
        "unknown": float(np.mean(labels < 0)),
        "cut": float(true.mean()),
        "oob_accuracy": float(np.mean((said > 0.5) == (true == 1))),
        "oob_auc": float(roc_auc_score(true, said)),
        "oob_log_loss": log_loss(said, true),
        "seconds_fit": time.perf_counter() - began,
    }
    return TrainedForest(forest, row)


def load(tasks: Iterable[GraphTask]) -> Iterable[tuple[str, LabelledGraph]]:
    """The graphs of squares, in their order, with what each is of."""
    return ((task.source.where, read_graph(task.uri)) for task in tasks)
