"""Arrow tables as Parquet files, whole or not at all."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from raydom.storage import files


def write_table(uri: str, table: pa.Table) -> None:
    """Write a Parquet file atomically; local or any fsspec URL."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    files.write_bytes_atomic(uri, sink.getvalue())


def read_table(uri: str) -> pa.Table:
    """Read a Parquet file; local or any fsspec URL."""
    return pq.read_table(pa.BufferReader(files.read_bytes(uri)))
