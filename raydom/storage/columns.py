"""Columns of a manifest beyond those that raydom writes itself, and conditions on any column.

Whoever adds a column to ``images.parquet`` (with pandas, pyarrow, or ``raydom ingest --column``) finds it again in the
manifest of everything that is made from the collection.
"""

from __future__ import annotations

import difflib
import logging
import math
import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raydom.config import Condition
from raydom.errors import ConfigError, DataError
from raydom.types import Extra

logger = logging.getLogger(__name__)

COMPUTED = ("height", "width", "num_channels")
"""What conditions may ask for as well: the size of an image in px, and its channels. No stored column has these names.
"""
NUMBERS_ONLY: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
NAMES_SHOWN = 20


def extra_columns(table: pa.Table, own: Collection[str], where: str) -> pa.Table:
    """The columns that raydom did not write, as text, numbers and truth values.

    Whole numbers stay so; dates become text. Columns that fit no record (lists, bytes) are left out with a warning,
    pandas' index without one.

    Args:
        table: A manifest.
        own: Names of the columns that raydom writes.

    Raises:
        DataError: For a column that has the name of a computed one.
    """
    kept: dict[str, pa.ChunkedArray] = {}
    for name in table.column_names:
        if name in own or name.startswith("__index_level_"):
            continue
        if name in COMPUTED:
            raise DataError(
                f"{where}: column {name} has the name of what raydom works out itself ({', '.join(COMPUTED)}); "
                "give it another name."
            )
        wanted = plain_type(table.schema.field(name).type)
        if wanted is None:
            logger.warning(
                "%s: column %s (%s) is left out: only text, numbers and truth values are kept.",
                where,
                name,
                table.schema.field(name).type,
            )
            continue
        kept[name] = table[name].cast(wanted)
    return pa.table(kept) if kept else table.select([])


def plain_type(kind: pa.DataType) -> pa.DataType | None:
    """The type of a further column with such values; None if they fit no record.

    It depends on the type only, so that all files of one type agree. Of 64 bits without a sign (hashes, barcodes) the
    large ones fit no other number exactly: all become text.
    """
    wanted = _nearest_type(kind)
    if wanted is None:
        return None
    try:
        pa.nulls(1, kind).cast(wanted)
    except pa.ArrowException:  # such as intervals, and dates of an unknown time zone
        return None
    return wanted


def _nearest_type(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_dictionary(kind):
        return _nearest_type(kind.value_type)
    if pa.types.is_boolean(kind):
        return pa.bool_()
    if pa.types.is_integer(kind):
        return pa.string() if kind == pa.uint64() else pa.int64()
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pa.float64()
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return pa.string() if is_text or pa.types.is_temporal(kind) or pa.types.is_null(kind) else None


def extras_of(table: pa.Table, own: Collection[str]) -> list[Extra]:
    """The further columns of each row, as a record has them: sorted by name, None where there is no value."""
    names = sorted(name for name in table.column_names if name not in own)
    rows = zip(*(plain_values(table[name]) for name in names), strict=True) if names else [()] * len(table)
    return [tuple(zip(names, row, strict=True)) for row in rows]


def plain_values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column; what is not a number (NaN), as None."""
    return [None if isinstance(value, float) and math.isnan(value) else value for value in column.to_pylist()]


def columns_of(extras: Sequence[Extra], own: Collection[str], where: str) -> dict[str, pa.Array]:
    """The columns that hold what records have beyond ``own``, by name; a record that lacks one has no value there.

    Raises:
        DataError: For a name that is taken, and a column in which text and numbers mix.
    """
    rows = [dict(extra) for extra in extras]
    columns = {}
    for name in sorted({name for row in rows for name in row}):
        if name in own or name in COMPUTED:
            raise DataError(f"{where}: an added column cannot have the name {name}, which raydom uses itself.")
        values = [row.get(name) for row in rows]
        kinds = {kind_of(value) for value in values if value is not None}
        if len(kinds) > 1:
            raise DataError(
                f"{where}: column {name} would have {' and '.join(sorted(kinds))} in one column; give all images "
                "values of one kind, or the column another name."
            )
        whole = not any(isinstance(value, float) for value in values)
        types = {"text": pa.string(), "truth values": pa.bool_(), "numbers": pa.int64() if whole else pa.float64()}
        columns[name] = pa.array(values, types[kinds.pop() if kinds else "text"])
    return columns


def kind_of(value: str | float | bool) -> str:
    """What kind of values a column has that has this one; a column has only one kind."""
    return "text" if isinstance(value, str) else "truth values" if isinstance(value, bool) else "numbers"


# ---------------------------------------------------------------------------------------------------------- conditions


def matching(condition: Condition, table: pa.Table, known: pa.Table, where: str) -> np.ndarray:
    """For each row of a manifest, whether it fulfils a condition.

    A row without a value fulfils no condition but ``!=``. Of a column of names (channels, labels) one must fulfil it;
    with ``!=``, all. Numbers are compared as numbers, also where a column has them as text.

    Args:
        table: The rows asked about.
        known: All rows of the collection.

    Raises:
        ConfigError: For an unknown column, a value that no row of ``known`` has, and a comparison that makes no sense.
    """
    all_values = column_values(condition.column, known, where)
    present = [value for values in all_values for value in values]
    if condition.operator in NUMBERS_ONLY:
        limit = _number(condition.values[0])
        numbers = {value: _number(value) for value in set(present)}
        if limit is None or None in numbers.values():
            text = next((value for value, number in numbers.items() if number is None), condition.values[0])
            raise ConfigError(
                f"{condition}: {condition.operator} compares numbers, and {text!r} is none. Choose by = or !=."
            )
        chosen = {value for value, number in numbers.items() if NUMBERS_ONLY[condition.operator](number, limit)}
    else:
        chosen = _named(condition, present, where)
    rows = column_values(condition.column, table, where)
    if condition.operator == "!=":
        return np.array([chosen.isdisjoint(values) for values in rows], dtype=bool)
    return np.array([not chosen.isdisjoint(values) for values in rows], dtype=bool)


def _named(condition: Condition, present: Iterable[Any], where: str) -> set[Any]:
    """The values of a column that a condition names."""
    by_text: dict[str, set[Any]] = {}
    for value in set(present):
        by_text.setdefault(column_text(value), set()).add(value)
    wanted = {name: by_text.get(name) or by_text.get(_canonical(name), set()) for name in condition.values}
    unknown = sorted(name for name, found in wanted.items() if not found)
    if unknown:
        there = f"there is {', '.join(sorted(by_text)[:NAMES_SHOWN])}" if by_text else "none is set"
        raise ConfigError(f"{where}: no image has {condition.column} {', '.join(unknown)}; {there}.")
    return set().union(*wanted.values())


def column_values(column: str, table: pa.Table, where: str) -> list[tuple[Any, ...]]:
    """The values of a column for each row of a manifest: none or one, or those of a column of names.

    Args:
        column: A stored column, or one of ``COMPUTED``.
        table: The rows asked about.
        where: The collection, for messages.

    Raises:
        ConfigError: For an unknown column, and one of lists of numbers, naming those that there are.
    """
    names = sorted({*(n for n in table.column_names if not _is_nested_number(table.schema.field(n).type)), *COMPUTED})
    if column not in names:
        near = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{where}: no column {column!r}; {hint}There is {', '.join(names)}.")
    if column in COMPUTED:
        letter = {"height": "y", "width": "x", "num_channels": "c"}[column]
        return [
            (shape[axes.index(letter)] if letter in axes else 1,)
            for axes, shape in zip(table["axes"].to_pylist(), table["shape"].to_pylist(), strict=True)
        ]
    found = plain_values(table[column])
    return [() if value is None else tuple(value) if isinstance(value, list) else (value,) for value in found]


def _is_nested_number(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and not pa.types.is_string(kind.value_type)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number


def _canonical(text: str) -> str:
    """5.0 as 5; what is no number as it is."""
    number = _number(text)
    return text if number is None else column_text(number)


def column_text(value: Any) -> str:
    """How a condition may write a value: 5 for 5.0, true for True."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)
