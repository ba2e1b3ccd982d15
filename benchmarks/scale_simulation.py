"""What a simulation of up to thousands of GPU workers says of the engine, and whether it is right for one and two.

First a U-Net (16 channels, 4 levels) segments blocks of 512 px on one worker and on two, and trivial blocks are done as
well; the simulation of the same, with the times that those blocks took, has to need as long. Then the blocks are taken
to be as much quicker as a GPU is assumed to make them, and drawn for more workers than there are here, on an object
store whose latencies are assumed too.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from engine import make_collection, make_model
from simulation import Costs, Engine, Outcome, simulate

from raydom.cluster.blocks import run_block_jobs
from raydom.cluster.session import ray_session
from raydom.config import BlockConfig, RunConfig, to_dict
from raydom.inference.batches import BLOCK_PX, batch_size, flush_s, most_at_once
from raydom.inference.job import BlockJob, plan_job
from raydom.inference.predictor import Predictor
from raydom.inference.runner import BLOCK_JOBS, JobKind
from raydom.inference.tasks import Task

GPU_FACTOR = 5.0
"""How much quicker a GPU is than a core here: assumed."""
DISK = Costs(batch_s=0.008, hand_over_s=0.02, task_s=2.5e-5, put_s=0.003, get_s=0.001, list_s=0.001, part_s=0.0014)
"""Measured here: a batch of 1,024 workers by ``scale.py driver``, a task's receipt in a worker alone, and files of
receipts by writing and reading some."""
AMONG_OTHERS_S = 0.1
"""The time between two batches on CPUs when others are at work: 0.1 to 0.2 s were measured, as Ray Data looks for
finished ones every 0.1 s then. On GPUs the next batch waits in its actor already."""
STORE = Costs(
    batch_s=0.008,
    hand_over_s=0.04,
    task_s=2.5e-5,
    put_s=0.05,
    get_s=0.04,
    list_s=0.15,
    puts_per_s=3500.0,
    gets_per_s=5500.0,
    part_s=0.0014,
    workers_per_s=20.0,
    worker_s=15.0,
)
"""An object store in the same region: latencies assumed, requests a second as S3 promises them for a prefix. Workers
are started at an assumed rate, and take as long as here until they compute."""
WORKERS = (1, 3, 10, 30, 100, 300, 1000, 3000)
BATCHES = (16, 64, 256, 1024)
BLOCK_PUTS = 4.0
"""Objects that segment writes for a block (README, object stores)."""
DRAWS = 20
"""Simulations that are averaged: a few blocks that took long are drawn more or less often than they came."""
WORK_S = 600.0
"""Of each worker."""


class Trivial(Predictor):
    """A processor whose tasks are done at once; the output of its images is made, and stays empty."""

    def read(self, task: Task) -> None:
        return None

    def compute(self, task: Task, inputs: None) -> None:
        return None

    def write(self, task: Task, outputs: None) -> dict[str, Any]:
        if task.kind != "finish":
            return {"checksum": "00000000"}
        return {"record": json.dumps(to_dict(self.image(task.block.image_id).record))}


def measured(job: BlockJob, kind: JobKind, workers: int) -> tuple[np.ndarray, float]:
    """Seconds of each block of a real run on so many workers, and of all from the first to the last."""
    run = RunConfig(workers=workers, quiet=True)
    with ray_session(run, temp_dir=f"/tmp/scale-{os.getpid()}"):
        assert run_block_jobs([job], run, kind=kind)[0].ok
    blocks = [receipt for receipt in job.folder.read_receipts().values() if receipt.kind == "block"]
    first: dict[str | None, float] = {}
    for receipt in blocks:
        first[receipt.worker] = min(first.get(receipt.worker, math.inf), receipt.finished_at)
    began = max(first.values())  # the first block of a worker waits for its model, and not all begin at once
    later = [receipt for receipt in blocks if receipt.finished_at > began]
    return np.array([one.busy_s for one in later]), max(one.finished_at for one in later) - began


def checked(folder: Path) -> np.ndarray:
    """Print reality and simulation; returns the seconds of a network's blocks on one worker."""
    model, sides = make_model(folder / "model"), {"U-Net": 512, "trivial": 64}
    shapes = {"U-Net": (10, 12), "trivial": (200, 200)}
    kinds = {"U-Net": BLOCK_JOBS, "trivial": JobKind(plan_job, Trivial, lambda job, run: None)}
    print("| blocks | workers | number | measured, s | simulated, s | difference |\n|---|---|---|---|---|---|")
    times = {}
    for name, side in sides.items():
        rows, columns = shapes[name]
        collection = make_collection(folder / name, (side * rows, side * columns), filled=name == "U-Net")
        for workers in (1, 2):
            job = BlockJob(
                name=name,
                collection=collection,
                out=str(folder / f"{name}{workers}"),
                model=model if name == "U-Net" else None,
                blocks=BlockConfig(block_size=side),
            )
            service_s, seconds = measured(job, kinds[name], workers)
            count = len(service_s)
            engine = Engine(batch=batch_size(count, workers, most_at_once(side**2, workers, on_gpu=False)))
            costs = DISK if workers == 1 else replace(DISK, hand_over_s=AMONG_OTHERS_S)
            drawn = [simulate(service_s, workers, count, costs, engine, seed) for seed in range(DRAWS)]
            told = float(np.mean([one.seconds for one in drawn]))
            row = (name, str(workers), str(count), f"{seconds:.1f}", f"{told:.1f}", f"{told / seconds - 1:+.1%}")
            print(f"| {' | '.join(row)} |", flush=True)
            times[name, workers] = service_s
    return times["U-Net", 1]


def engines_choice(workers: int, num_tasks: int) -> Engine:
    """The batches and receipts that the engine itself decides on, on GPUs."""
    size = batch_size(num_tasks, workers, most_at_once(BLOCK_PX, workers, on_gpu=True))
    return Engine(batch=size, flush_s=flush_s(workers))


def simulated(folder: Path, picture: Path | None) -> None:
    """Print what the simulation says, and draw it."""
    service_s = checked(folder) / GPU_FACTOR
    low, middle, high = np.percentile(service_s, [5, 50, 95])
    print(f"\nblocks of {middle:.3f} s ({low:.3f} to {high:.3f}); share of the workers' time at blocks; most files")
    found: dict[str, dict[int, Outcome]] = {}
    for workers in WORKERS:
        num_tasks = math.ceil(workers * WORK_S / service_s.mean())
        choice = engines_choice(workers, num_tasks)
        engines = {str(size): Engine(batch=size) for size in BATCHES}
        engines["engine's choice"] = choice
        engines["all marks read"] = replace(choice, reads_all_marks=True)
        engines["pixels to one prefix"] = replace(choice, block_puts=BLOCK_PUTS)
        for name, engine in engines.items():
            found.setdefault(name, {})[workers] = simulate(service_s, workers, num_tasks, STORE, engine)
    names = list(found)
    print(f"| workers | {' | '.join(names)} | batch chosen | driver, store writes |")
    print("|---" * (len(names) + 3) + "|")
    for workers in WORKERS:
        cells = [f"{found[name][workers].utilisation:.0%} ({found[name][workers].most_files})" for name in names]
        own = found["engine's choice"][workers]
        size = engines_choice(workers, own.num_tasks).batch
        load = f"{own.load['driver']:.0%}, {own.load['store writes']:.0%}"
        print(f"| {workers} | {' | '.join(cells)} | {size} | {load} |")
    if picture is not None:
        draw(found, picture)


def draw(found: dict[str, dict[int, Outcome]], picture: Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for name, outcomes in found.items():
        own = name == "engine's choice"
        style: dict[str, Any] = {"color": "black", "linewidth": 2.5} if own else {"linewidth": 1.2}
        label = f"batches of {name}" if name.isdigit() else name
        axes[0].plot(outcomes.keys(), [one.utilisation for one in outcomes.values()], label=label, **style)
        axes[1].plot(outcomes.keys(), [one.most_files for one in outcomes.values()], label=label, **style)
    axes[0].set(xscale="log", xlabel="GPU workers", ylabel="share of their time at blocks", ylim=(0, 1))
    axes[1].set(xscale="log", yscale="log", xlabel="GPU workers", ylabel="files of receipts, at most")
    axes[0].legend(fontsize=8)
    figure.savefig(picture, dpi=110)
