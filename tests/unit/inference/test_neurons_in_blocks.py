"""The neuron job: the same neurons for any block size, after any interruption, of sections and volumes."""

import dataclasses
import functools

import numpy as np
import pyarrow.parquet as pq
import pytest

from raydom.config import (
    BlockConfig,
    MulticutConfig,
    RunConfig,
)
from raydom.errors import ConfigError
from raydom.images.overlaps import count_overlaps
from raydom.images.partition_metrics import partition_scores, partition_sums
from raydom.inference.neuron_job import NeuronJob
from raydom.inference.neuron_stages import NEURON_JOBS, NeuronProcessor
from raydom.inference.runner import execute_serially, run_jobs
from raydom.storage import files
from raydom.storage.collection import open_collection

QUIET = RunConfig(quiet=True, serial=True)


def job(collection, forest, out, size=64, **options):
    blocks = BlockConfig(block_size=size)
    return NeuronJob(name="n", collection=collection.uri, out=str(out), forest=forest, blocks=blocks, **options)


def run(*jobs, run=QUIET):
    execute = functools.partial(execute_serially, open_processor=NeuronProcessor)
    return run_jobs(jobs, run, execute, kind=NEURON_JOBS)


def made(out, image_id="a"):
    image = open_collection(str(out))[image_id]
    return [image.numpy(), image.labels("superpixels").numpy(), image.labels("neurons").numpy()]


def table(out, name):
    return pq.read_table(f"{out}/{name}").to_pandas()


@pytest.mark.parametrize("planes", [0, 6])
def test_neurons_are_the_same_for_any_block_size_and_right(
    tmp_path, make_collection, make_forest, mosaic, planes
) -> None:
    shape = (70, 85) if planes else (150, 131)
    truth, pixels = mosaic(shape, planes=planes)
    collection, forest = make_collection("c", {"a": pixels[None]}), make_forest(planes=planes)
    for size in (32, 64, 192):
        (report,) = run(job(collection, forest, tmp_path / str(size), size))
        assert report.ok, report.failed
    first, *others = (made(tmp_path / str(size)) for size in (32, 64, 192))
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert np.array_equal(a, b)
    edges = [table(tmp_path / str(size), "edges") for size in (32, 64, 192)]
    assert edges[0].equals(edges[1]) and edges[0].equals(edges[2]) and edges[0]["cut"].mean() not in (0, 1)
    _, parts, neurons = first
    assert parts.min() == 1 and len(np.unique(parts)) == parts.max() > neurons.max() == report.num_objects
    # Neurons are unions of superpixels; far nearer to the truth than these are, and hardly worse than one cell of all.
    assert len(np.unique(np.stack([parts.ravel(), neurons.ravel()]), axis=1).T) == parts.max()
    errors = {name: rand_error(truth, found) for name, found in (("parts", parts), ("neurons", neurons))}
    assert errors["neurons"] < 0.15 and errors["neurons"] < errors["parts"] / 2, errors


def rand_error(truth, found):
    return partition_scores(partition_sums(count_overlaps(found, truth)))["rand_error"]


def test_an_image_of_one_cell_is_done_at_once_and_alike(tmp_path, make_collection, make_forest, mosaic) -> None:
    _, pixels = mosaic((30, 27))
    _, larger = mosaic((60, 40), seed=1)
    collection, forest = make_collection("c", {"a": pixels[None], "b": larger[None]}), make_forest()
    (report,) = run(job(collection, forest, tmp_path / "o"))
    assert report.ok and report.num_images == 2
    kinds = {receipt.kind for receipt in report.job.folder.read_receipts().values() if receipt.image_id == "a"}
    assert kinds == {"block"}
    assert set(table(tmp_path / "o", "edges")["image_id"]) == {"a", "b"}
    assert table(tmp_path / "o", "superpixels")["neuron"].max() == max(made(tmp_path / "o", i)[2].max() for i in "ab")


@pytest.mark.parametrize("stage", ["block", "number", "graph", "solve", "label"])
def test_an_interrupted_job_goes_on_to_the_same_bits(
    tmp_path, make_collection, make_forest, mosaic, monkeypatch, stage
) -> None:
    _, pixels = mosaic((50, 70))
    collection, forest = make_collection("c", {"a": pixels[None]}), make_forest()
    (report,) = run(job(collection, forest, tmp_path / "whole", 32))
    one, write, left = job(collection, forest, tmp_path / "o", 32), NeuronProcessor.write, [1]

    def stop(self, task, outputs):
        if task.kind == stage:
            if left[0] == 0 or stage in ("number", "solve"):
                raise KeyboardInterrupt
            left[0] -= 1
        return write(self, task, outputs)

    monkeypatch.setattr(NeuronProcessor, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        run(one)
    monkeypatch.setattr(NeuronProcessor, "write", write)
    (report,) = run(one)
    assert report.ok
    for a, b in zip(made(tmp_path / "o"), made(tmp_path / "whole"), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("what", ["views", "numbers", "contacts"])
def test_what_was_kept_and_is_lost_is_made_again(
    tmp_path, make_collection, make_forest, mosaic, monkeypatch, what
) -> None:
    _, pixels = mosaic((50, 70))
    collection, forest = make_collection("c", {"a": pixels[None]}), make_forest()
    run(job(collection, forest, tmp_path / "whole", 32))
    one, read, lost = job(collection, forest, tmp_path / "o", 32), NeuronProcessor.read, []
    needs = {"views": "pair", "numbers": "graph", "contacts": "solve"}[what]

    def lose(self, task):
        if task.kind == needs and not lost:
            lost.append(files.list_files(f"{one.folder.uri}/objects/{what}", ".npz")[0])
            files.remove(lost[0])
        return read(self, task)

    monkeypatch.setattr(NeuronProcessor, "read", lose)
    (report,) = run(one)
    if not report.ok:  # told, and done again when asked for
        assert "gone" in str(report.failed[0].error), report.failed[0]
        (report,) = run(one, run=dataclasses.replace(QUIET, retry_failed=True))
    assert lost and report.ok
    for a, b in zip(made(tmp_path / "o"), made(tmp_path / "whole"), strict=True):
        assert np.array_equal(a, b)


def test_images_with_nothing_to_tell_apart_are_one_neuron_or_less(tmp_path, make_collection, make_forest) -> None:
    blank = {"a": np.zeros((1, 40, 50), np.uint8), "b": np.full((1, 9, 9), 7, np.uint8)}
    (report,) = run(job(make_collection("c", blank), make_forest(), tmp_path / "o"))
    assert report.ok
    assert len(np.unique(made(tmp_path / "o", "b")[2])) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size": 48}, "Choose --block-size 64"),
        ({"channel": 3}, "there is no 3"),
        ({"boundary": "elsewhere"}, "trained on the raw image"),
        ({"size": 16, "shape": (30, 27)}, "block-size 16 px cannot be cut into the squares of 32 px"),
        ({"volume": True}, "is a volume"),
        ({"pixel_size_um": 0.1}, "trained at 0.004"),
        ({"network": True}, "--forest needs a run of `raydom neurons train`"),
    ],
)
def test_what_cannot_be_done_is_refused_before_work(
    tmp_path, make_collection, make_forest, mosaic, make_model, options, told
) -> None:
    _, pixels = mosaic(options.pop("shape", (70, 40)))
    image = np.stack([pixels] * 3)[None] if options.pop("volume", False) else pixels[None]
    collection = make_collection("c", {"a": image}, pixel_size_um=options.pop("pixel_size_um", None))
    forest = make_model() if options.pop("network", False) else make_forest(pixel_size_um=0.004)
    if options.get("boundary"):
        options["boundary"] = make_collection("p", {"a": np.zeros((1, 70, 40), np.uint8)}).uri
    with pytest.raises(ConfigError, match=told):
        run(job(collection, forest, tmp_path / "o", **options))
    assert not (tmp_path / "o" / "images").exists()


def test_other_settings_do_not_go_on_with_an_output(tmp_path, make_collection, make_forest, mosaic) -> None:
    collection, forest = make_collection("c", {"a": mosaic((70, 40))[1][None]}), make_forest()
    run(job(collection, forest, tmp_path / "o"))
    with pytest.raises(ConfigError, match=r"multicut.beta: was 0.5, now 0.7"):
        run(job(collection, forest, tmp_path / "o", multicut=MulticutConfig(beta=0.7)))


def test_a_block_that_does_not_fit_is_refused(tmp_path, make_collection, make_forest, mosaic) -> None:
    collection, forest = make_collection("c", {"a": mosaic((70, 40))[1][None]}), make_forest()
    with pytest.raises(ConfigError, match=r"a worker may use 0\.0001 GiB"):
        run(job(collection, forest, tmp_path / "o"), run=dataclasses.replace(QUIET, memory_gib=1e-4))


def test_a_probability_of_the_inside_says_the_same_as_one_of_membranes(
    tmp_path, make_collection, make_forest, mosaic, caplog
) -> None:
    _, pixels = mosaic((70, 85))
    probability = 255 - pixels
    collection = make_collection("c", {"a": pixels[None]})
    told = make_collection("p", {"a": probability[None]}), make_collection("i", {"a": pixels[None]})
    forest = make_forest(boundary="probability")
    for number, one in enumerate(told):
        options = {"boundary": one.uri, "inside": bool(number)}
        (report,) = run(job(collection, forest, tmp_path / str(number), **options))
        assert report.ok
    assert np.array_equal(made(tmp_path / "0")[2], made(tmp_path / "1")[2])
    assert [
        record.getMessage() for record in caplog.records if "--inside False, and is asked with True" in record.message
    ]
    assert np.array_equal(made(tmp_path / "0")[0][0], probability)
