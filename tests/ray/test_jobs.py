"""A job page through ``ray job submit``, on a cluster of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import requests

from raydom.cluster.blocks import run_block_jobs
from raydom.config import RunConfig
from raydom.inference.job import BlockJob
from raydom.storage.collection import open_collection

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).parent / "ray")
START_S, JOB_S = 90, 180


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def cluster(tmp_path_factory):
    """The address of the job server of a local cluster, which ends with the test."""
    folder = tmp_path_factory.mktemp("r")
    dashboard = _free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    command = [RAY, "start", "--head", "--block", f"--port={_free_port()}", f"--dashboard-port={dashboard}"]
    # Every port of its own: another Ray (the tests' shared one) may be on this machine.
    own = ("ray-client-server-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
    command += [f"--{name}={_free_port()}" for name in own]
    command += [f"--temp-dir={folder}", "--num-cpus=2"]
    command += ["--object-store-memory=100000000", "--disable-usage-stats"]
    log = (folder / "start.log").open("wb")
    head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                if requests.get(f"{address}/api/version", timeout=5).ok:
                    break
            except requests.ConnectionError:
                pass
            assert head.poll() is None and time.monotonic() < deadline, (folder / "start.log").read_text()
            time.sleep(0.5)
        yield address, environment
    finally:
        head.terminate()  # with --block, `ray start` ends the processes that it started
        try:
            head.wait(3)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
        log.close()


def test_a_submitted_job_leaves_what_the_serial_runner_leaves(cluster, tmp_path, make_collection, make_model):
    address, environment = cluster
    images = {"img": np.random.default_rng(0).integers(0, 256, (1, 96, 70), np.uint8)}
    collection, model, out = make_collection("c", images).uri, make_model(), tmp_path / "out"
    config = tmp_path / "segment.yaml"
    config.write_text(f"collection: {collection}\nmodel: {model}\nout: {out}\nworkers: 1\n")
    command = [RAY, "job", "submit", "--address", address, "--working-dir", str(ROOT), "--"]
    command += [sys.executable, "jobs/segment.py", "--config", str(config)]
    deadline = time.monotonic() + START_S
    while True:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=JOB_S, check=False)
        starting = "No available agent" in done.stderr  # the job server answers before its agent is up
        if not starting or time.monotonic() > deadline:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 images done" in done.stdout
    twin = BlockJob(name="twin", collection=collection, out=str(tmp_path / "twin"), model=model)
    assert run_block_jobs([twin], RunConfig(serial=True, quiet=True))[0].ok
    (found,), (expected,) = open_collection(str(out)), open_collection(twin.out)
    assert np.array_equal(found.labels().numpy(), expected.labels().numpy())
    assert np.array_equal(found.numpy(), expected.numpy())
