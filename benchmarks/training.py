"""Steps of a training as raydom does them, over the bare torch loop of the same networks, losses and batch size.

    RAYDOM_DATA=... uv run python benchmarks/training.py --out benchmarks/results [--algorithms supervised dann]

Raydom's steps read and augment crops of a collection and check, clip, record and average; the bare loop has one batch
in memory, and does forward, backward and the optimiser's step of each phase. They take turns in one process, and what
counts is the ratio of the medians. A row an algorithm is written to OUT/training.parquet.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from adaptation import collection_of

from raydom.algorithms.phases import Algorithm
from raydom.commands import DannConfig, DritConfig, MeanTeacherConfig, SupervisedConfig
from raydom.config import RunConfig, TrainConfig
from raydom.report.tables import show_table
from raydom.training.adaptation import plan_adaptation
from raydom.training.loop import Training, train
from raydom.training.plan import TrainingPlan
from raydom.training.supervised import plan_supervised
from raydom.training.translation import plan_translation

WARM_UP = 3


def plan_of(name: str, source: str, target: str, out: str, steps: int) -> TrainingPlan:
    """Small networks, so that what raydom adds shows."""
    unet = {"base_channels": 16, "depth": 4, "out": out, "run": RunConfig(serial=True, quiet=True)}
    shared = TrainConfig(steps=steps, batch_size=4, crop_px=128, validate_every=10 * steps)
    pair = {"source": source, "target": target}
    if name == "supervised":
        return plan_supervised(SupervisedConfig(collection=source, train=shared, **unet))
    if name == "drit":
        run = RunConfig(serial=True, quiet=True)
        return plan_translation(DritConfig(out=out, base_channels=8, train=shared, run=run, **pair))
    make = {"dann": DannConfig, "mean-teacher": MeanTeacherConfig}[name]
    return plan_adaptation(make(train=shared, **pair, **unet))


def seconds_of_steps(training: Training, config: TrainConfig, steps: int) -> list[float]:
    """Of each step but the first ones, without validation and checkpoints, as raydom does them."""
    times = [time.perf_counter()]
    train(
        Training(training.algorithm, training.batch_at),
        config,
        steps,
        device=torch.device("cpu"),
        watch=lambda report: times.append(time.perf_counter()),
    )
    return [after - before for before, after in zip(times[WARM_UP:-2], times[WARM_UP + 1 : -1], strict=True)]


def seconds_of_bare_steps(algorithm: Algorithm, batch: Any, steps: int) -> list[float]:
    """The same phases, by hand."""
    modules = algorithm.modules
    for module in modules.values():
        module.train()
    trainable = {name: [p for p in module.parameters() if p.requires_grad] for name, module in modules.items()}
    optimizers = {name: torch.optim.AdamW(each, lr=1e-3) for name, each in trainable.items() if each}
    times = [time.perf_counter()]
    for step in range(steps):
        for phase in algorithm.phases(step, steps):
            for name, parameters in trainable.items():
                for parameter in parameters:
                    parameter.requires_grad_(name in phase.trains)
            for name in phase.trains:
                optimizers[name].zero_grad()
            torch.stack(list(phase.losses(batch).values())).sum().backward()
            for name in phase.trains:
                torch.nn.utils.clip_grad_norm_(trainable[name], 1.0)
                optimizers[name].step()
        algorithm.after_step()
        times.append(time.perf_counter())
    return [after - before for before, after in zip(times[WARM_UP:-1], times[WARM_UP + 1 :], strict=True)]


def row_of(name: str, source: str, target: str, options: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of a step, raydom's and bare, in turns."""
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(options.turns):
        with tempfile.TemporaryDirectory() as folder:
            plan = plan_of(name, source, target, folder + "/run", options.steps)
            ours += seconds_of_steps(plan.assemble(torch.device("cpu")), plan.train, options.steps)
            fresh = plan.assemble(torch.device("cpu"))
            bare += seconds_of_bare_steps(fresh.algorithm, fresh.batch_at(0), options.steps)
    mine, theirs = statistics.median(ours), statistics.median(bare)
    return {"algorithm": name, "raydom_s": mine, "bare_s": theirs, "ratio": theirs / mine}


def main() -> None:
    """Parse the options, measure, show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--algorithms", nargs="+", default=["supervised", "dann", "mean-teacher", "drit"])
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, out = Path(os.environ["RAYDOM_DATA"]), options.out.absolute()
    source, target = (collection_of(name, "train", data, out) for name in ("drive", "chase"))
    rows = [row_of(name, source, target, options) for name in options.algorithms]
    pq.write_table(pa.Table.from_pylist(rows), out / "training.parquet")
    show_table(pa.Table.from_pylist(rows), digits=3)


if __name__ == "__main__":
    main()
