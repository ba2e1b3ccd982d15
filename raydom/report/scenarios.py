"""What stylised images were worth in training, as a table and a picture: mean and deviation over seeds a scenario."""

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

from raydom.storage import files

TITLES = {
    "rand_error": "adapted Rand error",
    "rand_index_error": "Rand error",
    "vi_split": "VI split (bits)",
    "vi_merge": "VI merge (bits)",
}
SPREAD = 0.25


def scenario_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A row a scenario, in the order in which they come first: scores as ``mean ± deviation`` over its seeds."""
    lines = []
    for name, members in _by_scenario(rows).items():
        line: dict[str, Any] = {"scenario": name, "images": members[0]["images"], "edges": members[0]["edges"]}
        line["seeds"] = len(members)
        for score in ("oob_auc", *TITLES, "vi"):
            line[score] = _told([row[score] for row in members])
        lines.append(line)
    return pa.Table.from_pylist(lines)


def scenario_figure(rows: Sequence[Mapping[str, Any]], title: str, uri: str) -> None:
    """Draw the errors of each scenario, with a point a seed, and mean and deviation.

    Args:
        rows: See ``training.scenarios.SCHEMA``.
        title: Of the picture.
        uri: PNG to write.
    """
    groups = _by_scenario(rows)
    places = np.arange(len(groups))
    figure, axes = plt.subplots(1, len(TITLES), figsize=(3.2 * len(TITLES), 1.2 + 0.34 * len(groups)), sharey=True)
    for axis, (score, label) in zip(axes, TITLES.items(), strict=True):
        for place, members in zip(places, groups.values(), strict=True):
            values = [row[score] for row in members]
            apart = np.linspace(-SPREAD, SPREAD, len(values)) if len(values) > 1 else [0.0]
            axis.scatter(values, place + np.asarray(apart), s=10, color="0.6")
            spread = stdev(values) if len(values) > 1 else 0.0
            axis.errorbar(fmean(values), place, xerr=spread, fmt="o", color="C0", capsize=4, markersize=5)
        axis.axvline(fmean(row[score] for row in next(iter(groups.values()))), color="0.8", linewidth=1, zorder=0)
        axis.set_xlabel(label)
    axes[0].set_yticks(places, list(groups))
    axes[0].invert_yaxis()
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=110)
    plt.close(figure)
    files.write_bytes_atomic(uri, sink.getvalue())


def _by_scenario(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["scenario"], []).append(row)
    return found


def _told(values: Sequence[float]) -> str:
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")
