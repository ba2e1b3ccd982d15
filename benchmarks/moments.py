"""Which moment of an adaptation should be kept? The last one, or the best by a score that needs no target label.

The trainings of ``trained.py``, whose networks are scored every so many steps, and before the first: F1 on the target's
images for scores (whole images, at the model's pixel size), F1 on the source's validation images, and ``combined`` on
crops of the target's training images, as ``--select combined`` does. What is kept changes nothing in the training, so
one training shows what each choice would have kept, the best one in hindsight, and where ``--patience`` would have
ended.

    RAYDOM_DATA=... uv run python benchmarks/moments.py --out benchmarks/results --pairs drive-chase --seeds 0 1

Rows, one a moment, are appended to OUT/moments.parquet; trainings that are there already are skipped, so that a table
grows over several runs. ``--table`` only shows the tables of what is there.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from adaptation import DOMAINS, PAIRS, collection_of
from scipy.stats import spearmanr
from trained import METHODS, adaptation_of

from raydom.report.tables import show_table
from raydom.storage.collection import open_collection
from raydom.training.adaptation import plan_adaptation
from raydom.training.crops import CropReader, CropView
from raydom.training.evaluation import validation_score
from raydom.training.loop import progress
from raydom.training.runner import as_worker

STUDIED = ("dann decoder0", "mean teacher", "output adversary")
STRONG = "dann bottleneck, weight 0.42"
"""What ``search.py`` chose for DRIVE -> CHASE; more than four times the default."""
CPU = torch.device("cpu")
Row = dict[str, Any]


def moments(method: str, pair: str, seed: int, options: argparse.Namespace, data: Path) -> Iterator[Row]:
    """The scores of a training at each moment, the first one being that before it; with the seconds of the steps since
    the one before, and of ``combined``."""
    called, fields = ("dann bottleneck", {"weight": 0.42}) if method == STRONG else (method, {})
    config = adaptation_of(called, pair, seed, options, data, options.every, select="combined", **fields)
    plan = plan_adaptation(config)
    view = CropView.of(plan.spec)
    target = PAIRS[pair][1]
    scored = open_collection(collection_of(target, "score", data, options.out))
    score_ids = [record.image_id for record in scored.records]
    on_target = CropReader(scored, score_ids, view, "fov" if DOMAINS[target].mask else None)
    source_ids = plan.source.validation_ids
    on_source = CropReader(open_collection(plan.source.collection), source_ids, view)
    with as_worker(plan):
        training = plan.assemble(CPU)
        validate = training.validate
        assert validate is not None

        def moment(step: int, seconds: float) -> Row:
            network = training.algorithm.exported()
            began = time.perf_counter()
            combined = validate()
            scoring = time.perf_counter() - began
            return {
                "step": step,
                "f1": validation_score(network, on_target, score_ids, plan.spec, CPU),
                "source_f1": validation_score(network, on_source, source_ids, plan.spec, CPU),
                "combined": combined,
                "seconds": seconds,
                "scoring": scoring,
            }

        yield moment(0, 0.0)
        since = time.perf_counter()
        for report, made in progress(replace(training, validate=None), plan.train, plan.num_steps, device=CPU):
            if made is not None:
                yield moment(report.step, time.perf_counter() - since)
                since = time.perf_counter()


def kept(rows: Sequence[Row], score: str, patience: int | None = None) -> Row:
    """The moment with the best score, of those before so many in a row had none better."""
    best = rows[0]
    for number, row in enumerate(rows):
        if row[score] > best[score]:
            best = row
        elif patience is not None and number - rows.index(best) >= patience:
            break
    return best


def choices(rows: Sequence[Row], patience: int) -> list[Row]:
    """For each training the F1 of what each choice keeps, and at which step."""
    told = []
    for pair, method, seed in dict.fromkeys((row["pair"], row["method"], row["seed"]) for row in rows):
        own = [row for row in rows if (row["pair"], row["method"], row["seed"]) == (pair, method, seed)]
        before, *after = sorted(own, key=lambda row: row["step"])
        best, by_source, by_combined = (kept(after, score) for score in ("f1", "source_f1", "combined"))
        early = kept(after, "combined", patience)
        truth = [row["f1"] for row in after]
        told.append(
            {
                "pair": pair,
                "method": method,
                "seed": seed,
                "none": before["f1"],
                "last": after[-1]["f1"],
                "source": by_source["f1"],
                "combined": by_combined["f1"],
                "at step": by_combined["step"],
                f"patience {patience}": early["f1"],
                "until step": min(after[-1]["step"], early["step"] + patience * (after[1]["step"] - after[0]["step"])),
                "hindsight": best["f1"],
                "its step": best["step"],
                "rank correlation": float(spearmanr([row["combined"] for row in after], truth).statistic),
            }
        )
    return told


def summary(told: Sequence[Row]) -> list[Row]:
    """For each pair, method, and all of them: F1 and its difference to the last moment's, the mean over trainings."""
    lines = []
    by_pair = [(pair, "all") for pair in dict.fromkeys(row["pair"] for row in told)]
    for pair, method in (*dict.fromkeys((row["pair"], row["method"]) for row in told), *by_pair, ("all", "all")):
        own = [row for row in told if pair in (row["pair"], "all") and method in (row["method"], "all")]
        choice = [name for name, value in own[0].items() if isinstance(value, float)]
        line: Row = {"pair": pair, "method": method, "trainings": len(own)}
        line |= {name: float(np.mean([row[name] for row in own])) for name in choice}
        gained = np.array([row["combined"] - row["last"] for row in own])
        lines.append(line | {"combined - last": float(gained.mean()), "worst": float(gained.min())})
    return lines


def main() -> int:
    """Parse the options, make the rows that are not there, show the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--pairs", nargs="+", default=["drive-chase", "chase-drive", "isbi-vnc"])
    parser.add_argument("--methods", nargs="+", default=list(STUDIED), choices=[*METHODS, STRONG])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=600, help="of the source's model")
    parser.add_argument("--adapt-steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=25, help="steps between two moments")
    parser.add_argument("--patience", type=int, default=4, help="as it would have been; in moments")
    parser.add_argument("--table", action="store_true", help="only show the tables of what is there")
    options = parser.parse_args()
    options.out = options.out.absolute()
    torch.set_num_threads(1)
    path = options.out / "moments.parquet"
    rows: list[Row] = pq.read_table(path).to_pylist() if path.exists() else []
    for seed in options.seeds if not options.table else ():
        for pair in options.pairs:
            for method in options.methods:
                key = {"pair": pair, "method": method, "seed": seed, "adapt_steps": options.adapt_steps}
                key["every"] = options.every
                if any(key.items() <= row.items() for row in rows):
                    continue
                data = Path(os.environ["RAYDOM_DATA"])
                rows += [key | row for row in moments(method, pair, seed, options, data)]
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.Table.from_pylist(rows), path)
    told = choices(rows, options.patience)
    show_table(pa.Table.from_pylist(told), title="F1 of what is kept", digits=3)
    show_table(pa.Table.from_pylist(summary(told)), title="means over the trainings", digits=3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
