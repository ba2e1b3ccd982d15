"""Neurons over blocks: a mosaic of 4096 px end to end, for several block sizes, against one cell; and volumes.

    RAYDOM_DATA=... uv run python benchmarks/neuron_blocks.py mosaic --out benchmarks/results/neurons
    RAYDOM_DATA=... uv run python benchmarks/neuron_blocks.py volume --out benchmarks/results/neurons

mosaic: a forest is trained on ten ISBI sections (Frangi filter, no network), and segments a mosaic of others, mirrored
so that tissue goes on. Told are seconds of each stage, the memory of the largest worker, whether labels are those of
the other block sizes, and the scores of partitions against the truth and against the mosaic as a single cell.

volume: the FIB-SEM volume of gala is cut in half along x; a forest is trained on one half with the probability of
membranes that came with it, and segments the other, and the other way round. Its own watershed, superpixels, and what
is made of them are scored on the same pixels; truth 0 is left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import tifffile
from PIL import Image as Picture
from scipy import ndimage

from raydom.cli import main as raydom
from raydom.images.overlaps import count_overlaps
from raydom.images.partition_metrics import partition_scores, partition_sums
from raydom.report.tables import show_table
from raydom.storage.collection import open_collection
from raydom.storage.receipts import RunFolder

SCORES = ("rand_error", "vi_split", "vi_merge")


def command(*words: str) -> None:
    """Run a raydom command; it must succeed."""
    code = raydom([str(word) for word in words])
    assert code == 0, words


class Memory:
    """The largest resident memory of a worker of Ray, while it is watched."""

    def __enter__(self) -> Memory:
        self.peak_gib, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    if (process / "cmdline").read_bytes().startswith(b"ray::"):
                        pages = int((process / "statm").read_text().split()[1])
                        self.peak_gib = max(self.peak_gib, pages * os.sysconf("SC_PAGE_SIZE") / 2**30)
                except OSError:  # it has ended
                    continue


def scored(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Partition scores; truth 0 is left out."""
    scores = partition_scores(partition_sums(count_overlaps(found, truth)))
    return {name: scores[name] for name in SCORES}


def section(data: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    """An ISBI section and its neurons."""
    folder = data / "isbi2012_em"
    image, label = (np.asarray(Picture.open(folder / kind / f"{number:02d}.png")) for kind in ("images", "labels"))
    return image, ndimage.label(label > 127)[0].astype(np.uint16)


def mosaic_of(sections: list[np.ndarray], side_px: int) -> np.ndarray:
    """Sections in rows, each mirrored to twice its side."""
    tiles = [np.pad(one, [(0, n) for n in one.shape], mode="symmetric") for one in sections]
    number = -(-side_px // tiles[0].shape[0])
    rows = [np.hstack([tiles[(row * number + n) % len(tiles)] for n in range(number)]) for row in range(number)]
    return np.vstack(rows)[:side_px, :side_px]


def trained(options: argparse.Namespace, data: Path, cell_px: int) -> Path:
    """A forest of ten sections."""
    train, run = options.out / "isbi", options.out / f"forest-{cell_px}"
    if not (train / "images.parquet").exists():
        for number in range(10):
            image, neurons = section(data, number)
            for kind, pixels in (("images", image), ("labels", neurons)):
                (options.out / "isbi-files" / kind).mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(options.out / "isbi-files" / kind / f"{number:02d}.tif", pixels)
        files = options.out / "isbi-files"
        command("ingest", files / "images", "--labels", files / "labels", "--out", train, "--quiet")
    command(
        "neurons", "train", "--collection", train, "--zero", "boundary", "--out", run, "--quiet",
        "--superpixels.cell-px", cell_px,
    )  # fmt: skip
    return run


def mosaic(options: argparse.Namespace, data: Path) -> None:
    """End to end, a row a block size."""
    side = options.side_px
    image, membrane = (
        mosaic_of([one[kind] for one in (section(data, number) for number in range(10, 20))], side) for kind in (0, 1)
    )
    truth = ndimage.label(membrane > 0)[0].astype(np.uint32)
    files, collection = options.out / f"mosaic-{side}.tif", options.out / f"mosaic-{side}"
    tifffile.imwrite(files, image)
    command("ingest", files, "--out", collection, "--quiet")
    forest, rows, labels = trained(options, data, options.cell_px), [], {}
    cells = [(f"blocks of {size}", forest, size) for size in options.blocks]
    cells.append(("one cell", trained(options, data, side), side))
    for name, run, size in cells:
        out = options.out / f"neurons-{side}-{run.name}-{size}"
        began = time.perf_counter()
        with Memory() as memory:
            command(
                "neurons", "segment", "--collection", collection, "--forest", run, "--out", out, "--quiet",
                "--block-size", size, "--workers", options.workers,
            )  # fmt: skip
        seconds = time.perf_counter() - began
        (found,) = open_collection(str(out))
        labels[name] = found.labels("neurons").numpy()
        stages: dict[str, float] = {}
        for receipt in RunFolder.of(str(out)).read_receipts().values():
            stages[receipt.kind] = stages.get(receipt.kind, 0) + receipt.seconds
        parts = found.labels("superpixels").numpy()
        rows.append(
            {"cut": name, "seconds": seconds, "worker_gib": memory.peak_gib, "superpixels": int(parts.max())}
            | {"neurons": int(labels[name].max()), "as_first": bool(np.array_equal(labels[name], labels[cells[0][0]]))}
            | {f"{kind}_s": stages.get(kind, 0.0) for kind in ("block", "pair", "number", "graph", "solve", "label")}
            | scored(truth, labels[name])
            | {f"parts_{score}": value for score, value in scored(truth, parts).items()}
        )
        show_table(pa.Table.from_pylist(rows), digits=4)
    whole = labels["one cell"]
    for name, found in labels.items():
        print(f"{name} against one cell: {scored(whole.astype(np.uint32), found)}")


def volume(options: argparse.Namespace, data: Path) -> None:
    """Half against half."""
    folder, halves = data / "fibsem_gala", ("left", "right")
    stored = {}
    for name in ("image", "p1.lzf", "ws.lzf", "gt.lzf"):
        with h5py.File(folder / f"train-{name}.h5") as file:
            stored[name.removesuffix(".lzf")] = np.asarray(file["stack"])
    middle = stored["gt"].shape[-1] // 2
    parts = {
        half: {
            name: one[..., slice(0, middle) if half == "left" else slice(middle, None)] for name, one in stored.items()
        }
        for half in halves
    }
    for half, arrays in parts.items():
        for kind, name, dtype in (
            ("images", "image", np.uint8),
            ("labels", "gt", np.uint32),
            ("boundary", "p1", np.float32),
        ):
            target = options.out / f"gala-{half}" / kind
            target.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(target / "gala.tif", arrays[name].astype(dtype), metadata={"axes": "ZYX"})
        files, out = options.out / f"gala-{half}", options.out / f"gala-{half}"
        command("ingest", files / "images", "--labels", files / "labels", "--volumes", "--out", out / "c", "--quiet")
        command("ingest", files / "boundary", "--volumes", "--out", out / "p", "--quiet")
    rows = []
    for half, other in (halves, halves[::-1]):
        run = options.out / f"gala-forest-{half}"
        source, target = options.out / f"gala-{half}", options.out / f"gala-{other}"
        command(
            "neurons", "train", "--collection", source / "c", "--boundary", source / "p", "--zero", "boundary",
            "--out", run, "--quiet",
        )  # fmt: skip
        out = options.out / f"gala-neurons-{other}"
        command(
            "neurons", "segment", "--collection", target / "c", "--boundary", target / "p", "--forest", run,
            "--out", out, "--quiet", "--serial",
        )  # fmt: skip
        (found,) = open_collection(str(out))
        truth = parts[other]["gt"].astype(np.uint32)
        made = {name: found.labels(name).numpy() for name in ("superpixels", "neurons")}
        for name, labels in ({"watershed of gala": parts[other]["ws"].astype(np.uint32)} | made).items():
            rows.append({"trained_on": half, "scored_on": other, "labels": name} | scored(truth, labels))
    show_table(pa.Table.from_pylist(rows), digits=4)


def main() -> int:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("mosaic", "volume"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/neurons"))
    parser.add_argument("--side-px", type=int, default=4096)
    parser.add_argument("--cell-px", type=int, default=512)
    parser.add_argument("--blocks", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    {"mosaic": mosaic, "volume": volume}[options.what](options, Path(os.environ["RAYDOM_DATA"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
