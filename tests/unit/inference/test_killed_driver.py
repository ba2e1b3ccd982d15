"""A driver that is killed at any moment: the same command finishes the work, with the result of an undisturbed run."""

import dataclasses
import json
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import tifffile

from raydom.cli import main
from raydom.config import BlockConfig, RunConfig, StyleConfig
from raydom.inference.job import BlockJob
from raydom.inference.runner import execute_serially, run_jobs
from raydom.storage.collection import open_collection
from raydom.storage.receipts import RunFolder

SLOW = """
    import time

    def brighter(content, style, config, generator):
        time.sleep(0.05)
        return content.pixels + 0.1

    brighter.pointwise = True
"""


def test_a_killed_driver_is_followed_by_another_that_repeats_little(tmp_path, make_collection, monkeypatch, capsys):
    (tmp_path / "slowly.py").write_text(textwrap.dedent(SLOW))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite(tmp_path / "style.tif", np.zeros((8, 8), np.uint8))
    pixels = np.random.default_rng(0).integers(0, 200, (1, 160, 160), np.uint8)
    collection = make_collection("c", {"img": pixels})
    out = tmp_path / "out"
    words = ["stylize", "--collection", collection.uri, "--out", str(out), "--method", "slowly:brighter"]
    words += ["--style", "style.tif", "--block-size", "16", "--serial", "--quiet"]
    first = subprocess.Popen([sys.executable, "-m", "raydom.cli", *words], cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not any(receipt.kind == "block" for receipt in RunFolder.of(str(out)).read_receipts().values()):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    assert main(words) == 2  # while the first is alive, a second is refused
    assert "another run is at work on this output" in capsys.readouterr().err
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = {key for key, receipt in RunFolder.of(str(out)).read_receipts().items() if receipt.kind == "block"}
    assert 0 < len(done) < 100
    assert json.loads((out / "run" / "lease.json").read_text())["pid"] == first.pid
    before = {key: RunFolder.of(str(out)).read_receipts()[key].finished_at for key in done}
    assert main(words) == 0
    after = RunFolder.of(str(out)).read_receipts()
    assert {key: after[key].finished_at for key in done} == before  # what was done is not done again
    twin = BlockJob(
        name="twin",
        collection=collection.uri,
        out=str(tmp_path / "twin"),
        style=StyleConfig(method="slowly:brighter", style="style.tif"),
        blocks=BlockConfig(block_size=16),
    )
    assert run_jobs([twin], RunConfig(quiet=True, serial=True), execute_serially)[0].ok
    (found,), (expected,) = open_collection(str(out)), open_collection(twin.out)
    assert np.array_equal(found.numpy(), expected.numpy()) and found.num_levels == expected.num_levels
    assert dataclasses.replace(found.record, source_file="") == dataclasses.replace(expected.record, source_file="")
    assert not (out / "run" / "lease.json").exists()
