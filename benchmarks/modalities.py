"""Nuclei of several modalities, with and without images of one in the look of another as training augmentation.

Half of the images of DSB 2018 train (of each modality), the others are scored. The domains are those of `raydom
domains` (which sees no modality), and one DRIT learns all of them; then U-Nets of classes are trained with the usual
augmentations, and with half of the crops in the look of a random domain, with a random attribute. F1 by modality.

    RAYDOM_DATA=... uv run python benchmarks/modalities.py --out benchmarks/results --seeds 0 1 2

Rows are appended to OUT/modalities.parquet; rows that are there already are skipped. With --picture, an image of each
domain in the look of every domain is drawn into OUT/modalities/RUN.png instead.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import raydom
from raydom.cluster.commands import domains, evaluate, ingest, segment
from raydom.cluster.train import run_training, train_supervised
from raydom.commands import (
    DritConfig,
    EvaluateConfig,
    FindDomainsConfig,
    IngestConfig,
    SegmentConfig,
    SupervisedConfig,
)
from raydom.config import RunConfig, TrainConfig
from raydom.report.pictures import grid
from raydom.report.tables import show_table
from raydom.storage.collection import open_collection
from raydom.storage.model_run import open_generator_run
from raydom.training.translation import plan_translation
from raydom.types import Region

RUN = RunConfig(quiet=True, serial=True, cpus_per_worker=1)
PICTURED_PX = 256
USUAL = ("flip", "rotate", "intensity")


def collection_of(part: str, clusters: int, data: Path, out: Path) -> str:
    """Every second image of each modality, with its modality as a column; those for training with domains."""
    folder = data / "dsb2018_nuclei"
    files = sorted(str(path) for path in (folder / "images").glob("*.png"))
    chosen = tuple(files[0 if part == "train" else 1 :: 2])
    target = str(out / "modalities" / part)
    column = (r"modality=/([a-z]+(?:_[a-z]+)?)_[0-9a-f]+\.png$",)
    labels = (str(folder / "labels"),)
    assert ingest(IngestConfig(source=chosen, labels=labels, out=target, column=column)) == 0
    if part == "score":
        return target
    found = str(out / "modalities" / f"{part}-{clusters}")
    if not Path(found).exists():
        assert domains(FindDomainsConfig(collection=target, clusters=clusters, out=found)) == 0
    return found


def generator_of(collection: str, options: argparse.Namespace) -> str:
    """One DRIT for all domains of the collection."""
    run = str(options.out / "modalities" / f"drit-{options.clusters}-{options.generator_steps}")
    train = TrainConfig(
        steps=options.generator_steps,
        crop_px=64,
        batch_size=2,
        learning_rate=2e-4,
        schedule="linear",
        validate_every=300,
        clip_norm=0.0,
        augment=("flip", "rotate"),
    )
    sampled = max(1, options.generator_steps // 6)
    config = DritConfig(collection=collection, out=run, base_channels=16, sample_every=sampled, train=train, run=RUN)
    run_training(plan_translation(config))
    return run


def rows_of(seed: int, augmented: bool, options: argparse.Namespace, data: Path) -> list[dict[str, Any]]:
    """A U-Net, and its F1 on the images of each modality that were not trained on."""
    collection = collection_of("train", options.clusters, data, options.out)
    score = collection_of("score", options.clusters, data, options.out)
    generator = generator_of(collection, options) if augmented else None
    name = f"{'drit' if augmented else 'usual'}-{options.clusters}-{options.generator_steps}-{options.steps}-s{seed}"
    run = str(options.out / "modalities" / name)
    train_supervised(
        SupervisedConfig(
            collection=collection,
            out=run,
            base_channels=16,
            generator=generator,
            train=TrainConfig(
                steps=options.steps,
                seed=seed,
                batch_size=8,
                learning_rate=2e-3,
                validate_every=100,
                precision="bfloat16",
                augment=(*USUAL, *(["drit"] if augmented else [])),
            ),
            run=RUN,
        )
    )
    labels = f"{run}-labels"
    assert segment(SegmentConfig(collection=score, model=run, out=labels, run=RUN)) == 0
    table = f"{run}.parquet"
    evaluate(EvaluateConfig(prediction=labels, truth=score, kind="binary", by="modality", out=table))
    told = pq.read_table(table).to_pylist()
    wanted = {"modality mean": None, "mean": "all"}
    return [
        {"modality": row["modality"] or wanted[row["scope"]], "num_images": row["num_images"], "f1": row["f1"]}
        for row in told
        if row["scope"] in wanted
    ]


def picture(options: argparse.Namespace, data: Path) -> None:
    """Rows: an image of each domain; columns: as it is, and in the mean look of every domain."""
    collection = open_collection(collection_of("train", options.clusters, data, options.out))
    run = generator_of(collection.uri, options)
    names = [domain.name for domain in open_generator_run(run).spec.domains]
    rows = []
    for name in names:
        image = next(image for image in collection if image.record.domain == name)
        height, width = image.spatial_shape
        pixels = image.numpy(Region((0, 0), (min(height, PICTURED_PX), min(width, PICTURED_PX))))
        looks = [
            raydom.stylize(pixels, None, "drit", channel_axis=0, generator=run, from_domain=name, to_domain=other)
            for other in names
        ]
        rows.append([pixels, *looks])
    grid(rows, names, ["original", *(f"as {name}" for name in names)], f"{run}.png")


def main() -> int:
    """Parse the options, make the rows that are not there, show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--clusters", type=int, default=6)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--generator-steps", type=int, default=3000)
    parser.add_argument("--picture", action="store_true")
    options = parser.parse_args()
    options.out = options.out.absolute()
    data = Path(os.environ["RAYDOM_DATA"])
    if options.picture:
        picture(options, data)
        return 0
    path = options.out / "modalities.parquet"
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    for seed in options.seeds:
        for augmented in (False, True):
            key = {"seed": seed, "drit": augmented, "clusters": options.clusters, "steps": options.steps}
            key["generator_steps"] = options.generator_steps
            if any(key.items() <= row.items() for row in rows):
                continue
            rows += [key | row for row in rows_of(seed, augmented, options, data)]
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), path)
    show_table(pa.Table.from_pylist(rows), digits=3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
