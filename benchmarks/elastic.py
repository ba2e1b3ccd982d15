"""A training that loses a node goes on with the workers that are left, and with more again when there is another node.

A cluster of two nodes of one CPU in this machine, `--workers 2 --min-workers 1`: a node is killed at step 8, and
another one joins when the training has gone on without it. Told is who did which steps, and when; four minutes.

    uv run python benchmarks/elastic.py
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from raydom.cluster.commands import ingest
from raydom.cluster.train import run_training
from raydom.commands import IngestConfig, SupervisedConfig
from raydom.config import RunConfig, TrainConfig
from raydom.training import distributed
from raydom.training.loop import Training
from raydom.training.supervised import SupervisedPlan, plan_supervised

# isort: split
from ray.cluster_utils import Cluster

STEPS, KILL_AT, JOIN_AT, STEP_S = 240, 8, 30, 0.5


def collection_in(folder: Path) -> str:
    """Six images of noise, with labels."""
    generator = np.random.default_rng(0)
    (folder / "labels").mkdir(parents=True)
    for name in "abcdef":
        pixels = generator.integers(0, 256, (36, 40), np.uint8)
        tifffile.imwrite(folder / f"{name}.tif", pixels)
        tifffile.imwrite(folder / "labels" / f"{name}.tif", (pixels > 90).astype(np.uint8))
    out = str(folder / "collection")
    files = tuple(str(folder / f"{name}.tif") for name in "abcdef")
    assert ingest(IngestConfig(source=files, out=out, labels=(str(folder / "labels"),))) == 0
    return out


def told(plan: SupervisedPlan, log: Path) -> SupervisedPlan:
    """The plan, of whose steps the first worker writes a line: the step, how many workers there are, and when."""

    class Told(SupervisedPlan):  # a local class, so that it is pickled with its code
        def assemble(self, device: torch.device) -> Training:
            training = super().assemble(device)
            phases = training.algorithm.phases

            def written(step: int, num_steps: int) -> Any:
                if distributed.rank() == 0:
                    with log.open("a") as lines:
                        lines.write(f"{step} {distributed.world_size()} {time.time()}\n")
                time.sleep(STEP_S)
                return phases(step, num_steps)

            training.algorithm.phases = written  # type: ignore[method-assign]
            return training

    return Told(**{name: getattr(plan, name) for name in plan.__dataclass_fields__})


def lines_of(log: Path) -> list[tuple[int, int, float]]:
    """Step, number of workers, and when."""
    if not log.exists():
        return []
    words = [line.split() for line in log.read_text().splitlines()]
    return [(int(step), int(workers), float(at)) for step, workers, at in words]


def wait_for(log: Path, step: int) -> None:
    while not any(done >= step for done, _, _ in lines_of(log)):
        time.sleep(0.2)


def main() -> int:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    with tempfile.TemporaryDirectory(prefix="rd-") as name:
        folder, log = Path(name), Path(name) / "steps"
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        node = cluster.add_node(num_cpus=1)
        events: dict[str, float] = {}
        plan = plan_supervised(
            SupervisedConfig(
                collection=collection_in(folder),
                out=str(folder / "run"),
                base_channels=4,
                depth=2,
                train=TrainConfig(steps=STEPS, batch_size=2, crop_px=32, validate_every=3, min_workers=1),
                run=RunConfig(quiet=True, workers=2, address=cluster.address),
            )
        )
        with ThreadPoolExecutor(1) as thread:  # nodes join in the main thread alone
            training = thread.submit(run_training, told(plan, log))
            wait_for(log, KILL_AT)
            cluster.remove_node(node, allow_graceful=False)
            events["killed"] = time.time()
            wait_for(log, JOIN_AT)
            cluster.add_node(num_cpus=1)
            events["joined"] = time.time()
            run = training.result()
        began = lines_of(log)[0][2]
        for event, at in events.items():
            print(f"{at - began:6.1f} s: node {event}")
        for workers, group in groupby(lines_of(log), key=lambda line: line[1]):
            steps = list(group)
            print(f"{steps[0][2] - began:6.1f} s: steps {steps[0][0]} to {steps[-1][0]} by {workers} worker(s)")
        assert run.metrics.column("step").to_pylist()[-1] == STEPS
        cluster.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
