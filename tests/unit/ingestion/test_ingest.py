from __future__ import annotations

import dataclasses
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import zarr
from ome_zarr_models.v05.image import Image as OmeImage
from ome_zarr_models.v05.image_label import ImageLabel as OmeLabel
from PIL import Image

import raydom.ingestion.run as run_module
import raydom.storage.lease as lease_module
import raydom.storage.whole_images as whole_images
from raydom.commands import IngestConfig
from raydom.config import ClusterConfig
from raydom.errors import ConfigError, DataError
from raydom.images.intensity import image_statistics
from raydom.ingestion import IngestReport, ingest
from raydom.ingestion.file import ingest_file
from raydom.ingestion.run import on_threads
from raydom.storage import readers
from raydom.storage.collection import open_collection
from raydom.storage.pyramids import write_levels
from raydom.storage.summary import describe
from raydom.storage.zarr_images import create_image, create_labels

GENERATOR = np.random.default_rng(0)


def save(path: Path, *shape: int, seed: int = 0) -> np.ndarray:
    """A random image file; returns its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def mask(path: Path, *shape: int, values: tuple[int, ...] = (0, 255)) -> np.ndarray:
    """A label file with these values, each of them there; returns the index of the value."""
    index = np.arange(int(np.prod(shape))).reshape(shape) % len(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)[index]).save(path)
    return index


def run(folder: Path, *sources: str, **options: Any) -> IngestReport:
    places = tuple(str(folder / source) for source in sources)
    labels = tuple(
        f"{label.split('=')[0]}={folder / label.split('=')[1]}" if "=" in label else str(folder / label)
        for label in options.pop("labels", ())
    )
    return ingest(
        IngestConfig(source=places, out=str(folder / "out"), labels=labels, run=ClusterConfig(workers=2), **options)
    )


def test_images_and_labels_become_a_collection(tmp_path: Path) -> None:
    first, second = save(tmp_path / "images/p1_a.png", 21, 13, 3), save(tmp_path / "images/p2_b.png", 700, 11)
    cells = mask(tmp_path / "cells/p1_a.gif", 21, 13)
    nuclei = mask(tmp_path / "nuclei/p2_b_mask.png", 700, 11, values=(0, 3, 200))
    report = run(
        tmp_path,
        "images",
        labels=("cells", "nuclei=nuclei/*.png"),
        domain="lab",
        split="train",
        group=r"/(p\d)_",
        pixel_size_um=0.5,
    )
    assert (report.ingested, report.skipped, report.refused) == (("p1_a", "p2_b"), (), ())
    assert len(report.warnings) == 2  # an image without each of the labels
    collection = open_collection(str(tmp_path / "out"))
    one, two = collection
    np.testing.assert_array_equal(one.numpy(), np.moveaxis(first, -1, 0))
    np.testing.assert_array_equal(two.numpy(), second[None])
    np.testing.assert_array_equal(one.labels().numpy(), cells)
    np.testing.assert_array_equal(two.labels("nuclei").numpy(), np.array([0, 3, 200])[nuclei])
    assert (one.labels().kind, two.labels("nuclei").kind) == ("binary", "instance")
    assert two.num_levels == two.labels("nuclei").num_levels == 2
    record = one.record
    assert (record.domain, record.split, record.group, record.pixel_size_um) == ("lab", "train", "p1", 0.5)
    assert record.statistics == image_statistics(np.moveaxis(first, -1, 0))
    assert record.source_file == str(tmp_path / "images/p1_a.png")
    OmeImage.from_zarr(zarr.open_group(one.uri, mode="r"))
    facts = describe(collection)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["total_bytes"] == 21 * 13 * 3 + 700 * 11
    assert facts["label_kinds"] == {"label": "binary", "nuclei": "instance"}
    assert not (tmp_path / "out/ingest-errors.parquet").exists()


def test_bad_files_are_refused_by_name_and_the_others_go_on(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    for name in ("good", "shape", "colour", "lossy"):
        save(images / f"{name}.png", 21, 13)
    mask(labels / "good.png", 21, 13)
    mask(labels / "shape.png", 21, 14)
    save(labels / "colour.png", 21, 13, 3)
    save(labels / "lossy.jpg", 21, 13)
    content = (images / "good.png").read_bytes()
    (images / "cut.png").write_bytes(content[: len(content) // 2])
    (images / "movie.wmv").write_bytes(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")
    tifffile.imwrite(images / "nan.tif", np.full((5, 7), np.nan, np.float32))
    (images / "notes.txt").write_text("no image")
    (images / ".hidden").write_text("no image")
    report = run(tmp_path, "images", labels=("labels",))
    assert report.ingested == ("good",)
    table = pq.read_table(tmp_path / "out/ingest-errors.parquet").to_pylist()
    assert [dataclasses.asdict(refusal) for refusal in report.refused] == table
    reasons = {Path(row["source_file"]).name: row["error"] for row in table}
    assert sorted(reasons) == ["colour.png", "cut.png", "lossy.png", "movie.wmv", "nan.tif", "shape.png"]
    assert "21 x 14 px" in reasons["shape.png"]
    assert "21 x 13" in reasons["shape.png"]
    assert "coloured" in reasons["colour.png"]
    assert "lossy" in reasons["lossy.png"]
    assert "truncated" in reasons["cut.png"]
    assert "unsupported type" in reasons["movie.wmv"]
    assert "NaN" in reasons["nan.tif"]
    faulty = {Path(row["source_file"]).name: row["label_file"] for row in table}
    assert faulty["shape.png"] == str(labels / "shape.png")
    assert faulty["cut.png"] is None
    assert [image.image_id for image in open_collection(str(tmp_path / "out"))] == ["good"]
    assert [path.name for path in (tmp_path / "out/images").iterdir()] == ["good.zarr"]


def test_a_second_run_only_ingests_what_is_new_or_changed(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / f"images/{name}.png", 9, 7)
    run(tmp_path, "images", domain="x")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/images").rglob("*") if path.is_file()}
    changed, new = save(tmp_path / "images/b.png", 9, 8, seed=1), save(tmp_path / "images/d.png", 5, 5)
    mask(tmp_path / "labels/d.png", 5, 5)
    report = run(tmp_path, "images", labels=("labels",), split="test")
    assert (report.ingested, report.skipped) == (("b", "d"), ("a", "c"))
    collection = open_collection(str(tmp_path / "out"))
    np.testing.assert_array_equal(collection["b"].numpy()[0], changed)
    np.testing.assert_array_equal(collection["d"].numpy()[0], new)
    assert (collection["a"].record.domain, collection["a"].record.split) == ("x", "test")
    untouched = [path for path in before if path.exists()]
    assert all(path.stat().st_mtime_ns == before[path] for path in untouched)
    assert {path.name for path in (tmp_path / "out/images").iterdir()} == {
        "a.zarr", "c.zarr", "d.zarr", Path(collection["b"].uri).name
    }  # fmt: skip
    assert "b.zarr" not in {path.name for path in (tmp_path / "out/images").iterdir()}


def test_files_whose_reader_gives_other_pixels_now_are_ingested_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "images/a.png", 9, 7)
    tifffile.imwrite(tmp_path / "images/b.tif", np.zeros((9, 7), np.uint8))
    run(tmp_path, "images")
    monkeypatch.setitem(readers.READER_VERSIONS, "TIFF", 2)
    report = run(tmp_path, "images")
    assert (report.ingested, report.skipped) == (("b",), ("a",))
    assert run(tmp_path, "images").skipped == ("a", "b")


def test_a_run_without_the_labels_that_are_there_is_refused_and_drops_none(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", 21, 13)
    truth = mask(tmp_path / "masks/a.png", 21, 13)
    run(tmp_path, "images", labels=("masks",))
    report = run(tmp_path, "images", split="train")
    assert "with label label, which this run would drop" in report.refused[0].error
    (image,) = open_collection(str(tmp_path / "out"))
    np.testing.assert_array_equal(image.labels().numpy(), truth)


def test_another_file_with_the_id_of_an_image_is_refused_but_a_copy_of_it_is_known(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", 9, 7)
    run(tmp_path, "images")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/a.png").write_bytes((tmp_path / "images/a.png").read_bytes())
    assert run(tmp_path, "copy").skipped == ("a",)
    other = save(tmp_path / "other/a.png", 9, 7, seed=5)
    (refusal,) = run(tmp_path, "other").refused
    assert str(tmp_path / "images/a.png") in refusal.error
    assert str(tmp_path / "other/a.png") in refusal.error
    assert not np.array_equal(open_collection(str(tmp_path / "out"))["a"].numpy()[0], other)


def test_two_sources_with_one_id_are_an_error_before_anything_is_written(tmp_path: Path) -> None:
    save(tmp_path / "one/a.png", 9, 7)
    save(tmp_path / "two/a.jpg", 9, 7)
    with pytest.raises(ConfigError, match=r"two sources have the id a: .*one/a\.png and .*two/a\.jpg"):
        run(tmp_path, "one", "two")
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_killed_keeps_what_was_finished_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        save(tmp_path / f"images/{name}.png", 9, 7)
    write = whole_images.create_labels
    mask(tmp_path / "labels/b.png", 9, 7)

    def interrupted(*arguments: Any, **options: Any) -> None:
        write(*arguments, **options)
        raise KeyboardInterrupt  # after the pixels of b, before its labels

    monkeypatch.setattr(whole_images, "create_labels", interrupted)
    config = IngestConfig(
        source=(str(tmp_path / "images"),), out=str(tmp_path / "out"), labels=(str(tmp_path / "labels"),)
    )
    with pytest.raises(KeyboardInterrupt):
        ingest(config, map=lambda function, tasks: map(function, tasks))
    assert [image.image_id for image in open_collection(str(tmp_path / "out"))] == ["a"]
    monkeypatch.undo()
    report = ingest(config)
    assert (report.ingested, report.skipped) == (("b", "c"), ("a",))
    assert all(image.numpy().shape == (1, 9, 7) for image in open_collection(str(tmp_path / "out")))


@pytest.mark.parametrize("pause_s", [0.0, 1000.0])
def test_images_that_were_replaced_go_with_the_manifest_that_lists_them_also_when_the_run_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause_s: float
) -> None:
    for name in "ab":
        save(tmp_path / f"images/{name}.png", 9, 7)
    run(tmp_path, "images")
    for name in "ab":
        save(tmp_path / f"images/{name}.png", 9, 7, seed=1)
    folder = tmp_path / "out/images"
    monkeypatch.setattr(run_module, "MANIFEST_EVERY_S", pause_s)

    def interrupted(function: Any, tasks: Any) -> Any:
        yield function(tasks[0])
        assert (folder / "a.zarr").exists() == (pause_s > 0)  # a run that is killed here leaves no more
        raise KeyboardInterrupt

    config = IngestConfig(source=(str(tmp_path / "images"),), out=str(tmp_path / "out"))
    with pytest.raises(KeyboardInterrupt):
        ingest(config, map=interrupted)
    listed = {Path(image.uri).name for image in open_collection(config.out)}
    assert {path.name for path in folder.iterdir()} == listed and "a.zarr" not in listed and "b.zarr" in listed


def test_a_slow_file_holds_back_no_other_and_the_report_is_in_the_order_of_ids(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / f"images/{name}.png", 9, 7)
    others_are_in, told = threading.Event(), []

    def read(task: Any) -> Any:
        if task.image_id == "a":
            assert others_are_in.wait(5)
        return ingest_file(task)

    def progress(done: int, *others: int) -> None:
        told.append(done)
        if done == 2:
            others_are_in.set()

    config = IngestConfig(source=(str(tmp_path / "images"),), out=str(tmp_path / "out"), run=ClusterConfig(workers=2))
    report = ingest(config, map=lambda function, tasks: on_threads(config.run)(read, tasks), progress=progress)
    assert (report.ingested, told) == (("a", "b", "c"), [1, 2, 3])


def test_a_stack_is_an_image_a_plane_with_a_common_group(tmp_path: Path) -> None:
    stack = GENERATOR.integers(0, 9999, (3, 9, 7), dtype=np.uint16)
    truth = (stack > 5000).astype(np.uint8)
    for folder, data in (("images", stack), ("labels", truth)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "s.tif", data, photometric="minisblack", metadata={"axes": "ZYX"})
    report = run(tmp_path, "images", labels=("labels",))
    assert report.ingested == ("s_z000", "s_z001", "s_z002")
    for number, image in enumerate(open_collection(str(tmp_path / "out"))):
        np.testing.assert_array_equal(image.numpy()[0], stack[number])
        np.testing.assert_array_equal(image.labels().numpy(), truth[number])
        assert image.record.group == "s"
    assert len(run(tmp_path, "images", labels=("labels",)).skipped) == 3
    tifffile.imwrite(tmp_path / "labels/s.tif", truth[:2], photometric="minisblack", metadata={"axes": "ZYX"})
    (refusal,) = run(tmp_path, "images", labels=("labels",)).refused
    assert "has 2 planes, the image has more" in refusal.error
    tifffile.imwrite(tmp_path / "images/s.tif", stack[:2], photometric="minisblack", metadata={"axes": "ZYX"})
    assert run(tmp_path, "images", labels=("labels",)).ingested == ("s_z000", "s_z001")
    assert len(open_collection(str(tmp_path / "out"))) == 2  # the plane that is gone from the file is gone here
    save(tmp_path / "images/s_z001.png", 4, 4)
    (refusal,) = run(tmp_path, "images", labels=("labels",)).refused
    assert "the id s_z001" in refusal.error


def test_labels_can_be_inverted_and_masks_of_the_same_folder_are_no_images(tmp_path: Path) -> None:
    save(tmp_path / "data/a.png", 9, 7)
    index = mask(tmp_path / "data/a_mask.png", 9, 7)
    assert run(tmp_path, "data", labels=("data/*_mask.png",), invert_labels=True).ingested == ("a",)
    image = open_collection(str(tmp_path / "out"))["a"]
    np.testing.assert_array_equal(image.labels().numpy(), 1 - index)


def test_a_single_image_and_a_label_that_are_both_named_belong_together(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", 9, 7)
    mask(tmp_path / "labels/b.png", 9, 7)
    for source, label in (("images", "labels/b.png"), ("images/a.png", "labels")):  # one of them was only found
        with pytest.raises(ConfigError, match="no file of label label belongs to any image"):
            run(tmp_path, source, labels=(label,))
    assert run(tmp_path, "images/a.png", labels=("labels/b.png",)).ingested == ("a",)
    assert open_collection(str(tmp_path / "out"))["a"].record.labels == ("label",)


def test_requests_that_cannot_be_carried_out_are_refused_first(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", 9, 7)
    mask(tmp_path / "labels/b.png", 9, 7)
    with pytest.raises(ConfigError, match="no such file or folder"):
        run(tmp_path, "image")
    with pytest.raises(ConfigError, match="no file matches"):
        run(tmp_path, "images/*.gif")
    with pytest.raises(ConfigError, match=r"no file of label label belongs to any image.*called a, the labels b"):
        run(tmp_path, "images", labels=("labels",))
    with pytest.raises(ConfigError, match="no image files"):
        (tmp_path / "empty").mkdir()
        run(tmp_path, "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        ingest(IngestConfig(source=(str(tmp_path / "images"),), out=str(tmp_path / "file/out")))
    assert not (tmp_path / "out").exists()


def test_collections_of_object_stores_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "SETTLE_S", 0.0)
    pixels = save(tmp_path / "images/a.png", 9, 7)
    config = IngestConfig(source=(str(tmp_path / "images/*.png"),), out="memory://test-ingest/out")
    assert ingest(config).ingested == ("a",)
    np.testing.assert_array_equal(open_collection("memory://test-ingest/out")["a"].numpy()[0], pixels)
    assert ingest(config).skipped == ("a",)


def test_a_second_ingestion_is_refused_and_takes_over_from_a_dead_one(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", 9, 7)

    def another(function: Any, tasks: Any) -> Any:
        with pytest.raises(ConfigError, match=rf"another run is at work on this output \(process {os.getpid()} on"):
            run(tmp_path, "images")
        return map(function, tasks)

    out = tmp_path / "out"
    ingest(IngestConfig(source=(str(tmp_path / "images"),), out=str(out)), map=another)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = {"holder": "x", "host": socket.gethostname(), "pid": gone.pid, "seen_at": time.time() - 60}
    (out / "ingest-lease.json").write_text(json.dumps(dead))
    (out / ".images.parquet.0.partial").touch()
    assert run(tmp_path, "images").skipped == ("a",)
    assert sorted(path.name for path in out.iterdir()) == ["images", "images.parquet"]


def test_a_task_can_go_to_another_process(tmp_path: Path) -> None:
    pixels = save(tmp_path / "images/a.png", 9, 7)

    def elsewhere(function: Any, tasks: Any) -> Any:
        return [pickle.loads(pickle.dumps(ingest_file(pickle.loads(pickle.dumps(task))))) for task in tasks]

    ingest(IngestConfig(source=(str(tmp_path / "images"),), out=str(tmp_path / "out")), map=elsewhere)
    np.testing.assert_array_equal(open_collection(str(tmp_path / "out"))["a"].numpy()[0], pixels)


def test_ome_zarr_is_indexed_where_it_is(tmp_path: Path) -> None:
    uri = str(tmp_path / "elsewhere/cells.ome.zarr")
    pixels = GENERATOR.random((2, 21, 13)).astype(np.float32) * 40
    levels = create_image(
        uri, name="cells", axes="cyx", shape=pixels.shape, dtype="float32", pixel_size_um=0.2, channels=("a", "b")
    )
    write_levels(levels, pixels)
    levels = create_labels(uri, "nuclei", shape=(21, 13), dtype="uint8", pixel_size_um=0.2)
    write_levels(levels, (pixels[0] > 20).astype(np.uint8), "nearest")
    report = run(tmp_path, "elsewhere", index_only=True, domain="x")
    assert report.ingested == ("cells",)
    collection = open_collection(str(tmp_path / "out"))
    image = collection["cells"]
    assert image.uri == image.record.uri == uri
    np.testing.assert_array_equal(image.numpy(), pixels)
    assert (image.record.axes, image.record.shape, image.record.channels) == ("cyx", (2, 21, 13), ("a", "b"))
    assert (image.pixel_size_um, image.labels("nuclei").kind) == (0.2, "binary")
    exact = image_statistics(pixels)
    np.testing.assert_allclose(image.statistics.mean, exact.mean, rtol=1e-6)
    assert run(tmp_path, "elsewhere", index_only=True).skipped == ("cells",)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["images.parquet"]
    with pytest.raises(ConfigError, match="--index-only"):
        run(tmp_path, "elsewhere/cells.ome.zarr")


def test_impossible_configurations_are_refused_where_they_are_made() -> None:
    for options, message in (
        ({"pages": "slices"}, "planes or channels"),
        ({"pixel_size_um": 0.0}, "must be > 0"),
        ({"group": "("}, "no regular expression"),
        ({"axes": "zy"}, "axes must be y, x"),
        ({"fps": 0.0}, "fps must be > 0"),
        ({"ignore_value": ("a=b",)}, "NAME=NUMBER"),
        ({"ignore_value": ("1", "label=2")}, "twice for label label"),
        ({"boundary_from_instances": ("a=0",)}, "at least 1 px"),
        ({"index_only": True, "labels": ("a",)}, "index_only"),
    ):
        with pytest.raises(ConfigError, match=message):
            IngestConfig(source=("a",), out="b", **options)
    with pytest.raises(DataError, match="no collection here"):
        open_collection("/nowhere/at/all")


def test_hdf5_datasets_are_sources_and_labels(tmp_path: Path) -> None:
    volume = GENERATOR.integers(0, 256, (3, 9, 7), dtype=np.uint8)
    neurons = (np.arange(3 * 9 * 7).reshape(3, 9, 7) // 20).astype(np.int64)
    for name in ("v", "w"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["raw"], file["truth/neurons"], file["truth/same"] = volume, neurons, neurons
    report = run(tmp_path, "v.h5:/raw", labels=("neurons=v.h5:/truth/neurons",))
    assert report.ingested == ("v_z000", "v_z001", "v_z002")
    image = open_collection(str(tmp_path / "out"))["v_z001"]
    np.testing.assert_array_equal(image.numpy()[0], volume[1])
    np.testing.assert_array_equal(image.labels("neurons").numpy(), neurons[1])
    assert (image.record.group, image.record.source_file) == ("v", f"{tmp_path}/v.h5:/raw")
    report = run(tmp_path, "*.h5:/raw", labels=("neurons=*.h5:/truth/neurons",))
    assert (len(report.skipped), len(report.ingested)) == (3, 3)
    other = run(tmp_path, "v.h5:/raw", labels=("neurons=v.h5:/truth/same",))
    assert len(other.ingested) == 3  # another part is taken for other content
    (refusal,) = run(tmp_path, "w.h5", labels=("neurons=w.h5:/truth/neurons",)).refused
    assert (refusal.error_type, "/raw (3x9x7 uint8), /truth/neurons" in refusal.error) == ("ConfigError", True)


def test_a_folder_with_a_mask_an_object_becomes_instances(tmp_path: Path) -> None:
    truth = {"a": np.array([[1, 1, 0, 2, 2]] * 3), "b": np.array([[0, 3, 3, 0, 1, 2]] * 4)}
    for name, instances in truth.items():
        save(tmp_path / f"data/{name}/images/{name}.png", *instances.shape)
        (tmp_path / f"data/{name}/masks").mkdir()
        for number in range(1, instances.max() + 1):
            file = tmp_path / f"data/{name}/masks/{number}x.png"
            Image.fromarray(((instances == number) * 255).astype(np.uint8)).save(file)
    # The images' glob finds the masks too, which are known to be labels.
    report = run(tmp_path, "data/**/*.png", labels=("nuclei=data/*/masks",))
    assert (report.ingested, report.refused, report.warnings) == (("a", "b"), (), ())
    for image in open_collection(str(tmp_path / "out")):
        np.testing.assert_array_equal(image.labels("nuclei").numpy(), truth[image.image_id])
        assert image.labels("nuclei").kind == "instance"
    assert len(run(tmp_path, "data/*/images/*.png", labels=("nuclei=data/*/masks",)).skipped) == 2
    Image.fromarray(np.full((3, 5), 255, np.uint8)).save(tmp_path / "data/a/masks/9.png")
    Image.fromarray(np.full((4, 5), 255, np.uint8)).save(tmp_path / "data/b/masks/9.png")
    report = run(tmp_path, "data/*/images/*.png", labels=("nuclei=data/*/masks",))
    assert report.ingested == ("a",)
    assert "overlap in 12 px of 1 images" in report.warnings[0]
    (refusal,) = report.refused
    assert refusal.label_file == str(tmp_path / "data/b/masks") + "/"
    assert "masks/9.png: the mask is (4, 5)" in refusal.error
    (tmp_path / "data/b/masks/9.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (refusal,) = run(tmp_path, "data/b/images/b.png", labels=("nuclei=data/[b]/masks",)).refused
    assert "masks/9.png: the PNG file is truncated" in refusal.error


def test_folders_of_masks_may_carry_the_name_of_their_image(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", 3, 5)
    (tmp_path / "masks/a").mkdir(parents=True)
    Image.fromarray(np.eye(3, 5, dtype=np.uint8)).save(tmp_path / "masks/a/1.png")
    run(tmp_path, "images", labels=("masks/*",))
    labels = open_collection(str(tmp_path / "out"))["a"].labels()
    np.testing.assert_array_equal(labels.numpy(), np.eye(3, 5))
    assert labels.kind == "instance"


def test_coco_annotations_become_instances_with_their_categories(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / f"images/{name}.png", 4, 6)
    square = {"id": 7, "image_id": 1, "category_id": 3, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]], "iscrowd": 0}
    runs = {"id": 8, "image_id": 1, "category_id": 5, "segmentation": {"size": [4, 6], "counts": [4, 4, 16]}}
    crowd = {"id": 9, "image_id": 2, "iscrowd": 1, "segmentation": {"size": [4, 6], "counts": [0, 12, 12]}}
    lost = {"id": 10, "image_id": 3, "segmentation": [[0, 0, 1]]}
    images = [
        {"id": number, "file_name": f"train/{name}.tif", "height": 4, "width": 6}
        for number, name in enumerate("abc", 1)
    ]
    categories = [{"id": 3, "name": "tumour"}, {"id": 5, "name": "immune"}]
    content = {"images": images, "annotations": [square, runs, crowd, lost], "categories": categories}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    report = run(tmp_path, "images", labels=("cells=truth.json",))
    assert report.ingested == ("a", "b")
    assert "annotation 10" in report.refused[0].error
    assert report.refused[0].label_file == str(tmp_path / "truth.json")
    assert "overlap in 2 px of 1 images" in report.warnings[0]
    one, two = open_collection(str(tmp_path / "out"))
    labels = one.labels("cells")
    np.testing.assert_array_equal(
        labels.numpy(), [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0], [0, 2, 0, 0, 0, 0]]
    )
    assert [(entry["label-value"], entry["category"], entry["annotation_id"]) for entry in labels.properties()] == [
        (1, "tumour", 7),
        (2, "immune", 8),
    ]
    assert one.labels("cells-valid").numpy().all()
    np.testing.assert_array_equal(two.labels("cells-valid").numpy(), [[0, 0, 0, 1, 1, 1]] * 4)
    assert (two.labels("cells").kind, two.labels("cells").numpy().any(), two.labels("cells").properties()) == (
        "instance", False, []
    )  # fmt: skip
    OmeImage.from_zarr(zarr.open_group(one.uri, mode="r"))
    OmeLabel.from_zarr(zarr.open_group(labels.uri, mode="r"))
    square["segmentation"], lost["segmentation"] = [[0, 0, 1, 0, 1, 1, 0, 1]], [[0, 0, 1, 0, 1, 1]]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    report = run(tmp_path, "images", labels=("cells=truth.json",))
    assert (report.ingested, report.skipped) == (("a", "c"), ("b",))  # only what changed
    images[0]["height"] = 5
    runs["segmentation"] = [[0, 0, 1, 0, 1, 1, 0, 1]]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (refusal,) = run(tmp_path, "images", labels=("cells=truth.json",)).refused
    assert "the label is 5 x 6 px" in refusal.error


def test_pixels_of_the_ignored_value_do_not_count_and_instances_have_boundaries(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png", 4, 6)
    instances = np.repeat(np.array([[9, 9, 9, 255, 4, 4]], np.uint8), 4, axis=0)
    (tmp_path / "labels").mkdir()
    Image.fromarray(instances).save(tmp_path / "labels/a.png")
    assert run(tmp_path, "images", labels=("n=labels",)).ingested == ("a",)
    options = {"labels": ("n=labels",), "ignore_value": ("n=255",), "boundary_from_instances": ("n=2",)}
    assert run(tmp_path, "images", **options).ingested == ("a",)
    image = open_collection(str(tmp_path / "out"))["a"]
    assert image.record.labels == ("n", "n-valid", "n-boundary")
    assert image.record.label_kinds == ("instance", "binary", "binary")
    assert image.labels("n").numpy()[0].tolist() == [9, 9, 9, 0, 4, 4]
    assert image.labels("n-valid").numpy()[0].tolist() == [1, 1, 1, 0, 1, 1]
    assert image.labels("n-boundary").numpy()[0].tolist() == [0, 0, 1, 1, 1, 0]
    assert run(tmp_path, "images", **options).skipped == ("a",)
    with pytest.raises(ConfigError, match=r"--ignore-value is for label label, but there is n; give --ignore-value N"):
        run(tmp_path, "images", labels=("n=labels",), ignore_value=("255",))
    with pytest.raises(ConfigError, match="n-valid may be made from label n"):
        run(tmp_path, "images", labels=("n=labels", "n-valid=labels"))


def test_columns_come_from_the_path_and_survive_a_later_run(tmp_path: Path) -> None:
    save(tmp_path / "images/A172_p3.png", 9, 11)
    save(tmp_path / "images/other.png", 9, 11, seed=1)
    cell = r"cell=([A-Z]\d+)_[^/]*$"
    report = run(tmp_path, "images", column=(cell,))
    assert "matches no part of the path of 1 of 2 files" in report.warnings[0]
    manifest = tmp_path / "out/images.parquet"
    table = pq.read_table(manifest)
    pq.write_table(table.append_column("passage", pa.array([3, 4])), manifest)
    save(tmp_path / "images/A172_p3.png", 9, 11, seed=2)  # changed: ingested again
    report = run(tmp_path, "images", column=(r"well=_(p\d)", "folder=images"))
    assert any("--column folder 'images' has the value images for all 2 files" in told for told in report.warnings)
    assert (report.ingested, report.skipped) == (("A172_p3",), ("other",))
    extras = {image.image_id: dict(image.record.extra) for image in open_collection(str(tmp_path / "out"))}
    assert extras == {
        "A172_p3": {"cell": "A172", "passage": 3, "well": "p3", "folder": "images"},
        "other": {"cell": None, "passage": 4, "well": None, "folder": "images"},
    }
    with pytest.raises(ConfigError, match="--column height: raydom has a column of that name"):
        run(tmp_path, "images", column=("height=x",))


def test_a_video_is_an_image_a_frame_in_a_group_with_labels_of_the_frames_that_are_taken(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    frames = GENERATOR.integers(0, 256, (5, 16, 18), dtype=np.uint8)
    with av.open(str(tmp_path / "cells.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=4)
        stream.width, stream.height, stream.pix_fmt = 18, 16, "gray"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray")))
        container.mux(stream.encode(None))
    tifffile.imwrite(tmp_path / "cells_mask.tif", (frames[::2] > 99).astype(np.uint8), photometric="minisblack")
    save(tmp_path / "dish.png", 9, 7)
    report = run(tmp_path, "cells.avi", "dish.png", labels=("cells_mask.tif",), fps=2)
    assert report.ingested == ("cells_t000000", "cells_t000002", "cells_t000004", "dish")
    assert "--fps means nothing for 1 of 2 files, which are no videos." in report.warnings
    image = open_collection(str(tmp_path / "out"))["cells_t000002"]
    np.testing.assert_array_equal(image.numpy()[0], frames[2])
    np.testing.assert_array_equal(image.labels().numpy(), frames[2] > 99)
    assert image.record.group == "cells"
    assert len(run(tmp_path, "cells.avi", labels=("cells_mask.tif",), fps=2).skipped) == 3
    (refusal,) = run(tmp_path, "cells.avi", labels=("cells_mask.tif",)).refused
    assert "has 3 planes, the image has more" in refusal.error
    with pytest.raises(ConfigError, match="--fps is for videos"):
        run(tmp_path, "dish.png", fps=2)


def test_a_large_plane_is_ingested_piece_by_piece_as_a_small_one_is_at_once(tmp_path, monkeypatch) -> None:
    objects = np.kron(GENERATOR.integers(0, 5, (30, 20)), np.ones((10, 10), int)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", GENERATOR.integers(0, 65536, (300, 200), dtype=np.uint16), rowsperstrip=16)
    tifffile.imwrite(tmp_path / "a_mask.tif", objects, compression="zlib", rowsperstrip=16)
    found = []
    for name, largest in (("whole", 1 << 30), ("pieces", 1000)):
        monkeypatch.setattr("raydom.storage.pictures.LAZY_BYTES", largest)
        monkeypatch.setattr("raydom.storage.pictures.PIECE_ROWS", 64)
        config = IngestConfig(
            source=(str(tmp_path / "a.tif"),),
            labels=(str(tmp_path / "a_mask.tif"),),
            ignore_value=("4",),
            boundary_from_instances=("2.5",),
            out=str(tmp_path / name),
        )
        assert not ingest(config).refused
        found.append(open_collection(config.out)["a"])
    one, other = found
    assert one.record == other.record
    np.testing.assert_array_equal(one.numpy(), other.numpy())
    for label in ("label", "label-valid", "label-boundary"):
        assert one.labels(label).numpy().any()
        np.testing.assert_array_equal(one.labels(label).numpy(), other.labels(label).numpy())


def rows_of(path: Path, images: np.ndarray, **others: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(images)
    pq.write_table(pa.table({"image": column, **{name: pa.array(values) for name, values in others.items()}}), path)


def test_rows_of_parquet_files_are_images_of_their_own(tmp_path: Path) -> None:
    pixels = GENERATOR.integers(0, 256, (3, 9, 7), dtype=np.uint8)
    rows_of(tmp_path / "in/a.parquet", pixels, id=["x", "y/1", "z"], group=["p", None, "q"], stain=["he", "he", None])
    rows_of(tmp_path / "in/b.parquet", pixels[:2], stain=["dapi", "he"])
    rows_of(tmp_path / "truth.parquet", (pixels > 99).astype(np.uint8), id=["x", "y/1", "z"])
    report = run(tmp_path, "in")
    assert report.ingested == ("x", "y_1", "z", "b_r000000", "b_r000001")
    images = open_collection(str(tmp_path / "out"))
    np.testing.assert_array_equal(images["y_1"].numpy()[0], pixels[1])
    assert [images[name].record.group for name in ("x", "y_1", "b_r000001")] == ["p", None, None]
    assert [record.extra for record in images.filter(keep="stain=dapi").records] == [(("stain", "dapi"),)]
    assert (len(run(tmp_path, "in/*.parquet").skipped), run(tmp_path, "in").ingested) == (5, ())
    report = run(tmp_path, "in/a.parquet", labels=("cells=truth.parquet:/image",))
    assert (len(report.ingested), report.refused) == (3, ())  # the labels are new
    image = open_collection(str(tmp_path / "out"))["z"]
    np.testing.assert_array_equal(image.labels("cells").numpy(), pixels[2] > 99)
    assert len(open_collection(str(tmp_path / "out"))) == 5
    rows_of(tmp_path / "truth.parquet", (pixels > 99).astype(np.uint8), id=["x", "z", "y/1"])
    (refusal,) = run(tmp_path, "in/a.parquet", labels=("cells=truth.parquet:/image",)).refused
    assert "row 1 is of z" in refusal.error
    rows_of(tmp_path / "in/a.parquet", pixels[:1], id=["w"])
    (refusal,) = run(tmp_path, "in/a.parquet").refused
    assert "which this run would drop" in refusal.error


def test_a_parquet_file_cannot_take_the_ids_columns_or_pixels_of_another(tmp_path: Path) -> None:
    pixels = GENERATOR.integers(0, 256, (2, 9, 7), dtype=np.uint8)
    save(tmp_path / "plain/note.png", 9, 7)
    rows_of(tmp_path / "plain/table.parquet", pixels)  # beside images, a document
    rows_of(tmp_path / "one/a.parquet", pixels, id=[1, 2], stain=["he", "he"])
    rows_of(tmp_path / "two/a.parquet", pixels + 1, id=[1, 2])
    rows_of(tmp_path / "two/b.parquet", pixels + 1, id=[2, 3])
    rows_of(tmp_path / "two/c.parquet", pixels + 1, id=[4, 5], stain=[6, 7])
    assert run(tmp_path, "plain", "one").ingested == ("1", "2", "note")
    before = open_collection(str(tmp_path / "out")).records
    errors = {Path(refusal.source_file).name: refusal.error for refusal in run(tmp_path, "two").refused}
    assert "another image with the id 1" in errors["a.parquet"]
    assert "two sources have the id 2" in errors["b.parquet"]
    assert "column stain has numbers, of other images text" in errors["c.parquet"]
    images = open_collection(str(tmp_path / "out"))
    assert images.records == before
    np.testing.assert_array_equal(images["2"].numpy()[0], pixels[1])
    assert not list((tmp_path / "out/images").glob("[bc]/*"))
    (refusal,) = run(tmp_path, "out/images.parquet").refused
    assert "is the manifest of a collection" in refusal.error
    with pytest.raises(ConfigError, match="no image files"):
        run(tmp_path, "out")
