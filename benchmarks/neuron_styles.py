"""What styles do for segmenting neurons: the experiments of Neishabouri 2018 (figure 16), and what they left out.

    RAYDOM_DATA=... RAYDOM_WEIGHTS=... uv run python benchmarks/neuron_styles.py augment evidence --out OUT

augment: forests trained on crops of one EM data set, on stylised versions of them (artistic, texture photographs, the
other data set; 75 and 150 steps; and its histogram, which costs nothing), and on choices of both, scored on held-out
sections of the same data set and on sections of the other at the same pixel size. evidence: what tells of membranes for
superpixels and borders: the Frangi filter, the image itself, the image smoothed, and the image stylised (the paper's
idea: a style that smooths in place of the filter), each at the threshold that is best on the training images.

Rows are appended to OUT/TRAIN/comparison.parquet and OUT/evidence.parquet; rows that are there already are skipped.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import skimage.data
from PIL import Image
from scipy import ndimage
from skimage.transform import rescale, resize

from raydom.cli import main
from raydom.cluster.neuron_scenarios import compare_scenarios
from raydom.commands import NeuronCompareConfig, TruthConfig
from raydom.config import ForestConfig, MulticutConfig, NeuronConfig, RunConfig, SuperpixelConfig
from raydom.images.overlaps import Overlaps, merged
from raydom.images.partition_metrics import partition_scores, partition_sums
from raydom.neurons.forest import EdgeForest
from raydom.report.scenarios import scenario_table
from raydom.report.tables import show_table
from raydom.storage.collection import open_collection
from raydom.training.superpixel_graphs import GraphRecipe, LabelledGraph, LabelledImage, labelled_graph
from raydom.types import Region

PIXEL_SIZE_UM = 0.004
"""Of both data sets: the sections of vnc_sstem (4.6 nm) are enlarged to it."""
TRAIN_PX, TEST_PX = 256, 512
STEPS = (75, 150)
STYLES = ("monet", "village", "brick", "grass", "gravel")
"""Artistic, and photographs of textures; the other EM data set is one more."""
PUBLISHED, PUBLISHED_STEPS = ("monet", "brick"), 20
"""Styles that are also transferred as the paper did, from the content by L-BFGS with VGG (the layers at hand) and the
loss ``means``. It takes few of its 75 steps until little is left of the content."""
TREES, SEEDS = 100, 3
TRUTH = TruthConfig(zero="boundary")
SMOOTHING = ("monet", "village", "grass")
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
HERE = RunConfig(serial=True, quiet=True)

Pair = tuple[np.ndarray, np.ndarray]


def section(data: Path, name: str, number: int) -> Pair:
    """An image and its neurons at 4 nm, 0 on membranes: what is connected in the section is one."""
    if name == "isbi":
        image = np.asarray(Image.open(data / f"isbi2012_em/images/{number:02d}.png"))
        inside = np.asarray(Image.open(data / f"isbi2012_em/labels/{number:02d}.png")) > 127
    else:
        image = np.asarray(Image.open(data / f"vnc_sstem/images/{number:02d}.tif"))
        membrane = np.asarray(Image.open(next((data / "vnc_sstem/labels_membrane").glob(f"*{number:02d}.*")))) > 0
        image = np.rint(255 * rescale(image / 255, 1.15, order=1)).astype(np.uint8)
        inside = resize(~membrane, image.shape, order=0, anti_aliasing=False)
    return image, ndimage.label(inside)[0].astype(np.uint16)


def crops(data: Path, name: str, split: str) -> Iterator[tuple[str, Pair]]:
    """ISBI: one crop of 8 sections to train on, 8 whole ones to test; VNC: two crops of 4 sections each."""
    side = TRAIN_PX if split == "train" else TEST_PX
    for number in {
        ("isbi", "train"): range(8), ("isbi", "test"): range(12, 20), ("vnc", "train"): range(4),
        ("vnc", "test"): range(6, 10),
    }[name, split]:  # fmt: skip
        image, truth = section(data, name, number)
        room = image.shape[0] - side
        for part in range(1 if name == "isbi" else 2):
            place = number + part
            top, left = room * (place % 2), room * (place // 2 % 2)
            index = np.s_[top : top + side, left : left + side]
            yield f"{number:02d}-{part}", (image[index], truth[index])


def collection(out: Path, data: Path, name: str, split: str) -> str:
    """The collection of one part of a data set."""
    uri, folder = out / "collections" / f"{name}-{split}", out / "files" / f"{name}-{split}"
    if not (uri / "images.parquet").exists():
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        for image_id, (image, truth) in crops(data, name, split):
            Image.fromarray(image).save(folder / "images" / f"{image_id}.png")
            Image.fromarray(truth).save(folder / "labels" / f"{image_id}.png")
        called("ingest", str(folder / "images"), "--labels", str(folder / "labels"), "--out", str(uri),
               "--pixel-size", str(PIXEL_SIZE_UM))  # fmt: skip
    return str(uri)


def style_image(out: Path, data: Path, name: str) -> str:
    """A style image in grey; of an EM data set, a part that is neither trained nor tested on."""
    path = out / "styles" / f"{name}.png"
    if not path.exists():
        if name in ("isbi", "vnc"):
            pixels = section(data, name, 10 if name == "isbi" else 5)[0][:512, :512]
        elif name in ("monet", "village"):
            file = {"monet": "monet_800600.jpg", "village": "photo2style_10_BP.png"}[name]
            pixels = np.asarray(Image.open(data / "style_transfer_refs" / file).convert("L"))[:512, :512]
        else:
            pixels = getattr(skimage.data, name)()
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    return str(path)


def stylised(out: Path, data: Path, source: str, style: str, steps: int | None, published: bool = False) -> str:
    """A stylised version of a collection; without steps, by its histogram."""
    how = f"published-{steps}" if published else str(steps or "histogram")
    uri = Path(source) / "styles" / f"{style}-{how}"
    arguments = ["stylize", "--collection", source, "--out", str(uri), "--style", style_image(out, data, style)]
    weights = str(next(Path(os.environ["RAYDOM_WEIGHTS"]).glob("vgg19*" if published else "squeezenet*")))
    if published:
        arguments += ["--method", "nst", "--features", "vgg19", "--weights", weights, "--nst.preset", "neurons-75"]
        arguments += ["--nst.style-layers", "relu1_1", "relu2_1", "relu3_1", "--nst.content-layers", "relu3_2"]
        arguments += ["--nst.steps", str(steps), "--nst.precision", "bfloat16"]
    elif steps:
        arguments += ["--method", "nst", "--features", "squeezenet1_1", "--weights", weights]
        arguments += ["--nst.steps", str(steps), "--nst.style-ratio", "100"]
    else:
        arguments += ["--method", "histogram"]
    called(*arguments, "--serial", "--quiet")
    return str(uri)


def called(*arguments: str) -> None:
    if main(arguments):
        raise SystemExit(f"failed: raydom {' '.join(arguments)}")


# --------------------------------------------------------------------------------------------------------- augmentation


def augment(out: Path, data: Path) -> None:
    tests = tuple(collection(out, data, name, "test") for name in ("isbi", "vnc"))
    for name, other in (("isbi", "vnc"), ("vnc", "isbi")):
        train = collection(out, data, name, "train")
        versions = [stylised(out, data, train, style, steps) for style in (*STYLES, other) for steps in STEPS]
        versions += [stylised(out, data, train, style, PUBLISHED_STEPS, published=True) for style in PUBLISHED]
        versions.append(stylised(out, data, train, other, None))
        rows = compare_scenarios(
            NeuronCompareConfig(
                collection=train,
                augment=tuple(versions),
                test=tests,
                out=str(out / name),
                truth=TRUTH,
                seeds=SEEDS,
                select=("content_score>=0.9",),
                forest=ForestConfig(trees=TREES),
                run=HERE,
            )
        )
        show_table(scenario_table(rows), title=f"trained on {name}")


# ------------------------------------------------------------------------------------------------------------- evidence


def evidence(out: Path, data: Path) -> None:
    path = out / "evidence.parquet"
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    for name in ("isbi", "vnc"):
        for kind in ("frangi", "image", "smoothed", *SMOOTHING):
            if not any((row["data"], row["evidence"]) == (name, kind) for row in rows):
                rows += list(evidence_rows(out, data, name, kind))
                pq.write_table(pa.Table.from_pylist(rows), path)
    show_table(pa.Table.from_pylist(rows))


def evidence_rows(out: Path, data: Path, name: str, kind: str) -> Iterator[dict[str, Any]]:
    """Scores on held-out sections of the superpixels and of forests, mean and deviation over seeds."""
    sources = {split: collection(out, data, name, split) for split in ("train", "test")}
    told = {split: None if kind == "frangi" else probabilities(out, data, uri, kind) for split, uri in sources.items()}

    def graphs(split: str, threshold: float) -> list[LabelledGraph]:
        recipe = GraphRecipe(neurons=NeuronConfig(superpixels=SuperpixelConfig(threshold=threshold)), inside=True)
        boundaries = None if told[split] is None else open_collection(str(told[split]))
        images = (
            LabelledImage(image, image.labels(), "", None if boundaries is None else boundaries[image.image_id])
            for image in open_collection(sources[split])
        )
        return [labelled_graph(recipe, one, Region.whole(one.image.plane_shape)) for one in images]

    attainable = {one: scores([best(graph) for graph in graphs("train", one)])["vi"] for one in THRESHOLDS}
    threshold = min(attainable, key=attainable.__getitem__)
    train, test = graphs("train", threshold), graphs("test", threshold)
    found = []
    for seed in range(SEEDS):
        learned = [graph.to_train("boundary", 0.5) for graph in train]
        forest = EdgeForest.fit(learned, ForestConfig(trees=TREES, seed=seed), train[0].names)
        found.append(scores([graph.segmented(forest, MulticutConfig()) for graph in test]))
    limit, raw = scores([best(graph) for graph in test]), scores([graph.overlaps for graph in test])
    yield {
        "data": name, "evidence": kind, "threshold": threshold,
        "superpixels": sum(len(graph.superpixel) for graph in test),
        "superpixels_vi": raw["vi"], "attainable_vi": limit["vi"], "attainable_rand_error": limit["rand_error"],
        **{score: statistics.fmean(row[score] for row in found) for score in ("rand_error", "vi_split", "vi_merge")},
        **{f"{score}_sd": statistics.stdev(row[score] for row in found) for score in ("rand_error", "vi_split")},
    }  # fmt: skip


def probabilities(out: Path, data: Path, source: str, kind: str) -> str:
    """The images of a collection (as they are, smoothed, or stylised) as if they told how likely a pixel is inside."""
    uri, folder = Path(source) / "evidence" / kind, Path(source) / "evidence-files" / kind
    if not (uri / "images.parquet").exists():
        looked = source if kind in ("image", "smoothed") else stylised(out, data, source, kind, STEPS[1])
        folder.mkdir(parents=True, exist_ok=True)
        for image in open_collection(looked):
            pixels = image.numpy()[0].astype(np.float64)
            if kind == "smoothed":
                pixels = ndimage.gaussian_filter(pixels, 2.0)
            low, high = np.percentile(pixels, (1, 99))
            stretched = np.clip((pixels - low) / (high - low), 0, 1)
            Image.fromarray(np.rint(255 * stretched).astype(np.uint8)).save(folder / f"{image.image_id}.png")
        called("ingest", str(folder), "--out", str(uri))
    return str(uri)


def best(graph: LabelledGraph) -> Overlaps:
    """What these superpixels allow: each is given to the neuron that most of its pixels are in."""
    table = graph.overlaps
    kept = table.truth != 0
    order = np.lexsort((-table.pixels, table.predicted, ~kept))
    owner = dict[int, int]()
    for row in order.tolist():
        owner.setdefault(int(table.predicted[row]), int(table.truth[row]))
    neuron = np.array([owner[int(one)] for one in table.predicted], np.uint64)
    return merged([Overlaps(table.truth, neuron + np.uint64(1), table.pixels)])


def scores(found: list[Overlaps]) -> dict[str, float]:
    """Of all images together."""
    total: dict[str, float] = {}
    for one in found:
        total = {name: total.get(name, 0) + value for name, value in partition_sums(one).items()}
    return partition_scores(total)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("augment", "evidence"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for part in options.parts:
        {"augment": augment, "evidence": evidence}[part](options.out, Path(os.environ["RAYDOM_DATA"]))
