"""What a search came to: the table of its trials, the best of them, and the settings that other commands read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from raydom.config import GeneratorSpec, ImageFilter, StyleConfig, StyleOptions, to_dict
from raydom.errors import ConfigError
from raydom.search.problem import Problem
from raydom.search.styles import StyleProblem
from raydom.search.trainings import RUN, TrainingProblem
from raydom.search.trials import UNADAPTED, Outcome
from raydom.search.yaml import changed, write_yaml
from raydom.storage import files
from raydom.storage.tables import write_table

TABLE, BEST = "trials.parquet", "best.yaml"


@dataclass(frozen=True)
class SearchResult:
    """A search that has ended."""

    outcomes: tuple[Outcome, ...]
    """Of all trials, by number."""
    best: Outcome | None
    """The answer; None if no trial could be scored, or none compared with trial 0 though a gain is required."""
    table: pa.Table

    @property
    def unadapted(self) -> Outcome | None:
        return next((one for one in self.outcomes if one.trial.number == UNADAPTED), None)


def conclude(problem: Problem) -> SearchResult:
    """Write the table and the best settings of a search from its ledger.

    Raises:
        ConfigError: If there is no trial.
    """
    ledger = problem.ledger
    outcomes = tuple(ledger.outcome(trial) for trial in ledger.trials())
    if not outcomes:
        raise ConfigError(f"{problem.out} holds no trial.")
    table = trial_table(problem, outcomes)
    write_table(files.join(problem.out, TABLE), table)
    best = best_of(outcomes, problem.search.require_gain)
    if best is not None:
        comment = f"Trial {best.trial.number} of this search, score {best.score:.4g}. For raydom segment --config."
        write_yaml(files.join(problem.out, BEST), segmentation(problem, best), comment)
    return SearchResult(outcomes, best, table)


def best_of(outcomes: Sequence[Outcome], require_gain: float | None) -> Outcome | None:
    """The trial with the highest score, the earliest of equal ones. One that was ended early counts as far as it came.

    With ``require_gain`` it must be better than the unadapted by that much, or the answer is the unadapted; there is
    none if the unadapted has no score.
    """
    scored = [one for one in outcomes if one.score is not None]
    best = max(scored, key=lambda one: (one.score, -one.trial.number), default=None)
    unadapted = next((one for one in scored if one.trial.number == UNADAPTED), None)
    if best is None or require_gain is None:
        return best
    if unadapted is None:
        return None
    assert best.score is not None and unadapted.score is not None
    return best if best.score - unadapted.score > require_gain else unadapted


def trial_table(problem: Problem, outcomes: Sequence[Outcome]) -> pa.Table:
    """A row a trial: its number, what became of it, and at its best report the values (a column each), score, steps and
    all scores by name; its seconds, its whole configuration as JSON, and its error."""
    names = list(problem.space.parameters)
    scores = list(dict.fromkeys(name for one in outcomes for report in one.reports for name in report.scores))
    rows: list[dict[str, Any]] = []
    for one in outcomes:
        best = one.best or (one.reports[-1] if one.reports else None)
        config = problem.config_of(replace(one.trial, values=one.values))
        rows.append(
            {"trial": one.trial.number, "status": one.status}
            | {name: _plain(one.values.get(name)) for name in names}
            | {
                "score": one.score,
                "steps": None if best is None else best.steps,
                "seconds": one.reports[-1].seconds if one.reports else None,
            }
            | {name: None if best is None else best.scores.get(name) for name in scores}
            | {
                "config": json.dumps(to_dict(dict(config))),
                "error": one.error,
            }
        )
    types = {
        "trial": pa.int64(),
        "status": pa.string(),
        "steps": pa.int64(),
        "config": pa.string(),
        "error": pa.string(),
    }
    columns = {}
    for name in rows[0]:
        column = [row[name] for row in rows]
        if name in types:
            columns[name] = pa.array(column, types[name])
        elif name in names and not all(isinstance(value, int | float | None) for value in column):
            columns[name] = pa.array([None if value is None else str(value) for value in column], pa.string())
        elif name in names and all(isinstance(value, int | None) for value in column):
            columns[name] = pa.array([None if value is None else int(value) for value in column], pa.int64())
        else:
            columns[name] = pa.array([None if value is None else float(value) for value in column], pa.float64())
    return pa.table(columns)


def segmentation(problem: Problem, best: Outcome) -> dict[str, Any]:
    """What ``raydom segment --config`` needs to do what a trial did."""
    labels = {"out": files.join(problem.out, "labels")}
    if isinstance(problem, StyleProblem):
        style = problem.style_config(best.values)
        own = {"method": style.method} | ({"style": style.style} if style.style is not None else {})
        target = {"collection": problem.bench.target, **changed(problem.images, ImageFilter())}
        return {**target, "model": problem.bench.model, **labels, **own, **_options(style)}
    assert isinstance(problem, TrainingProblem)
    bench = problem.bench
    target = {} if bench is None else {"collection": bench.target, **changed(problem.images, ImageFilter())}
    if problem.bench is not None and best.trial.number == UNADAPTED:
        return {**target, "model": problem.bench.model, **labels}
    run = files.join(problem.ledger.folder(best.trial.number), RUN)
    spec = problem.spec
    if isinstance(spec, GeneratorSpec):
        assert problem.bench is not None
        return {**target, "model": problem.bench.model, **labels, "method": spec.kind, "generator": run}
    return {**target, "model": run, **labels}


def _options(style: StyleConfig) -> dict[str, Any]:
    """The style's options that are not the usual ones; those of other methods do not matter."""
    if style.method == "none":
        return {}
    others = {"nst", "strotss", "analogy"} - {style.method}
    options = StyleOptions(**{name: getattr(style, name) for name in StyleOptions.__dataclass_fields__})
    return {name: value for name, value in changed(options, StyleOptions()).items() if name not in others}


def _plain(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value
