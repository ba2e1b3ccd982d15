"""Every network on every data set: on images of the domain that it was trained on, and of another.

    RAYDOM_DATA=... uv run python benchmarks/segmentation.py --networks unet u2netp --datasets nuclei --seeds 0 1 2
    RAYDOM_DATA=... uv run python benchmarks/segmentation.py --networks maskrcnn --learning-rate 1e-3

Each network is trained on the source's training images for the same number of steps of the same crops, from random
weights, in mixed precision, in this process with one thread; then the source's other images and the target's are
segmented as they are and scored: F1 of the pixels of all images, and where objects are numbered, AP at 0.5 over all
objects and the DSB 2018 score (mean of the images). Objects come from output distance by watershed, or from Mask R-CNN.

A row a network, data set and seed is appended to OUT/segmentation.parquet; rows that are there already are skipped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from adaptation import DOMAINS, collection_of
from overfit import FEW

from raydom.cluster.train import train_supervised
from raydom.commands import SupervisedConfig
from raydom.config import BlockConfig, MaskRCNNConfig, RunConfig, TrainConfig, TrainRunConfig
from raydom.inference.job import BlockJob
from raydom.inference.runner import execute_serially, run_jobs
from raydom.report.tables import show_table
from raydom.storage.collection import open_collection
from raydom.training.scoring import evaluate

DATASETS = {
    "nuclei": ("fluorescence", "purple"),
    "retina": ("drive", "chase"),
    "em": ("isbi", "vnc"),
    "t98g": ("t98g-a", "t98g-b"),
}
"""Source and target domain."""
OBJECTS = ("nuclei", "t98g")
NETWORKS = ("unet", "deeplabv3plus", "hrnet_w18", "u2netp", "unetplusplus", "deeplabv3")
"""By default; maskrcnn has data sets and a learning rate of its own."""
RUN = RunConfig(quiet=True, serial=True)
TRAIN_RUN = TrainRunConfig(quiet=True, serial=True)


def trained(network: str, dataset: str, seed: int, options: argparse.Namespace, data: Path) -> str:
    """The model run of a network on the source's training images."""
    source = DATASETS[dataset][0]
    settings = f"{options.steps}x{options.batch}-{options.precision}-{options.learning_rate:g}"
    name = f"{source}-{network}-s{seed}-{settings}"
    run = str(options.out / "models" / name)
    objects = network == "maskrcnn"
    train_supervised(
        SupervisedConfig(
            collection=collection_of(source, "train", data, options.out),
            out=run,
            network=network,
            output="objects" if objects else "distance" if dataset in OBJECTS else "classes",
            base_channels=16,
            encoder="resnet18",
            maskrcnn=FEW if objects else MaskRCNNConfig(),
            train=TrainConfig(
                steps=options.steps,
                batch_size=options.batch,
                crop_px=128,
                learning_rate=options.learning_rate,
                precision=options.precision,
                validate_every=options.steps,
                seed=seed,
            ),
            run=TRAIN_RUN,
        )
    )
    return run


def scored(model: str, domain: str, part: str, options: argparse.Namespace, data: Path) -> dict[str, float | None]:
    """Scores of a model on a part of a domain."""
    truth = collection_of(domain, part, data, options.out)
    out = options.out / "segmented" / f"{Path(model).name}-{domain}-{part}"
    shutil.rmtree(out, ignore_errors=True)
    job = BlockJob(name=out.name, collection=truth, out=str(out), model=model, blocks=BlockConfig(block_size=1024))
    (report,) = run_jobs([job], RUN, execute_serially)
    assert report.ok, report.failed
    mask = "fov" if DOMAINS[domain].mask else None
    rows = evaluate(open_collection(str(out)), open_collection(truth), mask=mask, bootstrap=0).to_pylist()
    scores = {row["scope"]: row for row in rows}
    found = {"f1": scores["pooled"]["f1"]}
    if "ap_50" in scores["pooled"]:
        found |= {"ap_50": scores["pooled"]["ap_50"], "dsb2018": scores["mean"]["dsb2018"]}
    return found


def cell(network: str, dataset: str, seed: int, options: argparse.Namespace, data: Path) -> dict[str, Any]:
    """A row of the table, without its key."""
    began = time.perf_counter()
    model = trained(network, dataset, seed, options, data)
    row: dict[str, Any] = {"train_s": time.perf_counter() - began}
    source, target = DATASETS[dataset]
    for side, domain, part in (("source", source, "rest"), ("target", target, "score")):
        began = time.perf_counter()
        row |= {f"{side}_{name}": value for name, value in scored(model, domain, part, options, data).items()}
        row[f"{side}_s"] = time.perf_counter() - began
    return row


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    """With the columns of all rows; those of objects are empty where there are none."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def main() -> None:
    """Parse the options, do what is missing, show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--datasets", nargs="+", default=list(DATASETS), choices=list(DATASETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4, help="crops of 128 px in a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"), help="of the training")
    options = parser.parse_args()
    data, path = Path(os.environ["RAYDOM_DATA"]), options.out / "segmentation.parquet"
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    for seed in options.seeds:
        for dataset in options.datasets:
            for network in options.networks:
                key = {"dataset": dataset, "network": network, "seed": seed}
                key |= {name: getattr(options, name) for name in ("steps", "batch", "precision", "learning_rate")}
                done = any(key.items() <= row.items() for row in rows)
                if done or (network == "maskrcnn" and dataset not in OBJECTS):
                    continue
                rows.append(key | cell(network, dataset, seed, options, data))
                options.out.mkdir(parents=True, exist_ok=True)
                pq.write_table(table_of(rows), path)
                print(rows[-1], flush=True)
    show_table(table_of(rows), digits=3)


if __name__ == "__main__":
    main()
