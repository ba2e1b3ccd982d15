"""What thousands of small images cost: time, objects and bytes for each, in OME-Zarr and packed.

    uv run python benchmarks/small_images.py --images 10000 --labels

Makes images of 256 x 256 px of smooth noise, ingests, packs and segments them (from OME-Zarr and packed) by the public
commands, each in a process of its own. The network is so small that what is measured is everything else.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from models import write_untrained
from PIL import Image

from raydom.config import NetworkConfig
from raydom.networks.build import build_network
from raydom.storage.collection import open_collection
from raydom.storage.receipts import RunFolder

SIDE_PX = 256


def make_files(folder: Path, count: int, suffix: str, labels: bool) -> None:
    """Gray images of blurred blobs with camera noise; a label is 1 where they are bright."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number in range(count):
        coarse = np.kron(rng.random((SIDE_PX // 16, SIDE_PX // 16)), np.ones((16, 16)))
        smooth = np.mean([np.roll(coarse, shift, axis) for shift in (0, 4, 8, 12) for axis in (0, 1)], axis=0)
        pixels = (smooth * 200 + rng.normal(20, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
        for kind, array in [("images", pixels)] + [("masks", (smooth > 0.5).astype(np.uint8) * 255)] * labels:
            path = folder / kind / f"image{number:06d}.{suffix}"
            if suffix == "png":
                Image.fromarray(array).save(path, compress_level=1)
            else:
                tifffile.imwrite(path, array)


def make_model(folder: Path, channels: int) -> None:
    unet = NetworkConfig(in_channels=1, base_channels=channels, depth=2)
    network = build_network(unet)
    write_untrained(folder, network, unet)


def run(*words: object) -> float:
    """Run a command; returns the seconds that it took, the start of Python and Ray included."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    began = time.perf_counter()
    command = [sys.executable, "-m", "raydom.cli", *(str(word) for word in words)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def stored(folder: Path, count: int) -> str:
    """Objects and bytes an image, without the run folder."""
    sizes = [
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != "run"
    ]
    return f"{len(sizes) / count:.4g} objects, {sum(sizes) / count / 1024:.1f} KiB an image"


def steady_rate(finished_at: Sequence[float]) -> float:
    """Images per second from the end of the first ones, when all workers are at work, to that of the last."""
    ends = np.sort(finished_at)
    skipped = min(128, len(ends) // 10)
    return float((len(ends) - 1 - skipped) / (ends[-1] - ends[skipped]))


class Batches:
    """Counts the batches of a run while it lasts, by the parts in which its receipts arrive; a worker writes one a
    batch."""

    def __init__(self, out: Path) -> None:
        self._folder, self.seen, self._over = out / "run" / "receipts", set[str](), threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Batches:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.seen |= {path.name for path in self._folder.glob("part-*.parquet")}


def segment(collection: Path, model: Path, out: Path, count: int, workers: int) -> None:
    with Batches(out) as batches:
        seconds = run("segment", "--collection", collection, "--model", model, "--out", out, "--workers", workers)
    rate = steady_rate([receipt.finished_at for receipt in RunFolder.of(str(out)).read_receipts().values()])
    assert len(open_collection(str(out))) == count
    print(
        f"segment {collection.name}: {count / seconds:.1f} images/s with start-up, {rate:.1f} without; "
        f"{count / max(1, len(batches.seen)):.1f} images a Ray block; output {stored(out, count)}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--suffix", choices=["png", "tif"], default="png")
    parser.add_argument("--labels", action="store_true", help="with a mask for each image")
    parser.add_argument("--channels", type=int, default=4, help="of the network's first level")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    count, folder = options.images, Path(tempfile.mkdtemp(prefix="raydom-"))
    try:
        make_files(folder, count, options.suffix, options.labels)
        make_model(folder / "model", options.channels)
        print(f"{count} files: {stored(folder / 'images', count)}", flush=True)
        labels = ["--labels", folder / "masks"] if options.labels else []
        common = ["--workers", options.workers, "--quiet"]
        ingest = ["ingest", folder / "images", *labels, "--out", folder / "collection", *common]
        seconds = run(*ingest)
        ends = [path.stat().st_mtime for path in (folder / "collection" / "images").glob("*/zarr.json")]
        print(
            f"ingest: {count / seconds:.1f} images/s with start-up, {steady_rate(ends):.1f} without; "
            f"{stored(folder / 'collection', count)}",
            flush=True,
        )
        print(f"ingest again, nothing new: {run(*ingest):.1f} s with start-up", flush=True)
        seconds = run("pack", folder / "collection", "--out", folder / "packed", "--quiet")
        print(f"pack: {count / seconds:.1f} images/s; {stored(folder / 'packed', count)}", flush=True)
        for name in ("collection", "packed"):
            segment(folder / name, folder / "model", folder / f"{name}-labels", count, options.workers)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
