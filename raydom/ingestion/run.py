"""Ingestion: reads the files of a plan, each on its own, and writes the collection's manifest at the end.

The manifest is replaced in one piece. ``map`` is an argument: the same plan runs on threads here and on a cluster
elsewhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import TypeVar

import pyarrow as pa

from raydom.commands import IngestConfig
from raydom.config import ClusterConfig
from raydom.errors import ConfigError, DataError
from raydom.ingestion.file import IngestOutcome, Refusal, ingest_file, refused
from raydom.ingestion.plan import IngestTask, make_plan
from raydom.storage import files
from raydom.storage.collection import MANIFEST, open_collection, write_manifest
from raydom.storage.columns import kind_of
from raydom.storage.lease import HEARTBEAT_S, Lease, lease
from raydom.storage.tables import write_table
from raydom.types import ImageRecord

logger = logging.getLogger(__name__)

ERRORS = "ingest-errors.parquet"
LEASE = "ingest-lease.json"
ZOMBIE_S = HEARTBEAT_S + 5.0
"""Workers on a cluster outlive a killed driver by seconds; two that began one image anew at a time would harm it."""
MANIFEST_EVERY_S = 20.0
"""About so much work is lost when an ingestion is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What an ingestion did, by image id."""

    ingested: tuple[str, ...]
    skipped: tuple[str, ...]
    """Already in the collection, unchanged."""
    refused: tuple[Refusal, ...]
    warnings: tuple[str, ...]


T = TypeVar("T")
Map = Callable[[Callable[[IngestTask], IngestOutcome], Sequence[IngestTask]], Iterable[IngestOutcome]]


def ingest(
    config: IngestConfig, *, map: Map | None = None, progress: Callable[[int, int, int], None] | None = None
) -> IngestReport:
    """Read image files into a collection, which is made or extended.

    A file whose content is in the collection already is skipped; one that changed replaces its images. Files that
    cannot be read are refused by name and listed in ``ingest-errors.parquet``; the others go on.

    Args:
        map: Runs the tasks, in any order. Default: threads.
        progress: Called with the number of files done, of all, and of those that were refused.

    Raises:
        ConfigError: Before anything is written, if the request cannot be carried out, and while another ingestion into
            this collection is at work.
    """
    out = files.absolute(config.out)
    manifest = _manifest_bytes(out)
    before = open_collection(out).records if manifest else ()
    tasks, told = make_plan(replace(config, out=out), before)
    _check_writable(out)
    with collection_lease(out) as held:
        if _manifest_bytes(out) != manifest:
            raise ConfigError(f"{out}: another run has just changed this collection; give the command again.")
        return _ingest(tasks, told, before, held, map if map is not None else on_threads(config.run), progress)


@contextlib.contextmanager
def collection_lease(out: str) -> Iterator[Lease]:
    """Keeps others from changing a collection for the time of a ``with`` block; waits for what a dead driver left.

    Raises:
        ConfigError: While another run changes it, and when it cannot be written.
    """
    with lease(files.join(out, LEASE)) as held:
        if held.predecessor_seen_at is not None:
            time.sleep(min(ZOMBIE_S, max(0.0, held.predecessor_seen_at + ZOMBIE_S - time.time())))
            for half in files.glob(files.join(out, f".{MANIFEST}.*.partial")):
                files.remove(half)
        yield held


def _ingest(
    tasks: Sequence[IngestTask],
    told: Sequence[str],
    before: Sequence[ImageRecord],
    held: Lease,
    map: Map,
    progress: Callable[[int, int, int], None] | None,
) -> IngestReport:
    out = tasks[0].config.out
    rows = {record.image_id: record for record in before}
    kinds = {name: kind_of(value) for record in before for name, value in record.extra if value is not None}
    outcomes: list[IngestOutcome] = []
    leaving: list[ImageRecord] = []
    """Rows that were replaced, whose images are there still: the manifest on the disk may list them."""
    num_refused, last, pause_s = 0, time.monotonic(), MANIFEST_EVERY_S
    try:
        with ended(map(ingest_file, tasks)) as results:
            for outcome in results:
                outcomes.append(_admit(outcome, rows, kinds))
                leaving += outcomes[-1].replaced
                num_refused += outcomes[-1].refusal is not None
                began = time.monotonic()
                if began - last > pause_s:  # a run that is killed keeps what it has finished
                    held.check()
                    write_manifest(out, rows.values())
                    _remove_replaced(out, leaving, rows)
                    last = time.monotonic()
                    pause_s = max(MANIFEST_EVERY_S, 10 * (last - began))  # a long manifest takes its time
                if progress is not None:
                    progress(len(outcomes), len(tasks), num_refused)
    finally:  # an interrupted run keeps what it has finished
        held.check()
        report = _report(outcomes, told)
        _write_errors(out, report.refused)
        if rows or not before:
            write_manifest(out, rows.values())
            _remove_replaced(out, leaving, rows)
    for message in report.warnings:
        logger.warning("%s", message)
    return report


def on_threads(run: ClusterConfig) -> Map:
    """Runs ingestion tasks in this process, on as many threads as there are to be workers; at most 8 by default.

    The outcomes come as they are ready.
    """

    def apply(function: Callable[[IngestTask], IngestOutcome], tasks: Sequence[IngestTask]) -> Iterator[IngestOutcome]:
        number = run.workers or min(8, os.cpu_count() or 1)
        with ThreadPoolExecutor(number, thread_name_prefix="ingest") as pool:
            try:
                for future in as_completed([pool.submit(function, task) for task in tasks]):
                    yield future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    return apply


@contextlib.contextmanager
def ended(results: Iterable[T]) -> Iterator[Iterable[T]]:
    """Ends the workers behind these results with the block, even when not all results were taken."""
    try:
        yield results
    finally:
        if isinstance(results, Generator):
            results.close()


def _manifest_bytes(out: str) -> bytes:
    try:
        return files.read_bytes(files.join(out, MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        return b""


def _check_writable(out: str) -> None:
    """Refuse an output that cannot be written before the first file is read."""
    probe = files.join(out, "write-check.tmp")
    try:
        files.write_bytes_atomic(probe, b"raydom")
        files.remove_files([probe])
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error}); choose another --out.") from error


def _admit(outcome: IngestOutcome, rows: dict[str, ImageRecord], kinds: dict[str, str]) -> IngestOutcome:
    """Put the rows of an outcome into the collection, unless another file has their ids, or other values in a column.

    Args:
        rows: Of the collection, by image id.
        kinds: What values each further column has.
    """
    leaving = {record.image_id for record in outcome.replaced}
    for record in outcome.records:
        other = rows.get(record.image_id)
        if other is not None and record.image_id not in leaving:
            fault = f"two sources have the id {record.image_id}: {other.source_file} and {record.source_file}."
            return _turned_away(outcome, fault, {other.uri})
        for name, value in record.extra:
            if value is not None and kinds.setdefault(name, kind_of(value)) != kind_of(value):
                fault = f"{record.source_file}: column {name} has {kind_of(value)}, of other images {kinds[name]}."
                return _turned_away(outcome, fault, {row.uri for row in rows.values()})
    for image_id in leaving:
        rows.pop(image_id, None)
    rows.update((record.image_id, record) for record in outcome.records)
    return outcome


def _remove_replaced(out: str, leaving: list[ImageRecord], rows: Mapping[str, ImageRecord]) -> None:
    """Remove images that the manifest just written lists no more, and forget them; what lies elsewhere stays."""
    kept = {record.uri for record in rows.values()}
    for record in leaving:
        if record.uri not in kept and not record.uri.startswith("/") and not files.is_url(record.uri):
            files.remove(files.join(out, record.uri))
    leaving.clear()


def _turned_away(outcome: IngestOutcome, fault: str, kept: set[str]) -> IngestOutcome:
    """The refusal of a file whose images are written already; they are removed unless rows of others point there."""
    for record in outcome.records:
        if record.uri not in kept:
            files.remove(files.join(outcome.task.config.out, record.uri))
    return refused(outcome.task, None, DataError(fault))


def _report(outcomes: Sequence[IngestOutcome], told: Sequence[str]) -> IngestReport:
    outcomes = sorted(outcomes, key=lambda outcome: outcome.task.image_id)  # they came as they were ready
    notes = Counter(note for outcome in outcomes for note in outcome.notes)
    told = list(told)
    overlapping = [outcome for outcome in outcomes if outcome.overlap_px or outcome.num_hidden]
    if overlapping:
        told.append(
            f"objects overlap in {sum(outcome.overlap_px for outcome in overlapping)} px of {len(overlapping)} images; "
            f"these px belong to the first object. {sum(outcome.num_hidden for outcome in overlapping)} objects have "
            "no px left."
        )
    return IngestReport(
        ingested=tuple(r.image_id for outcome in outcomes if not outcome.skipped for r in outcome.records),
        skipped=tuple(r.image_id for outcome in outcomes if outcome.skipped for r in outcome.records),
        refused=tuple(outcome.refusal for outcome in outcomes if outcome.refusal is not None),
        warnings=(*told, *(f"{note} ({number} images)." for note, number in notes.items())),
    )


def _write_errors(out: str, refused: Sequence[Refusal]) -> None:
    """The refused files of this run; no file if there are none."""
    uri = files.join(out, ERRORS)
    if not refused:
        files.remove_files([uri])
        return
    schema = pa.schema([(name, pa.string()) for name in ("source_file", "label_file", "error_type", "error")])
    write_table(uri, pa.Table.from_pylist([dataclasses.asdict(refusal) for refusal in refused], schema=schema))
