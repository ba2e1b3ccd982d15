"""Many small Parquet files that are one table: read ahead, in pieces, in the present columns."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydom.errors import DataError
from raydom.storage import files

PARTS_AT_ONCE = 8
"""Files that are read at the same time, which is what an object store is quick at."""


def contents_of(paths: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Files and what is in them, a few read ahead; without those that are gone."""

    def read(path: str) -> bytes | None:
        try:
            return files.read_bytes(path)
        except FileNotFoundError:
            return None

    waiting: deque[tuple[str, Future[bytes | None]]] = deque()
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        for path in (*paths, None):
            if path is not None:
                waiting.append((path, pool.submit(read, path)))
            while waiting and (path is None or len(waiting) > 2 * PARTS_AT_ONCE):
                first, reading = waiting.popleft()
                content = reading.result()
                if content is not None:
                    yield first, content


def tables_in(file: pq.ParquetFile, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """Those columns of a file that it has, at most so many rows at a time."""
    known = set(file.schema_arrow.names)
    there = [name for name in columns if name in known]
    if file.metadata.num_rows <= rows:
        yield file.read(there, use_threads=False)
    else:
        for batch in file.iter_batches(rows, columns=there):
            yield pa.Table.from_batches([batch])


def with_schema(table: pa.Table, schema: pa.Schema, defaults: Mapping[str, Any]) -> pa.Table:
    """A table in these columns and types; what older versions did not note is as if it were left out.

    Raises:
        DataError: If a column is missing for which there is no default.
    """
    if table.schema == schema:
        return table
    missing = [name for name in schema.names if name not in table.schema.names]
    lost = [name for name in missing if name not in defaults]
    if lost:
        raise DataError(f"of its columns {', '.join(lost)} is missing")
    for name in missing:
        table = table.append_column(name, pa.repeat(pa.scalar(defaults[name], schema.field(name).type), len(table)))
    return table.select(schema.names).cast(schema)


def last_rows(table: pa.Table, time: str) -> pa.Table:
    """Of the rows of one kind, block and fingerprint the last, by a column of times; of equal ones one.

    Those of other fingerprints stay: they tell that what was done before them is not there any more.
    """
    keys = pc.binary_join_element_wise(table["kind"], table["fingerprint"], table["block_id"], ":")
    keys = keys.combine_chunks().dictionary_encode()
    if len(keys.dictionary) == len(table):
        return table
    latest = np.argsort(table[time].to_numpy(), kind="stable")[::-1]
    _, first = np.unique(keys.indices.to_numpy()[latest], return_index=True)
    return table.take(pa.array(np.sort(latest[first])))
