"""What the block engine costs, against the bare loop, with start-up apart.

    uv run python benchmarks/engine.py segment stages trivial empty plan resume

segment: blocks of 512 px through a U-Net on two workers of one thread, over two plain processes of one thread that call
the same network on the same tensors. stages: the same blocks through three stages of Ray Data (read, compute, write)
instead of one actor that does all three. trivial: blocks of 64 px whose pixels are written unchanged. empty: blocks
of which nothing is read or written but the receipt, and the driver's memory meanwhile. plan: the driver's time and
memory for a million blocks. resume: the time until the first new block of a run of which 100,000 are done.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import resource
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from models import write_unet

from raydom.algorithms.trained import load_trained
from raydom.cluster.blocks import MAX_TASKS_PER_BATCH, execute_on_ray, run_block_jobs
from raydom.cluster.session import ray_session
from raydom.config import BlockConfig, NetworkConfig, RunConfig
from raydom.images.intensity import image_statistics
from raydom.inference.job import BlockJob, plan_job
from raydom.inference.predictor import Predictor
from raydom.inference.progress import ProgressReport
from raydom.inference.runner import run_jobs
from raydom.inference.worker import Task
from raydom.networks.build import build_network
from raydom.storage import zarr_images
from raydom.storage.collection import write_manifest
from raydom.storage.receipts import Receipt
from raydom.types import ImageRecord

RUN = RunConfig(workers=2, cpus_per_worker=1.0)


def make_collection(folder: Path, shape: tuple[int, int], filled: bool = True) -> str:
    """One gray image of smooth noise; or of nothing, where only its size matters."""
    group = str(folder / "images" / "image.zarr")
    (level, *_) = zarr_images.create_image(
        group, name="image", axes="cyx", shape=(1, *shape), dtype="uint8", pixel_size_um=None, channels=("gray",)
    )
    rng = np.random.default_rng(0)
    sample = rng.integers(0, 256, (1, 64, 64), np.uint8)
    if filled:
        for region in zarr_images.shard_regions(level):
            level[(slice(None), *region.slices)] = rng.integers(0, 256, (1, *region.shape), np.uint8)
    record = ImageRecord(
        image_id="image",
        uri="images/image.zarr",
        axes="cyx",
        shape=(1, *shape),
        dtype="uint8",
        pixel_size_um=None,
        channels=("gray",),
        domain=None,
        split=None,
        group=None,
        labels=(),
        statistics=image_statistics(sample),
        source_file="",
        sha256="0",
    )
    write_manifest(str(folder), [record])
    return str(folder)


def make_model(folder: Path) -> str:
    unet = NetworkConfig(in_channels=1, base_channels=16, depth=4)
    network = build_network(unet)
    return write_unet(folder, network, unet)


def steady_rate(job: BlockJob) -> float:
    """Blocks per second after start-up: from each worker's first receipts to the last."""
    receipts = [r for r in job.folder.read_receipts().values() if r.kind == "block"]
    ends = np.sort([receipt.finished_at for receipt in receipts])
    skipped = min(32, len(ends) // 10)  # one batch of each worker
    return (len(ends) - 1 - skipped) / (ends[-1] - ends[skipped])


def _bare(model: str, shape: tuple[int, int], count: int, gate: object) -> None:
    torch.set_num_threads(1)
    network, _ = load_trained(model)
    pixels = torch.rand(1, 1, *shape)
    with torch.inference_mode():
        network(pixels)
        gate.wait()  # type: ignore[attr-defined]
        for _ in range(count):
            network(pixels).sigmoid()
    gate.wait()  # type: ignore[attr-defined]


def bare_rate(model: str, shape: tuple[int, int], count: int) -> float:
    """Calls per second of two plain processes of one thread."""
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(3)
    workers = [context.Process(target=_bare, args=(model, shape, count // 2, gate)) for _ in range(2)]
    for worker in workers:
        worker.start()
    gate.wait()
    began = time.perf_counter()
    gate.wait()
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    return count / seconds


def segment(folder: Path) -> None:
    model = make_model(folder / "model")
    collection = make_collection(folder / "c", (7168, 7680))  # 14 x 15 blocks
    job = BlockJob(name="segment", collection=collection, out=str(folder / "o"), model=model)
    spec = load_trained(model)[1]
    side = 512 + 2 * -(-spec.receptive_field_px // spec.total_stride) * spec.total_stride
    before = bare_rate(model, (side, side), 40)
    assert run_block_jobs([job], RUN)[0].ok
    engine, after = steady_rate(job), bare_rate(model, (side, side), 40)
    bare = (before + after) / 2
    print(
        f"segment: {engine:.2f} blocks/s, bare loop {bare:.2f} ({before:.2f}, {after:.2f}), ratio {engine / bare:.2f}"
    )


def trivial(folder: Path) -> None:
    job = BlockJob(
        name="trivial",
        collection=make_collection(folder / "c", (6400, 6400)),
        out=str(folder / "o"),
        blocks=BlockConfig(block_size=64),
    )
    assert run_block_jobs([job], RUN)[0].ok
    print(f"trivial: {steady_rate(job):.0f} blocks/s of 64 px, pixels and receipts written")


class Stage:
    """One of the three stages, with a processor of its own in each process."""

    def __init__(self, job: BlockJob) -> None:
        torch.set_num_threads(1)
        self.processor = Predictor(job)


class Read(Stage):
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"inputs": pickle.dumps(self.processor.read(Task.from_json(row["task"])), protocol=5)}


class Compute(Stage):
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        outputs = self.processor.compute(Task.from_json(row["task"]), pickle.loads(row["inputs"]))
        return {"task": row["task"], "outputs": pickle.dumps(outputs, protocol=5)}


class Write(Stage):
    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        self.processor.write(Task.from_json(row["task"]), pickle.loads(row["outputs"]))
        return {"finished_at": time.time()}


def stages(folder: Path) -> None:
    model = make_model(folder / "model")
    collection = make_collection(folder / "c", (7168, 7680))
    jobs = [
        BlockJob(name="segment", collection=collection, out=str(folder / name), model=model)
        for name in ("fused", "staged", "again")
    ]
    with ray_session(RUN):
        fused = [measured_fused(jobs[0])]
        planned = plan_job(jobs[1])
        predictor = Predictor(jobs[1])
        predictor.create_output(predictor.image("image"))
        tasks = planned.stages["block"]
        rows = ray.data.from_items([{"task": task.to_json()} for task in tasks], override_num_blocks=len(tasks))
        # As many computing actors as in the other shape; reading and writing take what the CPUs have left.
        for stage, cpus, size in ((Read, 0.1, 1), (Compute, 0.8, 2), (Write, 0.1, 1)):
            pool = ray.data.ActorPoolStrategy(size=size)
            rows = rows.map(stage, fn_constructor_args=(jobs[1],), compute=pool, num_cpus=cpus)
        ends = np.sort([row["finished_at"] for row in rows.iter_rows()])
        staged = (len(ends) - 1 - 21) / (ends[-1] - ends[21])
        fused.append(measured_fused(jobs[2]))
    print(
        f"stages: {staged:.2f} blocks/s in three stages, {np.mean(fused):.2f} fused ({fused[0]:.2f}, {fused[1]:.2f}), "
        f"ratio {staged / np.mean(fused):.2f}"
    )


def measured_fused(job: BlockJob) -> float:
    assert run_block_jobs([job], RUN)[0].ok
    return steady_rate(job)


class Nothing:
    """A processor whose blocks are done at once."""

    def __init__(self, job: BlockJob, device: str) -> None: ...

    def read(self, task: Task) -> None: ...

    def compute(self, task: Task, inputs: None) -> None: ...

    def write(self, task: Task, outputs: None) -> dict[str, Any]:
        return {}


def empty(folder: Path) -> None:
    collection = make_collection(folder / "c", (25_600, 25_600), filled=False)
    job = BlockJob(name="empty", collection=collection, out=str(folder / "o"), blocks=BlockConfig(block_size=64))
    tasks, memory_mib = plan_job(job).stages["block"], {}

    def check() -> None:
        tenth = 10 * progress.done // len(tasks)
        memory_mib.setdefault(tenth, private_mib())

    with ray_session(RUN), ProgressReport("empty", len(tasks), quiet=True) as progress:
        execute_on_ray(tasks, [job], RUN, "benchmark", progress, check, open_processor=Nothing)
        check()
    rates = ", ".join(f"{10 * tenth} %: {mib:.0f}" for tenth, mib in sorted(memory_mib.items()))
    print(f"empty: {steady_rate(job):.0f} blocks/s with receipts only, of {len(tasks)}; driver's memory, MiB: {rates}")


def private_mib() -> float:
    """Memory that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) / 2**10


def resume(folder: Path) -> None:
    collection = make_collection(folder / "c", (64 * 320, 64 * 320), filled=False)
    job = BlockJob(name="resume", collection=collection, out=str(folder / "o"), blocks=BlockConfig(block_size=64))
    first: list[float] = []

    def execute(tasks: list[Task], *_: object) -> None:
        first.append(time.perf_counter())
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):  # makes the empty output
        run_jobs([job], RUN, execute)
    done = plan_job(job).stages["block"][:100_000]
    for start in range(0, len(done), MAX_TASKS_PER_BATCH):
        job.folder.write_receipts(
            [
                Receipt(
                    block_id=task.block.block_id,
                    image_id="image",
                    kind="block",
                    fingerprint=task.fingerprint,
                    status="ok",
                    attempts=1,
                    seconds=0.01,
                    node="f" * 56,
                    finished_at=time.time(),
                    checksum="00000000",
                )
                for task in done[start : start + MAX_TASKS_PER_BATCH]
            ]
        )
    for stored in ("as the workers wrote them", "in one file"):  # the first run puts them together
        began = time.perf_counter()
        with suppress(KeyboardInterrupt):
            run_jobs([job], RUN, execute)
        print(f"resume: {first[-1] - began:.1f} s to the first new block, the receipts of 100,000 blocks {stored}")


def plan(folder: Path) -> None:
    collection = make_collection(folder / "c", (64_000, 64_000), filled=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    made = plan_job(
        BlockJob(name="plan", collection=collection, out=str(folder / "o"), blocks=BlockConfig(block_size=64))
    )
    seconds = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(f"plan: {len(made.stages['block'])} blocks in {seconds:.1f} s, {grown:.2f} GiB")


CASES = {
    "segment": segment, "stages": stages, "trivial": trivial, "empty": empty, "plan": plan, "resume": resume,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", nargs="+", choices=list(CASES))
    for what in parser.parse_args().what:
        folder = Path(tempfile.mkdtemp(prefix="raydom-"))
        try:
            CASES[what](folder)
        finally:
            shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
