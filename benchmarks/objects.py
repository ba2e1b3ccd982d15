"""Objects over blocks: do they depend on the cut, and what does putting them together cost?

    RAYDOM_DATA=... uv run python benchmarks/objects.py cuts --picture benchmarks/results/objects.png
    uv run python benchmarks/objects.py many --blocks 2500 10000

cuts: a mosaic of real nuclei (DSB 2018, fluorescence, none of those that the model was trained on) in blocks of
several sizes and as a whole: AP at 0.5 between them, objects that end at a border of blocks which the whole image has
across it, what the merge table says, and AP against the truth. With --network maskrcnn, whose whole image neither fits
nor counts, block sizes against each other. Then against a grid that is shifted by half a block: the mosaic without its
first rows and columns, compared where both have CONTEXT_PX around them. With --picture, the outlines of the objects
over the middle of the mosaic and the borders of the blocks, a panel a block size. Not all of these images may be
redistributed, so the picture stays where it is made.
many: discs on a grid, about 100 to a block of 128 px, found by a threshold: seconds and memory of the stages, for
several numbers of blocks.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from adaptation import DOMAINS, TRAIN, TRAIN_RUN, collection_of
from overfit import FEW
from skimage.io import imsave

from raydom.cluster.commands import ingest
from raydom.cluster.train import train_supervised
from raydom.commands import IngestConfig, SupervisedConfig
from raydom.config import BlockConfig, InstanceConfig, MaskRCNNConfig, RunConfig, TrainConfig
from raydom.images.instance_metrics import object_counts, object_scores
from raydom.images.overlaps import count_overlaps
from raydom.inference.job import BlockJob
from raydom.inference.runner import execute_serially, run_jobs
from raydom.report.pictures import displayed, outlined
from raydom.report.tables import show_table
from raydom.storage.collection import open_collection
from raydom.storage.model_run import open_model_run, write_model_run
from raydom.storage.readers import read_image

RUN = RunConfig(quiet=True, serial=True, memory_gib=20)
PIXEL_SIZE_UM = DOMAINS["fluorescence"].pixel_size_um
MANY_PX = 128
"""Side of the blocks of many objects, px."""
CONTEXT_PX = 128
"""Near the sides of an image a network answers otherwise than within: so far from them grids are compared, px."""
PICTURED_PX, MAGNIFIED = 448, 2
BORDER_COLOUR = (255, 255, 255)


def model_of(network: str, steps: int, data: Path, out: Path) -> str:
    run = str(out / "models" / f"nuclei-{network}-{steps}")
    train_supervised(
        SupervisedConfig(
            collection=collection_of("fluorescence", "train", data, out),
            out=run,
            network=network,
            output="objects" if network == "maskrcnn" else "distance",
            encoder="resnet18" if network == "maskrcnn" else "resnet34",
            base_channels=16,
            maskrcnn=FEW if network == "maskrcnn" else MaskRCNNConfig(),
            train=TrainConfig(
                steps=steps,
                precision="bfloat16" if network == "maskrcnn" else "float32",
                **TRAIN | ({"learning_rate": 3e-4, "batch_size": 4} if network == "maskrcnn" else {}),
            ),
            run=TRAIN_RUN,
        )
    )
    return run


def with_room(model: str, out: Path) -> str:
    """The model; if it is a Mask R-CNN, with higher limits of proposals and objects than it was trained with: it saw
    crops, and is asked about cells and what is around them."""
    run = open_model_run(model)
    network = run.spec.network
    if network.name != "maskrcnn":
        return model
    network = replace(network, maskrcnn=replace(network.maskrcnn, proposals=4000, detections=1000))
    folder = str(out / "models" / f"{Path(model).name}-with-room")
    write_model_run(folder, replace(run.spec, network=network), run.weights(), {})
    return folder


def mosaic(data: Path, side_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Parts of real images of nuclei side by side: pixels (h, w, 3), and the numbers of the nuclei (h, w)."""
    domain, tile = DOMAINS["fluorescence"], 230  # whose borders lie on none of the blocks'
    used = {f"{stem}.png" for stem in domain.train}
    paths = [path for path in sorted((data / domain.images).glob("fluorescence_*")) if path.name not in used]
    images = [np.moveaxis(read_image(str(path)).pixels, 0, -1) for path in paths]
    labels = [read_image(str(next((data / domain.labels).glob(f"{path.stem}.*")))).pixels[0] for path in paths]
    pairs = [(image[:tile, :tile], of[:tile, :tile]) for image, of in zip(images, labels, strict=True)]
    pairs = [pair for pair in pairs if pair[1].shape == (tile, tile)]
    out, truth = np.zeros((side_px, side_px, 3), np.uint8), np.zeros((side_px, side_px), np.int32)
    corners = itertools.product(range(0, side_px, tile), range(0, side_px, tile))
    for number, (top, left) in enumerate(corners):
        here, turns = np.s_[top : top + tile, left : left + tile], number // len(pairs)
        height, width = truth[here].shape
        pixels, nuclei = (np.rot90(one, turns)[:height, :width] for one in pairs[number % len(pairs)])
        out[here] = pixels
        truth[here] = np.where(nuclei > 0, nuclei.astype(np.int32) + truth.max(), 0)
    return out, truth


def discs(side: int) -> np.ndarray:
    """One every 12.8 px, 10 px wide."""
    y, x = np.ogrid[:side, :side]
    return (((y % 12.8) - 6.4) ** 2 + ((x % 12.8) - 6.4) ** 2 < 5**2) * np.uint8(200)


def collection(make: Callable[[], np.ndarray], name: str, out: Path) -> str:
    target = out / "objects" / name
    if not (target / "images.parquet").exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(f"{target}.tif", make())
        assert ingest(IngestConfig(source=(f"{target}.tif",), out=str(target), pixel_size_um=PIXEL_SIZE_UM)) == 0
    return str(target)


def segmented(source: str, model: str, size: int, out: Path, run: RunConfig) -> tuple[np.ndarray, Path, float]:
    """Labels, the output folder and seconds."""
    folder = out / "objects" / f"{Path(source).name}-{Path(model).name}-{size}"
    shutil.rmtree(folder, ignore_errors=True)
    job = BlockJob(name="objects", collection=source, out=str(folder), model=model, blocks=BlockConfig(block_size=size))
    began = time.perf_counter()
    (report,) = run_jobs([job], run, execute_serially)
    assert report.ok, report.failed
    return next(iter(open_collection(str(folder)))).labels("label").numpy(), folder, time.perf_counter() - began


def agreement(labels: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    found = object_scores(object_counts(count_overlaps(labels, truth)))
    return {name: found[name] for name in ("ap_50", "dsb2018", "pq")}


def cut_at_borders(labels: np.ndarray, whole: np.ndarray, size: int) -> int:
    """Objects of the whole image that lie across a border of blocks and have two numbers there."""
    cut = set()
    for axis in (0, 1):
        a, b = (np.moveaxis(x, axis, 0) for x in (labels, whole))
        for at in range(size, a.shape[0], size):
            same = (b[at - 1] == b[at]) & (b[at] > 0)
            differs = same & (a[at - 1] != a[at])
            cut |= set(b[at][differs].tolist())
    return len(cut)


def draw(pixels: np.ndarray, labels_of: dict[int, np.ndarray], path: Path) -> None:
    """Outlines of objects over the middle of an image (h, w, 3), on the borders of the blocks.

    Args:
        pixels: The image.
        labels_of: By block size, px, the objects that were found: a panel each, from left to right.
        path: Of the PNG.
    """
    largest = max(labels_of)
    start = [max(0, size // 2 // largest * largest - PICTURED_PX // 2) for size in pixels.shape[:2]]
    shown = tuple(slice(at, at + PICTURED_PX) for at in start)
    panels = []
    for size, labels in labels_of.items():
        image, seen = (
            np.repeat(np.repeat(part, MAGNIFIED, 0), MAGNIFIED, 1)
            for part in (displayed(np.moveaxis(pixels[shown], -1, 0), (0, np.percentile(pixels, 99))), labels[shown])
        )
        for axis in (0, 1):
            borders = np.arange(-start[axis] % size, PICTURED_PX, size)
            np.moveaxis(image, axis, 0)[borders * MAGNIFIED] = BORDER_COLOUR
        panels += [outlined(image, seen), np.full((len(image), 8, 3), 128, np.uint8)]
    imsave(path, np.hstack(panels[:-1]), check_contrast=False)


def cuts(options: argparse.Namespace) -> list[dict[str, Any]]:
    data, out = Path(os.environ["RAYDOM_DATA"]), options.out
    model = with_room(options.model or model_of(options.network, options.steps, data, out), out)
    pixels, nuclei = mosaic(data, options.side)
    source = collection(lambda: pixels, f"mosaic-{options.side}", out)
    rows: list[dict[str, Any]] = []
    sizes = [*options.sizes, *([] if options.network == "maskrcnn" else [-(-options.side // 16) * 16])]
    run = replace(RUN, cpus_per_worker=options.threads)
    made = {size: segmented(source, model, size, out, run) for size in sizes}
    truth = made[sizes[-1]][0]
    for size in sizes:
        labels, folder, seconds = made[size]
        row = {"network": options.network, "blocks": size, "objects": int(labels.max()), "against": sizes[-1]}
        row |= agreement(labels, truth) | {"cut at borders": cut_at_borders(labels, truth, size)}
        row |= {f"truth {name}": value for name, value in agreement(labels, nuclei).items()}
        merges = folder / "merges"
        pairs = pq.read_table(merges).to_pandas() if merges.exists() else None
        if pairs is not None:
            row |= {"pairs merged": int(pairs.merged.sum())}
            row |= {"pairs left": int((~pairs.merged & (pairs.label_a != pairs.label_b)).sum())}
        rows.append(row | {"seconds": seconds})
    if options.picture:
        draw(pixels, {size: made[size][0] for size in options.sizes}, options.picture)
    shift = options.sizes[0] // 2
    moved = collection(lambda: pixels[shift:, shift:], f"mosaic-{options.side}-{shift}", out)
    labels, _, seconds = segmented(moved, model, options.sizes[0], out, run)
    inside = made[options.sizes[0]][0][shift + CONTEXT_PX :, shift + CONTEXT_PX :]
    labels = labels[CONTEXT_PX:, CONTEXT_PX:]
    rows.append(
        {
            "network": options.network,
            "blocks": options.sizes[0],
            "objects": len(np.unique(labels[labels > 0])),
            "against": "grid shifted",
        }
        | agreement(labels, inside)
        | {"seconds": seconds}
    )
    return [{name: str(value) if name == "against" else value for name, value in row.items()} for row in rows]


def many(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for number in options.blocks:
        side = MANY_PX * round(number**0.5)
        source = collection(lambda side=side: discs(side), f"discs-{side}", options.out)
        folder = options.out / "objects" / f"many-{side}"
        shutil.rmtree(folder, ignore_errors=True)
        job = BlockJob(
            name="many",
            collection=source,
            out=str(folder),
            model="threshold:100",
            instances=InstanceConfig(components=True, halo_px=16),
            blocks=BlockConfig(block_size=MANY_PX),
        )
        stages: dict[str, float] = {}
        peaks: dict[str, float] = {}

        def timed(tasks: list[Any], *rest: Any, stages: dict = stages, peaks: dict = peaks) -> None:
            began = time.perf_counter()
            execute_serially(tasks, *rest)
            kind = tasks[0].kind
            stages[kind] = stages.get(kind, 0.0) + time.perf_counter() - began
            peaks[kind] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

        (report,) = run_jobs([job], replace(RUN, cpus_per_worker=options.threads), timed)
        assert report.ok, report.failed
        rows.append(
            {"blocks": number, "objects": pq.ParquetFile(next((folder / "objects").iterdir())).metadata.num_rows}
            | {f"{kind} s": seconds for kind, seconds in stages.items()}
            | {f"{kind} GiB": peak for kind, peak in peaks.items() if kind in ("number", "label", "finish")}
        )
        show_table(pa.Table.from_pylist(rows))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("cuts", "many"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--network", default="unet", choices=("unet", "maskrcnn"))
    parser.add_argument("--model", help="a finished run of the network, such as one of segmentation.py's")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=int, default=4200, help="of the mosaic, px")
    parser.add_argument("--picture", type=Path, help="PNG to write")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--blocks", type=int, nargs="+", default=[2500, 10000])
    options = parser.parse_args()
    rows = cuts(options) if options.what == "cuts" else many(options)
    show_table(pa.Table.from_pylist(rows), digits=4)
    return 0


if __name__ == "__main__":
    sys.exit(main())
