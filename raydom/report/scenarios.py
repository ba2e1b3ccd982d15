"""What stylised images were worth in training, as table and picture: mean and deviation over seeds of each scenario."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raydom.storage import files

TITLES = {
    "rand_error": "adapted Rand error",
    "rand_index_error": "Rand error",
    "vi_split": "VI split (bits)",
    "vi_merge": "VI merge (bits)",
}
SPREAD = 0.25


def scenario_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A row a test collection and scenario, in the order in which they come first: scores as ``mean ± deviation`` over
    the seeds."""
    lines = []
    for test, scenarios in _grouped(rows).items():
        for name, members in scenarios.items():
            line: dict[str, Any] = {"test": test, "scenario": name, "images": members[0]["images"]}
            line |= {"edges": members[0]["edges"], "seeds": len(members)}
            lines.append(line | {score: _told([row[score] for row in members]) for score in ("oob_auc", *TITLES, "vi")})
    return pa.Table.from_pylist(lines)


def scenario_figure(rows: Sequence[Mapping[str, Any]], title: str, uri: str) -> None:
    """Draw the errors of each scenario, a row of panels a test collection: a point a seed, and mean and deviation; a
    line where the first scenario is.

    Args:
        rows: See ``training.scenarios.SCHEMA``.
        title: Of the picture.
        uri: PNG to write.
    """
    groups = _grouped(rows)
    longest = max(map(len, groups.values()))
    size = (3.2 * len(TITLES), (1.2 + 0.3 * longest) * len(groups))
    figure, axes = plt.subplots(len(groups), len(TITLES), figsize=size, sharey="row", squeeze=False)
    for line, (test, scenarios) in zip(axes, groups.items(), strict=True):
        for axis, (score, label) in zip(line, TITLES.items(), strict=True):
            _panel(axis, [[row[score] for row in members] for members in scenarios.values()])
            axis.set_xlabel(label)
            axis.xaxis.set_major_locator(MaxNLocator(4))
        line[0].set_yticks(range(len(scenarios)), list(scenarios))
        line[0].set_ylabel(f"scored on {test}")
        line[0].invert_yaxis()
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=110)
    plt.close(figure)
    files.write_bytes_atomic(uri, sink.getvalue())


def _panel(axis: Axes, scenarios: Sequence[Sequence[float]]) -> None:
    for place, values in enumerate(scenarios):
        apart = np.linspace(-SPREAD, SPREAD, len(values)) if len(values) > 1 else np.zeros(1)
        axis.scatter(values, place + apart, s=10, color="0.6")
        spread = stdev(values) if len(values) > 1 else 0.0
        axis.errorbar(fmean(values), place, xerr=spread, fmt="o", color="C0", capsize=4, markersize=5)
    axis.axvline(fmean(scenarios[0]), color="0.8", linewidth=1, zorder=0)


def _grouped(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """By test collection and scenario."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        found.setdefault(row["test"], {}).setdefault(row["scenario"], []).append(row)
    return found


def _told(values: Sequence[float]) -> str:
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")
