"""How much of the lost quality each trained adaptation brings back on real image pairs.

For each pair and seed: a U-Net trained on the source (also the row "none"), adapted from there by each method with the
target's training images without labels; and a U-Net trained on those with labels (the ceiling). F1 on other target
images. The settings are the defaults, fixed before any target label was read; beside F1 stand the two scores that need
no target label: F1 on the source's validation images, and the certainty (1 - mean entropy) on the target's.

The rows "restyled source": half of the source's crops are made by `nst` to look like one of two style images of the
target, in the training of the source's model, or in its adaptation.

The row "batch norm of both" is the control: the same training without any adaptation but that batch normalisation sees
images of both domains, as it does in all these methods.

Beside them stand methods that change images instead: style methods (the source's model, target images that look like a
style image of the source, at the defaults), and CycleGAN both ways: target images made to look like the source, for the
source's model; and a U-Net trained on the source, half of whose crops are made to look like the target. Its networks
are small (16 channels, 4 blocks, one crop of 128 px a step).

    RAYDOM_DATA=... uv run python benchmarks/trained.py --out benchmarks/results --pairs drive-chase --methods dann

Rows are appended to OUT/trained.parquet; rows that are there already are skipped, so a table grows over several runs.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from adaptation import DOMAINS, PAIRS, TRAIN, collection_of
from PIL import Image

from raydom.algorithms.adaptation import self_information
from raydom.algorithms.trained import load_trained
from raydom.cluster.commands import segment, stylize
from raydom.cluster.compare import compare
from raydom.cluster.train import run_training, train_supervised
from raydom.commands import (
    AdaptationConfig,
    CompareConfig,
    CycleGanConfig,
    DannConfig,
    DiscrepancyConfig,
    EntropyConfig,
    MeanTeacherConfig,
    OutputAdversaryConfig,
    SegmentConfig,
    StylizeConfig,
    SupervisedConfig,
)
from raydom.config import RunConfig, StyleConfig, StyleOptions, TrainConfig
from raydom.report.tables import show_table
from raydom.storage.collection import open_collection
from raydom.training.adaptation import plan_adaptation
from raydom.training.crops import CropReader, CropView
from raydom.training.translation import plan_translation
from raydom.training.unlabelled import certainty

RUN = RunConfig(quiet=True, serial=True, cpus_per_worker=1)
NETWORK = {"base_channels": 16, "depth": 4}
LEVELS = ("encoder0", "encoder1", "encoder2", "encoder3", "bottleneck", "decoder3", "decoder2", "decoder1", "decoder0")
Make = Callable[..., AdaptationConfig]


def made(config: type[AdaptationConfig], **fields: Any) -> Make:
    return lambda **shared: config(**shared, **fields)


METHODS: dict[str, Make] = {
    **{f"dann {level}": made(DannConfig, levels=(level,)) for level in LEVELS},
    "dann all levels": made(DannConfig, levels=LEVELS),
    "dann bottleneck, decoder0": made(DannConfig, levels=("bottleneck", "decoder0")),
    "output adversary": made(OutputAdversaryConfig),
    "output adversary, alternating": made(OutputAdversaryConfig, updates="alternating", weight=0.01),
    "entropy": made(EntropyConfig),
    "entropy, adversarial": made(EntropyConfig, mode="adversarial"),
    "classifier discrepancy": made(DiscrepancyConfig),
    "mean teacher": made(MeanTeacherConfig),
    "batch norm of both": made(EntropyConfig, weight=0.0),
    "mean teacher, restyled source": made(MeanTeacherConfig),
    "output adversary, restyled source": made(OutputAdversaryConfig),
    "one target label": made(EntropyConfig, weight=0.0, labelled_target=1),
    "one target label, output adversary": made(OutputAdversaryConfig, labelled_target=1),
    "one target label, mean teacher": made(MeanTeacherConfig, labelled_target=1),
}
CEILING = "trained on the target"
STYLE_METHODS = ("histogram", "nst")
MADE_SOURCE, MADE_TARGET = "cyclegan, target to source", "cyclegan, source to target"
RESTYLED = "restyled source"


def supervised(
    domain: str,
    seed: int,
    steps: int,
    data: Path,
    out: Path,
    generator: str | None = None,
    restyled: tuple[str, ...] = (),
) -> str:
    """A U-Net trained on the training images of a domain.

    Args:
        domain: Of which.
        seed: Of the training.
        steps: Of the training.
        data: The real images.
        out: Where the collections and models are.
        generator: Makes half of the crops.
        restyled: Collections of the same images in other looks, which half of the crops are taken from.
    """
    made_by = [] if generator is None else [Path(generator).name]
    name = "-".join([*(made_by or [f"{domain}-s{seed}"]), *(Path(one).name for one in restyled), str(steps)])
    run = str(out / "trained-models" / name)
    collection = collection_of(domain, "train", data, out)
    augment = (*TrainConfig().augment, *([] if generator is None else ["cyclegan"]))
    config = TrainConfig(steps=steps, seed=seed, precision="bfloat16", augment=augment, **TRAIN)
    train_supervised(
        SupervisedConfig(
            collection=collection,
            out=run,
            generator=generator,
            augment_collection=restyled,
            train=config,
            run=RUN,
            **NETWORK,
        )
    )
    return run


def restyled_sources(pair: str, data: Path, out: Path) -> tuple[str, ...]:
    """The training images of the source, made by `nst` to look like each style image of the target."""
    source, target = (DOMAINS[name] for name in PAIRS[pair])
    made = []
    for number, path in enumerate(target.styles):
        style = out / "collections" / f"{pair}-style-{number}.tif"
        if not style.exists():  # on the source's grid of pixels, since a style has a size
            image = Image.open(data / path)
            scale = target.pixel_size_um / source.pixel_size_um
            image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS).save(
                style
            )
        made.append(str(out / "collections" / f"{pair}-restyled-{number}"))
        config = StylizeConfig(
            collection=collection_of(PAIRS[pair][0], "train", data, out),
            style=StyleConfig(method="nst", style=str(style)),
            out=made[-1],
            run=RUN,
        )
        assert stylize(config) == 0
    return tuple(made)


def generators(pair: str, seed: int, options: argparse.Namespace, data: Path) -> str:
    """A CycleGAN between the two domains, at the pixel size of the source's model."""
    source, target = PAIRS[pair]
    run = str(options.out / "trained-models" / f"{pair}-cyclegan-s{seed}-{options.generator_steps}")
    config = CycleGanConfig(
        source=collection_of(source, "train", data, options.out),
        target=collection_of(target, "train", data, options.out),
        out=run,
        pixel_size_um=DOMAINS[source].pixel_size_um,
        base_channels=16,
        blocks=4,
        sample_every=max(1, options.generator_steps // 3),
        train=TrainConfig(
            steps=options.generator_steps,
            seed=seed,
            batch_size=1,
            crop_px=128,
            learning_rate=2e-4,
            schedule="linear",
            clip_norm=0.0,
            weight_decay=0.0,
            augment=("flip", "rotate"),
            validate_every=250,
            precision="bfloat16",
        ),
        run=RUN,
    )
    run_training(plan_translation(config))
    return run


def adaptation_of(
    method: str, pair: str, seed: int, options: argparse.Namespace, data: Path, validate_every: int = 100, **fields: Any
) -> AdaptationConfig:
    """The adaptation of the source's U-Net to the target."""
    source, target = PAIRS[pair]
    run = str(options.out / "trained-models" / f"{pair}-{method.replace(', ', '-').replace(' ', '-')}-s{seed}")
    return METHODS[method](
        source=collection_of(source, "train", data, options.out),
        target=collection_of(target, "train", data, options.out),
        out=run,
        initial=supervised(source, seed, options.steps, data, options.out),
        train=TrainConfig(
            steps=options.adapt_steps,
            seed=seed,
            batch_size=4,
            crop_px=128,
            learning_rate=1e-3,
            validate_every=validate_every,
            precision="bfloat16",
        ),
        run=RUN,
        **NETWORK,
        **fields,
    )


def adapted(method: str, pair: str, seed: int, options: argparse.Namespace, data: Path) -> str:
    """The source's U-Net, adapted to the target."""
    fields = {}
    if method.endswith(RESTYLED):
        fields["augment_collection"] = restyled_sources(pair, data, options.out)
    config = adaptation_of(method, pair, seed, options, data, **fields)
    run_training(plan_adaptation(config))
    return config.out


def row_of(method: str, pair: str, seed: int, options: argparse.Namespace, data: Path) -> dict[str, Any]:
    """F1 on the target's images for scores, and what can be told without them."""
    source, target = PAIRS[pair]
    run, style = model_and_style(method, pair, seed, options, data)
    unlabelled = collection_of(target, "train", data, options.out)
    name = f"{pair}-{Path(run).name}{'' if style.method == 'none' else f'-{style.method}'}"
    config = CompareConfig(
        source=collection_of(source, "train", data, options.out),
        target=collection_of(target, "score", data, options.out),
        mask="fov" if DOMAINS[target].mask else None,
        model=(run,),
        methods=(style.method,),
        style=() if style.style is None else (style.style,),
        options=StyleOptions(generator=style.generator),
        out=str(options.out / "trained-comparisons" / name),
        run=RUN,
    )
    compare(config)
    scored = pq.read_table(f"{config.out}/comparison.parquet").to_pylist()[-1]
    assert scored["method"] == style.method
    rows = pq.read_table(f"{run}/metrics.parquet").to_pylist()
    network, spec = load_trained(run)
    collection = open_collection(unlabelled)
    ids = tuple(record.image_id for record in collection.records)
    reader = CropReader(collection, ids, CropView.of(spec, labelled=False))
    sure = certainty(network, reader, ids, spec, torch.device("cpu"))
    if style.method != "none":  # what it changes, since that of stored probabilities is on another pixel grid
        plain, styled = (
            certainty_of(segmented(unlabelled, run, one, f"{config.out}/unlabelled-{one.method}"))
            for one in (StyleConfig(), style)
        )
        sure += styled - plain
    return {
        "f1": scored["f1"],
        "source_f1": [row["score"] for row in rows if row.get("score") is not None][-1],
        "certainty": sure,
        "seconds": rows[-1]["seconds"],
    }


def model_and_style(
    method: str, pair: str, seed: int, options: argparse.Namespace, data: Path
) -> tuple[str, StyleConfig]:
    """The model of a row, and what is done to the target's images before it sees them."""
    source, target = PAIRS[pair]
    model = functools.partial(supervised, seed=seed, steps=options.steps, data=data, out=options.out)
    if method == "none":
        return model(source), StyleConfig()
    if method == CEILING:
        return model(target), StyleConfig()
    if method == RESTYLED:
        return model(source, restyled=restyled_sources(pair, data, options.out)), StyleConfig()
    if method in STYLE_METHODS:
        return model(source), StyleConfig(method=method, style=str(data / DOMAINS[source].styles[0]))
    if method == MADE_SOURCE:
        run = generators(pair, seed, options, data)
        return model(source), StyleConfig(method="cyclegan", generator=run)
    if method == MADE_TARGET:
        return model(source, generator=generators(pair, seed, options, data)), StyleConfig()
    return adapted(method, pair, seed, options, data), StyleConfig()


def segmented(collection: str, model: str, style: StyleConfig, out: str) -> str:
    """A collection with what the model tells of the images after the style method."""
    assert segment(SegmentConfig(collection=collection, model=model, style=style, out=out, run=RUN)) == 0
    return out


def certainty_of(predictions: str) -> float:
    """1 - the mean entropy of stored probabilities."""
    total, count = 0.0, 0
    for image in open_collection(predictions):
        foreground = torch.from_numpy(image.numpy()[0].astype(np.float64) / 255)
        entropy = self_information(torch.stack([1 - foreground, foreground])[None])
        total, count = total + float(entropy.sum()), count + foreground.numel()
    return 1 - total / count


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """F1 of each pair and method over the seeds, and the share of the gap to the target's own model that it closes."""
    told = []
    for pair, method in dict.fromkeys((row["pair"], row["method"]) for row in rows):
        mine = {row["seed"]: row["f1"] for row in rows if (row["pair"], row["method"]) == (pair, method)}
        none, own = (
            {row["seed"]: row["f1"] for row in rows if (row["pair"], row["method"]) == (pair, other)}
            for other in ("none", CEILING)
        )
        shared = [seed for seed in mine if seed in none and seed in own]
        gained, gap = (sum(f1[seed] - none[seed] for seed in shared) for f1 in (mine, own))
        told.append(
            {
                "pair": pair,
                "method": method,
                "seeds": len(mine),
                "f1": float(np.mean(list(mine.values()))),
                "deviation": float(np.std(list(mine.values()))),
                "gap_closed": gained / gap if shared else None,
            }
        )
    return told


def choices(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Which method each score would have chosen that needs no target label, and what that costs against the best."""
    told = []
    for pair, seed in dict.fromkeys((row["pair"], row["seed"]) for row in rows):
        here = [row for row in rows if (row["pair"], row["seed"]) == (pair, seed)]
        here = [row for row in here if row["method"] != CEILING and "target label" not in row["method"]]
        best = max(here, key=lambda row: row["f1"])
        for score in ("certainty", "source_f1"):
            chosen = max(here, key=lambda row: row[score])
            told.append(
                {
                    "pair": pair,
                    "seed": seed,
                    "score": score,
                    "chosen": chosen["method"],
                    "f1": chosen["f1"],
                    "best": best["method"],
                    "regret": best["f1"] - chosen["f1"],
                    "of": len(here),
                }
            )
    return told


def main() -> int:
    """Parse the options, make the rows that are not there, show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--pairs", nargs="+", default=["drive-chase", "chase-drive", "isbi-vnc", "vnc-isbi"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=600, help="of the source's model")
    parser.add_argument("--adapt-steps", type=int, default=300)
    parser.add_argument("--generator-steps", type=int, default=1500, help="of CycleGAN")
    images = ("none", CEILING, *STYLE_METHODS, MADE_SOURCE, MADE_TARGET, RESTYLED)
    parser.add_argument("--methods", nargs="+", default=[*images, *METHODS])
    options = parser.parse_args()
    options.out = options.out.absolute()
    torch.set_num_threads(1)
    data = Path(os.environ["RAYDOM_DATA"])
    path = options.out / "trained.parquet"
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    for seed in options.seeds:
        for pair in options.pairs:
            for method in options.methods:
                key = {"pair": pair, "method": method, "seed": seed, "steps": options.steps}
                key["adapt_steps"] = options.adapt_steps
                if any(key.items() <= row.items() for row in rows):
                    continue
                rows.append(key | row_of(method, pair, seed, options, data))
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.Table.from_pylist(rows), path)
                print(rows[-1], flush=True)
    show_table(pa.Table.from_pylist(rows), digits=3)
    show_table(pa.Table.from_pylist(summary(rows)), title="means and deviations over the seeds", digits=3)
    show_table(pa.Table.from_pylist(choices(rows)), title="chosen without a target label", digits=3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
