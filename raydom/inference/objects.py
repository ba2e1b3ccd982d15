"""Objects over cells: the stages that turn what a network told of an image of several cells into numbered objects.

A *cell* is a square in which objects are looked for by themselves: a block, or of a network that tells objects as a
list a part of one that is the same whatever the block size (see ``BlockJob.cell_px``). A task does those of a block.

view: what each cell sees of the objects (its own pixels and a halo), kept in the run folder. pair: which of its views
are views of its neighbours too. number: one task an image; which views are one object, and its number. label: the
numbers of each cell's own pixels are written, and measured. Each is restartable, and what one needs of the others it
reads from the run folder, so no stage holds more than a few blocks, a row of cells' objects, and what was merged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from raydom.config import ModelSpec
from raydom.errors import ConfigError, DataError
from raydom.images import objects
from raydom.images.instances import instances, numbered
from raydom.images.objects import Parts
from raydom.inference.cells import REMEDY, Cells, Seen
from raydom.inference.job import BlockJob, output_uri
from raydom.inference.object_tables import OBJECTS, object_table, pack_parts, table_uri, unpack_parts
from raydom.inference.tasks import Task
from raydom.storage import zarr_images
from raydom.storage.collection import Image
from raydom.storage.tables import write_tables
from raydom.types import Block, Region

logger = logging.getLogger(__name__)

KINDS = ("view", "pair", "number", "label")


class ObjectStages:
    """Does the tasks of these kinds for a job.

    Args:
        job: Of a model that makes objects.
        spec: Of the model.
    """

    def __init__(self, job: BlockJob, spec: ModelSpec) -> None:
        self.job, self.spec = job, spec
        self.threshold = job.threshold if job.threshold is not None else spec.threshold
        self.cells = Cells(job.folder, job.cell_px(spec), job.object_halo_px(spec), self._look_again)

    # ------------------------------------------------------------------------------------------------ the processor

    def read(self, task: Task, image: Image) -> Any:
        if task.kind == "view":
            return self._maps(image, self.cells.region(image, task.block))
        if task.kind == "pair":
            return self.cells.read_pairs(image, task.block)
        if task.kind == "label":
            return image.numpy(task.block.write), self._maps(image, task.block.write)[0]
        return image

    def compute(self, task: Task, inputs: Any, image: Image) -> Any:
        if task.kind == "view":
            return self._see(image, task.block, inputs)
        if task.kind == "pair":
            return [self.cells.pairs(own, later) for own, later in inputs]
        if task.kind == "number":
            return self._number(image)
        return self._label(image, task.block, *inputs)

    def write(self, task: Task, outputs: Any, image: Image) -> dict[str, Any]:
        if task.kind == "view":
            self.cells.keep(image, task.block, outputs)
            return {"num_objects": len(outputs.owned.label)}
        if task.kind == "pair":
            self.cells.write_pairs(image, task.block, outputs)
            return {}
        if task.kind == "number":
            return {"num_objects": outputs}
        labels, parts = outputs
        uri, path = output_uri(self.job, image.image_id), f"labels/{self.spec.label}/0"
        zarr_images.write_region(uri, path, task.block.write, labels, zarr_images.open_array(uri, path, mode="r+"))
        for cell, of_cell in zip(self.cells.of(task.block), parts, strict=True):
            self.cells.write_arrays(image, "parts", cell, **pack_parts(of_cell))
        return {"num_objects": len(np.unique(np.concatenate([of_cell.label for of_cell in parts])))}

    # --------------------------------------------------------------------------------------- images of a single cell

    def of_whole(self, image: Image, maps: np.ndarray) -> tuple[np.ndarray, Parts]:
        """Labels and measurements of an image that is one cell.

        Args:
            image: It.
            maps: All of them, uint8 (k, h, w).
        """
        found = instances(maps, self.spec.network.output, self.threshold, self.job.instances)
        return self.of_labels(image, found, maps[0])

    def of_labels(self, image: Image, found: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, Parts]:
        """The same, of its objects in any numbering; probability in 0..255."""
        found = numbered(found)
        area = np.bincount(found.ravel())
        keep = area >= self.job.instances.min_area_px
        keep[0] = False
        number = np.where(keep, np.cumsum(keep), 0)
        labels = self._ids(number)[found]
        return labels, self._measure(labels, Region.whole(labels.shape), image.numpy(), probability)

    def write_table(self, image: Image, bands: Iterable[Parts]) -> None:
        """The object table of an image: ``OUT/objects/<image_id>.parquet``."""
        shape: tuple[int, int] = image.spatial_shape  # type: ignore[assignment]
        pixel_size_um = self.job.pixel_size_um or image.pixel_size_um
        tables = (object_table(image.image_id, parts, shape, pixel_size_um) for parts in bands)
        write_tables(table_uri(self.job.out, "objects", image.image_id), tables, OBJECTS)

    def bands_of(self, image: Image) -> Iterator[Parts]:
        """The objects of an image, each with the last row of cells that has some of it."""
        waiting: list[Parts] = []
        last_band: dict[int, int] = {}  # of the objects that go on below
        for number, band in enumerate(self.cells.bands(image)):
            for cell in band:
                numbers = self.cells.numbers_of(image, cell)
                later = numbers.last > number
                last_band.update(zip(numbers.number[later].tolist(), numbers.last[later].tolist(), strict=True))
                waiting.append(unpack_parts(self.cells.read_arrays(image, "parts", cell)))
            merged = objects.merged(waiting)
            last_band = {label: last for label, last in last_band.items() if last > number}
            goes_on = np.isin(merged.label, np.array(list(last_band), np.uint64))
            waiting = [merged.taken(goes_on)]
            yield merged.taken(~goes_on)

    # ---------------------------------------------------------------------------------------------------- the stages

    def _maps(self, image: Image, region: Region) -> np.ndarray:
        """What the network told of a region, as it is stored."""
        level = zarr_images.open_array(output_uri(self.job, image.image_id), "0")
        size = self.job.blocks.block_size
        shards = Region(
            tuple(start // size * size for start in region.start),
            tuple(-(-stop // size) * size for stop in region.stop),
        ).clipped(Region.whole(image.spatial_shape))
        lost = [one for one in zarr_images.shard_regions(level, shards) if not zarr_images.has_shard(level, one)]
        if lost:  # it would be read as zeros
            raise DataError(f"{output_uri(self.job, image.image_id)}: the shard at {lost[0].start} is gone; {REMEDY}")
        return np.asarray(level[(slice(None), *region.slices)])

    def _see(self, image: Image, cell: Block, maps: np.ndarray) -> Seen:
        if self.spec.network.output == "objects":
            raise DataError(f"{cell.block_id}: what the network found there is gone or damaged; {REMEDY}")
        found = instances(maps, self.spec.network.output, self.threshold, self.job.instances)
        return self.cells.look(image, cell, found)

    def _look_again(self, image: Image, cell: Block, error: DataError) -> Seen:
        logger.warning("%s: what it sees of objects is made again (%s).", cell.block_id, error)
        return self._see(image, cell, self._maps(image, self.cells.region(image, cell)))

    def _number(self, image: Image) -> int:
        """Number the objects of an image."""
        return self.cells.number(
            image,
            self.job.out,
            merge_iou=0 if self.spec.network.output == "classes" else self.job.instances.merge_iou,
            min_area_px=self.job.instances.min_area_px,
            check=self._ids,  # which refuses what does not fit
        )

    def _label(
        self, image: Image, block: Block, pixels: np.ndarray, probability: np.ndarray
    ) -> tuple[np.ndarray, list[Parts]]:
        """The labels of a block, and the measurements of each of its cells."""
        labels, parts = np.zeros(block.write.shape, self.job.instances.ids), []
        for cell in self.cells.of(block):
            here = cell.write.relative_to(block.write).slices
            labels[here] = self._ids(self.cells.numbered(image, cell))
            parts.append(self._measure(labels[here], cell.write, pixels[(slice(None), *here)], probability[here]))
        return labels, parts

    def _ids(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers in the dtype of the labels.

        Raises:
            ConfigError: If they do not fit.
        """
        dtype = np.dtype(self.job.instances.ids)
        most = int(numbers.max(initial=0))
        if most > np.iinfo(dtype).max:
            raise ConfigError(f"{most} objects do not fit {dtype}; give --instances.ids uint64 and another --out.")
        return numbers.astype(dtype)

    def _measure(self, labels: np.ndarray, where: Region, pixels: np.ndarray, probability: np.ndarray) -> Parts:
        return objects.measure(labels, where, pixels, (probability / np.float32(255)).astype(np.float32))
