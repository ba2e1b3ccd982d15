"""What is told of a search: its best trials, and a picture of the scores by parameter and against the true ones."""

from __future__ import annotations

import io
import math

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from rich.console import Console
from scipy.stats import spearmanr

from raydom.report.tables import show_table
from raydom.search.problem import Problem
from raydom.search.results import BEST, TABLE, SearchResult
from raydom.search.space import Choice, Range, Space
from raydom.search.trials import UNADAPTED
from raydom.storage import files

FIGURE = "search.png"
SHOWN = 10
TRUTHS = ("true_ap_50", "true_mean_dice", "true_f1")
"""Scores against labels, of which the first that is known is reported."""

NOT_ADAPTED = "not adapted"
"""What trial 0 is, where there is a target."""
COLUMNS = 3
LONGEST_LABEL = 24
SPREAD = 0.12
"""How far points of one value are drawn apart, as a share of the distance of two values."""


def show_search(problem: Problem, result: SearchResult) -> int:
    """Print the best trials and what they say, and draw the search; the exit code: 1 if no trial could be scored."""
    console = Console(highlight=False)
    scored = result.table.filter(pc.is_valid(result.table["score"]))
    failed = sum(one.error is not None for one in result.outcomes)
    stopped = sum(one.status == "stopped" for one in result.outcomes)
    if failed:
        first = next(one for one in result.outcomes if one.error is not None)
        console.print(
            f"{failed} trials failed; trial {first.trial.number}: {first.error}", markup=False, soft_wrap=True
        )
    if result.best is None:
        why = "Trial 0 failed, so no gain can be told: give no --require-gain, or search again in another --out."
        why = why if len(scored) else "No trial could be scored."
        console.print(f"{why} See {files.join(problem.out, TABLE)}.", markup=False, soft_wrap=True)
        return 1
    truth = truth_column(scored)
    names = [name for name in problem.space.parameters if len(set(scored[name].to_pylist())) > 1]
    ordered = scored.sort_by([("score", "descending")])
    top = ordered.slice(0, SHOWN)
    if UNADAPTED not in top["trial"].to_pylist():
        top = pa.concat_tables([top, scored.filter(pc.equal(scored["trial"], UNADAPTED))])
    columns = ["trial", "status", *names, "score", *([truth] if truth else []), "seconds"]
    values = {name: top[name].to_pylist() for name in columns}
    # Learning rates and weights are small or large: as many digits as they have.
    values |= {name: [None if value is None else _short(value) for value in values[name]] for name in names}
    shown = pa.table(values)
    show_table(shown.rename_columns(["objective" if name == "score" else name for name in columns]))
    best, unadapted = result.best, result.unadapted
    called = NOT_ADAPTED if problem.adapts else "as given"
    told = f"trial {best.trial.number}, {problem.objective} {best.score:.3f}"
    if unadapted is not None and unadapted.score is not None:
        told += f" ({called}: {unadapted.score:.3f})"
    if best.trial.number == UNADAPTED:
        advice = "do not adapt" if problem.adapts else "the settings as they were given"
        told = f"{advice}: no trial is better than trial 0 by more than {problem.search.require_gain or 0:g}"
    console.print(
        f"Best of {len(result.outcomes)} trials{f', {stopped} of them ended early' if stopped else ''}: {told}.",
        markup=False,
        soft_wrap=True,
    )
    figure = files.join(problem.out, FIGURE)
    search_figure(result.table, problem.space, problem.objective, truth, called, figure)
    console.print(
        f"Use it with: raydom segment {'' if problem.adapts else '--collection COLLECTION '}--config "
        f"{files.join(problem.out, BEST)}\nAll trials: "
        f"{files.join(problem.out, TABLE)}; drawn in {figure}",
        markup=False,
        soft_wrap=True,
    )
    return 0


def truth_column(table: pa.Table) -> str | None:
    """The score against labels that is reported, if they are known."""
    names = [name for name in TRUTHS if name in table.column_names and table[name].null_count < len(table)]
    return names[0] if names else None


def search_figure(table: pa.Table, space: Space, objective: str, truth: str | None, called: str, uri: str) -> None:
    """Draw a search.

    Args:
        table: Of its trials: see ``search.results.trial_table``.
        space: What was searched.
        objective: Name of the score.
        truth: Column with the score against labels that the search did not look at; None: there is none.
        called: What trial 0 is.
        uri: PNG to write.
    """
    rows = [row for row in table.to_pylist() if row["score"] is not None]
    shown = [name for name in space.parameters if len({row[name] for row in rows} - {None}) > 1]
    panels = len(shown) + (truth is not None)
    columns = max(1, min(COLUMNS, panels))
    height = max(1, math.ceil(panels / columns))
    figure, axes = plt.subplots(height, columns, figsize=(4.4 * columns, 3.6 * height), squeeze=False)
    flat = list(axes.ravel())
    for name, axis in zip(shown, flat, strict=False):
        _parameter(axis, [row for row in rows if row[name] is not None], name, space.parameters[name], rows, called)
        axis.set_ylabel(objective)
    if truth is not None:
        _against_truth(flat[len(shown)], rows, objective, truth)
    for axis in flat[panels:]:
        axis.axis("off")
    figure.tight_layout()
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=110)
    plt.close(figure)
    files.write_bytes_atomic(uri, sink.getvalue())


def _parameter(
    axis: Axes, rows: list[dict], name: str, parameter: Choice | Range, every: list[dict], called: str
) -> None:
    values, scores = [row[name] for row in rows], [row["score"] for row in rows]
    if isinstance(parameter, Range):
        axis.scatter(values, scores, s=14)
        axis.set_xscale("log" if parameter.log else "linear")
    else:
        numeric = all(isinstance(value, int | float) for value in values)
        kinds = sorted(set(values), key=None if numeric else str)
        place = {value: number for number, value in enumerate(kinds)}
        apart = np.random.default_rng(0).uniform(-SPREAD, SPREAD, len(values))
        axis.scatter([place[value] + jitter for value, jitter in zip(values, apart, strict=True)], scores, s=14)
        axis.set_xticks(range(len(kinds)), [_short(value) for value in kinds], rotation=30, ha="right", fontsize=8)
    unadapted = [row["score"] for row in every if row["trial"] == 0]
    if unadapted:
        axis.axhline(unadapted[0], color="gray", linestyle="--", linewidth=1, label=called)
        axis.legend(fontsize=8)
    axis.set_xlabel(name)


def _against_truth(axis: Axes, rows: list[dict], objective: str, truth: str) -> None:
    both = [row for row in rows if row.get(truth) is not None]
    x, y = [row["score"] for row in both], [row[truth] for row in both]
    axis.scatter(x, y, s=14)
    for row in both:
        if row["trial"] == 0:
            axis.scatter(row["score"], row[truth], s=60, facecolors="none", edgecolors="gray", label=NOT_ADAPTED)
            axis.legend(fontsize=8)
    axis.set_xlabel(objective)
    axis.set_ylabel(truth)
    if len(set(x)) > 1 and len(set(y)) > 1:
        axis.set_title(f"Spearman {spearmanr(x, y).statistic:.2f}", fontsize=9)


def _short(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    text = text.rstrip("/").rsplit("/", 1)[-1]
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 3]}..."
