from __future__ import annotations

import pyarrow as pa
import pytest

from raydom.report.tables import plain_table, show_facts, show_table

TABLE = pa.table({"method": ["none", "mean[std]"], "f1": [0.12345, None], "num_images": [3, 41]})


def test_plain_text_rounds_aligns_and_shows_missing_values_as_a_dash() -> None:
    assert plain_table(TABLE, title="drive to chase") == (
        "drive to chase\nmethod        f1  num_images\nnone       0.123           3\nmean[std]      -          41\n"
    )


def test_what_is_no_terminal_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(TABLE, digits=1)
    assert capsys.readouterr().out == plain_table(TABLE, digits=1)


def test_a_wide_table_is_never_folded() -> None:
    wide = pa.table({f"column_{n}": ["x" * 20] for n in range(12)})
    assert len(plain_table(wide).splitlines()) == 2


def test_facts_are_aligned_and_nested_facts_indented(capsys: pytest.CaptureFixture[str]) -> None:
    show_facts({"num_images": 3, "pixel_size_um": None, "labels": {"label": 2, "field": [0.5, "x"]}, "none": {}})
    assert capsys.readouterr().out == (
        "num images     3\n"
        "pixel size um  -\n"
        "labels\n"
        "  label        2\n"
        "  field        0.500, x\n"
        "none           -\n"
    )  # fmt: skip
