"""Units of work and sizes of outputs, counted by hand; and files against what the job then writes."""

import numpy as np
import pytest

from raydom.config import BlockConfig, InstanceConfig, RunConfig
from raydom.images.tiles import cut_blocks
from raydom.inference.job import BlockJob, plan_job
from raydom.inference.predictor import Predictor
from raydom.inference.runner import execute_serially, run_jobs
from raydom.inference.workload import halo_of, num_neighbours, output_sizes, seen_px, stored, units_of
from raydom.types import Region


def test_a_block_sees_its_context_as_far_as_the_image_goes():
    assert seen_px(Region((0, 0), (32, 32)), 10, (100, 100)) == 42 * 42
    assert seen_px(Region((32, 32), (64, 64)), 10, (100, 100)) == 52 * 52
    assert seen_px(Region((96, 0), (100, 32)), 10, (100, 100)) == 14 * 42
    assert seen_px(Region((0, 0), (7, 5)), 10, (7, 5)) == 35


def test_every_two_neighbours_are_counted_once():
    shape = (96, 128)  # 3 x 4 blocks
    counts = [num_neighbours(block.write, shape) for block in cut_blocks("a", shape, 32)]
    assert sum(counts) == 3 * 3 + 2 * 4 + 2 * (2 * 3)  # beside, below, and two diagonals
    assert counts[0] == 3 and counts[-1] == 0


@pytest.mark.parametrize("shape", [(70, 90), (30, 31)])
def test_the_size_of_an_output_is_that_of_what_is_then_written(tmp_path, make_collection, shape):
    pixels = np.random.default_rng(0).integers(1, 255, (1, *shape), np.uint8)
    images = make_collection("in", {"a": pixels})
    job = BlockJob(
        name="job", collection=str(tmp_path / "in"), out=str(tmp_path / "out"), model="threshold:100",
        blocks=BlockConfig(block_size=32), instances=InstanceConfig(components=True),
    )  # fmt: skip
    told = output_sizes(job, Predictor, images)["a"]
    run_jobs([job], RunConfig(serial=True, quiet=True), execute_serially)
    assert told.num_objects == stored(str(tmp_path / "out" / "images" / "a.zarr")).num_objects
    assert told.num_bytes == shape[0] * shape[1] * (1 + 4)  # a probability, and a number of an object


def test_units_are_pixels_neighbours_and_what_a_network_looks_at(tmp_path, make_collection, make_model):
    make_collection("in", {"a": np.zeros((1, 64, 64), np.uint8)})
    model = make_model(depth=2)
    job = BlockJob(
        name="job", collection=str(tmp_path / "in"), out=str(tmp_path / "out"), model=str(model),
        blocks=BlockConfig(block_size=32, halo=32),
    )  # fmt: skip
    (image,) = job.chosen_images()
    assert halo_of(job)(image) == 32
    units = units_of(plan_job(job), job, halo_of(job))
    assert units["block"].tolist() == [64 * 64] * 4 and units["finish"].tolist() == [64 * 64]
