"""The contracts of a block job, with the serial runner."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from raydom.algorithms.trained import load_trained
from raydom.config import BlockConfig, ImageFilter, RunConfig, StyleConfig
from raydom.errors import ClusterError, ConfigError, DataError
from raydom.inference.job import BlockJob
from raydom.inference.predictor import Predictor
from raydom.inference.runner import execute_serially, run_jobs
from raydom.storage import files, zarr_images
from raydom.storage.collection import open_collection
from raydom.storage.packing import pack

QUIET = RunConfig(quiet=True, serial=True)


def _images(seed, *shapes, dtype=np.uint8, channels=1):
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    smooth = {}
    for number, shape in enumerate(shapes):
        coarse = rng.random((channels, shape[0] // 4 + 2, shape[1] // 4 + 2))
        fine = np.kron(coarse, np.ones((1, 4, 4)))[:, : shape[0], : shape[1]] + 0.2 * rng.random((channels, *shape))
        smooth[f"img{number}"] = (fine / 1.2 * top).astype(dtype)
    return smooth


def _labels(out):
    return {image.image_id: image.labels().numpy() for image in open_collection(out)}


def _run(*jobs, run=QUIET):
    return run_jobs(jobs, run, execute_serially)


def test_labels_are_those_of_the_whole_image_for_any_block_size(tmp_path, make_collection, make_model):
    collection, model = make_collection("c", _images(0, (150, 203), (61, 47))), make_model()
    network, _ = load_trained(model)
    outs = {}
    for size in (48, 64, 256):
        job = BlockJob(
            name="s",
            collection=collection.uri,
            out=str(tmp_path / f"o{size}"),
            model=model,
            blocks=BlockConfig(block_size=size),
        )
        (report,) = _run(job)
        assert report.ok and not report.failed
        outs[size] = _labels(job.out)
    for image in collection:
        with torch.inference_mode():
            logits = network(torch.from_numpy(image.numpy() / np.float32(255))[None])[0, 0]
        whole = (logits.sigmoid() >= 0.5).numpy()
        assert 0.2 < whole.mean() < 0.8  # the labels tell something
        for size in outs:
            assert np.array_equal(outs[size][image.image_id], whole)


@pytest.mark.parametrize("method", ["meanstd", "histogram", "reinhard", "macenko"])
def test_stylised_pixels_do_not_depend_on_the_cut(tmp_path, make_collection, method):
    collection = make_collection("c", _images(1, (100, 83), dtype=np.uint16, channels=3))
    style = _style_file(tmp_path, 3)
    pixels = []
    for size in (32, 256):
        job = BlockJob(
            name="s",
            collection=collection.uri,
            out=str(tmp_path / f"o{size}"),
            style=StyleConfig(method=method, style=style, overview_px=64),
            blocks=BlockConfig(block_size=size),
        )
        assert _run(job)[0].ok
        pixels.append(open_collection(job.out)["img0"].numpy())
    assert pixels[0].dtype == np.uint16
    assert np.array_equal(*pixels)
    assert not np.array_equal(pixels[0], collection["img0"].numpy())


def sharpen(content, style, config, generator):
    """A method with context: subtracts the local mean, and the mean of the whole image matters."""
    local = torch.nn.functional.avg_pool2d(content.pixels, 9, 1, 4)
    return content.pixels + 0.5 * (content.pixels - local) * content.pixels.mean()


@pytest.mark.parametrize("overview_px", [2048, 64])
def test_a_method_with_context_sees_the_whole_image_and_leaves_no_seams(tmp_path, make_collection, overview_px):
    collection = make_collection("c", _images(2, (130, 97)))
    results = []
    for size in (32, 256):
        job = BlockJob(
            name="s",
            collection=collection.uri,
            out=str(tmp_path / f"o{size}"),
            style=StyleConfig(method=f"{__name__}:sharpen", style=_style_file(tmp_path, 1), overview_px=overview_px),
            blocks=BlockConfig(block_size=size),
        )
        assert _run(job)[0].ok
        results.append(open_collection(job.out)["img0"].numpy())
    assert np.array_equal(*results)
    if overview_px > 130:
        (image,) = collection
        content = torch.from_numpy(image.numpy() / np.float32(255))[None]
        from raydom.algorithms.style_interface import StyleInput

        expected = sharpen(StyleInput(content, image.statistics), None, None, None)[0].numpy()
        assert np.abs(results[0] / 255 - expected.clip(0, 1)).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("scale", [0.58, 1.7])
def test_labels_come_back_on_the_original_grid_at_any_scale_and_cut(tmp_path, make_collection, make_model, scale):
    collection, model = make_collection("c", _images(3, (101, 130))), make_model()
    found = []
    for size in (48, 256):
        job = BlockJob(
            name="s",
            collection=collection.uri,
            out=str(tmp_path / f"o{size}"),
            model=model,
            scale=scale,
            blocks=BlockConfig(block_size=size),
        )
        assert _run(job)[0].ok
        found.append(_labels(job.out)["img0"])
    assert found[0].shape == (101, 130)
    assert np.array_equal(*found)


def test_pixel_sizes_give_the_scale_and_are_asked_for_when_missing(make_collection, make_model):
    stated = make_collection("a", _images(4, (40, 40)), pixel_size_um=0.5)
    silent = make_collection("b", _images(4, (40, 40)))
    model = make_model(pixel_size_um=1.0)
    spec = load_trained(model)[1]
    (image,) = stated
    job = BlockJob(name="s", collection=stated.uri, out="o", model=model)
    assert job.scale_of(image.record, spec) == 0.5
    assert dataclasses.replace(job, pixel_size_um=2.0).scale_of(image.record, spec) == 2.0
    assert dataclasses.replace(job, scale=1.0).scale_of(image.record, spec) == 1.0
    with pytest.raises(ConfigError, match=r"trained at 1\.0 um/px.*--pixel-size.*--scale"):
        _run(BlockJob(name="s", collection=silent.uri, out="o", model=model))


def test_a_run_goes_on_where_it_stopped_and_a_finished_one_does_nothing(
    tmp_path, make_collection, make_model, monkeypatch
):
    collection, model = make_collection("c", _images(5, (96, 96), (64, 40))), make_model()
    job = BlockJob(
        name="s", collection=collection.uri, out=str(tmp_path / "o"), model=model, blocks=BlockConfig(block_size=32)
    )
    whole = dataclasses.replace(job, out=str(tmp_path / "whole"))
    _run(whole)
    computed = []
    compute = Predictor.compute

    def killed_at_the_fifth(self, task, inputs):
        if len(computed) == 5:
            raise KeyboardInterrupt
        computed.append(task.key)
        return compute(self, task, inputs)

    monkeypatch.setattr(Predictor, "compute", killed_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        _run(job)
    monkeypatch.setattr(Predictor, "compute", lambda self, t, i: (computed.append(t.key), compute(self, t, i))[1])
    (report,) = _run(job)
    assert report.ok
    assert len(computed) == len(set(computed))  # nothing twice
    before = len(computed)
    assert _run(job)[0].ok and len(computed) == before
    for image_id, labels in _labels(whole.out).items():
        assert np.array_equal(labels, _labels(job.out)[image_id])
    assert [r.image_id for r in open_collection(job.out).records] == ["img0", "img1"]


def test_a_failing_block_is_told_and_only_it_is_retried(tmp_path, make_collection, make_model, monkeypatch):
    collection, model = make_collection("c", _images(6, (64, 64), (64, 40))), make_model()
    job = BlockJob(
        name="s", collection=collection.uri, out=str(tmp_path / "o"), model=model, blocks=BlockConfig(block_size=32)
    )
    compute, computed = Predictor.compute, []

    def broken(self, task, inputs):
        computed.append(task.key)
        if task.block.block_id == "img0@32-0":
            raise RuntimeError("no luck")
        return compute(self, task, inputs)

    monkeypatch.setattr(Predictor, "compute", broken)
    (report,) = _run(job)
    assert not report.ok and (report.num_images_done, report.num_images) == (1, 2)
    assert [(r.block_id, r.attempts, r.error) for r in report.failed] == [("img0@32-0", 3, "RuntimeError: no luck")]
    assert [r.image_id for r in open_collection(job.out).records] == ["img1"]  # no half-written image is listed
    computed.clear()
    assert not _run(job)[0].ok and not computed  # without --retry-failed it is only told again
    monkeypatch.setattr(Predictor, "compute", lambda self, t, i: (computed.append(t.key), compute(self, t, i))[1])
    (report,) = _run(job, run=dataclasses.replace(QUIET, retry_failed=True))
    assert report.ok and sorted(computed) == ["block:img0@32-0", "finish:img0@0-0"]


def test_other_settings_are_refused_and_a_grown_collection_only_has_its_new_blocks_done(
    tmp_path, make_collection, make_model, monkeypatch
):
    images, model = _images(7, (40, 40), (40, 40)), make_model()
    collection = make_collection("c", {"img0": images["img0"]})
    job = BlockJob(name="s", collection=collection.uri, out=str(tmp_path / "o"), model=model)
    _run(job)
    with pytest.raises(ConfigError, match=r"threshold: was None, now 0\.3"):
        _run(dataclasses.replace(job, threshold=0.3))
    with pytest.raises(ConfigError, match=r"images.keep: was None, now \['height=40'\]"):
        _run(dataclasses.replace(job, images=ImageFilter(keep=("height=40",))))
    settings = tmp_path / "o/run/settings.json"  # a run that began before there was --keep goes on
    settings.write_text(settings.read_text().replace('"keep": null', '"split": null'))
    make_collection("c", images)
    compute, computed = Predictor.compute, []
    monkeypatch.setattr(Predictor, "compute", lambda self, t, i: (computed.append(t.key), compute(self, t, i))[1])
    assert _run(job)[0].num_images_done == 2
    assert computed == ["block:img1@0-0"]


def test_what_cannot_be_done_is_refused_before_the_first_block(tmp_path, make_collection, make_model):
    gray, rgb = make_collection("g", _images(8, (40, 40))), make_collection("r", _images(8, (40, 40), channels=3))
    model = make_model()
    out = str(tmp_path / "o")
    cases = [
        (BlockJob(name="s", collection=rgb.uri, out=out, model=model), r"3 channels .* takes 1"),
        (
            BlockJob(name="s", collection=gray.uri, out=out, model=model, blocks=BlockConfig(halo=3)),
            r"--halo 3 px is smaller than the network's receptive field of \d+ px",
        ),
        (BlockJob(name="s", collection=gray.uri, out=out, model=model, scale=-1.0), r"scale must be > 0; got -1"),
        (BlockJob(name="s", collection=gray.uri, out=out, images=ImageFilter(split="test")), r"split test"),
        (
            BlockJob(
                name="s",
                collection=gray.uri,
                out=out,
                style=StyleConfig(method="meanstd", style=_style_file(tmp_path, 3)),
            ),
            r"style image has 3 channels",
        ),
    ]
    for job, message in cases:
        with pytest.raises(ConfigError, match=message):
            _run(job)
    with pytest.raises(
        ConfigError, match=r"a block of 512 px needs about 0\.\d+ GiB .* 0\.0007 GiB\. Choose --block-size 16 "
    ):
        _run(
            BlockJob(name="s", collection=make_collection("big", _images(8, (600, 600))).uri, out=out, model=model),
            run=dataclasses.replace(QUIET, memory_gib=0.0007),
        )
    assert not (tmp_path / "o").exists()


def _style_file(folder, channels):
    import tifffile

    path = folder / f"style{channels}.tif"
    pixels = np.random.default_rng(9).integers(30, 120, (50, 60, channels), np.uint8)
    tifffile.imwrite(path, pixels.squeeze(), photometric="rgb" if channels == 3 else "minisblack")
    return str(path)


def test_a_collection_that_no_job_made_is_never_written_over(tmp_path, make_collection):
    collection = make_collection("c", _images(0, (30, 40)))
    before = collection["img0"].numpy()
    for source in (collection.uri, make_collection("d", _images(1, (30, 40))).uri):
        with pytest.raises(ConfigError, match="c is a collection that this command did not make"):
            _run(BlockJob(name="s", collection=source, out=collection.uri, style=StyleConfig(method="none")))
    assert np.array_equal(open_collection(collection.uri)["img0"].numpy(), before)


def test_retrying_does_all_that_failed_whatever_its_kind(tmp_path, make_collection, make_model, monkeypatch):
    collection, model = make_collection("c", _images(6, (64, 64), (64, 40))), make_model()
    job = BlockJob(
        name="s", collection=collection.uri, out=str(tmp_path / "o"), model=model, blocks=BlockConfig(block_size=32)
    )
    read = Predictor.read

    def broken(self, task):
        if task.key in ("block:img1@32-0", "finish:img0@0-0"):
            raise RuntimeError("no luck")
        return read(self, task)

    monkeypatch.setattr(Predictor, "read", broken)
    (report,) = _run(job)
    assert sorted((r.kind, r.image_id) for r in report.failed) == [("block", "img1"), ("finish", "img0")]
    monkeypatch.setattr(Predictor, "read", read)
    assert _run(job, run=dataclasses.replace(QUIET, retry_failed=True))[0].ok


@pytest.mark.parametrize("path", ["0/c/0/1/2", "labels/label/0/c/1/2"])
@pytest.mark.parametrize("fault", ["lost", "cut", "changed"])
def test_blocks_whose_stored_pixels_are_lost_or_damaged_are_done_again(
    tmp_path, make_collection, make_model, monkeypatch, fault, path
):
    collection = make_collection("c", _images(6, (150, 64)))
    model = make_model()
    jobs = [
        BlockJob(
            name="s", collection=collection.uri, out=str(tmp_path / n), model=model, blocks=BlockConfig(block_size=16)
        )
        for n in ("a", "b")
    ]
    _run(jobs[0])
    shard = tmp_path / "b/images/img0.zarr" / path
    read = Predictor.read

    def damaging(self, task):
        if task.kind == "pyramid" and shard.exists():
            stored = shard.read_bytes()
            shard.unlink()
            if fault != "lost":
                shard.write_bytes(stored[: len(stored) // 2] if fault == "cut" else stored[:4] + b"????" + stored[8:])
        return read(self, task)

    with monkeypatch.context() as patched:
        patched.setattr(Predictor, "read", damaging)
        (report,) = _run(jobs[1])
    told = {receipt.block_id: receipt.error for receipt in report.failed if receipt.kind == "block"}
    assert list(told) == ["img0@16-32"] and "cannot be read any more" in told["img0@16-32"]
    assert not len(open_collection(jobs[1].out))

    done = []
    process = Predictor.write
    monkeypatch.setattr(Predictor, "write", lambda self, task, out: done.append(task.key) or process(self, task, out))
    (report,) = _run(jobs[1], run=dataclasses.replace(QUIET, retry_failed=True))
    assert report.ok, report.failed
    assert sorted(done) == ["block:img0@16-32", "finish:img0@0-0", "pyramid:img0@0-0"]
    one, other = (open_collection(job.out)["img0"] for job in jobs)
    assert one.record == other.record
    for level in range(one.num_levels):
        np.testing.assert_array_equal(one.numpy(level=level), other.numpy(level=level))
        np.testing.assert_array_equal(one.labels().numpy(level=level), other.labels().numpy(level=level))


@pytest.mark.parametrize("fault", ["lost", "cut"])
def test_coarser_levels_that_are_lost_or_damaged_before_the_end_are_made_again(
    tmp_path, make_collection, monkeypatch, fault
):
    monkeypatch.setattr("raydom.storage.zarr_images.SMALLEST_LEVEL_PX", 4)
    collection = make_collection("c", _images(7, (150, 64)))
    common = {"name": "s", "collection": collection.uri, "blocks": BlockConfig(block_size=16)}
    jobs = [BlockJob(out=str(tmp_path / name), **common) for name in ("a", "b")]
    _run(jobs[0])
    shard = tmp_path / "b/images/img0.zarr/3/c/0/0/0"
    read = Predictor.read

    def damaging(self, task):
        if task.kind == "finish":
            stored = shard.read_bytes()
            shard.unlink()
            if fault == "cut":
                shard.write_bytes(stored[: len(stored) // 2])
        return read(self, task)

    monkeypatch.setattr(Predictor, "read", damaging)
    assert _run(jobs[1])[0].ok
    one, other = (open_collection(job.out)["img0"] for job in jobs)
    for level in range(one.num_levels):
        np.testing.assert_array_equal(one.numpy(level=level), other.numpy(level=level))


def test_a_large_image_that_is_finished_in_parts_is_that_finished_at_once(tmp_path, make_collection, monkeypatch):
    monkeypatch.setattr("raydom.storage.zarr_images.SMALLEST_LEVEL_PX", 4)
    for dtype in (np.uint8, np.float32):
        pixels = np.random.default_rng(0).uniform(0, 250, (3, 300, 170)).astype(dtype)
        collection = make_collection("c", {"img0": pixels})
        found = []
        for size in (16, 512):
            out = str(tmp_path / f"{size}{np.dtype(dtype)}")
            job = BlockJob(name="s", collection=collection.uri, out=out, blocks=BlockConfig(block_size=size))
            assert _run(job)[0].ok
            assert not (Path(out) / "run/parts").exists()
            found.append(open_collection(out)["img0"])
        one, other = found
        assert one.num_levels == other.num_levels == 8
        for level in range(one.num_levels):
            np.testing.assert_array_equal(one.numpy(level=level), other.numpy(level=level))
        for name in ("minimum", "maximum", "mean", "std", "percentiles", "lab_mean", "lab_std"):
            np.testing.assert_allclose(getattr(one.statistics, name), getattr(other.statistics, name), rtol=1e-9)


def test_a_missing_shard_of_the_input_is_no_black_image(tmp_path, make_collection):
    black = np.zeros((1, 1100, 8), np.uint8)
    collection = make_collection("c", {"img0": black})
    assert not collection["img0"].numpy().any()
    (tmp_path / "c/images/img0.zarr/0/c/0/1/0").unlink()
    with pytest.raises(DataError, match=r"shard at \(1024, 0\) is missing"):
        open_collection(collection.uri)["img0"].numpy()
    assert collection["img0"].numpy((slice(0, 1000), slice(0, 8))).shape == (1, 1000, 8)


def test_the_output_is_other_content_when_the_style_is_another(tmp_path, make_collection):
    collection = make_collection("c", _images(11, (40, 40)))
    hashes = set()
    for channels, method in ((1, "meanstd"), (1, "histogram")):
        job = BlockJob(
            name="s",
            collection=collection.uri,
            out=str(tmp_path / method),
            style=StyleConfig(method=method, style=_style_file(tmp_path, channels)),
        )
        assert _run(job)[0].ok
        hashes.add(open_collection(job.out).records[0].sha256)
    assert len(hashes | {collection.records[0].sha256}) == 3


def test_floating_point_images_take_the_style_s_intensities_as_they_do_in_python(tmp_path, make_collection):
    import tifffile

    import raydom

    rng = np.random.default_rng(0)
    content = rng.uniform(0, 1000, (1, 40, 50)).astype(np.float32)
    style = rng.uniform(5, 15, (30, 30)).astype(np.float32)
    tifffile.imwrite(tmp_path / "style.tif", style)
    job = BlockJob(
        name="s",
        collection=make_collection("c", {"img0": content}).uri,
        out=str(tmp_path / "o"),
        style=StyleConfig(method="meanstd", style=str(tmp_path / "style.tif")),
    )
    assert _run(job)[0].ok
    found = open_collection(job.out)["img0"].numpy()[0]
    assert np.allclose(found, raydom.stylize(content[0], style, method="meanstd"), atol=1e-3)
    assert abs(found.mean() - style.mean()) < 0.1


def test_stylised_images_keep_their_labels_and_the_columns_of_users(tmp_path, make_collection):
    images = _images(10, (70, 45))
    truth = np.random.default_rng(1).integers(0, 300, (70, 45)).astype(np.uint16)
    extra = (("cell", "A172"), ("passage", 3))
    collection = make_collection("c", images, {"img0": truth}, extra=extra)
    style = StyleConfig(method="histogram", style=_style_file(tmp_path, 1))
    for size in (32, 128):
        job = BlockJob(
            name="s",
            collection=collection.uri,
            out=str(tmp_path / f"o{size}"),
            style=style,
            blocks=BlockConfig(block_size=size),
        )
        assert _run(job)[0].ok
        (image,) = open_collection(job.out)
        assert np.array_equal(image.labels().numpy(), truth)
        assert image.record.extra == extra


def test_a_run_whose_output_was_taken_over_stops(tmp_path, make_collection, make_model, monkeypatch):
    collection = make_collection("c", _images(6, (64, 64)))
    job = BlockJob(name="s", collection=collection.uri, out=str(tmp_path / "o"), model=make_model())

    def overtaken(tasks, jobs, run, run_id, progress, check):
        check()
        files.write_json(job.folder.lease_uri, {"holder": "x", "host": "elsewhere", "pid": 7, "seen_at": time.time()})
        monkeypatch.setattr("raydom.storage.lease.DEAD_AFTER_S", 0.0)  # so that it looks
        check()

    with pytest.raises(ClusterError, match="process 7 on elsewhere has taken over this output"):
        run_jobs([job], QUIET, overtaken)
    assert files.exists(job.folder.lease_uri)  # it is the other one's


def test_what_killed_runs_leave_behind_does_no_harm(tmp_path, make_collection, monkeypatch, caplog):
    collection = make_collection("c", _images(2, (130, 97)))
    job = BlockJob(
        name="s",
        collection=collection.uri,
        out=str(tmp_path / "o"),
        style=StyleConfig(method=f"{__name__}:sharpen", style=_style_file(tmp_path, 1), overview_px=64),
        blocks=BlockConfig(block_size=32),
    )
    whole = dataclasses.replace(job, out=str(tmp_path / "whole"))
    assert _run(whole)[0].ok
    compute, left = Predictor.compute, [9]

    def killed(self, task, inputs):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return compute(self, task, inputs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Predictor, "compute", killed)
        _run(job)
    run = tmp_path / "o" / "run"
    half = [run / "strikes" / ".x.json.1.partial", tmp_path / "o/images/img0.zarr/0/c/0/1/0.3f.partial"]
    for path in (*half, run / "strikes" / "x.json", run / "lease.json", run / "receipts" / "part-x.parquet"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'{"blocks')
    (overview,) = (run / "overviews").iterdir()
    overview.write_bytes(overview.read_bytes()[:200])
    assert _run(job)[0].ok
    assert np.array_equal(open_collection(job.out)["img0"].numpy(), open_collection(whole.out)["img0"].numpy())
    assert not any(path.exists() for path in half)
    assert not (run / "strikes" / "x.json").exists()  # an earlier run's, so not even read
    for told in ("global pass is damaged", "1 files of receipts", "lease.json"):
        assert told in caplog.text


def test_a_packed_collection_is_segmented_as_the_one_that_was_packed(tmp_path, make_collection, make_model):
    collection, model = make_collection("c", _images(11, (70, 45), (70, 45), (33, 90))), make_model()
    pack(collection, str(tmp_path / "p"))
    packed, found = open_collection(str(tmp_path / "p")), []
    for place in (collection, packed):
        job = BlockJob(
            name="s",
            collection=place.uri,
            out=f"{place.uri}-out",
            model=model,
            style=StyleConfig(method="meanstd", style=place["img2"].uri),
            blocks=BlockConfig(block_size=32),
        )
        assert _run(job)[0].ok
        found.append(open_collection(job.out))
    assert found[0].table.drop_columns(["uri"]) == found[1].table.drop_columns(["uri"])
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one.numpy(), other.numpy())
        assert np.array_equal(one.labels().numpy(), other.labels().numpy())


def test_a_threshold_labels_the_pixels_that_reach_it_whatever_the_cut(tmp_path, make_collection):
    pixels = np.random.default_rng(0).integers(0, 65536, (1, 70, 50), dtype=np.uint16)
    collection = make_collection("c", {"img0": pixels})
    for size in (16, 512):
        blocks = BlockConfig(block_size=size)
        out = str(tmp_path / f"{size}")
        job = BlockJob(name="s", collection=collection.uri, out=out, model="threshold:31007", blocks=blocks)
        assert _run(job)[0].ok
        np.testing.assert_array_equal(_labels(out)["img0"], pixels[0] >= 31007)
        assert open_collection(out)["img0"].record.statistics.maximum == (255.0,)
    for wrong in ("threshold:0", "threshold:65536", "threshold:otsu"):
        with pytest.raises(ConfigError, match="0 < VALUE <= 65535"):
            _run(BlockJob(name="s", collection=collection.uri, out=str(tmp_path / "w"), model=wrong))


def test_a_worker_that_its_dead_driver_left_behind_does_not_empty_an_output(tmp_path, make_collection):
    truth = np.random.default_rng(1).integers(0, 300, (70, 45)).astype(np.uint16)
    collection = make_collection("c", _images(10, (70, 45)), {"img0": truth})
    job = BlockJob(
        name="s",
        collection=collection.uri,
        out=str(tmp_path / "o"),
        style=StyleConfig(method="meanstd", style=_style_file(tmp_path, 1)),
    )
    assert _run(job)[0].ok
    pixels = open_collection(job.out)["img0"].numpy()
    Predictor(job).output.create(collection["img0"])
    assert np.array_equal(open_collection(job.out)["img0"].numpy(), pixels)
    assert np.array_equal(open_collection(job.out)["img0"].labels().numpy(), truth)
    other = dataclasses.replace(job, blocks=BlockConfig(block_size=32))
    Predictor(other).output.create(collection["img0"])  # of another make
    assert zarr_images.missing_shards(f"{job.out}/images/img0.zarr", "0")
