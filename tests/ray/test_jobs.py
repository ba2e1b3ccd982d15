"""Jobs through the job server of a cluster of its own: by ``ray job submit`` and by ``raydom submit``."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import tifffile

from raydom.cli import main
from raydom.cluster import retries
from raydom.cluster.blocks import run_block_jobs
from raydom.cluster.job_server import JobServer
from raydom.config import RunConfig
from raydom.inference.job import BlockJob
from raydom.storage.collection import open_collection
from raydom.storage.receipts import RunFolder

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).parent / "ray")
START_S, JOB_S = 90, 180


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def cluster():
    """The address of the job server of a local cluster, which ends with these tests."""
    # Sockets lie in it, whose paths may have 107 bytes: those of pytest's own folders are too long.
    with tempfile.TemporaryDirectory(prefix="rd-", ignore_cleanup_errors=True) as folder:
        yield from _cluster(Path(folder))


def _cluster(folder):
    dashboard = _free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    environment["PATH"] = f"{Path(RAY).parent}{os.pathsep}{environment['PATH']}"  # of `python`, which jobs run
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


def wait_for(found, what):
    deadline = time.monotonic() + START_S
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_submitted_command_streams_its_output_and_ends_as_it_would_here(
    cluster, tmp_path, make_collection, monkeypatch, capfd
):
    address, _ = cluster
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAYDOM_SCRATCH", "a-value-of-mine")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # no checkout: the package travels, too
    images = {"img": np.random.default_rng(0).integers(0, 256, (1, 96, 70), np.uint8)}
    config = tmp_path / "info.yaml"  # outside of the folder
    config.write_text("json: true\n")
    collection = make_collection("c", images).uri
    assert main(["submit", "info", collection, "--config", str(config), "--wait", "--address", address]) == 0
    told = capfd.readouterr()
    assert '"images": 1' in told.out and "1 files of" in told.err and "RAYDOM_SCRATCH" in told.err
    assert main(["submit", "--address", address, "--wait", "info", str(tmp_path / "missing")]) == 2
    assert f"raydom info: {tmp_path}/missing" in capfd.readouterr().out
    assert main(["jobs", "--address", address]) == 0
    listed = capfd.readouterr().out
    assert "a-value-of-mine" not in listed + told.out + told.err
    lines = [line.split() for line in listed.splitlines() if " raydom info " in line]
    assert [(line[1], line[2]) for line in lines] == [("FAILED", "2"), ("SUCCEEDED", "0")]
    assert main(["logs", lines[1][0], "--address", address]) == 0
    assert '"images": 1' in capfd.readouterr().out
    assert main(["stop", lines[1][0], "--address", address]) == 0
    assert "does not run: SUCCEEDED" in capfd.readouterr().err
    assert main(["logs", "raydom-nobody", "--address", address]) == 2
    assert "knows no such job" in capfd.readouterr().err


def test_a_killed_driver_is_submitted_again_and_a_stopped_one_finishes_its_blocks(
    cluster, tmp_path, make_collection, monkeypatch, capfd
):
    address, _ = cluster
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(retries, "PAUSE_S", 0.0)
    here, style = tmp_path / "here", tmp_path / "style"
    here.mkdir(), style.mkdir()
    monkeypatch.chdir(here)
    (here / "stoppable.py").write_text((Path(__file__).parent / "stoppable.py").read_text())  # a method of one's own
    tifffile.imwrite(style / "style.tif", np.zeros((40, 50), np.uint8))
    (style / "kill").touch()
    images = {"img": np.random.default_rng(0).integers(0, 256, (1, 192, 192), np.uint8)}
    out = tmp_path / "out"
    words = ["stylize", "--collection", make_collection("c", images).uri, "--out", str(out), "--block-size", "32"]
    words += ["--method", "stoppable:slow", "--style", str(style / "style.tif"), "--content-threshold", "0", "--serial"]

    def stop():
        wait_for(lambda: not (style / "kill").exists(), "the first driver")
        before = len(list(style.glob("begun-*")))
        wait_for(lambda: len(list(style.glob("begun-*"))) > before, "the second driver")
        running = [job for job in JobServer(address).jobs() if str(job.status) == "RUNNING"]
        assert main(["stop", running[0].submission_id, "--address", address]) == 0

    stopper = threading.Thread(target=stop)
    stopper.start()
    assert main(["submit", *words, "--retries", "2", "--address", address]) == 143
    stopper.join()
    told = capfd.readouterr()
    assert "its driver was killed (signal 9); submitted again" in told.err and "retry 1 of 2" in told.err
    assert "raydom stylize: told to stop: the blocks in flight are done" in told.out
    done = [receipt for receipt in RunFolder.of(str(out)).read_receipts().values() if receipt.kind == "block"]
    # Three blocks of the killed driver had no receipts yet.
    assert 1 <= len(done) == len(list(style.glob("begun-*"))) - 3 < 36
    assert not RunFolder.of(str(out)).marks()
