"""What a neuron job does with a task.

block: the evidence of membranes, and the superpixels that each cell sees. pair, number: superpixels that two cells see
alike are one; all get numbers (see ``cells``). graph: of a block's own pixels, where superpixels touch and what is told
there, in whole numbers, so that blocks add up to the image. solve: the forest's probability of each border, and the
multicut. label: neurons instead of superpixels. Cells lie the same whatever the blocks, so the result does too.
"""

from __future__ import annotations

import functools
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from raydom.config import MulticutConfig
from raydom.errors import DataError
from raydom.inference.cells import Cells, Seen
from raydom.inference.job import output_uri
from raydom.inference.neuron_job import (
    NEURONS,
    SUPERPIXELS,
    NeuronJob,
    NeuronLayout,
    check_neuron_memory,
    plan_neurons,
)
from raydom.inference.neuron_tables import edge_table, superpixel_table
from raydom.inference.object_tables import table_uri
from raydom.inference.output import Output
from raydom.inference.runner import JobKind
from raydom.inference.tasks import Task
from raydom.neurons.contacts import Contacts, contacts, merged_contacts
from raydom.neurons.evidence import map_names
from raydom.neurons.features import EdgeFeatures
from raydom.neurons.forest import EdgeForest
from raydom.neurons.hierarchy import part_numbers
from raydom.neurons.multicut import Multicut, edge_costs, multicut
from raydom.neurons.reading import Source
from raydom.neurons.regions import Regions, merged_regions, regions
from raydom.neurons.superpixels import superpixels
from raydom.storage import files, zarr_images
from raydom.storage.collection import Image, open_collection
from raydom.storage.tables import write_table
from raydom.types import Block, Region

logger = logging.getLogger(__name__)

OPEN_IMAGES = 16
"""Images that a worker keeps open; its tasks come image by image."""
KEPT_LOOKUPS = 2
"""Images whose neuron of each superpixel a worker keeps."""


G = TypeVar("G", Contacts, Regions)


class Kept(Generic[G]):
    """What was kept of each block of an image, read whenever it is asked for."""

    def __init__(self, blocks: Sequence[Block], read: Callable[[Block], G]) -> None:
        self._blocks = blocks
        self._read: Callable[[Block], G] = read

    def __iter__(self) -> Iterator[G]:
        return map(self._read, self._blocks)


class NeuronProcessor:
    """The processor of a neuron job; loads the forest once, when an image is first solved.

    Args:
        job: What to do.
        device: Computes on the CPU, whatever it is.
    """

    def __init__(self, job: NeuronJob, device: str = "cpu") -> None:
        self.job, self.neurons = job, job.spec.neurons
        self.images = job.chosen_images()
        self.boundaries = None if job.boundary is None else open_collection(job.boundary)
        self.output = Output(job, NeuronLayout(job))
        cell_px, halo_px = self.neurons.superpixels.cell_px, self.neurons.superpixels.halo_px
        self.cells = Cells(job.folder, cell_px, halo_px, self._look_again)
        self.image = functools.lru_cache(maxsize=OPEN_IMAGES)(self.images.__getitem__)
        self._lookup = functools.lru_cache(maxsize=KEPT_LOOKUPS)(self._read_lookup)

    @functools.cached_property
    def forest(self) -> EdgeForest:
        return EdgeForest.from_arrays(self.job.forest_run().weights())

    # ------------------------------------------------------------------------------------------------ the processor

    def read(self, task: Task) -> Any:
        image = self.image(task.block.image_id)
        if task.kind in ("pyramid", "finish") or (task.kind == "block" and self.job.is_alone(image)):
            return image
        with self.output.told_of_losses(image, task, *zarr_images.READ_ERRORS):
            if task.kind == "pair":
                return self.cells.read_pairs(image, task.block)
            if task.kind == "graph":
                return self._read_graph(image, task.block)
            if task.kind == "solve":
                return self._read_graphs(image)
            if task.kind == "label":
                return self._superpixels(image, task.block.write), self._lookup(image)
        return image

    def compute(self, task: Task, inputs: Any) -> Any:
        image = self.image(task.block.image_id)
        if task.kind == "block":
            return self._whole(image) if self.job.is_alone(image) else self._cells_of(image, task.block)
        if task.kind == "pair":
            return [self.cells.pairs(own, later) for own, later in inputs]
        if task.kind == "number":
            with self.output.told_of_losses(image, task):
                return self.cells.number(image, self.job.out, merge_iou=0.5, check=_fitting)
        if task.kind == "graph":
            return self._graph(image, task.block, *inputs)
        if task.kind == "solve":
            return self._solve(image, *inputs)
        if task.kind == "label":
            labels, lookup = inputs
            return lookup[labels]
        return inputs

    def write(self, task: Task, outputs: Any) -> dict[str, Any]:
        image, block = self.image(task.block.image_id), task.block
        if task.kind == "pyramid":
            self.output.write_part(image, task)
            return {}
        if task.kind == "finish":
            return {"record": self.output.finish(image, task)}
        if task.kind == "block":
            return self._write_block(image, task, outputs)
        if task.kind == "pair":
            self.cells.write_pairs(image, block, outputs)
        elif task.kind == "graph":
            labels, touching, found = outputs
            self._write_labels(image, SUPERPIXELS, block.write, labels)
            self.cells.write_arrays(image, "contacts", block, **touching.to_arrays())
            self.cells.write_arrays(image, "regions", block, **found.to_arrays())
        elif task.kind == "solve":
            touching, found, probabilities, result = outputs
            lookup = self._write_tables(image, touching, found, probabilities, result)
            self.cells.write_arrays(image, "neurons", _first(block), lookup=lookup)
            return {"num_objects": int(lookup.max(initial=0))}
        elif task.kind == "label":
            self._write_labels(image, NEURONS, block.write, outputs)
            return {"checksum": f"{zlib.crc32(np.ascontiguousarray(outputs).tobytes()):08x}"}
        return {}

    # ---------------------------------------------------------------------------------------------------- superpixels

    def _source(self, image: Image) -> Source:
        boundary = None if self.boundaries is None else self.boundaries[image.image_id]
        return Source(image, self.neurons.evidence, boundary, self.job.inside, self.job.channel)

    def _cells_of(self, image: Image, block: Block) -> tuple[np.ndarray, list[tuple[Block, Seen]]]:
        """The evidence of a block, and what each of its cells sees."""
        evidence, seen = None, []
        for cell in self.cells.of(block):
            region = self.cells.region(image, cell)
            around = self._source(image).evidence(region)
            own = around[cell.write.relative_to(region).index]
            if evidence is None:
                evidence = np.zeros((*own.shape[:-2], *block.write.shape), np.uint8)
            evidence[cell.write.relative_to(block.write).index] = _as_bytes(own)
            seen.append((cell, self.cells.look(image, cell, superpixels(around, self.neurons.superpixels))))
        assert evidence is not None
        return evidence, seen

    def _look_again(self, image: Image, cell: Block, error: DataError) -> Seen:
        logger.warning("%s: its superpixels are made again (%s).", cell.block_id, error)
        evidence = self._source(image).evidence(self.cells.region(image, cell))
        return self.cells.look(image, cell, superpixels(evidence, self.neurons.superpixels))

    def _write_block(self, image: Image, task: Task, outputs: Any) -> dict[str, Any]:
        if not self.job.is_alone(image):
            evidence, seen = outputs
            for cell, view in seen:
                self.cells.keep(image, cell, view)
            self.output.write_block(image, task.block.write, evidence[None], {})
            checksum = zlib.crc32(np.ascontiguousarray(evidence).tobytes())
            return {"num_objects": sum(len(view.owned.label) for _, view in seen), "checksum": f"{checksum:08x}"}
        evidence, labels, touching, found, probabilities, result = outputs
        lookup = self._write_tables(image, touching, found, probabilities, result)
        made = {SUPERPIXELS: labels.astype(np.uint32), NEURONS: lookup[labels]}
        row = self.output.write_alone(image, task, evidence[None], made)
        checksum = zlib.crc32(np.ascontiguousarray(made[NEURONS]).tobytes())
        return {"record": row, "num_objects": int(lookup.max(initial=0)), "checksum": f"{checksum:08x}"}

    def _write_labels(self, image: Image, label: str, region: Region, labels: np.ndarray) -> None:
        uri, path = output_uri(self.job, image.image_id), f"labels/{label}/0"
        array = zarr_images.open_array(uri, path, mode="r+")
        zarr_images.write_region(uri, path, region, labels.astype(np.uint32), array)

    # ---------------------------------------------------------------------------------------------------- the graph

    def _read_graph(self, image: Image, block: Block) -> tuple[np.ndarray, np.ndarray, Region]:
        """Superpixels and evidence of a block and, where the image goes on, of a row and a column more."""
        whole = Region.whole(image.plane_shape)
        region = Region(block.write.start, tuple(stop + 1 for stop in block.write.stop)).clipped(whole)
        level = zarr_images.open_array(output_uri(self.job, image.image_id), "0")
        evidence = self._stored(image, level, region)[0]
        labels = np.zeros(evidence.shape, np.uint64)
        size = self.cells.cell_px
        cut = Region(block.write.start, tuple(-(-stop // size) * size for stop in region.stop)).clipped(whole)
        for cell in self.cells.of(Block(image.image_id, cut)):
            part = cell.write.clipped(region)
            numbered = self.cells.numbered(image, cell)
            labels[part.relative_to(region).index] = numbered[part.relative_to(cell.write).index]
        return labels, evidence, region

    def _graph(
        self, image: Image, block: Block, labels: np.ndarray, evidence: np.ndarray, region: Region
    ) -> tuple[np.ndarray, Contacts, Regions]:
        maps = self._source(image).maps(region, evidence / np.float32(255))
        own = block.write.relative_to(region).index
        height, width = block.write.shape
        touching = contacts(labels, maps, (height, width))
        top, left = block.write.start
        return labels[own], touching, regions(labels[own], maps[own], (top, left))

    def _read_graphs(self, image: Image) -> tuple[Contacts, Regions]:
        blocks = [Block(image.image_id, region) for region in self._blocks(image)]
        touching = merged_contacts(Kept(blocks, lambda block: self._kept(image, "contacts", block, Contacts)))
        found = merged_regions(Kept(blocks, lambda block: self._kept(image, "regions", block, Regions)))
        return touching, found

    def _kept(self, image: Image, what: str, block: Block, kind: type[G]) -> G:
        return kind.from_arrays(self.cells.read_arrays(image, what, block))

    def _whole(self, image: Image) -> tuple[Any, ...]:
        """All of an image that is one cell."""
        source, region = self._source(image), Region.whole(image.plane_shape)
        evidence = source.evidence(region)
        labels = superpixels(evidence, self.neurons.superpixels)
        maps = source.maps(region, evidence)
        height, width = region.shape
        touching, found = contacts(labels, maps, (height, width)), regions(labels, maps, (0, 0))
        return _as_bytes(evidence), labels, *self._solve(image, touching, found)

    # ---------------------------------------------------------------------------------------------------- the multicut

    def _solve(
        self, image: Image, touching: Contacts, found: Regions
    ) -> tuple[Contacts, Regions, np.ndarray, Multicut]:
        """The probability of each border, and which are cut. Superpixels are numbered from 1, without a gap."""
        probabilities = np.empty(0, np.float32)
        if len(touching.u):
            names, anisotropy = map_names(self.neurons.evidence), self.neurons.superpixels.anisotropy
            described = EdgeFeatures(touching, found, names, anisotropy)
            if described.names != self.job.spec.features:
                raise DataError(f"{self.job.forest} was trained on other features than these; train it again.")
            probabilities = self.forest.judged(described.of, touching.uv)
        result = solved(touching, found, probabilities, self.job.multicut, self.cells.cell_px)
        return touching, found, probabilities, result

    def _write_tables(
        self, image: Image, touching: Contacts, found: Regions, probabilities: np.ndarray, result: Multicut
    ) -> np.ndarray:
        """The tables of edges and of superpixels; returns the neuron of each superpixel, by its number (0: 0)."""
        lookup = np.zeros(len(found.label) + 1, np.uint32)
        lookup[found.label] = result.labels + 1
        costs = edge_costs(probabilities, self.job.multicut, touching.faces)
        edges = edge_table(image.image_id, touching, probabilities, costs, lookup)
        write_table(table_uri(self.job.out, "edges", image.image_id), edges)
        write_table(
            table_uri(self.job.out, SUPERPIXELS, image.image_id), superpixel_table(image.image_id, found, lookup)
        )
        told = {"energy": result.energy, "bound": result.bound, "solver": result.solver}
        uri = files.join(self.job.folder.uri, "multicut", f"{image.image_id}.json")
        files.write_json(uri, told | {"num_superpixels": len(found.label), "num_edges": len(touching.u)})
        return lookup

    # ------------------------------------------------------------------------------------------------ what was written

    def _blocks(self, image: Image) -> list[Region]:
        level = zarr_images.open_array(output_uri(self.job, image.image_id), "0")
        return list(zarr_images.shard_regions(level))

    def _superpixels(self, image: Image, region: Region) -> np.ndarray:
        uri = output_uri(self.job, image.image_id)
        return self._stored(image, zarr_images.open_array(uri, f"labels/{SUPERPIXELS}/0"), region)

    def _stored(self, image: Image, level: Any, region: Region) -> np.ndarray:
        """Of an array whose shards are there; a missing one would be read as zeros."""
        size = self.job.blocks.block_size
        shards = Region(
            tuple(start // size * size for start in region.start),
            tuple(-(-stop // size) * size for stop in region.stop),
        ).clipped(Region.whole(image.plane_shape))
        lost = [one for one in zarr_images.shard_regions(level, shards) if not zarr_images.has_shard(level, one)]
        if lost:
            raise DataError(f"{output_uri(self.job, image.image_id)}: the shard at {lost[0].start} is gone.")
        return np.asarray(level[region.index])

    def _read_lookup(self, image: Image) -> np.ndarray:
        whole = Block(image.image_id, Region.whole(image.plane_shape))
        return self.cells.read_arrays(image, "neurons", _first(whole))["lookup"]


NEURON_JOBS = JobKind(plan_neurons, NeuronProcessor, check_neuron_memory)


def solved(
    touching: Contacts, found: Regions, probabilities: np.ndarray, config: MulticutConfig, cell_px: int
) -> Multicut:
    """The multicut of the borders of superpixels; parts of a large graph are the cells in which their centres lie."""
    costs = edge_costs(probabilities, config, touching.faces)
    nodes = np.searchsorted(found.label, touching.uv).astype(np.int64)
    centre = found.coordinates[:, -2:] // np.maximum(found.voxels, 1)[:, None]
    parts = part_numbers(*(centre // cell_px).T)
    return multicut(len(found.label), nodes, costs, config, parts)


def _first(block: Block) -> Block:
    """What is kept of an image is kept under its first pixel."""
    return Block(block.image_id, Region((0, 0), (0, 0)))


def _as_bytes(evidence: np.ndarray) -> np.ndarray:
    return np.rint(255 * evidence).astype(np.uint8)


def _fitting(numbers: np.ndarray) -> None:
    most = int(numbers.max(initial=0))
    if most > np.iinfo(np.uint32).max:
        raise DataError(f"{most} superpixels do not fit uint32. Train a forest with a larger superpixels.min_size_px.")
