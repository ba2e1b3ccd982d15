"""How far the block engine goes: a million blocks for real, and thousands of workers in a simulation.

    uv run python benchmarks/scale.py million
    uv run python benchmarks/scale.py driver
    uv run python benchmarks/scale.py simulate --picture benchmarks/scale.png

million: blocks of which nothing is read or written but the receipt, through the whole engine (plan, Ray tasks, strikes,
receipts, compaction, lease, manifest) on two workers: blocks a second, against plain Ray Data over as many trivial
items in batches of the same size; the driver's memory and the number of files of receipts meanwhile; and the seconds of
the same command when all is done already. driver: batches a second that a driver gives out to workers that only wait,
by the number of them. simulate: see ``scale_simulation``.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data
import scale_simulation
from engine import make_collection
from scale_simulation import Trivial

from raydom.cluster.blocks import run_block_jobs, set_data_context
from raydom.cluster.session import ray_session
from raydom.config import BlockConfig, RunConfig
from raydom.inference.batches import batch_size, most_at_once
from raydom.inference.job import BlockJob, JobPlan, plan_job
from raydom.inference.runner import JobKind
from raydom.storage.collection import open_collection

WORKERS = 2
RUN = RunConfig(workers=WORKERS, quiet=True)
BLOCK_PX = 64
SAMPLE_EVERY_S = 0.5
WAIT_S = 0.5
IN_FLIGHT = (4, 16, 64, 256, 1024)
"""Workers of ``driver``."""
SHARES = (0.01, 0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass
class Watched:
    """What a process was seen to be like, sampled."""

    times: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    """Resident memory, without what is shared with other processes."""
    files: list[int] = field(default_factory=list)
    """Of receipts."""

    def at(self, moment: float) -> int:
        """The sample nearest to a moment."""
        return int(np.abs(np.array(self.times) - moment).argmin())


def private_mib() -> float:
    """Resident memory of this process that it shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) / 2**10


@contextmanager
def watched(receipts: Path) -> Iterator[Watched]:
    """Samples this process on a thread."""
    seen, ended = Watched(), threading.Event()

    def look() -> None:
        while not ended.wait(SAMPLE_EVERY_S):
            seen.times.append(time.time())
            seen.mib.append(private_mib())
            seen.files.append(len(os.listdir(receipts)) if receipts.exists() else 0)  # noqa: PTH208 - of many

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def finished_at(receipts: Path) -> np.ndarray:
    """When each block was done, sorted."""
    tables = [pq.read_table(path, columns=["kind", "finished_at"]) for path in receipts.glob("*.parquet")]
    times = [table.filter(pc.equal(table["kind"], "block"))["finished_at"].to_numpy() for table in tables]
    return np.sort(np.concatenate(times))


def bare(num_items: int) -> float:
    """Items per second of plain Ray Data, as many to a batch and a row as the engine has."""
    size = batch_size(num_items, WORKERS, most_at_once(BLOCK_PX**2, WORKERS, on_gpu=False))
    rows: list[Any] = [{"items": np.arange(begin, min(begin + size, num_items))} for begin in range(0, num_items, size)]
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        lambda rows: {"done": np.array([sum(map(len, rows["items"]))])},
        batch_size=1,
        compute=ray.data.TaskPoolStrategy(WORKERS),
        num_cpus=1.0,
    )
    ends, counts = [], []
    for batch in done.iter_batches(batch_size=None, prefetch_batches=0):
        counts.append(int(batch["done"].sum()))
        ends.append(time.perf_counter())
    assert sum(counts) == num_items
    return sum(counts[1:]) / (ends[-1] - ends[0])


def million(folder: Path, num_blocks: int) -> None:
    side = math.isqrt(num_blocks)
    job = BlockJob(
        name="million",
        collection=make_collection(folder / "c", (BLOCK_PX * side, BLOCK_PX * side), filled=False),
        out=str(folder / "o"),
        blocks=BlockConfig(block_size=BLOCK_PX),
    )
    receipts = folder / "o" / "run" / "receipts"
    planned: list[float] = []

    def plan(job: BlockJob, number: int) -> JobPlan:
        began = time.perf_counter()
        made = plan_job(job, number)
        planned.append(time.perf_counter() - began)
        return made

    kind = JobKind(plan, Trivial, lambda job, run: None)
    with ray_session(RUN, temp_dir=f"/tmp/scale-{os.getpid()}"):
        set_data_context()
        bare_rates = [bare(side * side)]
        print(f"plain Ray Data: {bare_rates[0]:.0f} items/s; the driver has {private_mib():.0f} MiB", flush=True)
        with watched(receipts) as seen:
            began = time.time()
            (report,) = run_block_jobs([job], RUN, kind=kind)
            ended = time.time()
        assert report.ok and report.num_blocks == side * side
        ends = finished_at(receipts)
        left = len(list(receipts.iterdir()))
        again = time.time()
        (report,) = run_block_jobs([job], RUN, kind=kind)
        resumed_s = time.time() - again
        assert report.ok and len(open_collection(job.out)) == 1
        bare_rates.append(bare(side * side))
    skipped, bare_rate = len(ends) // 100, float(np.mean(bare_rates))
    rate = (len(ends) - 1 - skipped) / (ends[-1] - ends[skipped])
    print(
        f"{len(ends)} blocks: {rate:.0f} blocks/s; plain Ray Data {bare_rate:.0f} items/s (before and after: "
        f"{bare_rates[0]:.0f}, {bare_rates[1]:.0f}), ratio {rate / bare_rate:.2f}"
    )
    print(
        f"plan {planned[0]:.2f} s, first block after {ends[0] - began:.1f} s, all after {ended - began:.1f} s, of which"
        f" {ended - ends[-1]:.1f} s after the last block; the finished job again: {resumed_s:.1f} s"
    )
    print("| blocks done | s | driver, MiB | files of receipts |\n|---|---|---|---|")
    for share in SHARES:
        at = seen.at(ends[min(len(ends) - 1, int(share * len(ends)))])
        print(f"| {share:.0%} | {seen.times[at] - began:.0f} | {seen.mib[at]:.0f} | {seen.files[at]} |")
    print(f"| end | {ended - began:.0f} | {seen.mib[-1]:.0f} | {left} |")
    print(f"at most {max(seen.mib):.0f} MiB and {max(seen.files)} files", flush=True)


class Waiting:
    """A worker that is at each batch for a while, and computes nothing."""

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(WAIT_S)
        return {"done": np.array([1]), "failed": np.array([0])}


def driver() -> None:
    """How many batches a second one driver gives out: threads of one process stand for workers."""
    with ray_session(RUN, temp_dir=f"/tmp/scale-{os.getpid()}"):
        set_data_context()
        for workers in IN_FLIGHT:
            count = max(100, 4 * workers)
            rows: list[Any] = [{"tasks": "x" * 200} for _ in range(count)]
            pool = ray.data.ActorPoolStrategy(
                size=1,
                max_tasks_in_flight_per_actor=workers,
                max_concurrent_calls_per_actor=workers,
                enable_true_multi_threading=True,
            )
            cpu = time.process_time()
            done = ray.data.from_items(rows, override_num_blocks=count).map_batches(
                Waiting, batch_size=1, compute=pool, num_cpus=0.5
            )
            ends = [time.perf_counter() for _ in done.iter_batches(batch_size=None, prefetch_batches=0)]
            half = count // 2
            rate = (count - half) / (ends[-1] - ends[half - 1])
            cpu_ms = (time.process_time() - cpu) / count * 1000
            print(f"{workers} at once: {rate:.0f} batches/s; {cpu_ms:.1f} ms of the driver's CPU each", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["million", "driver", "simulate"])
    parser.add_argument("--blocks", type=int, default=1_000_000, help="of million")
    parser.add_argument("--picture", type=Path, help="where simulate draws what it found")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="scale-", dir="/tmp"))
    try:
        if options.what == "million":
            million(folder, options.blocks)
        elif options.what == "driver":
            driver()
        else:
            scale_simulation.simulated(folder, options.picture)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
