"""What ingestion costs, against plain zarr-python writing the same arrays, with start-up apart.

    uv run python benchmarks/ingest.py
    uv run python benchmarks/ingest.py --sizes 256 --repeats 5

TIFF files are read and written as OME-Zarr by two processes: by raydom on Ray (hashes, statistics, manifest and all),
by a plain loop over tifffile and zarr (same chunks, shards, codec and levels), and by raydom with the Rust codecs of
``zarrs``. Each repetition runs all of them, one after another; the ratio is the median over the repetitions.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tifffile
import zarr
from scipy.ndimage import gaussian_filter

from raydom.cluster.ingest import on_ray
from raydom.cluster.session import ray_session
from raydom.commands import IngestConfig
from raydom.config import ClusterConfig
from raydom.ingestion.file import IngestOutcome, ingest_file
from raydom.ingestion.plan import IngestTask
from raydom.ingestion.run import Map, ingest
from raydom.storage.pyramids import halved
from raydom.storage.zarr_images import SMALLEST_LEVEL_PX

RUN = ClusterConfig(workers=2, quiet=True)
KINDS = {256: (2000, np.uint8), 2048: (40, np.uint16)}
"""Number of files and dtype for each side of an image, px."""


def make_files(folder: Path, side: int, number: int, dtype: type) -> Path:
    """Smooth structures with noise, which compress about as micrographs do."""
    rng = np.random.default_rng(0)
    scene = gaussian_filter(rng.random((side + 64, side + 64)), 3)
    scene = (scene - scene.min()) / np.ptp(scene) * np.iinfo(dtype).max * 0.6
    folder.mkdir()
    for index in range(number):
        top, left = rng.integers(0, 64, 2)
        pixels = scene[top : top + side, left : left + side] + rng.normal(0, scene.max() / 50, (side, side))
        tifffile.imwrite(folder / f"{index:05d}.tif", pixels.clip(0).astype(dtype))
    return folder


def write_plainly(path: str, out: str) -> None:
    """One file with tifffile and zarr alone."""
    pixels = tifffile.imread(path)[None]
    group = zarr.create_group(f"{out}/{Path(path).stem}.zarr", attributes={"ome": {"version": "0.5"}})
    number = 0

    while True:
        side = pixels.shape[-1]
        array = group.create_array(
            str(number),
            shape=pixels.shape,
            dtype=pixels.dtype,
            chunks=(1, min(side, 256), min(side, 256)),
            shards=(1, min(side, 1024), min(side, 1024)),
            compressors=zarr.codecs.ZstdCodec(level=3, checksum=True),
            dimension_names=("c", "y", "x"),
            config={"write_empty_chunks": True},
        )
        array[...] = pixels
        if side <= SMALLEST_LEVEL_PX:
            return
        pixels, number = halved(pixels, "mean"), number + 1


def ingest_fast(task: IngestTask) -> IngestOutcome:
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return ingest_file(task)


def fast(function: Callable[[IngestTask], IngestOutcome], tasks: Sequence[IngestTask]) -> Iterator[IngestOutcome]:
    yield from on_ray(RUN)(ingest_fast, tasks)


@contextmanager
def plain_pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(RUN.workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(time.sleep, [0.5] * 4))  # starts both
        yield pool


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", nargs="+", type=int, choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="raydom-"))

    def run(source: Path, map: Map) -> None:
        config = IngestConfig(source=(str(source),), out=str(folder / "out"), run=RUN)
        assert not ingest(config, map=map).refused

    def run_plainly(source: Path) -> None:
        paths = sorted(str(path) for path in source.iterdir())
        list(pool.map(write_plainly, paths, [str(folder / "out")] * len(paths), chunksize=max(1, len(paths) // 100)))

    ways: dict[str, Callable[[Path], None]] = {"plain zarr": run_plainly, "raydom": lambda s: run(s, on_ray(RUN))}
    if find_spec("zarrs") is not None:
        ways["raydom, zarrs"] = lambda source: run(source, fast)
    try:
        with ray_session(RUN), plain_pool() as pool:
            for side in (16, *options.sizes):  # the first starts the workers
                count, dtype = KINDS.get(side, (64, np.uint8))
                source = make_files(folder / str(side), side, count, dtype)
                rates: dict[str, list[float]] = {way: [] for way in ways}
                for repeat in range(options.repeats if side in KINDS else 1):
                    for way in sorted(ways, reverse=repeat % 2 == 1):
                        began = time.perf_counter()
                        ways[way](source)
                        rates[way].append(count / (time.perf_counter() - began))
                        shutil.rmtree(folder / "out")
                if side not in KINDS:
                    continue
                for way, found in rates.items():
                    ratio = statistics.median(a / b for a, b in zip(found, rates["plain zarr"], strict=True))
                    print(
                        f"{count} x {side} px {np.dtype(dtype)}: {way}: {statistics.median(found):.1f} files/s "
                        f"({min(found):.1f} to {max(found):.1f}), ratio to plain zarr {ratio:.2f}",
                        flush=True,
                    )
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
