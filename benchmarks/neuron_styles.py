"""What styles do for segmenting neurons: the experiments of Neishabouri 2018 (figure 16), and what they left out.

    RAYDOM_DATA=... RAYDOM_WEIGHTS=... uv run python benchmarks/neuron_styles.py augment controls priors --out OUT

augment: forests trained on crops of one EM data set, on stylised versions of them (artistic, texture photographs, the
other data set; 75 and 150 steps; and its histogram, which costs nothing), and on choices of both, scored on held-out
sections of the same data set and on sections of the other at the same pixel size. controls: the same with blurred and
with noisy images in place of stylised ones. priors: forests of the originals and of all images under other prior
probabilities of a border (--multicut.beta), which tells what is won from what is only cut more. evidence: what tells of
membranes for superpixels and borders: the Frangi filter, the image itself, the image smoothed, and the image stylised
(the paper's idea: a style that smooths in place of the filter), each at the threshold that is best on the training
images.

Rows are appended to OUT/TRAIN/comparison.parquet, OUT/TRAIN-controls/comparison.parquet, OUT/priors.parquet and
OUT/evidence.parquet; rows that are there already are skipped.
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
STEPS = {"isbi": (75, 150), "vnc": (150,)}
STYLES = {"isbi": ("monet", "village", "brick", "grass", "gravel", "vnc"), "vnc": ("monet", "brick", "isbi")}
"""By what is trained on: artistic, photographs of textures, and the other EM data set. (Fewer the other way, for time.)
"""
PUBLISHED, PUBLISHED_STEPS = {"isbi": ("monet", "brick"), "vnc": ()}, 20
"""Styles that are also transferred as the paper did, from the content by L-BFGS with VGG (the layers at hand) and the
loss ``means``. It takes few of its 75 steps until little is left of the content."""
CONTROLS = {"blur": 1.5, "noise": 25.0}
"""Deviation of a Gaussian in px, and of the noise in grey levels."""
TREES, SEEDS = 50, 3
TRUTH = TruthConfig(zero="boundary")
SMOOTHING = ("monet", "brick", "grass")
SCORES = ("rand_error", "rand_index_error", "vi_split", "vi_merge", "vi")
BETAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
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
    for name, other in (("isbi", "vnc"), ("vnc", "isbi")):
        train = collection(out, data, name, "train")
        versions = [stylised(out, data, train, style, steps) for style in STYLES[name] for steps in STEPS[name]]
        versions += [stylised(out, data, train, style, PUBLISHED_STEPS, published=True) for style in PUBLISHED[name]]
        versions.append(stylised(out, data, train, other, None))
        compared(out, data, name, versions, out / name, ("content_score>=0.9",))


def controls(out: Path, data: Path) -> None:
    """The same with changes of the images that know of no style."""
    for name in ("isbi", "vnc"):
        train = collection(out, data, name, "train")
        versions = [changed(train, change) for change in CONTROLS]
        compared(out, data, name, versions, out / f"{name}-controls", ())


def compared(out: Path, data: Path, name: str, versions: list[str], folder: Path, select: tuple[str, ...]) -> None:
    rows = compare_scenarios(
        NeuronCompareConfig(
            collection=collection(out, data, name, "train"),
            augment=tuple(versions),
            test=tuple(collection(out, data, test, "test") for test in ("isbi", "vnc")),
            out=str(folder),
            truth=TRUTH,
            seeds=SEEDS,
            select=select,
            forest=ForestConfig(trees=TREES),
            run=HERE,
        )
    )
    show_table(scenario_table(rows), title=f"trained on {name}")


def changed(source: str, change: str) -> str:
    """A collection with its images blurred, or with noise."""
    uri, folder = Path(source) / "styles" / change, Path(source) / "changed" / change
    if not (uri / "images.parquet").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(open_collection(source)):
            pixels = image.numpy()[0].astype(np.float64)
            noise = np.random.default_rng(number).normal(0, CONTROLS[change], pixels.shape)
            pixels = pixels + noise if change == "noise" else ndimage.gaussian_filter(pixels, CONTROLS[change])
            Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).save(folder / f"{image.image_id}.png")
        called("ingest", str(folder), "--out", str(uri), "--pixel-size", str(PIXEL_SIZE_UM))
    return str(uri)


# --------------------------------------------------------------------------------------------------------------- priors


def priors(out: Path, data: Path) -> None:
    path = out / "priors.parquet"
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    for name in ("isbi", "vnc"):
        train = collection(out, data, name, "train")
        made = [stylised(out, data, train, style, steps) for style in STYLES[name] for steps in STEPS[name]]
        for images, uris in (("original", [train]), ("original + all styles", [train, *made])):
            if not any((row["trained"], row["images"]) == (name, images) for row in rows):
                rows += list(prior_rows(out, data, name, images, uris))
                pq.write_table(pa.Table.from_pylist(rows), path)
    show_table(pa.Table.from_pylist(rows))


def prior_rows(out: Path, data: Path, name: str, images: str, uris: list[str]) -> Iterator[dict[str, Any]]:
    recipe = GraphRecipe(neurons=NeuronConfig())
    train = [graph for uri in uris for graph in whole_graphs(uri, recipe)]
    learned = [graph.to_train("boundary", 0.5) for graph in train]
    forests = [EdgeForest.fit(learned, ForestConfig(trees=TREES, seed=seed), train[0].names) for seed in range(SEEDS)]
    for test in ("isbi", "vnc"):
        graphs = whole_graphs(collection(out, data, test, "test"), recipe)
        for beta in BETAS:
            config = MulticutConfig(beta=beta)
            found = [scores([graph.segmented(forest, config) for graph in graphs]) for forest in forests]
            means = {score: statistics.fmean(row[score] for row in found) for score in SCORES}
            yield {"trained": name, "images": images, "test": test, "beta": beta, **means}


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
        return whole_graphs(sources[split], recipe, told[split])

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


def whole_graphs(uri: str, recipe: GraphRecipe, told: str | None = None) -> list[LabelledGraph]:
    """Of the images of a collection, with the probabilities of another if there is one."""
    boundaries = None if told is None else open_collection(told)
    images = (
        LabelledImage(image, image.labels(), "", None if boundaries is None else boundaries[image.image_id])
        for image in open_collection(uri)
    )
    return [labelled_graph(recipe, one, Region.whole(one.image.plane_shape)) for one in images]


def probabilities(out: Path, data: Path, source: str, kind: str) -> str:
    """The images of a collection (as they are, smoothed, or stylised) as if they told how likely a pixel is inside."""
    uri, folder = Path(source) / "evidence" / kind, Path(source) / "evidence-files" / kind
    if not (uri / "images.parquet").exists():
        looked = source if kind in ("image", "smoothed") else stylised(out, data, source, kind, 150)
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
    parser.add_argument("parts", nargs="+", choices=("augment", "controls", "priors", "evidence"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    for part in options.parts:
        {"augment": augment, "controls": controls, "priors": priors, "evidence": evidence}[part](
            options.out, Path(os.environ["RAYDOM_DATA"])
        )
