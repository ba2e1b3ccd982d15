"""Neurons on Ray: what the serial runner gives, also when workers die."""

import dataclasses
import functools

import killers
import numpy as np
import pyarrow.parquet as pq

from raydom.cluster.blocks import execute_on_ray, run_block_jobs
from raydom.config import BlockConfig, RunConfig
from raydom.inference.neuron_job import NeuronJob
from raydom.inference.neuron_stages import NEURON_JOBS
from raydom.inference.runner import run_jobs
from raydom.storage.collection import open_collection


def made(out):
    image = open_collection(out)["a"]
    labels = [image.labels(name).numpy() for name in ("superpixels", "neurons")]
    return [image.numpy(), *labels], pq.read_table(f"{out}/edges")


def test_killed_workers_are_replaced_and_the_neurons_are_those_of_one_process(
    ray_session, tmp_path, make_collection, make_forest, mosaic
):
    collection = make_collection("c", {"a": mosaic((100, 70))[1][None]})
    blocks, out = BlockConfig(block_size=32), str(tmp_path / "ray")
    job = NeuronJob(name="n", collection=collection.uri, out=out, forest=make_forest(), blocks=blocks)
    execute = functools.partial(execute_on_ray, open_processor=killers.open_mortal_neurons)
    (report,) = run_jobs([job], RunConfig(quiet=True, workers=2), execute, kind=NEURON_JOBS)
    assert report.ok, report.failed
    assert all((tmp_path / f"ray-{kind}").exists() for kind in ("block", "graph"))  # it did happen
    twin = dataclasses.replace(job, out=str(tmp_path / "serial"))
    assert run_block_jobs([twin], RunConfig(quiet=True, serial=True), kind=NEURON_JOBS)[0].ok
    (arrays, edges), (others, same) = made(job.out), made(twin.out)
    assert edges.equals(same) and all(np.array_equal(a, b) for a, b in zip(arrays, others, strict=True))
