"""A driver that is told to stop finishes the blocks in flight, and no others."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile

from raydom.cluster.blocks import run_block_jobs
from raydom.config import BlockConfig, RunConfig, StyleConfig
from raydom.errors import StoppedError
from raydom.inference.job import BlockJob
from raydom.storage.receipts import RunFolder

SERIAL = RunConfig(quiet=True, serial=True)
NUM_BLOCKS = 36


@pytest.fixture
def job(tmp_path, make_collection, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    (tmp_path / "style").mkdir()
    tifffile.imwrite(tmp_path / "style/style.tif", np.zeros((40, 50), np.uint8))
    images = {"img": np.random.default_rng(0).integers(0, 256, (1, 192, 192), np.uint8)}
    return BlockJob(
        name="stylize",
        collection=make_collection("c", images).uri,
        out=str(tmp_path / "out"),
        style=StyleConfig(method="stoppable:slow", style=str(tmp_path / "style/style.tif"), content_threshold=0.0),
        blocks=BlockConfig(block_size=32),
    )


@pytest.mark.parametrize("serial", [True, False])
def test_blocks_in_flight_are_finished_and_no_others_are_begun(job, tmp_path, serial, request):
    run = SERIAL
    if not serial:
        request.getfixturevalue("ray_session")
        run = RunConfig(quiet=True, workers=2)
    before = signal.getsignal(signal.SIGTERM)
    (tmp_path / "style/driver").write_text(str(os.getpid()))
    with pytest.raises(StoppedError, match="the blocks in flight are done"):
        run_block_jobs([job], run)
    assert signal.getsignal(signal.SIGTERM) is before
    begun = len(list((tmp_path / "style").glob("begun-*")))
    done = [receipt.status for receipt in RunFolder.of(job.out).read_receipts().values() if receipt.kind == "block"]
    assert done == ["ok"] * begun and 3 <= begun < NUM_BLOCKS / 2
    assert not RunFolder.of(job.out).marks()
