"""A cluster without GPUs whose autoscaler starts them: a job waits for its first, a greedier one is refused."""

import subprocess
import sys
import tempfile
from dataclasses import replace

import numpy as np
import pytest
from fake_nodes import fake_cluster

from raydom.cluster.blocks import run_block_jobs
from raydom.config import RunConfig
from raydom.inference.job import BlockJob
from raydom.storage.collection import open_collection

ON_CPU = """
import sys
from raydom.cli import main
from raydom.cluster import blocks
blocks.device_of = lambda run: "cpu"  # what Ray takes for GPUs are none
sys.exit(main(sys.argv[1:]))
"""
JOB_S = 300


@pytest.fixture
def cluster():
    with tempfile.TemporaryDirectory(prefix="ra-", ignore_cleanup_errors=True) as folder:
        gpu = ({"CPU": 1, "GPU": 1}, 1)
        with fake_cluster(folder, {"gpu": gpu}, version=1, head_cpus=0) as cluster:
            yield cluster


def test_a_job_waits_for_its_first_gpu_and_more_gpus_than_any_node_has_are_refused(
    cluster, make_collection, make_model, tmp_path
):
    images = {"img": np.random.default_rng(0).integers(0, 256, (1, 96, 70), np.uint8)}
    job = BlockJob(name="segment", collection=make_collection("c", images).uri, out="", model=make_model())

    def start(name, gpus):
        words = ["segment", "--collection", job.collection, "--model", job.model, "--out", str(tmp_path / name)]
        words += ["--gpus-per-worker", gpus, "--address", cluster.address]
        return subprocess.Popen(
            [sys.executable, "-c", ON_CPU, *words],
            env=cluster.environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    processes = [start("refused", "4"), start("done", "1")]
    try:
        (refused, _), (done, _) = (process.communicate(timeout=JOB_S) for process in processes)
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert codes == [2, 0], refused + done
    assert "Give --gpus-per-worker 1 or less" in " ".join(refused.split()) and not (tmp_path / "refused").exists()
    assert "waiting for the first GPU: no node with 1 GPU and 1 CPU is there, the autoscaler can start gpu" in done
    assert "the first GPU came after" in done and "core_worker" not in done
    twin = replace(job, out=str(tmp_path / "serial"))
    assert run_block_jobs([twin], RunConfig(quiet=True, serial=True))[0].ok
    labels, expected = (open_collection(out)["img"].labels() for out in (str(tmp_path / "done"), twin.out))
    assert labels.numpy().tobytes() == expected.numpy().tobytes()
