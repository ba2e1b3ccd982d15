"""What the block engine costs, against the bare loop, with start-up apart.

    uv run python benchmarks/engine.py segment trivial plan

segment: blocks of 512 px through a U-Net on two workers of one thread, over two plain processes of one thread that call
the same network on the same tensors. trivial: blocks of 64 px whose pixels are written unchanged. plan: the driver's
time and memory for a million blocks.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from raydom.algorithms.trained import load_trained
from raydom.cluster.blocks import run_block_jobs
from raydom.config import BlockConfig, ModelSpec, RunConfig, UNetConfig
from raydom.images.intensity import image_statistics
from raydom.inference.job import BlockJob, plan_job
from raydom.networks.build import build_network
from raydom.storage import zarr_images
from raydom.storage.collection import write_manifest
from raydom.storage.model_run import write_model_run
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
    unet = UNetConfig(in_channels=1, base_channels=16, depth=4)
    network = build_network("unet", unet)
    spec = ModelSpec(
        network="unet",
        unet=unet,
        channels=("gray",),
        low=0.0,
        high=1.0,
        pixel_size_um=None,
        total_stride=network.total_stride,
        receptive_field_px=network.receptive_field_px,
        num_classes=2,
    )
    write_model_run(str(folder), spec, {name: value.numpy() for name, value in network.state_dict().items()}, {})
    return str(folder)


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


def plan(folder: Path) -> None:
    collection = make_collection(folder / "c", (64_000, 64_000), filled=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    made = plan_job(
        BlockJob(name="plan", collection=collection, out=str(folder / "o"), blocks=BlockConfig(block_size=64))
    )
    seconds = time.perf_counter() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(f"plan: {len(made.blocks)} blocks in {seconds:.1f} s, {grown:.2f} GiB")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", nargs="+", choices=["segment", "trivial", "plan"])
    for what in parser.parse_args().what:
        folder = Path(tempfile.mkdtemp(prefix="raydom-"))
        try:
            {"segment": segment, "trivial": trivial, "plan": plan}[what](folder)
        finally:
            shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
