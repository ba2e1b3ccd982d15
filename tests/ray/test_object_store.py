"""The main job on an S3 server: what it gives on a disk, also when the driver is killed and the store is busy."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import s3_server
from PIL import Image as Pillow

from raydom.cli import main
from raydom.storage import files, stores, zarr_images
from raydom.storage.collection import open_collection
from raydom.storage.model_run import open_model_run
from raydom.storage.receipts import RunFolder
from raydom.types import Region

S3 = f"s3://{s3_server.BUCKET}"
NUM_IMAGES, BLOCKS_AN_IMAGE = 2, 4


@pytest.fixture(scope="module")
def server():
    """The server with a bucket; this process has its keys and its address."""
    with s3_server.serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        patch.setattr(stores, "FIRST_WAIT_S", 0.01)
        _forget()
        fsspec.filesystem("s3").mkdir(s3_server.BUCKET)
        yield server
        _forget()


def _forget():
    """File systems are kept with the keys and the address that they were opened with."""
    import s3fs

    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it tells of connections that are left to the end
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def sources(server, tmp_path_factory):
    """Image and mask files, on the disk and on the server."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        mask = np.zeros((64, 60), np.uint8)
        for y, x in rng.integers(4, 56, (6, 2)):
            mask[y - 4 : y + 4, x - 4 : x + 4] = 255
        pixels = (mask // 2 + rng.integers(0, 60, mask.shape)).astype(np.uint8)
        for kind, picture in (("images", pixels), ("masks", mask)):
            (folder / kind).mkdir(exist_ok=True)
            Pillow.fromarray(picture).save(folder / kind / f"cell{number}.png")
            content = (folder / kind / f"cell{number}.png").read_bytes()
            files.write_bytes_atomic(f"{S3}/files/{kind}/cell{number}.png", content)
    return {"disk": str(folder), "s3": f"{S3}/files"}


@pytest.fixture(scope="module")
def main_jobs(server, sources, tmp_path_factory):
    """The folders of the main job on the disk and on the server, and the requests that each command made there."""
    requests = {}
    outs = {"disk": str(tmp_path_factory.mktemp("job")), "s3": f"{S3}/job"}
    for place, out in outs.items():
        for name, words in _commands(sources[place], out).items():
            server.requests()
            assert main([*words]) == 0, (place, name)
            requests[name] = server.requests()
    return outs, requests


def _commands(source, out):
    blocks = ["--block-size", "32", "--serial", "--quiet"]
    network = ["--base-channels", "4", "--depth", "2", "--crop-px", "32", "--steps", "4", "--learning-rate", "1e-2"]
    labels, model = ["--instances.components", "--instances.halo-px", "16"], ["--model", f"{out}/unet"]
    style = ["--method", "meanstd", "--style", f"{source}/images/cell1.png"]
    target = ["--collection", f"{out}/c"]
    return {
        "ingest": ["ingest", f"{source}/images", "--labels", f"{source}/masks", "--out", f"{out}/c"],
        "train": ["train", "supervised", *target, "--out", f"{out}/unet", *network, "--serial", "--quiet"],
        "stylize": ["stylize", *target, "--out", f"{out}/stylised", *style, *blocks],
        "segment": ["segment", *target, *model, "--out", f"{out}/labels", *blocks],
        "objects": ["segment", *target, *model, "--out", f"{out}/objects", *style, *labels, *blocks],
        "evaluate": ["evaluate", "--prediction", f"{out}/labels", "--truth", f"{out}/c"],
    }


def _content(out):
    """Pixels and labels of all images, their rows, and the tables of objects."""
    collection = open_collection(out)
    pixels = {one.image_id: (one.numpy().tobytes(), one.labels().numpy().tobytes()) for one in collection}
    facts = collection.table.drop_columns(["source_file", "sha256"]).to_pylist()
    tables = [_table(one) for kind in ("objects", "morphology") for one in files.list_files(f"{out}/{kind}")]
    return pixels, facts, tables


def _table(uri):
    with files.local_copy(uri) as path:
        return pq.read_table(path).to_pylist()


def test_the_main_job_gives_the_same_bits_as_on_a_disk(main_jobs):
    (disk, s3), _ = main_jobs[0].values(), main_jobs[1]
    for name in ("c", "stylised", "labels", "objects"):
        assert _content(f"{s3}/{name}") == _content(f"{disk}/{name}"), name
    assert open_model_run(f"{s3}/unet").content_hash == open_model_run(f"{disk}/unet").content_hash
    assert _table(f"{s3}/labels/evaluation.parquet") == _table(f"{disk}/labels/evaluation.parquet")
    receipts = [RunFolder.of(f"{out}/labels").read_receipts() for out in (disk, s3)]
    told = [{key: (one.status, one.checksum) for key, one in found.items()} for found in receipts]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("command", "an_image", "a_run"),
    [("ingest", 15, 30), ("segment", 8 + 10 * BLOCKS_AN_IMAGE, 80), ("stylize", 10 + 19 * BLOCKS_AN_IMAGE, 60)],
)
def test_requests_are_few(main_jobs, command, an_image, a_run):
    """Per image (of four blocks), and per run whatever its size."""
    requests = main_jobs[1][command]
    of_images = [one for one in requests if "cell" in one.key]
    by_kind = Counter(one.kind for one in of_images)
    assert len(of_images) <= an_image * NUM_IMAGES, by_kind
    assert len(requests) - len(of_images) <= a_run
    # Listings cost ten times a reading: never one a block.
    assert by_kind["LIST"] <= 4 * NUM_IMAGES, by_kind
    repeated = Counter(one.key for one in requests if one.kind == "PUT" and "/c/" in one.key)
    assert set(repeated.values()) <= {1}


def test_shards_are_written_by_one_request_and_not_read_first(server):
    uri = f"{S3}/alone.zarr"
    zarr_images.create_image(
        uri, name="x", axes="cyx", shape=(1, 64, 64), dtype="uint8", pixel_size_um=None, channels=["a"], shard_px=32
    )
    array = zarr_images.open_array(uri, "0", mode="r+")
    server.requests()
    for value in (1, 2):
        zarr_images.write_region(uri, "0", Region((0, 0), (32, 64)), np.full((1, 32, 64), value, np.uint8), array)
        assert server.counted() == {"PUT": 2}
    assert (open_level(uri)[0, :32] == 2).all()


def open_level(uri):
    return zarr_images.open_array(uri, "0")[:]


def test_a_killed_driver_is_followed_by_one_that_finishes_its_work(main_jobs, server, tmp_path):
    s3, out = main_jobs[0]["s3"], f"{S3}/killed"
    words = ["segment", "--collection", f"{s3}/c", "--model", f"{s3}/unet", "--out", out]
    words += ["--block-size", "32", "--cpus-per-worker", "1", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    environment |= {"FSSPEC_S3_ENDPOINT_URL": environment.pop("AWS_ENDPOINT_URL")}  # the other way to tell it
    driver = subprocess.Popen(
        [sys.executable, "-c", "import sys; from raydom.cli import main; sys.exit(main())", *words, "--workers", "1"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        server.requests()
        seen, until = set(), time.monotonic() + 60
        while len(seen) < 2 and time.monotonic() < until:
            assert driver.poll() is None, "it was not killed"
            seen |= {one.key for one in server.requests() if one.kind == "PUT" and "killed/images" in one.key}
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
    finally:
        driver.kill()
        driver.wait()
    time.sleep(3)  # its workers outlive it by so long
    assert main([*words, "--serial"]) == 0
    assert _content(out)[0] == _content(f"{s3}/labels")[0]
    server.requests()
    assert main([*words, "--serial"]) == 0  # all is done: nothing is written but the lease and the manifest
    assert {one.key for one in server.requests() if one.kind == "PUT"} == {
        "killed/run/lease.json",
        "killed/images.parquet",
    }


def test_a_busy_store_only_costs_time(main_jobs, server):
    disk, s3 = main_jobs[0].values()
    server.requests()
    server.fail(5, 503, "SlowDown", "busy/run/settings.json")
    server.fail(5, 500, "InternalError", "GET /raydom/job/c/images/cell1.zarr/0/c")
    server.fail(5, 503, "SlowDown", "PUT /raydom/busy/images/cell0.zarr/0/c")
    words = ["segment", "--collection", f"{s3}/c", "--model", f"{s3}/unet", "--out", f"{S3}/busy", "--quiet"]
    assert main([*words, "--block-size", "32", "--serial"]) == 0
    failed = Counter(one.status for one in server.requests() if one.status >= 500)
    assert failed == {503: 10, 500: 5}  # none of the layers below asks by itself
    assert _content(f"{S3}/busy")[0] == _content(f"{disk}/labels")[0]
    receipts = RunFolder.of(f"{S3}/busy").read_receipts()
    assert {one.attempts for one in receipts.values()} == {1}


def test_a_reader_sees_the_old_file_or_the_new_one(server):
    uri, versions, seen = f"{S3}/atomic", [bytes([value]) * 300_000 for value in (1, 2)], set()
    files.write_bytes_atomic(uri, versions[0])
    over = threading.Event()

    def read():
        while not over.is_set():
            seen.add(files.read_bytes(uri))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(20):
        files.write_bytes_atomic(uri, versions[number % 2])
    over.set()
    for reader in readers:
        reader.join()
    assert seen <= set(versions) and seen


def _refused(capsys, *words):
    """What is told when a command is refused, which takes seconds."""
    _forget()
    began = time.monotonic()
    assert main([*words]) == 2
    assert time.monotonic() - began < 8
    told = capsys.readouterr().err
    assert s3_server.SECRET not in told and "Traceback" not in told
    return told


def test_what_cannot_work_is_told_before_work(server, sources, capsys, monkeypatch, tmp_path):
    ingest = ["ingest", f"{sources['disk']}/images", "--out"]
    told = _refused(capsys, *ingest, "s3://nowhere/c")
    assert told.startswith("raydom ingest: s3://nowhere/c: there is no bucket 'nowhere'.")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "wrong")
        told = _refused(capsys, *ingest, f"{S3}/c")
        assert f"{S3}/c: the store refuses the keys (InvalidAccessKeyId)" in told and "AWS_PROFILE" in told
        assert "wrong" not in told
        told = _refused(capsys, "info", f"{S3}/job/c")
        assert "refuses the keys" in told
    with monkeypatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path))
        assert "or none were found. Give: AWS_ACCESS_KEY_ID" in _refused(capsys, *ingest, f"{S3}/c")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        assert f"{S3}/c: the store does not answer" in _refused(capsys, *ingest, f"{S3}/c")
    _forget()
