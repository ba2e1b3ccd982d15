"""The run folder of a block job: settings, receipts and strikes.

It lies in ``OUT/run`` and is the whole state of a run: nothing is kept elsewhere, so that any driver can finish what
another one began. A receipt is written after the pixels that it vouches for, never before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raydom.errors import ConfigError, DataError
from raydom.storage import files
from raydom.storage.parts import contents_of, last_rows, tables_in, with_schema
from raydom.storage.tables import parquet_file, write_table
from raydom.types import Region

logger = logging.getLogger(__name__)

FULL = 1 << 15
"""A file of so many receipts is not put together with others any more; nor are more than these in memory at once."""
STRIKES_OUT = 3
"""A block that was at work when this many workers died is quarantined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of one piece of work; one row of Parquet."""

    block_id: str
    image_id: str
    kind: str
    """block, overview (of the global pass), view, pair, number and label (of objects in images of several blocks),
    pyramid (of a part of a large image), finish (what is left of the pyramid, and the statistics, of an image), or seam
    (what the borders of a stylised block were seen to be like then)."""
    fingerprint: str
    status: str
    """ok, failed or quarantined."""
    attempts: int
    error: str | None = None
    seconds: float = 0.0
    """Time that reading, computing and writing it took, added."""
    read_s: float | None = None
    """Of this, reading; None in receipts of before this was noted."""
    compute_s: float | None = None
    write_s: float | None = None
    busy_s: float | None = None
    """Time for which its worker was at nothing else: less than ``seconds`` where reading and writing overlapped with
    the computation of other blocks."""
    cpu_s: float | None = None
    """CPU time of the worker's process meanwhile, all its threads added: less than ``busy_s`` where it waited for a
    store, a GPU, or others on a busy machine."""
    node: str = ""
    worker: str | None = None
    """Which of the run's workers it was, by a name made up when it began; the first block of each takes longer."""
    finished_at: float = 0.0
    """Seconds since 1970."""
    checksum: str | None = None
    """CRC-32 of what was written."""
    num_foreground_px: int | None = None
    num_objects: int | None = None
    """Objects (of an image), or views of them (of a block)."""
    mean_confidence: float | None = None
    """Mean over the pixels of the probability of the class that was chosen."""
    content_score: float | None = None
    """How much of a stylised block's structure is its content's: 1 all of it, 0 none."""
    content_lost: bool | None = None
    """Whether that was too little."""
    seam_score: float | None = None
    """Gradients across borders of blocks over those inside, against the same of the content: 1 is no seam. Of a block
    (kind seam), or of all the blocks of a part (pyramid) or an image (finish)."""
    record: str | None = None
    """For a finished image, its manifest row as JSON."""


_SCHEMA = pa.schema(
    [
        ("block_id", pa.string()),
        ("image_id", pa.string()),
        ("kind", pa.string()),
        ("fingerprint", pa.string()),
        ("status", pa.string()),
        ("attempts", pa.int32()),
        ("error", pa.string()),
        ("seconds", pa.float64()),
        ("read_s", pa.float64()),
        ("compute_s", pa.float64()),
        ("write_s", pa.float64()),
        ("busy_s", pa.float64()),
        ("cpu_s", pa.float64()),
        ("node", pa.string()),
        ("worker", pa.string()),
        ("finished_at", pa.float64()),
        ("checksum", pa.string()),
        ("num_foreground_px", pa.int64()),
        ("num_objects", pa.int64()),
        ("mean_confidence", pa.float64()),
        ("content_score", pa.float64()),
        ("content_lost", pa.bool_()),
        ("seam_score", pa.float64()),
        ("record", pa.string()),
    ]
)

Note = Callable[[str, pa.Table], None]
"""Given a file of receipts and what it holds."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The ``run`` folder of an output collection; any fsspec URL."""

    uri: str

    @classmethod
    def of(cls, out: str) -> RunFolder:
        return cls(files.join(out, "run"))

    @property
    def lease_uri(self) -> str:
        """The file by which one driver at a time holds the output."""
        return files.join(self.uri, "lease.json")

    # ------------------------------------------------------------------------------------------------- settings

    def claim(self, settings: dict[str, Any]) -> None:
        """Note what this output is made with, or check that it is what an earlier run noted.

        Raises:
            ConfigError: When a setting differs, naming each, with both remedies.
            DataError: When the note is damaged.
        """
        path = files.join(self.uri, "settings.json")
        if not files.is_file(path):
            files.write_json(path, settings)
            return
        try:
            noted = files.read_json(path)
            if not isinstance(noted, dict):
                raise DataError(f"it holds {noted!r}")
        except DataError as error:
            raise DataError(
                f"{path}: what this output is made with cannot be read ({error}). Remove this file if you give the "
                "same options as before: what is finished is kept. Else choose another --out."
            ) from error
        before, now = _flat(noted), _flat(settings)
        changed = [
            f"  {name}: was {before.get(name, 'not set')!r}, now {now.get(name, 'not set')!r}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        if changed:
            raise ConfigError(
                f"{self.uri}: this output was begun with other settings:\n" + "\n".join(changed) + "\n"
                "Either give the earlier settings again to finish it, or choose another --out for the new ones."
            )

    # ------------------------------------------------------------------------------------------------- receipts

    def write_receipts(self, receipts: Sequence[Receipt]) -> None:
        """Add one Parquet part; atomic."""
        if receipts:
            table = pa.table({name: [getattr(row, name) for row in receipts] for name in _SCHEMA.names}, _SCHEMA)
            write_table(files.join(self.uri, "receipts", f"part-{uuid.uuid4().hex}.parquet"), table)

    def read_receipts(self, block_ids: Collection[str] | None = None) -> dict[str, Receipt]:
        """The last receipt of each block (or of each of these), by block id (prefixed by its kind).

        What a damaged file told is left out, with a warning, so that those blocks are done again.
        """
        wanted = None if block_ids is None else pa.array(block_ids, pa.string())
        rows: list[Receipt] = []
        read: set[str] = set()
        while new := [path for path in self.receipt_files() if path not in read]:
            seen = set()
            for path, table in self.receipt_tables(new):
                seen.add(path)
                chosen = table if wanted is None else table.filter(pc.is_in(table["block_id"], wanted))
                rows += receipts_of(chosen)
            read.update(new)
            if seen >= {*new}:  # else the driver may have put some of them together meanwhile
                break
        rows.sort(key=lambda receipt: receipt.finished_at)
        return {f"{receipt.kind}:{receipt.block_id}": receipt for receipt in rows}

    def receipt_files(self) -> list[str]:
        """The URLs of the files that hold receipts; none of them ever changes."""
        return files.list_files(files.join(self.uri, "receipts"), ".parquet")

    def receipt_tables(
        self, paths: Iterable[str], columns: Sequence[str] = _SCHEMA.names, *, set_aside: bool = False
    ) -> Iterator[tuple[str, pa.Table]]:
        """What files of receipts hold, at most ``FULL`` of them at a time, with the file.

        Files that are gone are left out, and damaged ones with a warning.

        Args:
            paths: The files.
            columns: Fields of a receipt.
            set_aside: Rename damaged files to ``*.damaged``, so that they are warned of once.
        """
        damaged: dict[str, DataError] = {}
        schema = pa.schema([_SCHEMA.field(name) for name in columns])
        defaults = {field.name: field.default for field in fields(Receipt) if field.default is not MISSING}
        for path, content in contents_of(paths):
            try:
                with parquet_file(content, path) as file:
                    if set_aside and file.metadata.num_rows > FULL:
                        for _ in tables_in(file, columns, FULL):  # what is set aside must not have been told in part
                            pass
                    for table in tables_in(file, columns, FULL):
                        yield path, with_schema(table, schema, defaults)
            except DataError as error:
                damaged[path] = error
                if set_aside:
                    files.rename(path, f"{path}.damaged")
        pa.default_memory_pool().release_unused()  # of which it would keep tens of MiB
        if damaged:
            path, reason = next(iter(damaged.items()))
            logger.warning(
                "%s: %d files of receipts are damaged; the blocks they told of are done again. The first: %s (%s)",
                self.uri,
                len(damaged),
                path,
                reason,
            )

    def compact(self, paths: Iterable[str] | None = None, note: Note = lambda path, table: None) -> dict[str, bool]:
        """Put small files of receipts together, into files of ``FULL``. Only the driver does this.

        Each new file is there before those that it is made of are removed, so a crash in between leaves receipts
        twice, and never a gap; of receipts that are there twice, and of earlier ones of the same block, one is kept.

        Args:
            paths: The files. Default: all.
            note: Given each file and what it holds, a table at a time.

        Returns:
            The files that hold these receipts then, and whether each is small still.
        """
        kept: dict[str, bool] = {}
        small: dict[str, list[pa.Table]] = {}
        rows = 0
        found = self.receipt_files() if paths is None else paths
        for path, table in self.receipt_tables(found, set_aside=True):
            note(path, table)
            if path in kept:  # more of a large one
                continue
            if rows >= FULL and path not in small:
                kept |= self._together(small)
                small, rows = {}, 0
            small.setdefault(path, []).append(table)
            rows += len(table)
            own = sum(map(len, small[path]))
            if own >= FULL:
                del small[path]
                rows -= own
                kept[path] = False
        return kept | self._together(small)

    def _together(self, small: dict[str, list[pa.Table]]) -> dict[str, bool]:
        """Replace files by one; returns it, and whether it is small."""
        if len(small) < 2:
            return dict.fromkeys(small, True)
        table = last_rows(pa.concat_tables(table for tables in small.values() for table in tables), "finished_at")
        path = files.join(self.uri, "receipts", f"all-{uuid.uuid4().hex}.parquet")
        write_table(path, table)
        files.remove_files(small)
        return {path: len(table) < FULL}

    # -------------------------------------------------------------------------------------------------- strikes

    def mark(self, block_ids: Sequence[str], node: str, run_id: str, batch: str) -> str:
        """Note that a worker begins these blocks; the mark outlives the worker if it dies. Returns the mark's URL.

        Args:
            block_ids: The blocks, of the batch or of a part of it.
            node: The worker's machine.
            run_id: The driver's run.
            batch: Names the batch that the worker was given: a worker that is given it again asks for its marks alone,
                however many workers there are.
        """
        mark = {"blocks": list(block_ids), "node": node, "run_id": run_id, "began_at": time.time()}
        path = files.join(self.uri, "strikes", f"{run_id}-{batch}-{uuid.uuid4().hex}.json")
        files.write_bytes_atomic(path, json.dumps(mark).encode())
        return path

    def mark_files(self, run_id: str = "", batch: str = "") -> list[str]:
        """The URLs of all marks, or of those of a run, or of one of its batches."""
        prefix = "".join(f"{name}-" for name in (run_id, batch) if name)
        return files.list_files(files.join(self.uri, "strikes"), ".json", prefix)

    def marks(self, run_id: str = "", batch: str = "") -> dict[str, dict[str, Any]]:
        """What these marks say, by URL; a damaged one names no block."""
        found = {}
        for path in self.mark_files(run_id, batch):
            try:
                mark = files.read_json(path)
                whole = isinstance(mark, dict) and {"blocks", "node", "run_id"} <= mark.keys()
            except FileNotFoundError:  # its worker has just finished
                continue
            except DataError:
                whole = False
            if not whole:
                logger.warning("%s: this mark of a worker is damaged, and blames no block.", path)
            found[path] = mark if whole else {"blocks": [], "node": "", "run_id": ""}
        return found

    def unmark(self, paths: Iterable[str]) -> None:
        files.remove_files(paths)

    # ------------------------------------------------------------------------------------------------ global pass

    def overview_uri(self, image_id: str, content: str) -> str:
        """Where the overview of an image of some content is kept between the global pass and the blocks."""
        return files.join(self.uri, "overviews", _hashed(image_id, content) + ".npz")

    # --------------------------------------------------------------------------------------------- between the stages

    def objects_uri(self, what: str, image_id: str, content: str, block: Region) -> str:
        """Where a stage keeps what it found of a block's objects for the next."""
        return files.join(self.uri, "objects", what, _hashed(image_id, content, *block.start) + ".npz")

    def forget_parts(self) -> None:
        """Remove what is only kept between the stages of a run."""
        for name in ("overviews", "parts", "objects"):
            files.remove(files.join(self.uri, name))

    def part_uri(self, image_id: str, content: str, part: Region) -> str:
        """Where the sums over a part of the output of an image are kept until that is finished."""
        return files.join(self.uri, "parts", _hashed(image_id, content, *part.start) + ".npz")


def receipts_of(table: pa.Table) -> list[Receipt]:
    """The rows of a table with all fields."""
    return [Receipt(**row) for row in table.to_pylist()]


def _hashed(*names: Any) -> str:
    return hashlib.sha256("@".join(str(name) for name in names).encode()).hexdigest()


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
