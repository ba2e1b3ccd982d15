"""Arrow tables as Parquet files, whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from raydom.errors import DataError
from raydom.storage import files

LARGE_BYTES = 1 << 20
"""A smaller file is decoded sooner than its columns are given out to threads."""


def write_table(uri: str, table: pa.Table) -> None:
    """Write a Parquet file atomically; local or any fsspec URL."""
    write_tables(uri, [table], table.schema)


def write_tables(uri: str, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables one after another into one Parquet file, atomically; only one need be in memory."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        for table in tables:
            writer.write_table(table)
    files.write_bytes_atomic(uri, sink.getvalue())


def read_table(uri: str) -> pa.Table:
    """Read a Parquet file; local or any fsspec URL.

    Raises:
        FileNotFoundError: If there is none.
        DataError: If it is damaged.
    """
    content = files.read_bytes(uri)
    with parquet_file(content, uri) as file:
        return file.read(use_threads=len(content) > LARGE_BYTES)


@contextmanager
def parquet_file(content: bytes, uri: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file whose content was read already, to be looked into in a ``with`` block.

    Raises:
        DataError: If it is damaged, also as far as that is seen within the block.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{uri}: no Parquet file, or a damaged one ({error}).") from error
