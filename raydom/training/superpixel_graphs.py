"""Graphs of superpixels with what the truth says of their borders: what forests for neurons learn and are scored on.

An image is taken square by square (``SuperpixelConfig.cell_px``, with the halo around it), so that memory is bounded by
the square; each is a graph of its own. Graphs are kept in files named by all that they depend on, so that no graph is
made twice, whichever forests need it.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int64, Shaped, UInt64

from raydom.config import MulticutConfig, NeuronConfig, fingerprint, to_dict
from raydom.errors import ConfigError, DataError
from raydom.images.overlaps import Overlaps, merged
from raydom.images.tiles import cut_blocks
from raydom.neurons.contacts import Contacts, contacts
from raydom.neurons.evidence import map_names
from raydom.neurons.features import edge_features
from raydom.neurons.forest import EdgeForest, EdgeGraph
from raydom.neurons.multicut import edge_costs, multicut
from raydom.neurons.reading import Source
from raydom.neurons.regions import regions
from raydom.neurons.superpixels import superpixels
from raydom.neurons.truth import Zero, edge_labels, truth_overlaps
from raydom.storage import files
from raydom.storage.collection import Image, LabelImage
from raydom.types import Region

GRAPH_VERSION = 1
"""Raised when graphs change for a reason that no setting tells."""

ARRAYS = ("features", "u", "v", "faces", "own", "superpixel")
"""Of a graph, in its file."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image, its truth, and what tells of its membranes if the raw image does not."""

    image: Image
    truth: LabelImage
    truth_hash: str
    """Of the image that the truth is of."""
    boundary: Image | None = None

    @property
    def where(self) -> str:
        """For messages."""
        return self.image.uri


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphRecipe:
    """How graphs are made, whatever the image."""

    neurons: NeuronConfig
    inside: bool = False
    """Probabilities are of the inside of neurons."""
    channel: int = 0
    """Of the images."""


@dataclass(frozen=True, slots=True)
class GraphTask:
    """A square of an image, whose graph is to be made."""

    source: LabelledImage
    cell: Region
    uri: str
    """File that keeps the graph."""


@dataclass(frozen=True, slots=True)
class MadeGraph:
    """What became of a task."""

    uri: str
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class LabelledGraph:
    """The borders of superpixels of a square with its halo, and how the superpixels lie in true objects."""

    names: tuple[str, ...]
    """Of the features."""
    features: Float32[np.ndarray, "n f"]
    u: UInt64[np.ndarray, " n"]
    v: UInt64[np.ndarray, " n"]
    faces: Int64[np.ndarray, " n"]
    """Pairs of pixels that touch, of each border."""
    own: Bool[np.ndarray, " n"]
    """Whether the square itself, without the halo, has at least half of the border."""
    superpixel: UInt64[np.ndarray, " m"]
    """Numbers of the superpixels, ascending."""
    overlaps: Overlaps
    """Pixels of each superpixel in each true object."""

    @cached_property
    def uv(self) -> UInt64[np.ndarray, "n 2"]:
        return np.stack([self.u, self.v], axis=1)

    def labels(self, zero: Zero, min_share: float) -> Int8[np.ndarray, " n"]:
        """1 for true boundaries, 0 for none, -1 where it is unknown, and for borders that other squares learn from.

        Raises:
            DataError: If there is no border, or the truth has no boundary.
        """
        labels = edge_labels(self.u, self.v, self.overlaps, zero, min_share)
        return np.where(self.own, labels, np.int8(-1))

    def to_train(self, zero: Zero, min_share: float) -> EdgeGraph:
        """For a forest; raises as ``labels`` does."""
        return EdgeGraph(self.features, self.uv, self.labels(zero, min_share))

    def segmented(self, forest: EdgeForest, config: MulticutConfig, num_threads: int = 1) -> Overlaps:
        """How the neurons that a multicut of a forest's probabilities leaves overlap the true objects."""
        probabilities = np.empty(0, np.float32)
        if len(self.u):
            probabilities = forest.probabilities(self.features, self.uv, num_threads)
        nodes = np.searchsorted(self.superpixel, self.uv).astype(np.int64)
        costs = edge_costs(probabilities, config, self.faces)
        neuron = multicut(len(self.superpixel), nodes, costs, config).labels.astype(np.uint64) + np.uint64(1)
        place = np.searchsorted(self.superpixel, self.overlaps.predicted)
        return merged([Overlaps(self.overlaps.truth, neuron[place], self.overlaps.pixels)])


def graph_tasks(source: LabelledImage, recipe: GraphRecipe, folder: str) -> list[GraphTask]:
    """The squares of an image, and the files below a folder that keep their graphs."""
    image, boundary = source.image, source.boundary
    made_of = fingerprint(
        GRAPH_VERSION,
        to_dict(recipe),
        [image.record.sha256, to_dict(image.statistics), list(image.record.shape)],
        [source.truth_hash, source.truth.name],
        None if boundary is None else boundary.record.sha256,
    )
    cells = cut_blocks(image.image_id, image.plane_shape, recipe.neurons.superpixels.cell_px)
    return [
        GraphTask(source, cell.write, files.join(folder, f"{made_of}-{'-'.join(map(str, cell.write.start))}.npz"))
        for cell in cells
    ]


def make_graph(recipe: GraphRecipe, task: GraphTask) -> MadeGraph:
    """Make the graph of a square and keep it, unless it is kept already; what is wrong with the data is told."""
    began = time.perf_counter()
    if files.exists(task.uri):
        return MadeGraph(task.uri, 0.0)
    try:
        write_graph(task.uri, labelled_graph(recipe, task.source, task.cell))
    except (ConfigError, DataError, OSError) as error:
        return MadeGraph(task.uri, time.perf_counter() - began, f"{task.source.where}: {error}")
    return MadeGraph(task.uri, time.perf_counter() - began)


def labelled_graph(recipe: GraphRecipe, labelled: LabelledImage, cell: Region) -> LabelledGraph:
    """The graph of a square of an image; that of the whole image, as a neuron job has it, if this is one square.

    Raises:
        DataError: For pixels that cannot be read, and labels that are no numbers of objects.
    """
    config, image = recipe.neurons, labelled.image
    seen = cell.grown(config.superpixels.halo_px).clipped(Region.whole(image.plane_shape))
    source = Source(image, config.evidence, labelled.boundary, recipe.inside, recipe.channel)
    evidence = source.evidence(seen)
    labels = superpixels(evidence, config.superpixels)
    maps = source.maps(seen, evidence)
    height, width = seen.shape
    touching, found = contacts(labels, maps, (height, width)), regions(labels, maps, (0, 0))
    features, names = edge_features(touching, found, map_names(config.evidence), config.superpixels.anisotropy)
    own = np.ones(len(touching.u), bool) if seen == cell else _own(touching, labels, cell.relative_to(seen))
    overlaps = truth_overlaps(labels, labelled.truth.numpy(seen))
    return LabelledGraph(names, features, touching.u, touching.v, touching.faces, own, found.label, overlaps)


def _own(touching: Contacts, labels: Shaped[np.ndarray, "*d h w"], cell: Region) -> Bool[np.ndarray, " n"]:
    (top, left), (bottom, right) = cell.start, cell.stop
    part = labels[..., top : bottom + 1, left : right + 1]
    inside = contacts(part, np.zeros((1, *part.shape), np.uint8), (bottom - top, right - left))
    base = np.uint64(labels.max() + 1)
    place = np.searchsorted(touching.u * base + touching.v, inside.u * base + inside.v)
    faces = np.zeros(len(touching.u), np.int64)
    faces[place] = inside.faces
    return 2 * faces >= touching.faces


def write_graph(uri: str, graph: LabelledGraph) -> None:
    """Keep a graph in a file, whole or not at all."""
    sink = io.BytesIO()
    arrays = {name: getattr(graph, name) for name in ARRAYS}
    overlaps = {name: getattr(graph.overlaps, name) for name in ("truth", "predicted", "pixels")}
    np.savez(sink, names=np.array(graph.names), **arrays, **overlaps)
    files.write_bytes_atomic(uri, sink.getvalue())


def read_graph(uri: str) -> LabelledGraph:
    """The graph that a file keeps.

    Raises:
        DataError: If it is damaged.
    """
    try:
        with np.load(io.BytesIO(files.read_bytes(uri)), allow_pickle=False) as file:
            arrays: Mapping[str, Any] = {name: file[name] for name in file.files}
        return LabelledGraph(
            names=tuple(arrays["names"].tolist()),
            overlaps=Overlaps(*(arrays[name] for name in ("truth", "predicted", "pixels"))),
            **{name: arrays[name] for name in ARRAYS},
        )
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise DataError(f"{uri}: this graph is damaged ({error}); remove it, and it is made again.") from error
