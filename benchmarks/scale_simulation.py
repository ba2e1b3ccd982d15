"""What a simulation of up to thousands of GPU workers says of the engine, and whether it is right for one and two.

First a U-Net (16 channels, 4 levels) segments blocks of 512 px on one worker and on two, and trivial blocks are done as
well; the simulation of the same, with the times that those blocks took, has to need as long. Then the blocks are taken
to be as much quicker as a GPU is assumed to make them, and drawn for more workers than there are here, on an object
store whose latencies are assumed too.
"""

from __future__ import annotations

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
from raydom.config import RunConfig
from raydom.inference.batches import BLOCK_PX, batch_size, flush_s, most_at_once
from raydom.inference.job import BlockJob
from raydom.storage.receipts import Receipt

GPU_FACTOR = 5.0
"""How much quicker a GPU is than a core here: assumed."""
DISK = Costs(batch_s=0.01, hand_over_s=0.02, put_s=0.003, get_s=0.001, list_s=0.001, part_s=0.0014)
"""Measured here: a batch by ``scale.py driver``, a file of receipts by writing and reading some."""
STORE = Costs(
    batch_s=0.01,
    hand_over_s=0.02,
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
WORK_S = 600.0
"""Of each worker."""
CHECK_BLOCKS = (10, 12)


def measured(folder: Path, workers: int) -> tuple[np.ndarray, float]:
    """Seconds of each block of a real run on so many workers, and of all from the first to the last."""
    rows, columns = CHECK_BLOCKS
    job = BlockJob(
        name="check",
        collection=make_collection(folder / "c", (512 * rows, 512 * columns)),
        out=str(folder / f"o{workers}"),
        model=make_model(folder / "model"),
    )
    run = RunConfig(workers=workers, quiet=True)
    with ray_session(run, temp_dir=f"/tmp/scale-{os.getpid()}"):
        assert run_block_jobs([job], run)[0].ok
    blocks = [receipt for receipt in job.folder.read_receipts().values() if receipt.kind == "block"]
    first: dict[str | None, Receipt] = {}
    for receipt in sorted(blocks, key=lambda one: one.finished_at):
        first.setdefault(receipt.worker, receipt)
    # The first block of a worker waits for its model, and the others begin when all workers are there.
    began = max(receipt.finished_at for receipt in first.values())
    later = [one for one in blocks if one.finished_at > began]
    seconds = max(one.finished_at for one in later) - began
    return np.array([one.busy_s for one in later]), seconds


def checked(folder: Path) -> np.ndarray:
    """Print reality and simulation; returns the seconds of blocks on one worker."""
    print("| workers | blocks | measured, s | simulated, s | difference |\n|---|---|---|---|---|")
    seconds_of = {}
    for workers in (1, 2):
        service_s, seconds = measured(folder, workers)
        size = batch_size(len(service_s), workers, most_at_once(BLOCK_PX, workers, on_gpu=False))
        told = simulate(service_s, workers, len(service_s), DISK, Engine(batch=size))
        off = told.seconds / seconds - 1
        print(f"| {workers} | {len(service_s)} | {seconds:.1f} | {told.seconds:.1f} | {off:+.1%} |", flush=True)
        seconds_of[workers] = service_s
    return seconds_of[1]


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
