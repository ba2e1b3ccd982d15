"""Training of forests for neurons, without Ray: a known answer, the cut into squares, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.ndimage import gaussian_filter, label

from raydom.cluster.blocks import run_block_jobs
from raydom.cluster.neuron_scenarios import compare_scenarios
from raydom.cluster.neuron_training import train_forest
from raydom.commands import MembraneConfig, NeuronCompareConfig, NeuronTrainConfig, TruthConfig
from raydom.config import (
    BlockConfig,
    EvidenceConfig,
    ForestConfig,
    ImageFilter,
    NeuronConfig,
    RunConfig,
    SuperpixelConfig,
)
from raydom.errors import ConfigError, DataError
from raydom.inference.neuron_job import NeuronJob
from raydom.inference.neuron_stages import NEURON_JOBS
from raydom.neurons.forest import EdgeForest
from raydom.storage.collection import open_collection
from raydom.storage.model_run import open_forest_run
from raydom.training.scenarios import SCORES
from raydom.training.scoring import evaluate

CELL = SuperpixelConfig(cell_px=96, halo_px=32, min_size_px=10)
# Of membranes some 3 px wide.
THIN = EvidenceConfig(frangi_sigmas_px=(1.0, 2.0, 3.0), frangi_gamma=0.03)
NEURONS = NeuronConfig(superpixels=CELL, evidence=THIN)
HERE = RunConfig(serial=True, quiet=True)


def tissue(seed: int, side: tuple[int, int] = (83, 96)) -> tuple[np.ndarray, np.ndarray]:
    """Cells of a Voronoi diagram with dark membranes, texture and noise, and their numbers (0 on membranes)."""
    generator = np.random.default_rng(seed)
    points = generator.uniform(0, side, (14, 2))
    place = np.stack(np.meshgrid(*map(np.arange, side), indexing="ij"), axis=-1)
    far = np.sort(np.linalg.norm(place[:, :, None] - points, axis=-1), axis=-1)
    membrane = far[..., 1] - far[..., 0] < 3
    bright = 170 - 110 * gaussian_filter(membrane.astype(float), 0.7) + generator.normal(0, 12, side)
    return np.clip(bright, 0, 255).astype(np.uint8)[None], label(~membrane)[0].astype(np.uint16)


@pytest.fixture
def sections(make_collection):
    made = {f"s{n}": tissue(n) for n in range(4)}

    def write(name, ids=("s0", "s1"), change=lambda pixels: pixels, labels=True, **fields):
        images = {one: change(made[one][0]) for one in ids}
        return make_collection(name, images, {one: made[one][1] for one in ids} if labels else None, **fields).uri

    return write


def train(collection, out, **options):
    options = {"truth": TruthConfig(zero="boundary"), "neurons": NEURONS, "run": HERE} | options
    forest = options.pop("forest", ForestConfig(trees=15))
    return train_forest(NeuronTrainConfig(collection=collection, out=str(out), forest=forest, **options))


def test_a_forest_learns_borders_and_its_run_is_kept(sections, tmp_path):
    collection = sections("train")
    run = train(collection, tmp_path / "run")
    (row,) = run.metrics.to_pylist()
    assert row["oob_auc"] > 0.97 and row["oob_accuracy"] > 0.9 and 0.2 < row["cut"] < 0.95 and row["images"] == 2
    opened = open_forest_run(run.uri)
    assert opened.spec.boundary == "frangi" and opened.spec.planes and opened.spec.neurons == NEURONS
    assert EdgeForest.from_arrays(opened.weights()).names == opened.spec.features
    assert train(collection, tmp_path / "run").content_hash == run.content_hash
    with pytest.raises(ConfigError, match="trees: 15 -> 16"):
        train(collection, tmp_path / "run", forest=ForestConfig(trees=16))
    again = train(collection, tmp_path / "again")
    assert again.content_hash == run.content_hash
    assert train(collection, tmp_path / "other", forest=ForestConfig(trees=15, seed=1)).content_hash != run.content_hash


def test_squares_of_a_large_image_learn_each_border_once(make_collection, tmp_path):
    pixels, truth = tissue(7, (150, 140))
    collection = make_collection("large", {"a": pixels}, {"a": truth}).uri
    small = replace(CELL, cell_px=64)
    cut = train(collection, tmp_path / "cut", neurons=NeuronConfig(superpixels=small)).metrics.to_pylist()[0]
    whole = train(collection, tmp_path / "whole", neurons=NeuronConfig(superpixels=replace(CELL, cell_px=160)))
    one = whole.metrics.to_pylist()[0]
    assert (cut["graphs"], one["graphs"]) == (9, 1)
    known = [row["edges"] * (1 - row["unknown"]) for row in (cut, one)]
    assert known[0] == pytest.approx(known[1], rel=0.1) and cut["edges"] > 1.5 * one["edges"]
    assert cut["cut"] == pytest.approx(one["cut"], abs=0.05)


def test_a_stylised_image_has_its_own_superpixels_and_the_truth_of_its_labels_or_of_the_original(sections, tmp_path):
    collection = sections("train")
    inverted = sections("inverted", change=lambda pixels: 255 - pixels)
    plain = train(collection, tmp_path / "plain").metrics.to_pylist()[0]
    more = train(collection, tmp_path / "more", augment=(inverted,))
    assert more.metrics.to_pylist()[0]["images"] == 4 and more.metrics.to_pylist()[0]["edges"] != 2 * plain["edges"]
    bare = sections("inverted-bare", change=lambda pixels: 255 - pixels, labels=False)
    alike = train(collection, tmp_path / "alike", augment=(bare,))
    assert alike.weights().keys() == more.weights().keys()
    assert all((value == more.weights()[name]).all() for name, value in alike.weights().items())


def test_versions_of_images_that_are_not_trained_on_are_left_out(sections, tmp_path, caplog):
    collection = sections("train", ids=("s0", "s1", "s2"), split={"s0": "train", "s1": "train", "s2": "test"})
    versions = sections("versions", ids=("s0", "s1", "s2"), change=lambda pixels: pixels // 2)
    run = train(collection, tmp_path / "run", augment=(versions,))
    assert "1 images of split 'test' are not trained on" in caplog.text
    assert list(run.training["augment"]["versions"]) == ["s0", "s1"] and "1 images are versions of none" in caplog.text
    test = train(collection, tmp_path / "test", images=ImageFilter(split="test"))
    assert list(test.training["images"]["originals"]) == ["s2"]
    chosen = train(collection, tmp_path / "few", augment=(versions,), select=("image_id=s1", "style=versions"))
    assert list(chosen.training["augment"]["versions"]) == ["s1"]
    with pytest.raises(ConfigError, match="no image has style brick; there is versions"):
        train(collection, tmp_path / "none", augment=(versions,), select=("style=brick",))


def test_what_cannot_be_learned_from_is_refused(sections, make_collection, tmp_path):
    collection = sections("train")
    pixels, truth = tissue(0)

    def refused(error, text, made=None, **options):
        with pytest.raises(error, match=text):
            train(made or collection, tmp_path / "refused", **options)
        assert not (tmp_path / "refused" / "complete.json").exists()

    refused(DataError, "none of 2 images has labels 'cells'", truth=TruthConfig(zero="boundary", label="cells"))
    refused(ConfigError, "there is no --channel 1", membranes=MembraneConfig(channel=1))
    refused(ConfigError, "square of 96 px of 1 planes needs about", run=replace(HERE, memory_gib=1e-4))
    others = sections("others", ids=("s2", "s3"))
    refused(ConfigError, "no version of an image that is trained on: it has s2, s3, and .* s0, s1", augment=(others,))
    refused(ConfigError, "two collections of --augment are called train", augment=(collection, collection))
    refused(ConfigError, "is called originals", augment=(sections("originals"),))
    smaller = make_collection("smaller", {"s0": pixels[:, :40]}).uri
    refused(DataError, r"s0 is \(40, 96\) px, and its original \(83, 96\)", augment=(smaller,))
    one = make_collection("one", {"a": pixels}, {"a": np.minimum(truth, 1)}).uri
    refused(DataError, "a.zarr: the truth has no boundary", one)
    flat = make_collection("flat", {"a": np.full_like(pixels, 9)}, {"a": truth}).uri
    refused(DataError, "a.zarr: the graph has no edge", flat)
    with pytest.raises(ConfigError, match="zero is boundary or background"):
        TruthConfig(zero="membrane")
    with pytest.raises(ConfigError, match="--select chooses among the images of --augment"):
        NeuronTrainConfig(collection="c", out="o", truth=TruthConfig(zero="boundary"), select=("style=brick",))
    with pytest.raises(ConfigError, match="not of stylised ones"):
        NeuronTrainConfig(
            collection="c", out="o", truth=TruthConfig(zero="boundary"), augment=("a",),
            membranes=MembraneConfig(boundary="b"),
        )  # fmt: skip


def test_scenarios_are_scored_as_a_segmentation_is_and_rows_are_made_once(sections, tmp_path, monkeypatch):
    train_uri, test_uri = sections("train"), sections("test", ids=("s2", "s3"))
    other = sections("other", ids=("s3",), change=lambda pixels: pixels // 3)
    dark = sections("dark", change=lambda pixels: (pixels * 0.6).astype(np.uint8))
    noisy = sections("noisy", change=lambda pixels: pixels ^ 31)
    config = NeuronCompareConfig(
        collection=train_uri, augment=(dark, noisy), test=(test_uri, other), out=str(tmp_path / "table"), seeds=2,
        select=("style=dark",), truth=TruthConfig(zero="boundary"), neurons=NEURONS, forest=ForestConfig(trees=10),
        run=HERE,
    )  # fmt: skip
    rows = compare_scenarios(config)
    names = ["original", "stylised", "original + all", "selected", "original + selected", "original + dark",
             "original + noisy"]  # fmt: skip
    assert [row["scenario"] for row in rows] == [name for name in names for _ in range(4)]
    assert [row["test"] for row in rows] == ["test", "other"] * 14
    by = {(row["scenario"], row["seed"]): row for row in rows if row["test"] == "test"}
    assert [by[name, 0]["images"] for name in names] == [2, 4, 6, 2, 4, 4, 4]
    assert {**by["original + selected", 1], "scenario": "", "seconds": 0, "fingerprint": ""} == {
        **by["original + dark", 1], "scenario": "", "seconds": 0, "fingerprint": "",
    }  # fmt: skip
    forest = train(train_uri, tmp_path / "run", forest=ForestConfig(trees=10, seed=1)).uri
    expected = segmented(forest, test_uri, tmp_path / "segmented")
    assert all(by["original", 1][name] == expected[name] for name in SCORES)
    assert (tmp_path / "table" / "comparison.png").stat().st_size > 5000

    def nothing(*_):
        raise AssertionError("a row was made again")

    monkeypatch.setattr("raydom.training.scenarios.Trainer.__call__", nothing)
    assert compare_scenarios(config) == rows
    monkeypatch.undo()
    assert len(compare_scenarios(replace(config, seeds=3, style=("dark",), select=()))) == 4 * 3 * 2
    assert pq.read_table(tmp_path / "table" / "comparison.parquet").num_rows == (14 + 4) * 2
    with pytest.raises(ConfigError, match="no collection of --augment is called brick; there is dark, noisy"):
        compare_scenarios(replace(config, style=("brick",)))
    with pytest.raises(ConfigError, match=r"s0\.zarr is both trained and tested on"):
        compare_scenarios(replace(config, test=(train_uri,)))
    with pytest.raises(ConfigError, match="cell-px 96"):
        compare_scenarios(replace(config, neurons=NeuronConfig(superpixels=replace(CELL, cell_px=64))))


def segmented(forest, uri, out):
    """Scores of the labels that the neuron job writes, by the general evaluation."""
    job = NeuronJob(name="n", collection=uri, out=str(out), forest=forest, blocks=BlockConfig(block_size=96))
    assert run_block_jobs([job], HERE, kind=NEURON_JOBS)[0].ok
    rows = evaluate(
        open_collection(str(out)), open_collection(uri), prediction_label="neurons", kind="instance", bootstrap=0
    ).to_pylist()
    return next(row for row in rows if row["scope"] == "pooled")


def test_a_model_is_asked_about_originals_and_stylised_images(sections, make_model, tmp_path):
    collection = sections("train")
    dark = sections("dark", change=lambda pixels: pixels // 2)
    options = {"membranes": MembraneConfig(model=make_model(depth=2)), "blocks": BlockConfig(block_size=96)}
    run = train(collection, tmp_path / "run", augment=(dark,), **options)
    assert run.spec.boundary == "probability" and run.metrics.to_pylist()[0]["images"] == 4
    told = [str(tmp_path / "run" / "membranes" / name / "boundary") for name in ("originals", "dark")]
    assert [len(open_collection(uri)) for uri in told] == [2, 2]
    same = train(collection, tmp_path / "same", membranes=MembraneConfig(boundary=told[0]))
    assert same.spec.boundary == "probability" and same.metrics.to_pylist()[0]["images"] == 2


def test_a_model_is_asked_about_training_and_test_images_of_one_collection(sections, make_model, tmp_path):
    collection = sections("all", ids=("s0", "s1", "s2"))
    dark = sections("dark", change=lambda pixels: pixels // 2)
    config = NeuronCompareConfig(
        collection=collection, augment=(dark,), test=(collection,), out=str(tmp_path / "table"), seeds=1,
        images=ImageFilter(keep=("image_id!=s2",)), test_keep=("image_id=s2",), truth=TruthConfig(zero="boundary"),
        membranes=MembraneConfig(model=make_model(depth=2)), blocks=BlockConfig(block_size=96), neurons=NEURONS,
        forest=ForestConfig(trees=5), run=HERE,
    )  # fmt: skip
    rows = compare_scenarios(config)
    assert [(row["scenario"], row["images"], row["test"]) for row in rows] == [
        ("original", 2, "all"), ("stylised", 2, "all"), ("original + all", 4, "all"), ("original + dark", 4, "all"),
    ]  # fmt: skip
