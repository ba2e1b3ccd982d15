"""Whether every network can learn four real images by heart: four crops of nuclei, the same for training and scoring.

    RAYDOM_DATA=... uv run python benchmarks/overfit.py --out benchmarks/results [--networks unet u2netp] [--steps 400]

Each training goes through the loop of ``raydom train supervised`` and ends at the first validation with the wanted
score (see ``validation_score``). A row a network and output is appended to OUT/overfit.parquet; rows that are there
already are skipped. Mask R-CNN wants ``--learning-rate 1e-3 --schedule cosine`` (0.96 after 140 steps; at the default
rate it has 0.80 after 400).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
import torch
from skimage.io import imread

from raydom.cluster.commands import ingest
from raydom.commands import IngestConfig, SupervisedConfig
from raydom.config import MaskRCNNConfig, RunConfig, TrainConfig
from raydom.report.tables import show_table
from raydom.training.loop import Report, train
from raydom.training.supervised import plan_supervised

IMAGES = ("29780b28e6a7", "77ceeb87f560", "797945873ca2", "3b75fc03a1d1")
SIDE_PX = 128
RUNS = (
    ("unet", "classes"), ("unet", "boundary"), ("unet", "distance"), ("u2netp", "classes"), ("u2net", "classes"),
    ("unetplusplus", "classes"), ("deeplabv3", "classes"), ("deeplabv3plus", "classes"), ("hrnet_w18", "classes"),
    ("hrnet_w30", "classes"), ("hrnet_w48", "classes"), ("maskrcnn", "objects"),
)  # fmt: skip
ENCODER = "resnet18"
FEW = MaskRCNNConfig(proposals=256, rpn_samples=256, roi_samples=48, min_score=0.5)
"""Mask R-CNN on few proposals: with the settings for nuclei, a step takes a CPU ten times as long."""


class Enough(Exception):
    """The wanted score is reached."""


def crops(data: Path, folder: Path) -> str:
    """A collection of the square of each image that holds most objects; returns its folder."""
    for name in IMAGES:
        image = imread(data / "dsb2018_nuclei/images" / f"fluorescence_{name}.png")[..., 0]
        labels = imread(next((data / "dsb2018_nuclei/labels").glob(f"fluorescence_{name}.*")))
        places = [
            (y, x)
            for y in range(0, labels.shape[0] - SIDE_PX + 1, 32)
            for x in range(0, labels.shape[1] - SIDE_PX + 1, 32)
        ]
        y, x = max(places, key=lambda p: len(np.unique(labels[p[0] : p[0] + SIDE_PX, p[1] : p[1] + SIDE_PX])))
        for kind, pixels in (("images", image), ("labels", labels)):
            (folder / kind).mkdir(exist_ok=True)
            tifffile.imwrite(folder / kind / f"{name}.tif", pixels[y : y + SIDE_PX, x : x + SIDE_PX])
    out = str(folder / "collection")
    ingest(IngestConfig(source=(str(folder / "images"),), labels=(str(folder / "labels"),), out=out, pixel_size_um=1.0))
    return out


def learnt(collection: str, network: str, output: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train until the wanted score, or to the end; what was reached."""
    config = SupervisedConfig(
        collection=collection,
        out=f"{collection}-none",
        network=network,
        output=output,
        encoder=ENCODER,
        maskrcnn=FEW,
        train=TrainConfig(
            steps=options.steps, batch_size=len(IMAGES), crop_px=SIDE_PX, validate_every=20,
            learning_rate=options.learning_rate, schedule=options.schedule, precision=options.precision, augment=(),
        ),
        run=RunConfig(serial=True, quiet=True),
    )  # fmt: skip
    plan = plan_supervised(config)
    everything = tuple(sorted({*plan.training_ids, *plan.validation_ids}))
    plan = replace(plan, training_ids=everything, validation_ids=everything)
    device = torch.device("cpu")
    reports: list[Report] = []

    def watch(report: Report) -> None:
        reports.append(report)
        if report.score is not None:
            print(f"  {network} {output}: step {report.step}, score {report.score:.3f}", flush=True)
            if report.score >= options.score:
                raise Enough

    began = time.monotonic()
    with contextlib.suppress(Enough):
        train(plan.assemble(device), plan.train, plan.num_steps, device=device, watch=watch)
    return {"steps": reports[-1].step, "score": reports[-1].best_score, "seconds": time.monotonic() - began}


def main() -> None:
    """Parse the options, train what is missing, show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--networks", nargs="+", default=sorted({name for name, _ in RUNS}))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--score", type=float, default=0.95)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--schedule", default="constant")
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "overfit.parquet"
    rows = pq.read_table(path).to_pylist() if path.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        collection = crops(Path(os.environ["RAYDOM_DATA"]), Path(folder))
        for network, output in RUNS:
            key = {"network": network, "output": output} | {
                name: getattr(options, name) for name in ("learning_rate", "schedule", "precision")
            }
            if network not in options.networks or any(key.items() <= row.items() for row in rows):
                continue
            rows.append(key | learnt(collection, network, output, options))
            pq.write_table(pa.Table.from_pylist(rows), path)
    show_table(pa.Table.from_pylist(rows))


if __name__ == "__main__":
    main()
