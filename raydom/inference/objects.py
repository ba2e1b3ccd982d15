"""Objects over cells: the stages that turn what a network told of an image of several cells into numbered objects.

A *cell* is a square in which objects are looked for by themselves: a block, or of a network that tells objects as a
list a part of one that is the same whatever the block size (see ``BlockJob.cell_px``). A task does those of a block.

view: what each cell sees of the objects (its own pixels and a halo), kept in the run folder. pair: which of its views
are views of its neighbours too. number: one task an image; which views are one object, and its number. label: the
numbers of each cell's own pixels are written, and measured. Each is restartable, and what one needs of the others it
reads from the run folder, so no stage holds more than a few blocks, a row of cells' objects, and what was merged.
"""

from __future__ import annotations

import functools
import io
import itertools
import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from raydom.config import ModelSpec
from raydom.errors import ConfigError, DataError
from raydom.images import objects
from raydom.images.instances import instances, numbered
from raydom.images.objects import Parts
from raydom.images.stitching import Numbers, Views, consistent, number_objects, overlaps, views
from raydom.images.tiles import cut_blocks
from raydom.inference.job import BlockJob, output_uri
from raydom.inference.object_tables import MERGES, OBJECTS, object_table, pack_parts, table_uri, unpack_parts
from raydom.inference.worker import Task
from raydom.storage import files, zarr_images
from raydom.storage.collection import Image
from raydom.storage.tables import write_table, write_tables
from raydom.types import Block, Region

logger = logging.getLogger(__name__)

KINDS = ("view", "pair", "number", "label")
KEPT_VIEWS = 24
"""Cells whose views a worker keeps: those around the one that it compares."""
REMEDY = "--retry-failed makes it again."


@dataclass(frozen=True, slots=True)
class Seen:
    """What a cell sees of the objects."""

    region: Region
    labels: np.ndarray
    """Of the region, numbered from 1 in this cell; 0 background."""
    owned: Views


class ObjectStages:
    """Does the tasks of these kinds for a job.

    Args:
        job: Of a model that makes objects.
        spec: Of the model.
    """

    def __init__(self, job: BlockJob, spec: ModelSpec) -> None:
        self.job, self.spec = job, spec
        self.threshold = job.threshold if job.threshold is not None else spec.threshold
        self.cell_px, self.halo_px = job.cell_px(spec), job.object_halo_px(spec)
        self._seen = functools.lru_cache(maxsize=KEPT_VIEWS)(self._read_view)

    # ------------------------------------------------------------------------------------------------ the processor

    def read(self, task: Task, image: Image) -> Any:
        if task.kind == "view":
            return self._maps(image, self.region(image, task.block))
        if task.kind == "pair":
            return [
                (self._seen(image, cell), [(place, self._seen(image, one)) for place, one in self._later(image, cell)])
                for cell in self.cells(task.block)
            ]
        if task.kind == "label":
            return image.numpy(task.block.write), self._maps(image, task.block.write)[0]
        return image

    def compute(self, task: Task, inputs: Any, image: Image) -> Any:
        if task.kind == "view":
            return self._see(image, task.block, inputs)
        if task.kind == "pair":
            return [self._pairs(own, later) for own, later in inputs]
        if task.kind == "number":
            return self._number(image)
        return self._label(image, task.block, *inputs)

    def write(self, task: Task, outputs: Any, image: Image) -> dict[str, Any]:
        if task.kind == "view":
            self.keep(image, task.block, outputs)
            return {"num_objects": len(outputs.owned.label)}
        if task.kind == "pair":
            for cell, (pairs, iou) in zip(self.cells(task.block), outputs, strict=True):
                self._write_arrays(image, "pairs", cell, pairs=pairs, iou=iou)
            return {}
        if task.kind == "number":
            return {"num_objects": outputs}
        labels, parts = outputs
        uri, path = output_uri(self.job, image.image_id), f"labels/{self.spec.label}/0"
        zarr_images.write_region(uri, path, task.block.write, labels, zarr_images.open_array(uri, path, mode="r+"))
        for cell, of_cell in zip(self.cells(task.block), parts, strict=True):
            self._write_arrays(image, "parts", cell, **pack_parts(of_cell))
        return {"num_objects": len(np.unique(np.concatenate([of_cell.label for of_cell in parts])))}

    def keep(self, image: Image, cell: Block, seen: Seen) -> None:
        """Keep what a cell sees for the stages to come."""
        self._write_arrays(image, "views", cell, labels=seen.labels, **_columns(seen.owned))

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
        for number, band in enumerate(self._bands(image)):
            for cell in band:
                numbers = self._numbers_of(image, cell)
                later = numbers.last > number
                last_band.update(zip(numbers.number[later].tolist(), numbers.last[later].tolist(), strict=True))
                waiting.append(unpack_parts(self._read_arrays(image, "parts", cell)))
            merged = objects.merged(waiting)
            last_band = {label: last for label, last in last_band.items() if last > number}
            goes_on = np.isin(merged.label, np.array(list(last_band), np.uint64))
            waiting = [merged.taken(goes_on)]
            yield merged.taken(~goes_on)

    # ------------------------------------------------------------------------------------------------------- the cut

    def cells(self, block: Block) -> list[Block]:
        """The squares of a block in which objects are looked for one by one."""
        cut = cut_blocks(block.image_id, block.write.shape, self.cell_px)
        return [Block(block.image_id, cell.write.shifted(block.write.start)) for cell in cut]

    def _bands(self, image: Image) -> list[list[Block]]:
        """The cells, a row at a time."""
        cells = cut_blocks(image.image_id, image.spatial_shape, self.cell_px)
        return [list(band) for _, band in itertools.groupby(cells, key=lambda cell: cell.write.start[0])]

    def region(self, image: Image, cell: Block) -> Region:
        """Where a cell looks for objects."""
        return cell.write.grown(self.halo_px).clipped(Region.whole(image.spatial_shape))

    def _later(self, image: Image, cell: Block) -> list[tuple[int, Block]]:
        """The cells after this one that see some of what it sees, and their places among the image's cells."""
        seen = self.region(image, cell)
        size, shape = self.cell_px, image.spatial_shape
        whole, num_columns = Region.whole(shape), -(-shape[1] // size)
        reach = 1 + (2 * self.halo_px - 1) // size
        row, column = (start // size for start in cell.write.start)
        found = []
        for y, x in itertools.product(range(row, row + reach + 1), range(max(0, column - reach), column + reach + 1)):
            if (y, x) <= (row, column) or y * size >= shape[0] or x >= num_columns:
                continue
            write = Region((y * size, x * size), ((y + 1) * size, (x + 1) * size)).clipped(whole)
            other = Block(image.image_id, write)
            if _meet(seen, self.region(image, other)):
                found.append((y * num_columns + x, other))
        return found

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
        return self.seen(image, cell, instances(maps, self.spec.network.output, self.threshold, self.job.instances))

    def seen(self, image: Image, cell: Block, labels: np.ndarray) -> Seen:
        """What a cell sees, from its labels of ``region``."""
        region = self.region(image, cell)
        return Seen(region, labels, views(labels, region, cell.write, image.spatial_shape[1]))

    def _pairs(self, own: Seen, later: Sequence[tuple[int, Seen]]) -> tuple[np.ndarray, np.ndarray]:
        """Rows (view of this cell, place of the other cell, view of it), views by their rank; and their IoU."""
        rows, iou = [np.empty((0, 3), np.int64)], [np.empty(0)]
        for place, other in later:
            both = own.region.clipped(other.region)
            found = overlaps(
                own.labels[both.relative_to(own.region).slices],
                other.labels[both.relative_to(other.region).slices],
                own.owned.label,
                other.owned.label,
            )
            a, b = np.searchsorted(own.owned.label, found.a), np.searchsorted(other.owned.label, found.b)
            rows.append(np.stack([a, np.full_like(a, place), b], axis=1))
            iou.append(found.iou)
        return np.concatenate(rows), np.concatenate(iou)

    def _number(self, image: Image) -> int:
        """Number the objects of an image; writes the numbers of each row of cells, and the table of pairs."""
        bands = self._bands(image)
        sizes = [[len(self._read_owned(image, cell).label) for cell in band] for band in bands]
        starts = np.cumsum([0, *itertools.chain.from_iterable(sizes)])
        cells, pairs = list(itertools.chain.from_iterable(bands)), []
        for place, cell in enumerate(cells):
            stored = self._read_arrays(image, "pairs", cell)
            rows, iou = stored["pairs"], stored["iou"]
            # From here on a view is its place among all of the image.
            ends = np.stack([starts[place] + rows[:, 0], starts[rows[:, 1]] + rows[:, 2]], axis=1)
            pairs.append((np.full(len(rows), place), rows[:, 1], ends, iou))
        of_a, of_b, ends, iou = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
        if self.spec.network.output == "classes":  # what hangs together: views that share a pixel are of one component
            same = iou > 0
        else:
            same = (iou >= self.job.instances.merge_iou) & (iou > 0.5)
            same[same] = consistent(ends[same], iou[same], starts)
        readers = [functools.partial(self._read_band, image, band) for band in bands]
        merged = number_objects(readers, [sum(band) for band in sizes], ends[same], self.job.instances.min_area_px)
        number_of = np.zeros(len(ends) * 2, np.uint64)  # of the views in the table of pairs
        order = np.argsort(ends.ravel(), kind="stable")
        sorted_ends = ends.ravel()[order]
        place, most = 0, 0
        for band, counts, found in zip(bands, sizes, merged, strict=True):
            self._write_arrays(
                image,
                "numbers",
                band[0],
                sizes=counts,
                **{field.name: getattr(found, field.name) for field in fields(Numbers)},
            )
            low, high = np.searchsorted(sorted_ends, (place, place + len(found.number)))
            number_of[order[low:high]] = found.number[sorted_ends[low:high] - place]
            place += len(found.number)
            most = max(most, int(found.number.max(initial=0)))
            self._ids(found.number)  # which refuses what does not fit
        ids = np.array([cell.block_id for cell in cells])
        table = {
            "image_id": np.full(len(iou), image.image_id), "block_a": ids[of_a], "block_b": ids[of_b],
            "label_a": number_of[::2], "label_b": number_of[1::2], "iou": iou, "merged": same,
        }  # fmt: skip
        write_table(table_uri(self.job.out, "merges", image.image_id), pa.table(table, schema=MERGES))
        return most

    def _label(
        self, image: Image, block: Block, pixels: np.ndarray, probability: np.ndarray
    ) -> tuple[np.ndarray, list[Parts]]:
        """The labels of a block, and the measurements of each of its cells."""
        labels, parts = np.zeros(block.write.shape, self.job.instances.ids), []
        for cell in self.cells(block):
            here = cell.write.relative_to(block.write).slices
            labels[here] = self._numbered(image, cell, self._numbers_of(image, cell).number)
            parts.append(self._measure(labels[here], cell.write, pixels[(slice(None), *here)], probability[here]))
        return labels, parts

    def _numbered(self, image: Image, cell: Block, numbers: np.ndarray) -> np.ndarray:
        """The labels of a cell's own pixels."""
        seen = self._seen(image, cell)
        lookup = np.zeros(int(seen.labels.max(initial=0)) + 1, np.uint64)
        lookup[seen.owned.label] = numbers
        return self._ids(lookup)[seen.labels[cell.write.relative_to(seen.region).slices]]

    def _numbers_of(self, image: Image, cell: Block) -> Numbers:
        """Of a cell's views."""
        first = Block(image.image_id, Region((cell.write.start[0], 0), (cell.write.start[0], 0)))
        stored = self._read_arrays(image, "numbers", first)
        place = cell.write.start[1] // self.cell_px
        low, high = np.cumsum([0, *stored["sizes"]])[place : place + 2]
        return Numbers(*(stored[field.name][low:high] for field in fields(Numbers)))

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

    # ------------------------------------------------------------------------------------------ what is kept meanwhile

    def _read_view(self, image: Image, cell: Block) -> Seen:
        """What a cell sees, as it was kept; if that is gone or damaged, anew."""
        try:
            stored = self._read_arrays(image, "views", cell)
            return Seen(self.region(image, cell), stored["labels"], _views(stored))
        except DataError as error:
            logger.warning("%s: what it sees of objects is made again (%s).", cell.block_id, error)
            return self._see(image, cell, self._maps(image, self.region(image, cell)))

    def _read_owned(self, image: Image, cell: Block) -> Views:
        try:
            return _views(self._read_arrays(image, "views", cell, ("owned", "area_px", "first")))
        except DataError:
            return self._read_view(image, cell).owned

    def _read_band(self, image: Image, band: Sequence[Block]) -> Views:
        read = [self._read_owned(image, cell) for cell in band]
        return Views(*(np.concatenate([getattr(one, field.name) for one in read]) for field in fields(Views)))

    def _write_arrays(self, image: Image, what: str, cell: Block, **arrays: Any) -> None:
        sink = io.BytesIO()
        np.savez_compressed(sink, **arrays)
        content = sink.getvalue()
        uri = self.job.folder.objects_uri(what, image.image_id, image.record.sha256, cell.write)
        files.write_bytes_atomic(uri, zlib.crc32(content).to_bytes(4, "big") + content)

    def _read_arrays(
        self, image: Image, what: str, cell: Block, names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """What was kept of a cell, or only some of it.

        Raises:
            DataError: If it is gone or damaged.
        """
        uri = self.job.folder.objects_uri(what, image.image_id, image.record.sha256, cell.write)
        try:
            content = files.read_bytes(uri)
        except FileNotFoundError as error:
            raise DataError(f"{uri} is gone; {REMEDY}") from error
        if zlib.crc32(content[4:]).to_bytes(4, "big") != content[:4]:
            raise DataError(f"{uri} is damaged; {REMEDY}")
        with np.load(io.BytesIO(content[4:])) as stored:
            return {name: stored[name] for name in (stored.files if names is None else names)}


def _columns(owned: Views) -> dict[str, np.ndarray]:
    return {field.name: getattr(owned, field.name) for field in fields(Views) if field.name != "label"} | {
        "owned": owned.label
    }


def _views(stored: dict[str, np.ndarray]) -> Views:
    return Views(stored["owned"], stored["area_px"], stored["first"])


def _meet(a: Region, b: Region) -> bool:
    return all(max(p, q) < min(s, t) for p, q, s, t in zip(a.start, b.start, a.stop, b.stop, strict=True))
