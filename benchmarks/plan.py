"""Does raydom plan forecast what a run takes?

    RAYDOM_DATA=... uv run python benchmarks/plan.py stylize segment objects --workers 1 2

For each job and number of workers: a forecast from a pilot of four blocks, then the run itself on the same machine, and
their ratio, both from the start of Ray to the last receipt. stylize: meanstd over a mosaic of retina images. segment:
an untrained U-Net of 16 channels. objects: nuclei of a mosaic, found by a threshold. A row a run is added to
``plan.parquet``, with the load of the machine before and after: a pilot on a busy machine forecasts a busy machine.
Beside the times on the clock (ratio), the time for which workers are busy is compared, which start-up does not disturb
(busy_ratio), and their CPU time, which other processes hardly disturb (cpu_ratio); both without each worker's first
block.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from engine import make_model

from raydom.cluster.blocks import run_block_jobs
from raydom.cluster.pilot import first_of_each, run_pilot
from raydom.cluster.plan import measure_workload, stage_loads
from raydom.config import InstanceConfig, LimitConfig, RunConfig, StyleConfig
from raydom.images.intensity import image_statistics
from raydom.inference.forecast import Limits, forecast
from raydom.inference.job import BlockJob, plan_job
from raydom.inference.runner import BLOCK_JOBS
from raydom.report.tables import show_table
from raydom.storage import zarr_images
from raydom.storage.collection import write_manifest
from raydom.storage.pyramids import write_levels
from raydom.storage.readers import read_image
from raydom.types import ImageRecord

MOSAIC_PX = {"stylize": (6144, 8192), "segment": (4096, 4096), "objects": (8192, 8192)}
PILOT = 4
LIMITS = LimitConfig()


def mosaic(paths: list[Path], shape: tuple[int, int], num_channels: int) -> np.ndarray:
    """Images side by side, again and again, as (c, h, w)."""
    tiles = []
    for path in paths:
        pixels = np.asarray(read_image(str(path)).pixels)
        tiles.append(pixels[:num_channels] if len(pixels) >= num_channels else np.repeat(pixels[:1], num_channels, 0))
    side = [min(tile.shape[axis] for tile in tiles) for axis in (1, 2)]
    out = np.zeros((num_channels, *shape), tiles[0].dtype)
    for number, top in enumerate(range(0, shape[0], side[0])):
        for other, left in enumerate(range(0, shape[1], side[1])):
            tile = tiles[(7 * number + other) % len(tiles)]
            part = out[:, top : top + side[0], left : left + side[1]]
            part[...] = tile[:, : part.shape[1], : part.shape[2]]
    return out


def make_collection(folder: Path, pixels: np.ndarray) -> str:
    """A collection of one image."""
    channels = tuple(f"c{number}" for number in range(len(pixels)))
    levels = zarr_images.create_image(
        str(folder / "images" / "mosaic.zarr"),
        name="mosaic", axes="cyx", shape=pixels.shape, dtype=pixels.dtype, pixel_size_um=None, channels=channels,
    )  # fmt: skip
    write_levels(levels, pixels)
    record = ImageRecord(
        image_id="mosaic", uri="images/mosaic.zarr", axes="cyx", shape=pixels.shape, dtype=str(pixels.dtype),
        pixel_size_um=None, channels=channels, domain=None, split=None, group=None, labels=(),
        statistics=image_statistics(pixels), source_file="", sha256="0",
    )  # fmt: skip
    write_manifest(str(folder), [record])
    return str(folder)


def make_job(name: str, folder: Path, data: Path) -> BlockJob:
    shape = MOSAIC_PX[name]
    if name == "segment":
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (1, *shape), np.uint8)
        return BlockJob(
            name=name, collection=make_collection(folder / "in", pixels), out=str(folder / "out"),
            model=make_model(folder / "model", "unet"),
        )  # fmt: skip
    if name == "stylize":
        retina = sorted((data / "retina_drive" / "images").iterdir())
        style = sorted((data / "retina_chase_db1" / "images").iterdir())[0]
        return BlockJob(
            name=name, collection=make_collection(folder / "in", mosaic(retina, shape, 3)), out=str(folder / "out"),
            style=StyleConfig(method="meanstd", style=str(style)),
        )  # fmt: skip
    nuclei = sorted((data / "dsb2018_nuclei" / "images").glob("fluorescence_*"))
    return BlockJob(
        name=name, collection=make_collection(folder / "in", mosaic(nuclei, shape, 1)), out=str(folder / "out"),
        model="threshold:40", instances=InstanceConfig(components=True),
    )  # fmt: skip


def compare(name: str, workers: int, data: Path) -> dict[str, Any]:
    """A forecast and its run."""
    run = RunConfig(workers=workers, quiet=True, memory_gib=20)
    folder = Path(tempfile.mkdtemp(prefix="raydom-plan-"))
    try:
        job = make_job(name, folder, data)
        load = [os.getloadavg()[0]]
        plan = plan_job(job)
        pilot = run_pilot(job, BLOCK_JOBS, run, PILOT, plan)
        loads = stage_loads(measure_workload(job, BLOCK_JOBS, plan), pilot, plan, run)
        limits = Limits(
            driver_batches_per_s=LIMITS.driver_batches_per_s,
            store_writes_per_s=LIMITS.store_writes_per_s,
            receipt_s=LIMITS.receipt_s,
        )
        told = forecast(loads, workers, pilot.start, limits)
        load.append(os.getloadavg()[0])
        began = time.perf_counter()
        run_block_jobs([job], run)
        seconds = time.perf_counter() - began
        load.append(os.getloadavg()[0])
        receipts = [receipt for receipt in job.folder.read_receipts().values() if receipt.kind != "seam"]
        warm = [receipt for receipt in receipts if receipt not in first_of_each(receipts)]
        seconds_of = {
            task.key: one for stage in loads for task, one in zip(plan.stages[stage.name], stage.seconds, strict=True)
        }
        shares = {name: rate.cpu_share for name, rate in pilot.rates.items()}
        told_busy = [(seconds_of[f"{one.kind}:{one.block_id}"], shares[one.kind]) for one in warm]
        busy, cpu = sum(one.busy_s or 0.0 for one in warm), sum(one.cpu_s or 0.0 for one in warm)
        return {
            "job": name,
            "workers": workers,
            "blocks": len(plan.stages["block"]),
            "tasks": plan.num_tasks,
            "forecast_s": told.seconds,
            "measured_s": seconds,
            "ratio": told.seconds / seconds,
            "busy_ratio": sum(one for one, _ in told_busy) / busy,
            "forecast_cpu_s": sum(one * share for one, share in told_busy),
            "measured_cpu_s": cpu,
            "cpu_ratio": sum(one * share for one, share in told_busy) / cpu,
            "forecast_start_s": told.start_s,
            "pilot_s": pilot.seconds,
            "load": load[0],
            "load_between": load[1],
            "load_after": load[2],
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("jobs", nargs="*", choices=[[], *MOSAIC_PX], default=list(MOSAIC_PX))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ["RAYDOM_DATA"])
    table = options.out / "plan.parquet"
    for name in options.jobs:
        for workers in options.workers:
            row = pa.Table.from_pylist([compare(name, workers, data)])
            known = [pq.read_table(table)] if table.exists() else []
            pq.write_table(pa.concat_tables([*known, row]), table)
            show_table(row)


if __name__ == "__main__":
    main()
