"""What does a search cost?

    RAYDOM_DATA=... RAYDOM_WEIGHTS=... uv run python benchmarks/search.py styles
    uv run python benchmarks/search.py overhead

overhead: searches of trials that do nothing, by their number: seconds a trial beyond the start of Ray, and those of
trials in processes of their own, as Tune has them by default.
styles: a search of 50 styles (nst through SqueezeNet, and matching) on 8 crops of DRIVE -> CHASE, two workers of a CPU
each: its seconds, and the share of the workers' time in which trials were computed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from adaptation import collection_of
from ray import tune
from trained import supervised

from raydom.cluster.search import search_on_ray
from raydom.cluster.session import ray_session
from raydom.commands import TuneStyleConfig
from raydom.config import SearchConfig, StyleOptions, TrainRunConfig, fingerprint
from raydom.report.tables import show_table
from raydom.search.problem import Problem
from raydom.search.results import conclude
from raydom.search.space import Choice, Space, Values
from raydom.search.styles import plan_style_search
from raydom.search.trials import Outcome, Trial, TrialReport

RUN = TrainRunConfig(quiet=True, workers=2)
SPACE = """
method: [nst, nst, nst, nst, meanstd, histogram]
nst.steps: [20, 40, 80]
nst.style_ratio: loguniform(1, 100)
init: [meanstd, histogram, reinhard]
"""


@dataclass(frozen=True)
class Nothing(Problem):
    """Trials that report at once."""

    out: str
    search: SearchConfig
    space: Space
    objective: str = "number"
    max_steps: int = 1
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        return {}

    def check(self, values: Values) -> tuple[Values, str]:
        return values, fingerprint(values)

    def config_of(self, trial: Trial) -> Mapping[str, Any]:
        return trial.values

    def runner(self) -> Nothing:
        return self

    def reports(self, trial: Trial, known: Outcome) -> Iterator[TrialReport]:
        yield TrialReport(1, float(trial.number), final=True)


class Own(tune.Trainable):
    def step(self) -> dict[str, Any]:
        return {"score": 0.0, "done": True}


def overhead(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    with ray_session(RUN):
        for number in (1, *options.trials):
            out = options.out / "search" / f"nothing-{number}"
            shutil.rmtree(out, ignore_errors=True)
            search = SearchConfig(trials=number, searcher="grid")
            problem = Nothing(str(out), search, Space({"x": Choice(tuple(range(number)))}))
            began = time.perf_counter()
            search_on_ray(problem, RUN)
            rows.append({"trials": number, "workers that stay, s": time.perf_counter() - began})
        began = time.perf_counter()
        tuner = tune.Tuner(
            tune.with_resources(Own, {"cpu": 1}),
            tune_config=tune.TuneConfig(num_samples=options.own, metric="score", mode="max"),
            run_config=tune.RunConfig(storage_path=str(options.out / "search" / "own"), verbose=0),
        )
        tuner.fit()
        own = (time.perf_counter() - began) / options.own
    first = rows[0]["workers that stay, s"]
    for row in rows:
        row["s a trial"] = (row["workers that stay, s"] - first) / max(1, row["trials"] - 1)
        row["s a trial, processes of their own"] = own
    return rows


def styles(options: argparse.Namespace) -> list[dict[str, Any]]:
    data, out = Path(os.environ["RAYDOM_DATA"]), options.out
    weights = str(next(Path(os.environ["RAYDOM_WEIGHTS"]).glob("squeezenet1_1*.safetensors")))
    space = out / "search" / "space.yaml"
    space.parent.mkdir(parents=True, exist_ok=True)
    space.write_text(SPACE)
    rows = []
    for number in options.trials:
        folder = out / "search" / f"styles-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        config = TuneStyleConfig(
            source=collection_of("drive", "train", data, out),
            target=collection_of("chase", "score", data, out),
            model=supervised("drive", 0, 600, data, out),
            source_mask="fov",
            out=str(folder),
            style=StyleOptions(features="squeezenet1_1", weights=weights),
            search=SearchConfig(space=str(space), trials=number, searcher="random"),
            run=RUN,
        )
        began = time.perf_counter()
        problem = plan_style_search(config)
        search_on_ray(problem, config.run)
        result = conclude(problem)
        seconds = time.perf_counter() - began
        computed = sum(one.reports[-1].seconds for one in result.outcomes if one.reports)
        rows.append(
            {
                "trials": number,
                "seconds": seconds,
                "seconds computed, of each worker": computed / 2,
                "share": computed / 2 / seconds,
                "failed": sum(one.error is not None for one in result.outcomes),
            }
        )
    return rows


def main() -> int:
    """Parse the options, measure, show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "styles"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--trials", type=int, nargs="+")
    parser.add_argument("--own", type=int, default=8, help="trials in processes of their own")
    options = parser.parse_args()
    options.out = options.out.absolute()
    options.trials = options.trials or ([50] if options.what == "styles" else [50, 200])
    show_table(pa.Table.from_pylist(overhead(options) if options.what == "overhead" else styles(options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
