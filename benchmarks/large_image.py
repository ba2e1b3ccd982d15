"""One large image: ingested with its pyramid, segmented by a threshold, and the memory that each process took.

``python benchmarks/large_image.py [--side 30000] [--compression zlib]``. Works in ``benchmarks/results/large``, which
takes about 7 GB at 30,000 px and is removed at the end. Linux only: memory is read from ``/proc``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from raydom.images.intensity import stream_statistics
from raydom.storage.collection import open_collection
from raydom.types import Region

FOLDER = Path(__file__).parent / "results" / "large"
TILE_PX = 512
LEVEL = 30_000
LIMIT_GIB = 1.5


def pixels_of(region: Region) -> np.ndarray:
    """Cells (discs of 40 px on a grid of 100) on a slope, with the grain of a camera; a function of the position."""
    rows, columns = (
        np.arange(a, b, dtype=np.uint32)[shape]
        for a, b, shape in zip(region.start, region.stop, ((slice(None), None), (None, slice(None))), strict=True)
    )
    near = ((rows % 100).astype(np.int32) - 50) ** 2 + ((columns % 100).astype(np.int32) - 50) ** 2 < 1600
    grain = (rows * np.uint32(2654435761) ^ columns * np.uint32(2246822519)) >> np.uint32(22)
    return (5000 + near * 28_000 + (rows + columns) // 16 + grain).astype(np.uint16)


def tiles(side: int) -> Iterator[np.ndarray]:
    for top in range(0, side, TILE_PX):
        for left in range(0, side, TILE_PX):
            stop = min(top + TILE_PX, side), min(left + TILE_PX, side)
            tile = pixels_of(Region((top, left), stop))
            yield np.pad(tile, [(0, TILE_PX - size) for size in tile.shape])


def private_gib(pid: int) -> float:
    """Memory that the process shares with no other (USS)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty"))) / 2**20


def descendants(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def watched(command: list[str]) -> tuple[float, dict[str, float]]:
    """Seconds that a command took, and the most private memory of any of its processes by name, GiB."""
    most: dict[str, float] = defaultdict(float)
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "raydom.cli", *command])
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.25):
            for pid in descendants(process.pid):
                try:
                    name = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0].split()[0].rsplit("/", 1)[-1]
                    most[name] = max(most[name], private_gib(pid))
                except (OSError, IndexError):  # it has just ended
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        raise SystemExit(f"raydom {' '.join(command)} ended with {code}.")
    return time.perf_counter() - began, most


def check(side: int) -> None:
    """Statistics, the coarser levels and the labels against what is known of the pixels."""
    image = open_collection(str(FOLDER / "collection"))["image"]
    output = open_collection(str(FOLDER / "labels"))["image"]

    def bands() -> Iterator[np.ndarray]:
        return (pixels_of(Region((top, 0), (min(top + 500, side), side)))[None] for top in range(0, side, 500))

    assert image.statistics == stream_statistics(bands), "the statistics differ"
    level = next(n for n in range(image.num_levels) if max(image.level_shape(n)) <= 2048)
    factor, generator = 1 << level, np.random.default_rng(0)
    for _ in range(20):
        top, left = (int(n) for n in generator.integers(0, side - 700, 2))
        part = Region((top, left), (top + 700, left + 700))
        assert (image.numpy(part)[0] == pixels_of(part)).all()
        assert (output.labels().numpy(part) == (pixels_of(part) >= LEVEL)).all()
        y, x = top // factor, left // factor
        mean = pixels_of(Region((y * factor, x * factor), ((y + 1) * factor, (x + 1) * factor))).mean()
        assert abs(float(image.numpy(Region((y, x), (y + 1, x + 1)), level).item()) - mean) <= level / 2 + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=30_000)
    parser.add_argument("--compression", default="zlib", help="of the TIFF; none for a file in one piece")
    arguments = parser.parse_args()
    side = arguments.side
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    source = FOLDER / "image.tif"
    shape = (side, side)
    if arguments.compression == "none":
        mapped = tifffile.memmap(source, shape=shape, dtype=np.uint16)
        for top in range(0, side, 500):
            mapped[top : top + 500] = pixels_of(Region((top, 0), (min(top + 500, side), side)))
        mapped.flush()
    else:
        tifffile.imwrite(
            source,
            tiles(side),
            shape=shape,
            dtype=np.uint16,
            tile=(TILE_PX, TILE_PX),
            compression=arguments.compression,
        )
    print(f"{side} x {side} uint16, {source.stat().st_size / 2**30:.2f} GiB as TIFF ({arguments.compression})")
    collection, labels = str(FOLDER / "collection"), str(FOLDER / "labels")
    steps = {
        "ingest": ["ingest", str(source), "--out", collection, "--quiet"],
        "segment": [
            *("segment", "--collection", collection, "--model", f"threshold:{LEVEL}"),
            *("--out", labels, "--workers", "2", "--quiet"),
        ],
    }
    try:
        for name, command in steps.items():
            seconds, most = watched(command)
            rate = side * side / seconds / 1e6
            print(f"{name}: {seconds:.0f} s ({rate:.0f} Mpx/s, start included); most private memory of a process, GiB:")
            for process, gib in sorted(most.items(), key=lambda entry: -entry[1]):
                print(f"  {process:24s} {gib:.2f}{'' if gib < LIMIT_GIB else '  ABOVE THE GOAL'}")
        check(side)
        print("pixels, statistics, a coarser level and labels are right")
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)


if __name__ == "__main__":
    main()
