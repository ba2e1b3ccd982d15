"""What a generator makes of a large image in parts: whose statistics normalise it, and whether the cut is seen.

    RAYDOM_DATA=... uv run python benchmarks/generators.py --steps 400

A small CycleGAN learns ISBI 2012 <-> VNC sections, and makes a mosaic of nine VNC sections (2100 px, see seams.py)
look like ISBI. The truth is the whole mosaic in one piece. Against it: blocks of 256, 512 and 1024 px as `raydom
stylize` makes them (statistics of windows at full size), statistics of a thumbnail of 1024 px (Chen et al. 2022), and
naive tiles of 512 px, each by its own statistics. Labels are those of a U-Net trained on ISBI.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from adaptation import TRAIN_RUN, collection_of, model_of
from seams import BLOCK_SIZES, NAIVE_PX, RUN, mosaic, run, seam_of

import raydom
from raydom.algorithms.style_interface import StyleInput
from raydom.algorithms.trained import load_trained
from raydom.algorithms.translation import Translation, made_style
from raydom.cluster.session import ray_session
from raydom.cluster.train import run_training
from raydom.commands import CycleGanConfig
from raydom.config import BlockConfig, StyleConfig, TrainConfig
from raydom.images.intensity import from_fraction, image_statistics, to_fraction
from raydom.images.metrics import confusion, scores
from raydom.images.resample import resample
from raydom.images.tiles import cut_blocks
from raydom.inference.job import BlockJob
from raydom.report.tables import show_table
from raydom.storage.collection import open_collection
from raydom.training.translation import plan_translation
from raydom.types import Region

THUMBNAIL_PX = 1024


def generators(steps: int, crop_px: int, data: Path, out: Path) -> str:
    """A run of CycleGAN, small enough for two CPU cores."""
    train = TrainConfig(
        steps=steps,
        crop_px=crop_px,
        batch_size=1,
        learning_rate=2e-4,
        schedule="linear",
        clip_norm=0.0,
        weight_decay=0.0,
        validate_every=100,
        augment=("flip", "rotate"),
    )
    folder = str(out / "models" / f"cyclegan-isbi-vnc-{steps}-{crop_px}")
    config = CycleGanConfig(
        source=collection_of("isbi", "train", data, out),
        target=collection_of("vnc", "train", data, out),
        out=folder,
        base_channels=16,
        blocks=3,
        train=train,
        run=TRAIN_RUN,
    )
    run_training(plan_translation(config))
    return folder


def in_one(content: np.ndarray, style: StyleConfig, thumbnail_px: int | None = None) -> np.ndarray:
    """The whole image in one piece, by its own statistics or by those of a thumbnail."""
    translation, shape = Translation(made_style(style), style), content.shape[1:]
    statistics = image_statistics(content)
    fractions = to_fraction(content, statistics)
    whole = StyleInput(torch.from_numpy(fractions)[None], statistics)
    small = whole
    if thumbnail_px is not None:
        size = (thumbnail_px, thumbnail_px)
        small = replace(
            whole,
            pixels=torch.from_numpy(resample(fractions, Region.whole(shape), Region.whole(size), shape, size))[None],
        )
    made = translation.adapt(whole, translation.learn(small))[0].numpy()
    return from_fraction(made, content.dtype, statistics)


def naive(content: np.ndarray, run_folder: str) -> np.ndarray:
    """Tiles by their own statistics."""
    made = np.empty_like(content)
    for block in cut_blocks("", content.shape[1:], NAIVE_PX):
        where = (slice(None), *block.write.slices)
        tile = np.ascontiguousarray(content[where])
        made[where] = raydom.stylize(tile, None, "cyclegan", channel_axis=0, generator=run_folder)
    return made


def labels_of(pixels: np.ndarray, model: str) -> np.ndarray:
    network, _ = load_trained(model)
    with torch.no_grad():
        return (network(torch.from_numpy(pixels[None].astype(np.float32) / 255))[0, 0] > 0).numpy()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--crop-px", type=int, default=96)
    parser.add_argument("--model-steps", type=int, default=600)
    options = parser.parse_args()
    data = Path(os.environ["RAYDOM_DATA"])
    rows: list[dict[str, Any]] = []
    with ray_session(RUN):
        model = model_of("isbi", 0, options.model_steps, True, data, options.out)
        run_folder = generators(options.steps, options.crop_px, data, options.out)
        collection = mosaic(data, options.out)
        content = next(iter(open_collection(collection))).numpy()
        style = StyleConfig(method="cyclegan", generator=run_folder)
        made, seconds = {}, {}
        for size in BLOCK_SIZES:
            began = time.perf_counter()
            out = str(options.out / "generators" / f"{size}")
            blocks = BlockConfig(block_size=size)
            made[f"blocks of {size} px"] = run(
                BlockJob(name="cyclegan", collection=collection, out=out, style=style, blocks=blocks)
            )
            seconds[f"blocks of {size} px"] = time.perf_counter() - began
    others = {
        "whole": lambda: in_one(content, style),
        "thumbnail": lambda: in_one(content, style, THUMBNAIL_PX),
        "naive tiles of 512 px": lambda: naive(content, run_folder),
    }
    for name, make in others.items():
        began = time.perf_counter()
        made[name] = make()
        seconds[name] = time.perf_counter() - began
    labels = {name: labels_of(pixels, model) for name, pixels in made.items()}
    first = made[f"blocks of {BLOCK_SIZES[0]} px"].astype(int)
    for name, pixels in made.items():
        rows.append(
            {
                "made": name,
                "seam at 512 px": seam_of(pixels, content, NAIVE_PX),
                "from the whole, mean / 255": float(np.abs(pixels.astype(int) - made["whole"]).mean()),
                "from other blocks, largest / 255": int(np.abs(pixels - first).max()) if "blocks" in name else None,
                "F1 of labels with the whole's": scores(confusion(labels[name], labels["whole"]))["f1"],
                "seconds": seconds[name],
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), options.out / "generators.parquet")
    show_table(pa.Table.from_pylist(rows), digits=4)
    return 0


if __name__ == "__main__":
    sys.exit(main())
