"""Objects over blocks: the stages that turn the maps of an image of several blocks into numbered objects.

view: what each block sees of the objects (its own pixels and a halo), kept in the run folder. pair: which of its views
are views of its neighbours too. number: one task an image; which views are one object, and its number. label: each
block writes the numbers of its own pixels, and measures them. Each is restartable, and what one needs of the others it
reads from the run folder, so no stage holds more than a few blocks, a row of blocks' objects, and what was merged.
"""

from __future__ import annotations

import functools
import io
import itertools
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
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
from raydom.inference.worker import Task
from raydom.storage import files, zarr_images
from raydom.storage.collection import Image
from raydom.storage.tables import write_table, write_tables
from raydom.types import Block, Region

logger = logging.getLogger(__name__)

KINDS = ("view", "pair", "number", "label")
KEPT_VIEWS = 24
"""Blocks whose views a worker keeps: those around the one that it compares."""
REMEDY = "--retry-failed makes it again."


@dataclass(frozen=True, slots=True)
class Seen:
    """What a block sees of the objects."""

    region: Region
    labels: np.ndarray
    """Of the region, numbered from 1 in this block; 0 background."""
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
        self._seen = functools.lru_cache(maxsize=KEPT_VIEWS)(self._read_view)

    # ------------------------------------------------------------------------------------------------ the processor

    def read(self, task: Task, image: Image) -> Any:
        if task.kind == "view":
            return self._maps(image, self.region(image, task.block))
        if task.kind == "pair":
            own, later = self._seen(image, task.block), self._later_neighbours(image, task.block)
            return own, [(place, self._seen(image, block)) for place, block in later]
        if task.kind == "label":
            return image.numpy(task.block.write), self._maps(image, task.block.write)[0]
        return image

    def compute(self, task: Task, inputs: Any, image: Image) -> Any:
        if task.kind == "view":
            return self._see(image, task.block, inputs)
        if task.kind == "pair":
            return self._pairs(*inputs)
        if task.kind == "number":
            return self._number(image)
        labels = self._numbered(image, task.block, self._numbers_of(image, task.block).number)
        return labels, self._measure(labels, task.block.write, *inputs)

    def write(self, task: Task, outputs: Any, image: Image) -> dict[str, Any]:
        if task.kind == "view":
            self.keep(image, task.block, outputs)
            return {"num_objects": len(outputs.owned.label)}
        if task.kind == "pair":
            self._write_arrays(image, "pairs", task.block, pairs=outputs[0], iou=outputs[1])
            return {}
        if task.kind == "number":
            return {"num_objects": outputs}
        labels, parts = outputs
        uri, path = output_uri(self.job, image.image_id), f"labels/{self.spec.label}/0"
        zarr_images.write_region(uri, path, task.block.write, labels, zarr_images.open_array(uri, path, mode="r+"))
        self._write_arrays(image, "parts", task.block, **pack_parts(parts))
        return {"num_objects": len(parts)}

    def keep(self, image: Image, block: Block, seen: Seen) -> None:
        """Keep what a block sees for the stages to come."""
        self._write_arrays(image, "views", block, labels=seen.labels, **_columns(seen.owned))

    # -------------------------------------------------------------------------------------- images of a single block

    def of_whole(self, image: Image, maps: np.ndarray) -> tuple[np.ndarray, Parts]:
        """Labels and measurements of an image that is one block.

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
        """The objects of an image, each with the last row of blocks that has some of it."""
        waiting: list[Parts] = []
        last_band: dict[int, int] = {}  # of the objects that go on below
        for number, band in enumerate(self._bands(image)):
            for block in band:
                numbers = self._numbers_of(image, block)
                later = numbers.last > number
                last_band.update(zip(numbers.number[later].tolist(), numbers.last[later].tolist(), strict=True))
                waiting.append(unpack_parts(self._read_arrays(image, "parts", block)))
            merged = objects.merged(waiting)
            last_band = {label: last for label, last in last_band.items() if last > number}
            goes_on = np.isin(merged.label, np.array(list(last_band), np.uint64))
            waiting = [merged.taken(goes_on)]
            yield merged.taken(~goes_on)

    # ------------------------------------------------------------------------------------------------------- the cut

    def _blocks(self, image: Image) -> list[Block]:
        return cut_blocks(image.image_id, image.spatial_shape, self.job.blocks.block_size)

    def _bands(self, image: Image) -> list[list[Block]]:
        """The blocks, a row at a time."""
        grouped = itertools.groupby(self._blocks(image), key=lambda block: block.write.start[0])
        return [list(band) for _, band in grouped]

    def region(self, image: Image, block: Block) -> Region:
        """Where a block looks for objects."""
        return block.write.grown(self.job.instances.halo_px).clipped(Region.whole(image.spatial_shape))

    def _later_neighbours(self, image: Image, block: Block) -> list[tuple[int, Block]]:
        """The blocks after this one that see some of what it sees, and their places among the image's blocks."""
        seen = self.region(image, block)
        size, shape = self.job.blocks.block_size, image.spatial_shape
        whole, num_columns = Region.whole(shape), -(-shape[1] // size)
        reach = 1 + (2 * self.job.instances.halo_px - 1) // size
        row, column = (start // size for start in block.write.start)
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

    def _see(self, image: Image, block: Block, maps: np.ndarray) -> Seen:
        if self.spec.network.output == "objects":
            raise DataError(f"{block.block_id}: what the network found there is gone or damaged; {REMEDY}")
        return self.seen(image, block, instances(maps, self.spec.network.output, self.threshold, self.job.instances))

    def seen(self, image: Image, block: Block, labels: np.ndarray) -> Seen:
        """What a block sees, from its labels of ``region``."""
        region = self.region(image, block)
        return Seen(region, labels, views(labels, region, block.write, image.spatial_shape[1]))

    def _pairs(self, own: Seen, later: Sequence[tuple[int, Seen]]) -> tuple[np.ndarray, np.ndarray]:
        """Rows (view of this block, place of the other block, view of it), views by their rank; and their IoU."""
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
        """Number the objects of an image; writes the numbers of each row of blocks, and the table of pairs."""
        bands = self._bands(image)
        sizes = [[len(self._read_owned(image, block).label) for block in band] for band in bands]
        starts = np.cumsum([0, *itertools.chain.from_iterable(sizes)])
        blocks, pairs = list(itertools.chain.from_iterable(bands)), []
        for place, block in enumerate(blocks):
            stored = self._read_arrays(image, "pairs", block)
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
        ids = np.array([block.block_id for block in blocks])
        table = {
            "image_id": np.full(len(iou), image.image_id), "block_a": ids[of_a], "block_b": ids[of_b],
            "label_a": number_of[::2], "label_b": number_of[1::2], "iou": iou, "merged": same,
        }  # fmt: skip
        write_table(table_uri(self.job.out, "merges", image.image_id), pa.table(table, schema=MERGES))
        return most

    def _numbered(self, image: Image, block: Block, numbers: np.ndarray) -> np.ndarray:
        """The labels of a block's own pixels."""
        seen = self._seen(image, block)
        lookup = np.zeros(int(seen.labels.max(initial=0)) + 1, np.uint64)
        lookup[seen.owned.label] = numbers
        return self._ids(lookup)[seen.labels[block.write.relative_to(seen.region).slices]]

    def _numbers_of(self, image: Image, block: Block) -> Numbers:
        """Of a block's views."""
        size = self.job.blocks.block_size
        first = Block(image.image_id, Region((block.write.start[0], 0), (block.write.start[0], 0)))
        stored = self._read_arrays(image, "numbers", first)
        place = block.write.start[1] // size
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

    def _read_view(self, image: Image, block: Block) -> Seen:
        """What a block sees, as it was kept; if that is gone or damaged, anew."""
        try:
            stored = self._read_arrays(image, "views", block)
            return Seen(self.region(image, block), stored["labels"], _views(stored))
        except DataError as error:
            logger.warning("%s: what it sees of objects is made again (%s).", block.block_id, error)
            return self._see(image, block, self._maps(image, self.region(image, block)))

    def _read_owned(self, image: Image, block: Block) -> Views:
        try:
            return _views(self._read_arrays(image, "views", block, ("owned", "area_px", "first")))
        except DataError:
            return self._read_view(image, block).owned

    def _read_band(self, image: Image, band: Sequence[Block]) -> Views:
        read = [self._read_owned(image, block) for block in band]
        return Views(*(np.concatenate([getattr(one, field.name) for one in read]) for field in fields(Views)))

    def _write_arrays(self, image: Image, what: str, block: Block, **arrays: Any) -> None:
        sink = io.BytesIO()
        np.savez_compressed(sink, **arrays)
        content = sink.getvalue()
        uri = self.job.folder.objects_uri(what, image.image_id, image.record.sha256, block.write)
        files.write_bytes_atomic(uri, zlib.crc32(content).to_bytes(4, "big") + content)

    def _read_arrays(
        self, image: Image, what: str, block: Block, names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """What was kept of a block, or only some of it.

        Raises:
            DataError: If it is gone or damaged.
        """
        uri = self.job.folder.objects_uri(what, image.image_id, image.record.sha256, block.write)
        try:
            content = files.read_bytes(uri)
        except FileNotFoundError as error:
            raise DataError(f"{uri} is gone; {REMEDY}") from error
        if zlib.crc32(content[4:]).to_bytes(4, "big") != content[:4]:
            raise DataError(f"{uri} is damaged; {REMEDY}")
        with np.load(io.BytesIO(content[4:])) as stored:
            return {name: stored[name] for name in (stored.files if names is None else names)}


MERGES = pa.schema(
    [
        ("image_id", pa.string()),
        ("block_a", pa.string()),
        ("block_b", pa.string()),
        ("label_a", pa.uint64()),
        ("label_b", pa.uint64()),
        ("iou", pa.float64()),
        ("merged", pa.bool_()),
    ]
)
"""The table of pairs: two blocks' views that overlap, the objects they ended in (the same if they were merged), and
their IoU. A pixel of object ``label_a`` that block ``block_a`` writes is of its view, so merges can be undone."""


OBJECTS = pa.schema(
    [
        ("image_id", pa.string()),
        ("label", pa.uint64()),
        ("centroid_y", pa.float64()),
        ("centroid_x", pa.float64()),
        *((side, pa.int64()) for side in ("top", "left", "bottom", "right")),
        ("area_px", pa.int64()),
        ("area_um2", pa.float64()),
        ("eccentricity", pa.float64()),
        ("solidity", pa.float64()),
        ("mean_intensity", pa.list_(pa.float64())),
        ("confidence", pa.float64()),
        ("touches_border", pa.bool_()),
    ]
)
"""The object table, an object a row; see ``images.objects.table``. ``area_um2`` is null where the pixel size is not
known."""


def table_uri(out: str, name: str, image_id: str) -> str:
    """A table of an image: ``objects``, or ``merges``. The folder of them reads as one table."""
    return files.join(out, name, f"{image_id}.parquet")


def keep_tables(out: str, kept: Mapping[str, Set[str]]) -> None:
    """Remove the tables of other images than these, by name of the table: of what an earlier run made of them."""
    for name, image_ids in kept.items():
        wanted = {table_uri(out, name, image_id) for image_id in image_ids}
        for uri in files.list_files(files.join(out, name), ".parquet"):
            if uri not in wanted:
                files.remove(uri)


def object_table(image_id: str, parts: Parts, shape: tuple[int, int], pixel_size_um: float | None) -> pa.Table:
    """The object table of some whole objects of an image."""
    columns: dict[str, Any] = objects.table(parts, shape, pixel_size_um)
    columns["mean_intensity"] = pa.array(list(columns["mean_intensity"]), pa.list_(pa.float64()))
    if pixel_size_um is None:
        columns["area_um2"] = pa.nulls(len(parts), pa.float64())
    return pa.table({"image_id": [image_id] * len(parts), **columns}, schema=OBJECTS)


def pack_parts(parts: Parts) -> dict[str, np.ndarray]:
    """Parts as plain arrays."""
    packed = {one.name: getattr(parts, one.name) for one in fields(Parts) if one.name != "hull"}
    corners = np.concatenate([np.empty((0, 2), np.int64), *parts.hull])
    return packed | {"corners": corners, "num_corners": np.array([len(hull) for hull in parts.hull], np.int64)}


def unpack_parts(arrays: dict[str, np.ndarray]) -> Parts:
    """What ``pack_parts`` gave."""
    ends, corners = np.cumsum(arrays["num_corners"]), arrays["corners"]
    hull = tuple(np.split(corners, ends[:-1])) if len(ends) else ()
    return Parts(**{one.name: arrays[one.name] for one in fields(Parts) if one.name != "hull"}, hull=hull)


def _columns(owned: Views) -> dict[str, np.ndarray]:
    return {field.name: getattr(owned, field.name) for field in fields(Views) if field.name != "label"} | {
        "owned": owned.label
    }


def _views(stored: dict[str, np.ndarray]) -> Views:
    return Views(stored["owned"], stored["area_px"], stored["first"])


def _meet(a: Region, b: Region) -> bool:
    return all(max(p, q) < min(s, t) for p, q, s, t in zip(a.start, b.start, a.stop, b.stop, strict=True))
