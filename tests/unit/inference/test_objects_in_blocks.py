"""Objects over blocks, by the serial runner: the same for any cut, restartable, measured, and told of."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import ndimage

from raydom.config import BlockConfig, InstanceConfig, RunConfig
from raydom.errors import ConfigError
from raydom.inference.job import BlockJob
from raydom.inference.objects import ObjectStages
from raydom.inference.predictor import Predictor
from raydom.inference.runner import execute_serially, run_jobs
from raydom.storage import files
from raydom.storage.collection import open_collection

QUIET = RunConfig(quiet=True, serial=True)
INSTANCES = InstanceConfig(components=True, halo_px=16, min_area_px=5)
SHAPE = (150, 131)


def blobs(seed=0, shape=SHAPE):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2.5)
    return (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)


def whole(pixels, threshold):
    labels, number = ndimage.label(pixels >= threshold)
    keep = np.flatnonzero(np.bincount(labels.ravel()) >= INSTANCES.min_area_px)[1:]
    lookup = np.zeros(number + 1, np.int64)
    lookup[keep] = np.arange(1, len(keep) + 1)
    return lookup[labels]


def job(collection, out, size=48, model="threshold:140", **options):
    options = {"instances": INSTANCES} | options
    return BlockJob(
        name="o", collection=collection.uri, out=str(out), model=model, blocks=BlockConfig(block_size=size), **options
    )


def run(*jobs, run=QUIET):
    return run_jobs(jobs, run, execute_serially)


def labels_of(out, image_id="a"):
    return open_collection(str(out))[image_id].labels("label").numpy()


def tables(out, name):
    return pq.read_table(f"{out}/{name}").to_pandas() if files.exists(f"{out}/{name}") else None


@pytest.fixture
def collection(make_collection):
    return make_collection("c", {"a": blobs()[None], "b": blobs(1, (40, 37))[None]})


def test_objects_are_those_of_the_whole_image_for_any_cut(tmp_path, collection):
    for size in (32, 48, 256):
        out = tmp_path / f"o{size}"
        (report,) = run(job(collection, out, size))
        assert report.ok and not report.failed
        assert report.num_objects == sum(int(whole(image.numpy()[0], 140).max()) for image in collection)
        made = open_collection(str(out))
        for image in collection:
            expected = whole(image.numpy()[0], 140)
            found = made[image.image_id].labels("label").numpy()
            assert found.dtype == np.uint32
            assert np.array_equal(found, expected)
        assert made["a"].record.label_kinds == ("instance",)
        table = tables(out, "objects").sort_values(["image_id", "label"])
        for image_id in ("a", "b"):
            rows = table[table.image_id == image_id]
            expected = whole(collection[image_id].numpy()[0], 140)
            assert rows.label.tolist() == list(range(1, expected.max() + 1))
            assert rows.area_px.tolist() == np.bincount(expected.ravel())[1:].tolist()
            sums = ndimage.mean(collection[image_id].numpy()[0], expected, rows.label)
            np.testing.assert_allclose([one[0] for one in rows.mean_intensity], sums)
        merges = tables(out, "merges")
        if size < 256:
            assert merges.merged.mean() > 0.9 and (merges.label_a == merges.label_b).all()
        else:
            assert merges is None
        assert not files.exists(str(out / "run" / "objects"))


def test_an_interrupted_run_goes_on_to_the_same_objects(tmp_path, collection, monkeypatch):
    for stage in ("view", "pair", "number", "label"):
        out, write, left = tmp_path / stage, ObjectStages.write, [2 if stage != "number" else 0]

        def stop(self, task, outputs, image, stage=stage, write=write, left=left):
            if task.kind == stage:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
            return write(self, task, outputs, image)

        monkeypatch.setattr(ObjectStages, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            run(job(collection, out))
        monkeypatch.setattr(ObjectStages, "write", write)
        done = []
        monkeypatch.setattr(Predictor, "compute", counted(Predictor.compute, done))
        (report,) = run(job(collection, out))
        monkeypatch.undo()
        assert report.ok
        assert "block" not in done
        assert done.count(stage) >= 1
        assert np.array_equal(labels_of(out), whole(collection["a"].numpy()[0], 140))


def counted(compute, done):
    def counting(self, task, inputs):
        done.append(task.kind)
        return compute(self, task, inputs)

    return counting


def test_what_a_block_saw_is_made_again_when_it_is_damaged(tmp_path, collection, monkeypatch):
    out, write = tmp_path / "o", ObjectStages.write

    def stop(self, task, outputs, image):
        if task.kind == "label":
            raise KeyboardInterrupt
        return write(self, task, outputs, image)

    monkeypatch.setattr(ObjectStages, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        run(job(collection, out))
    monkeypatch.undo()
    views = sorted((out / "run" / "objects" / "views").iterdir())
    views[0].write_bytes(views[0].read_bytes()[:100])
    views[1].unlink()
    (report,) = run(job(collection, out))
    assert report.ok
    assert np.array_equal(labels_of(out), whole(collection["a"].numpy()[0], 140))


@pytest.mark.parametrize("what", ["views", "pairs", "numbers", "parts", "shard"])
def test_what_was_kept_and_is_lost_is_told_and_made_again(tmp_path, collection, monkeypatch, what):
    out, write = tmp_path / "o", ObjectStages.write
    stage = {"views": "pair", "shard": "view", "pairs": "number", "numbers": "label", "parts": "finish"}[what]

    def stop(self, task, outputs, image):
        return interrupted() if task.kind == stage else write(self, task, outputs, image)

    monkeypatch.setattr(ObjectStages, "write", stop)
    if stage == "finish":
        monkeypatch.setattr(ObjectStages, "write_table", stopped_table)
    with pytest.raises(KeyboardInterrupt):
        run(job(collection, out))
    monkeypatch.undo()
    if what == "shard":
        (out / "images" / "a.zarr" / "0" / "c" / "0" / "1" / "1").unlink()
    else:
        kept = sorted((out / "run" / "objects" / what).iterdir())
        kept[0].write_bytes(kept[0].read_bytes()[:-9] + bytes(9))
    (report,) = run(job(collection, out))
    if what != "views":  # which are made again at once
        assert not report.ok
        assert any("retry-failed" in str(receipt.error) for receipt in report.failed)
        (report,) = run(job(collection, out), run=RunConfig(quiet=True, serial=True, retry_failed=True))
    assert report.ok, report.failed
    assert np.array_equal(labels_of(out), whole(collection["a"].numpy()[0], 140))


def interrupted():
    raise KeyboardInterrupt


def stopped_table(self, image, bands):
    if image.image_id == "a":
        raise KeyboardInterrupt


def test_a_failed_block_keeps_its_image_out_and_nothing_else(tmp_path, collection, monkeypatch):
    compute = ObjectStages.compute

    def fail(self, task, inputs, image):
        if task.kind == "pair" and task.block.write.start == (48, 48):
            raise ValueError("no")
        return compute(self, task, inputs, image)

    monkeypatch.setattr(ObjectStages, "compute", fail)
    (report,) = run(job(collection, tmp_path / "o"))
    assert not report.ok
    assert [receipt.kind for receipt in report.failed] == ["pair"]
    assert [image.image_id for image in open_collection(str(tmp_path / "o"))] == ["b"]
    monkeypatch.undo()
    (report,) = run(job(collection, tmp_path / "o"), run=RunConfig(quiet=True, serial=True, retry_failed=True))
    assert report.ok
    assert np.array_equal(labels_of(tmp_path / "o"), whole(collection["a"].numpy()[0], 140))


def test_tables_are_of_the_images_as_they_are_now(tmp_path, collection, make_collection):
    run(job(collection, tmp_path / "o"))
    assert {*tables(tmp_path / "o", "objects").image_id} == {"a", "b"}
    assert {*tables(tmp_path / "o", "merges").image_id} == {"a"}
    make_collection("c", {"a": blobs(1, (40, 37))[None]})  # which is one block now
    run(job(collection, tmp_path / "o"))
    assert {*tables(tmp_path / "o", "objects").image_id} == {"a"}
    assert tables(tmp_path / "o", "merges").empty


def test_settings_of_objects_are_part_of_what_an_output_is(tmp_path, collection):
    run(job(collection, tmp_path / "o"))
    with pytest.raises(ConfigError, match=r"instances\.min_area_px: was 5, now 6"):
        run(job(collection, tmp_path / "o", instances=InstanceConfig(components=True, halo_px=16, min_area_px=6)))


def test_more_objects_than_the_numbers_hold_are_refused_with_the_remedy(tmp_path, collection):
    stages = Predictor(job(collection, tmp_path / "o")).objects
    assert stages._ids(np.array([0, 2**32 - 1], np.uint64)).dtype == np.uint32
    with pytest.raises(ConfigError, match=r"4294967296 objects do not fit uint32; give --instances\.ids uint64"):
        stages._ids(np.array([0, 2**32], np.uint64))


@pytest.mark.parametrize("pixels", [0, 255])
def test_images_of_nothing_and_of_one_object(tmp_path, make_collection, pixels):
    collection = make_collection("c", {"a": np.full((1, 70, 50), pixels, np.uint8)})
    (report,) = run(job(collection, tmp_path / "o", 32))
    assert [receipt.error for receipt in report.failed] == []
    assert labels_of(tmp_path / "o").max() == pixels // 255
    assert tables(tmp_path / "o", "objects").area_px.tolist() == ([70 * 50] if pixels else [])
