"""Ingestion on Ray gives what this process gives, also when workers die; and so do lazy arrays."""

import dataclasses

import killers
import numpy as np
import tifffile
from ray.util.dask import ray_dask_get

from raydom.cluster.ingest import on_ray
from raydom.commands import IngestConfig
from raydom.config import ClusterConfig
from raydom.ingestion.run import ingest
from raydom.storage.collection import open_collection


def test_files_that_kill_their_workers_are_tried_again_and_given_up_alone(ray_session, tmp_path):
    names = ("a-once", "b-always", *(f"i{number:02d}" for number in range(18)))  # more than one file a task
    rng = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for name in names:
            pixels = rng.integers(0, 999, (70, 90), np.uint16)
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", pixels if folder == "images" else pixels > 500)
    here = IngestConfig(
        source=(str(tmp_path / "images"),), labels=(str(tmp_path / "labels"),), out=str(tmp_path / "here")
    )
    assert len(ingest(here).ingested) == 20
    there = dataclasses.replace(here, out=str(tmp_path / "there"))
    told = []
    report = ingest(
        there,
        map=lambda function, tasks: on_ray(ClusterConfig())(killers.read_or_die, tasks),
        progress=lambda *numbers: told.append(numbers),
    )
    (refusal,) = report.refused
    assert refusal.source_file == str(tmp_path / "images/b-always.tif")
    assert "b-always.tif: its worker died 3 times while reading it" in refusal.error
    assert told[-1] == (20, 20, 1)
    assert (tmp_path / "there/images/marker").exists()  # it did happen
    assert not list((tmp_path / "there/images/a-once.zarr").rglob(".*.partial"))
    expected = {image.image_id: image for image in open_collection(here.out)}
    found = {image.image_id: image for image in open_collection(there.out)}
    assert set(found) == set(names) - {"b-always"}
    for name, image in found.items():
        assert image.record == expected[name].record
        np.testing.assert_array_equal(image.numpy(), expected[name].numpy())
        np.testing.assert_array_equal(image.labels().numpy(), expected[name].labels().numpy())
    one_worker = ClusterConfig(workers=1)
    again = ingest(there, map=lambda function, tasks: on_ray(one_worker)(killers.read_alone, tasks))
    assert not again.refused  # never more at work than were asked for
    assert again.ingested == ("b-always",) and len(again.skipped) == 19  # all but the one that is new now


def test_lazy_arrays_are_computed_on_ray(ray_session, make_collection):
    pixels = np.random.default_rng(0).integers(0, 999, (2, 1300, 70), np.uint16)
    image = make_collection("c", {"a": pixels}, {"a": pixels[0]})["a"]
    assert image.dask().mean().compute(scheduler=ray_dask_get) == pixels.mean()
    rows = image.dask().rechunk((1, 111, 70)).astype(float).std(axis=(0, 2))
    np.testing.assert_allclose(rows.compute(scheduler=ray_dask_get), pixels.std(axis=(0, 2)))
    assert image.labels().dask().max().compute(scheduler=ray_dask_get) == pixels[0].max()
