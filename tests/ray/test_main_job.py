"""The main job as a user runs it: the command line, files in, a table out."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raydom.cli import main
from raydom.demo import write_domain
from raydom.storage.collection import open_collection


@pytest.fixture
def domains(tmp_path):
    for number, domain in enumerate(("source", "target")):
        write_domain(tmp_path / domain, domain, 4, seed=number)
    return tmp_path


def test_from_files_to_a_table_by_the_command_line(ray_session, domains, capsys):
    def run(*words):
        code = main([*words])
        assert code == 0, capsys.readouterr()

    for domain in ("source", "target"):
        folder, out = domains / domain, str(domains / f"c-{domain}")
        run("ingest", str(folder / "images"), "--labels", str(folder / "labels"), "--out", out, "--domain", domain)
    source, target, model = (str(domains / name) for name in ("c-source", "c-target", "unet"))
    small = ["--base-channels", "8", "--depth", "2", "--crop-px", "64", "--steps", "60", "--learning-rate", "5e-3"]
    run("train", "supervised", "--collection", source, "--out", model, *small, "--quiet")
    style = str(domains / "source" / "images" / "source_00.png")
    labels = str(domains / "labels")
    common = ["--method", "meanstd", "--style", style, "--block-size", "128", "--quiet"]
    run("segment", "--collection", target, "--model", model, "--out", labels, *common)
    run("evaluate", "--prediction", labels, "--truth", target, "--by", "domain")
    scores = {row["scope"]: row for row in pq.read_table(f"{labels}/evaluation.parquet").to_pylist()}
    assert scores["pooled"]["f1"] > 0.5
    stylised = str(domains / "stylised")
    run("stylize", "--collection", target, "--out", stylised, *common, "--serial")
    one = open_collection(source)["source_00"].statistics
    assert np.allclose(open_collection(stylised)["target_00"].statistics.mean, one.mean, atol=4)
    table = domains / "table"
    options = [
        "--methods",
        "meanstd,nst",
        "--style",
        style,
        "--skip-unavailable",
        "--features",
        "vgg19",
        "--weights",
        "nowhere.pth",
    ]
    run("compare", "--source", source, "--target", target, "--model", model, "--out", str(table), *options, "--quiet")
    rows = {row["method"]: row for row in pq.read_table(table / "comparison.parquet").to_pylist()}
    assert list(rows) == ["none", "meanstd", "nst"]
    # Another block size, in another command: the same labels, so the same score.
    assert rows["meanstd"]["f1"] == pytest.approx(scores["pooled"]["f1"], abs=0)
    assert rows["meanstd"]["f1"] > rows["none"]["f1"] + 0.1
    assert rows["nst"]["f1"] is None and "nowhere.pth" in rows["nst"]["note"]
    assert Image.open(table / "comparison.png").size[0] > 500
