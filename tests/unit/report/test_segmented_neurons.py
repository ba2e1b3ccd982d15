"""What raydom neurons show tells of the output of a neuron job."""

import functools

import numpy as np
import pytest
from PIL import Image as Picture

from raydom.commands import NeuronShowConfig
from raydom.config import BlockConfig, RunConfig
from raydom.errors import ConfigError, DataError
from raydom.inference.neuron_job import NeuronJob
from raydom.inference.neuron_stages import NEURON_JOBS, NeuronProcessor
from raydom.inference.runner import execute_serially, run_jobs
from raydom.report.segmented_neurons import show


@pytest.fixture
def segmented(tmp_path, make_collection, make_forest, mosaic):
    """A collection with its truth, and where its neurons are."""

    def make(planes=0):
        truth, pixels = mosaic((60, 50), planes=planes)
        collection = make_collection("c", {"a": pixels[None]}, {"a": truth})
        out = str(tmp_path / "o")
        blocks, forest = BlockConfig(block_size=32), make_forest(planes=planes)
        job = NeuronJob(name="n", collection=collection.uri, out=out, forest=forest, blocks=blocks)
        execute = functools.partial(execute_serially, open_processor=NeuronProcessor)
        assert run_jobs([job], RunConfig(quiet=True, serial=True), execute, kind=NEURON_JOBS)[0].ok
        return collection.uri, out

    return make


@pytest.mark.parametrize("planes", [0, 4])
def test_a_picture_is_drawn_and_the_multicut_is_told_apart_from_the_forest(segmented, planes) -> None:
    collection, out = segmented(planes)
    config = NeuronShowConfig(neurons=out, collection=collection, label="label", zero="background", size_px=48)
    path, tables = show(config)
    assert path == f"{out}/neurons.png" and np.asarray(Picture.open(path)).std() > 10
    forest, multicut = tables["borders"].to_pylist()
    assert forest["edges"] == multicut["edges"] > 20 and multicut["recall"] > 0.8
    assert sum(tables["what probabilities are worth"]["edges"].to_pylist()) == forest["edges"]


def test_without_true_borders_there_is_a_picture_and_what_is_not_there_is_refused(
    segmented, make_collection, caplog
) -> None:
    collection, out = segmented()
    path, tables = show(NeuronShowConfig(neurons=out, collection=collection, at=(40, 0), size_px=32))
    assert path and not tables
    for options, error, told in (
        ({"image": "z"}, DataError, "no image 'z'"),
        ({"at": (60, 0)}, ConfigError, r"--at \(60, 0\) is not within a"),
        ({"plane": 1}, ConfigError, "no plane 1"),
        ({"label": "truth", "zero": "boundary"}, ConfigError, "no label 'truth'"),
        ({"neurons": collection}, DataError, "has no label superpixels"),
    ):
        with pytest.raises(error, match=told):
            show(NeuronShowConfig(**({"neurons": out, "collection": collection, "size_px": 32} | options)))
    one = make_collection("one", {"a": np.zeros((1, 60, 50), np.uint8)}, {"a": np.ones((60, 50), np.uint8)}).uri
    path, tables = show(NeuronShowConfig(neurons=out, collection=one, label="label", zero="boundary", size_px=32))
    assert path and not tables and "the truth has no boundary" in caplog.text
    other = make_collection("other", {"a": np.zeros((1, 9, 9), np.uint8)}).uri
    with pytest.raises(DataError, match="was not made of"):
        show(NeuronShowConfig(neurons=out, collection=other))
