"""Cells: squares in which things are looked for one by one, whatever the blocks, and put together where they meet.

Each cell looks beyond its own pixels (its *region*); a *view* is a thing as one cell sees it. Which views of
neighbours are views of one thing is told by their overlap (pair), and each thing gets a number (number); what one stage
needs of another lies in the run folder, so none holds more than some cells, a row of their views, and what was merged.
"""

from __future__ import annotations

import functools
import io
import itertools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from raydom.errors import DataError
from raydom.images.stitching import Numbers, Views, consistent, number_objects, overlaps, views
from raydom.images.tiles import cut_blocks
from raydom.inference.object_tables import MERGES, table_uri
from raydom.storage import files
from raydom.storage.collection import Image
from raydom.storage.receipts import RunFolder
from raydom.storage.tables import write_table
from raydom.types import Block, Region

KEPT_VIEWS = 24
"""Cells whose views a worker keeps: those around the one that it compares."""
REMEDY = "--retry-failed makes it again."


@dataclass(frozen=True, slots=True)
class Seen:
    """What a cell sees."""

    region: Region
    labels: np.ndarray
    """Of the region, numbered from 1 in this cell; 0 background. (Of a volume, all planes.)"""
    owned: Views


Pairs = tuple[np.ndarray, np.ndarray]
"""Rows (view of a cell, place of another cell, view of that), views by their rank; and their IoU."""


class Cells:
    """The cells of the images of a job, and what is kept of them between its stages.

    Args:
        folder: Of the run.
        cell_px: Side of a cell; blocks are whole cells.
        halo_px: How far beyond its own pixels a cell looks.
        remake: Makes again what a cell sees, when what was kept of it is gone or damaged; raises if it cannot.
    """

    def __init__(
        self, folder: RunFolder, cell_px: int, halo_px: int, remake: Callable[[Image, Block, DataError], Seen]
    ) -> None:
        self.folder, self.cell_px, self.halo_px, self._remake = folder, cell_px, halo_px, remake
        self.seen = functools.lru_cache(maxsize=KEPT_VIEWS)(self._read_view)

    # ------------------------------------------------------------------------------------------------------- the cut

    def of(self, block: Block) -> list[Block]:
        """The cells of a block."""
        cut = cut_blocks(block.image_id, block.write.shape, self.cell_px)
        return [Block(block.image_id, cell.write.shifted(block.write.start)) for cell in cut]

    def bands(self, image: Image) -> list[list[Block]]:
        """The cells of an image, a row at a time."""
        cells = cut_blocks(image.image_id, image.plane_shape, self.cell_px)
        return [list(band) for _, band in itertools.groupby(cells, key=lambda cell: cell.write.start[0])]

    def region(self, image: Image, cell: Block) -> Region:
        """Where a cell looks."""
        return cell.write.grown(self.halo_px).clipped(Region.whole(image.plane_shape))

    def _later(self, image: Image, cell: Block) -> list[tuple[int, Block]]:
        """The cells after this one that see some of what it sees, and their places among the image's cells."""
        seen = self.region(image, cell)
        size, shape = self.cell_px, image.plane_shape
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

    def look(self, image: Image, cell: Block, labels: np.ndarray) -> Seen:
        """What a cell sees, from its labels of ``region``."""
        region = self.region(image, cell)
        return Seen(region, labels, views(labels, region, cell.write, image.plane_shape[1]))

    def keep(self, image: Image, cell: Block, seen: Seen) -> None:
        """Keep what a cell sees for the stages to come."""
        self.write_arrays(image, "views", cell, labels=seen.labels, **_columns(seen.owned))

    def read_pairs(self, image: Image, block: Block) -> list[tuple[Seen, list[tuple[int, Seen]]]]:
        """What each cell of a block sees, and those after it that see some of the same, by their place."""
        return [
            (self.seen(image, cell), [(place, self.seen(image, one)) for place, one in self._later(image, cell)])
            for cell in self.of(block)
        ]

    def pairs(self, own: Seen, later: Sequence[tuple[int, Seen]]) -> Pairs:
        """The views of a cell and of those after it that overlap."""
        rows, iou = [np.empty((0, 3), np.int64)], [np.empty(0)]
        for place, other in later:
            both = own.region.clipped(other.region)
            found = overlaps(
                own.labels[both.relative_to(own.region).index],
                other.labels[both.relative_to(other.region).index],
                own.owned.label,
                other.owned.label,
            )
            a, b = np.searchsorted(own.owned.label, found.a), np.searchsorted(other.owned.label, found.b)
            rows.append(np.stack([a, np.full_like(a, place), b], axis=1))
            iou.append(found.iou)
        return np.concatenate(rows), np.concatenate(iou)

    def write_pairs(self, image: Image, block: Block, pairs: Sequence[Pairs]) -> None:
        for cell, (rows, iou) in zip(self.of(block), pairs, strict=True):
            self.write_arrays(image, "pairs", cell, pairs=rows, iou=iou)

    def number(
        self,
        image: Image,
        out: str,
        *,
        merge_iou: float,
        min_area_px: int = 1,
        check: Callable[[np.ndarray], Any] = lambda numbers: None,
    ) -> int:
        """Number the things of an image from 1 on; writes the numbers of each row of cells, and the table of pairs.

        Args:
            image: It.
            out: The collection in which the table is.
            merge_iou: From which IoU two views are of one thing; 0: whenever they meet (then no two views of one cell
                are told apart).
            min_area_px: Smaller things are left out.
            check: Shown the numbers of each row before they are the result; raises if they cannot be.
        """
        bands = self.bands(image)
        sizes = [[len(self._owned(image, cell).label) for cell in band] for band in bands]
        starts = np.cumsum([0, *itertools.chain.from_iterable(sizes)])
        cells, pairs = list(itertools.chain.from_iterable(bands)), []
        for place, cell in enumerate(cells):
            stored = self.read_arrays(image, "pairs", cell)
            rows, iou = stored["pairs"], stored["iou"]
            # From here on a view is its place among all of the image.
            ends = np.stack([starts[place] + rows[:, 0], starts[rows[:, 1]] + rows[:, 2]], axis=1)
            pairs.append((np.full(len(rows), place), rows[:, 1], ends, iou))
        of_a, of_b, ends, iou = (np.concatenate(columns) for columns in zip(*pairs, strict=True))
        if merge_iou == 0:  # what hangs together: views that share a pixel are of one component
            same = iou > 0
        else:
            same = (iou >= merge_iou) & (iou > 0.5)
            same[same] = consistent(ends[same], iou[same], starts)
        readers = [functools.partial(self._read_band, image, band) for band in bands]
        merged = number_objects(readers, [sum(band) for band in sizes], ends[same], min_area_px)
        number_of = np.zeros(len(ends) * 2, np.uint64)  # of the views in the table of pairs
        order = np.argsort(ends.ravel(), kind="stable")
        sorted_ends = ends.ravel()[order]
        place, most = 0, 0
        for band, counts, found in zip(bands, sizes, merged, strict=True):
            self.write_arrays(
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
            check(found.number)
        ids = np.array([cell.block_id for cell in cells])
        table = {
            "image_id": np.full(len(iou), image.image_id), "block_a": ids[of_a], "block_b": ids[of_b],
            "label_a": number_of[::2], "label_b": number_of[1::2], "iou": iou, "merged": same,
        }  # fmt: skip
        write_table(table_uri(out, "merges", image.image_id), pa.table(table, schema=MERGES))
        return most

    def numbers_of(self, image: Image, cell: Block) -> Numbers:
        """Of a cell's views."""
        first = Block(image.image_id, Region((cell.write.start[0], 0), (cell.write.start[0], 0)))
        stored = self.read_arrays(image, "numbers", first)
        place = cell.write.start[1] // self.cell_px
        low, high = np.cumsum([0, *stored["sizes"]])[place : place + 2]
        return Numbers(*(stored[field.name][low:high] for field in fields(Numbers)))

    def numbered(self, image: Image, cell: Block) -> np.ndarray:
        """The numbers, uint64, at a cell's own pixels."""
        seen = self.seen(image, cell)
        lookup = np.zeros(int(seen.labels.max(initial=0)) + 1, np.uint64)
        lookup[seen.owned.label] = self.numbers_of(image, cell).number
        own: np.ndarray = seen.labels[cell.write.relative_to(seen.region).index]
        return lookup[own]

    # ------------------------------------------------------------------------------------------ what is kept meanwhile

    def _read_view(self, image: Image, cell: Block) -> Seen:
        """What a cell sees, as it was kept; if that is gone or damaged, anew."""
        try:
            stored = self.read_arrays(image, "views", cell)
            return Seen(self.region(image, cell), stored["labels"], _views(stored))
        except DataError as error:
            return self._remake(image, cell, error)

    def _owned(self, image: Image, cell: Block) -> Views:
        try:
            return _views(self.read_arrays(image, "views", cell, ("owned", "area_px", "first")))
        except DataError:
            return self._read_view(image, cell).owned

    def _read_band(self, image: Image, band: Sequence[Block]) -> Views:
        read = [self._owned(image, cell) for cell in band]
        return Views(*(np.concatenate([getattr(one, field.name) for one in read]) for field in fields(Views)))

    def write_arrays(self, image: Image, what: str, cell: Block, **arrays: Any) -> None:
        """Keep what a stage found of a cell (or a block) for the next."""
        sink = io.BytesIO()
        np.savez_compressed(sink, **arrays)
        content = sink.getvalue()
        uri = self.folder.objects_uri(what, image.image_id, image.record.sha256, cell.write)
        files.write_bytes_atomic(uri, zlib.crc32(content).to_bytes(4, "big") + content)

    def read_arrays(
        self, image: Image, what: str, cell: Block, names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """What was kept of a cell, or only some of it.

        Raises:
            DataError: If it is gone or damaged.
        """
        uri = self.folder.objects_uri(what, image.image_id, image.record.sha256, cell.write)
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
