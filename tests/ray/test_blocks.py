"""The block engine on Ray: it gives what the serial runner gives, also when workers die."""

import dataclasses
import functools
from pathlib import Path

import killers
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from ray.data._internal.cluster_autoscaler import DefaultAutoscalingCoordinator

from raydom.cluster.blocks import execute_on_ray, run_block_jobs
from raydom.config import BlockConfig, InstanceConfig, RunConfig, StyleConfig
from raydom.inference.job import BlockJob
from raydom.inference.runner import run_jobs
from raydom.storage import zarr_images
from raydom.storage.collection import open_collection
from raydom.storage.receipts import RunFolder
from raydom.types import Region

RAY = RunConfig(quiet=True, workers=2, cpus_per_worker=1)


@pytest.fixture
def job(tmp_path, make_collection, make_model):
    rng = np.random.default_rng(0)
    images = {f"img{n}": rng.integers(0, 256, (1, 96, 70 + n), np.uint8) for n in range(3)}
    return BlockJob(
        name="segment",
        collection=make_collection("c", images).uri,
        out=str(tmp_path / "ray"),
        model=make_model(),
        blocks=BlockConfig(block_size=32),
    )


def _pixels(out):
    return {
        image.image_id: (image.numpy().tobytes(), image.labels().numpy().tobytes()) for image in open_collection(out)
    }


def _serial_twin(job, tmp_path, left=_pixels):
    twin = dataclasses.replace(job, out=str(tmp_path / "serial"))
    assert run_block_jobs([twin], RunConfig(quiet=True, serial=True))[0].ok
    return left(twin.out)


def test_ray_gives_what_the_serial_runner_gives_for_several_jobs_at_once(ray_session, job, tmp_path):
    style = tmp_path / "style.tif"
    tifffile.imwrite(style, np.random.default_rng(1).integers(0, 99, (40, 50), np.uint8))
    matched = dataclasses.replace(
        job,
        name="meanstd",
        out=str(tmp_path / "matched"),
        style=StyleConfig(method="meanstd", style=str(style)),
    )
    reports = run_block_jobs([job, matched], RAY)
    assert [(report.ok, report.num_images_done) for report in reports] == [(True, 3), (True, 3)]
    assert _pixels(job.out) == _serial_twin(job, tmp_path)
    assert _pixels(matched.out) == _serial_twin(matched, tmp_path / "m")


def _objects(out):
    """Labels and tables."""
    tables = [pq.read_table(path).to_pylist() for path in sorted(Path(out).glob("[om]*s/*.parquet"))]
    return _pixels(out), tables


def test_killed_workers_are_replaced_and_the_objects_are_those_of_an_undisturbed_process(ray_session, job, tmp_path):
    job = dataclasses.replace(job, instances=InstanceConfig(components=True, halo_px=16))
    (report,) = run_jobs([job], RAY, functools.partial(execute_on_ray, open_processor=killers.open_mortal))
    assert report.ok, report.failed
    assert all((tmp_path / f"ray-{kind}").exists() for kind in ("block", "label"))  # it did happen
    found = _objects(job.out)
    assert len(found[1]) == 6 and found == _serial_twin(job, tmp_path, _objects)


def test_all_workers_are_at_work_also_beside_what_ray_still_keeps_for_a_dead_driver(ray_session, job):
    dead = DefaultAutoscalingCoordinator("data-dead")
    dead.request_resources([], 180.0, request_remaining=["CPU", "GPU", "memory", "object_store_memory"])
    try:
        run = functools.partial(execute_on_ray, open_processor=killers.open_together)
        (report,) = run_jobs([job], RAY, run)
    finally:
        dead.cancel_request()
    assert report.ok, report.failed


def test_a_worker_that_was_given_a_gpu_does_what_the_serial_runner_does(ray_session, job, tmp_path):
    job = dataclasses.replace(job, blocks=BlockConfig(block_size=96))
    on_gpu = dataclasses.replace(RAY, workers=1, gpus_per_worker=1)
    (report,) = run_jobs([job], on_gpu, functools.partial(execute_on_ray, open_processor=killers.open_on_cpu))
    assert report.ok, report.failed
    assert _pixels(job.out) == _serial_twin(job, tmp_path)


def test_a_block_that_always_kills_its_worker_is_quarantined_and_all_others_are_done(ray_session, job, tmp_path):
    group = open_collection(job.collection)["img1"].uri
    pixels = open_collection(job.collection)["img1"].numpy()
    pixels[:, 32:64, 32:64] = 255
    zarr_images.write_region(group, "0", Region.whole(pixels.shape[1:]), pixels)
    tifffile.imwrite(tmp_path / "style.tif", np.zeros((40, 50), np.uint8))
    style = StyleConfig(method="killers:on_white", style=str(tmp_path / "style.tif"))
    job = dataclasses.replace(job, model=None, style=style)
    (report,) = run_block_jobs([job], RAY)
    assert [(r.block_id, r.status) for r in report.failed] == [("img1@32-32", "quarantined")]
    assert report.num_images_done == 2 and report.missing == 1  # the pyramid of that image
    done = RunFolder.of(job.out).read_receipts()
    assert sum(receipt.status == "ok" and receipt.kind == "block" for receipt in done.values()) == report.num_blocks - 1
