"""Tables for the terminal: rich where there is one, plain lines where there is not."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 1000
"""Characters; plain text is never folded, since a program may read it."""


def show_table(table: pa.Table, *, title: str | None = None, digits: int = 3) -> None:
    """Print a table: a drawn one on a terminal, else plain lines with columns two blanks apart.

    Args:
        table: Any Arrow table. Floats are rounded, missing values shown as a dash, numbers aligned right.
        title: A line above the table.
        digits: Digits after the decimal point.
    """
    console = Console()
    if console.is_terminal:
        console.print(_rich_table(table, title, digits, box.SIMPLE_HEAD))
    else:
        sys.stdout.write(plain_table(table, title=title, digits=digits))


def plain_table(table: pa.Table, *, title: str | None = None, digits: int = 3) -> str:
    """The table as plain text, every line ended by a newline and without blanks at its end."""
    text = io.StringIO()
    console = Console(file=text, width=PLAIN_WIDTH, color_system=None, force_terminal=False)
    console.print(_rich_table(table, None, digits, None))
    lines = ([title] if title else []) + [line.rstrip() for line in text.getvalue().splitlines()]
    return "".join(f"{line}\n" for line in lines)


def show_facts(facts: Mapping[str, Any], *, digits: int = 3) -> None:
    """Print named facts, a line each with the values aligned; facts within facts are indented below their name."""
    lines = list(_fact_lines(facts, "", digits))
    width = max((len(name) for name, value in lines if value), default=0)
    text = "".join(f"{name:{width}}  {value}".rstrip() + "\n" for name, value in lines)
    sys.stdout.write(text)


def _fact_lines(facts: Mapping[str, Any], indent: str, digits: int) -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        shown = name.replace("_", " ")
        if isinstance(value, Mapping) and value:
            yield indent + shown, ""
            yield from _fact_lines(value, indent + "  ", digits)
        elif isinstance(value, list | tuple) and value:
            yield indent + shown, ", ".join(_text(item, digits) for item in value)
        else:
            yield indent + shown, _text(value or None if isinstance(value, list | tuple | Mapping) else value, digits)


def _rich_table(table: pa.Table, title: str | None, digits: int, frame: box.Box | None) -> Table:
    drawn = Table(title=title, title_justify="left", box=frame, pad_edge=False, padding=(0, 2, 0, 0))
    for field in table.schema:
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        drawn.add_column(Text(field.name), justify="right" if numeric else "left", no_wrap=frame is None)
    for row in table.to_pylist():
        drawn.add_row(*(Text(_text(value, digits)) for value in row.values()))
    return drawn


def _text(value: Any, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
