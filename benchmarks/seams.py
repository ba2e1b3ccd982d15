"""Does the result depend on the cut? A real image of 2100 px in blocks of 256, 512 and 1024, stylised and segmented.

    RAYDOM_DATA=... RAYDOM_WEIGHTS=... uv run python benchmarks/seams.py --methods meanstd nst strotss analogy

The image is a mosaic of nine real sections of 700 x 700 px, so that its own borders lie on none of the blocks'. For
each method: the seam score of the image in blocks of 512 px, that of naive tiles (each stylised alone), and between
the cuts the mean difference of pixels and the F1 of labels after segmentation by a U-Net trained on the source.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from adaptation import DOMAINS, model_of

import raydom
from raydom.cluster.blocks import run_block_jobs
from raydom.cluster.commands import ingest
from raydom.cluster.session import ray_session
from raydom.commands import IngestConfig
from raydom.config import BlockConfig, RunConfig, StyleConfig
from raydom.images.metrics import confusion, scores
from raydom.images.seams import SeamScore, seam_scores
from raydom.images.tiles import cut_blocks
from raydom.inference.job import BlockJob
from raydom.report.tables import show_table
from raydom.storage.collection import open_collection
from raydom.storage.readers import read_image
from raydom.types import Region

RUN = RunConfig(quiet=True, workers=2, cpus_per_worker=1)
TILE_PX, TILES = 700, 3
BLOCK_SIZES = (256, 512, 1024)
NAIVE_PX = 512


def mosaic(data: Path, out: Path) -> str:
    """A collection of one image, made of sections of the VNC."""
    target = out / "mosaic"
    if not (target / "images.parquet").exists():
        paths = sorted((data / DOMAINS["vnc"].images).glob("*.tif"))[: TILES**2]
        tiles = [read_image(str(path)).pixels[0, :TILE_PX, :TILE_PX] for path in paths]
        whole = np.block([tiles[row * TILES : (row + 1) * TILES] for row in range(TILES)])
        (out / "mosaic.tif").parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(out / "mosaic.tif", whole)
        size = DOMAINS["vnc"].pixel_size_um
        assert ingest(IngestConfig(source=(str(out / "mosaic.tif"),), out=str(target), pixel_size_um=size)) == 0
    return str(target)


def run(job: BlockJob) -> np.ndarray:
    """The only image that a job makes, or its labels."""
    shutil.rmtree(job.out, ignore_errors=True)
    assert run_block_jobs([job], RUN)[0].ok
    image = next(iter(open_collection(job.out)))
    return image.labels(image.record.labels[0]).numpy() if job.model else image.numpy()


def seam_of(output: np.ndarray, content: np.ndarray, block_size: int) -> float:
    """The seam score of a whole image."""
    deviations = [pixels.std(axis=(1, 2)).tolist() for pixels in (output, content)]

    def reading(pixels: np.ndarray) -> Callable[[Region], np.ndarray]:
        return lambda region: pixels[(slice(None), *region.slices)].astype(np.float32)

    scores = seam_scores(reading(output), reading(content), content.shape[1:], block_size, *deviations)
    return sum((score for _, score in scores), SeamScore()).value


def rows_of(method: str, config: StyleConfig, collection: str, model: str, out: Path, naive_px: int) -> dict[str, Any]:
    """What a method does to the mosaic in each cut."""
    content = next(iter(open_collection(collection))).numpy()
    pixels, labels, seconds = {}, {}, {}
    for size in BLOCK_SIZES:
        folder = out / "seams" / f"{method}-{size}"
        blocks = BlockConfig(block_size=size)
        began = time.perf_counter()
        styled = BlockJob(name=method, collection=collection, out=f"{folder}", style=config, blocks=blocks)
        pixels[size] = run(styled)
        seconds[size] = time.perf_counter() - began
        labels[size] = run(
            BlockJob(name=method, collection=f"{folder}", out=f"{folder}-labels", model=model, blocks=blocks)
        )
    options = {"features": config.features, "weights": config.weights}
    style = read_image(str(config.style)).pixels
    part = np.ascontiguousarray(content[:, :naive_px, :naive_px])
    naive = np.empty_like(part)
    for block in cut_blocks("", part.shape[1:], NAIVE_PX):
        where = (slice(None), *block.write.slices)
        naive[where] = raydom.stylize(np.ascontiguousarray(part[where]), style, method, channel_axis=0, **options)
    pairs = list(itertools.combinations(BLOCK_SIZES, 2))
    between = [np.abs(pixels[a].astype(int) - pixels[b]).mean() for a, b in pairs]
    f1 = [scores(confusion(labels[a], labels[b]))["f1"] for a, b in pairs]
    return {
        "method": method,
        "seam": max(seam_of(pixels[size], content, size) for size in BLOCK_SIZES),
        "overview px": config.overview_px,
        "seam of naive tiles": seam_of(naive, part, NAIVE_PX),
        "mean difference / 255": max(between),
        "F1 between cuts": min(f1),
        "foreground": float((labels[512] > 0).mean()),
        "seconds (512)": seconds[512],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--methods", nargs="+", default=["meanstd", "nst", "strotss", "analogy"])
    parser.add_argument("--features", default="squeezenet1_1")
    parser.add_argument("--overview-px", type=int, default=StyleConfig().overview_px)
    parser.add_argument("--naive-px", type=int, default=TILE_PX * TILES, help="side of what is tiled naively, px")
    options = parser.parse_args()
    data = Path(os.environ["RAYDOM_DATA"])
    weights = str(next(Path(os.environ["RAYDOM_WEIGHTS"]).glob("squeezenet1_1*.safetensors")))
    path = options.out / "seams.parquet"
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    with ray_session(RUN):
        model = model_of("isbi", 0, 600, True, data, options.out)
        collection = mosaic(data, options.out)
        for method in options.methods:
            if any(row["method"] == method and row["features"] == options.features for row in rows):
                continue
            config = StyleConfig(
                method=method,
                style=str(data / DOMAINS["isbi"].styles[0]),
                features=options.features,
                weights=weights if options.features == "squeezenet1_1" else None,
                overview_px=options.overview_px,
            )
            row = rows_of(method, config, collection, model, options.out, options.naive_px)
            rows.append({"features": options.features} | row)
            pq.write_table(pa.Table.from_pylist(rows), path)
    show_table(pa.Table.from_pylist(rows), digits=4)
    return 0


if __name__ == "__main__":
    sys.exit(main())
