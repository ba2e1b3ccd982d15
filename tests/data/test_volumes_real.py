"""Neurons in three dimensions: a volume, its truth and its watershed through the command line."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image
from skimage.metrics import variation_of_information

from raydom.cli import main
from raydom.storage.collection import open_collection


def stored(path: Path) -> np.ndarray:
    with h5py.File(path, "r") as file:
        return np.asarray(file["stack"])


def test_the_watershed_of_fibsem_is_scored_over_the_whole_volume(data_dir: Path, tmp_path: Path) -> None:
    folder, out = data_dir / "fibsem_gala", str(tmp_path / "fibsem")
    labels = [f"label={folder / 'train-gt.lzf.h5'}", f"ws={folder / 'train-ws.lzf.h5'}"]
    options = ["--volumes", "--pixel-size", "0.01", "--plane-distance", "0.01", "--out", out]
    assert main(["ingest", str(folder / "train-image.h5"), "--labels", *labels, *options]) == 0
    image = open_collection(out)["train-image"]
    truth, watershed = stored(folder / "train-gt.lzf.h5"), stored(folder / "train-ws.lzf.h5")
    pages = [np.asarray(Image.open(folder / f"images_png/im{number:02d}.png")) for number in range(50)]
    np.testing.assert_array_equal(image.numpy()[0], np.stack(pages))
    np.testing.assert_array_equal(image.labels().numpy(), truth)
    np.testing.assert_array_equal(image.labels("ws").numpy(), watershed)

    assert main(["evaluate", "--prediction", out, "--truth", out, "--prediction-label", "ws"]) == 0
    row = pq.read_table(f"{out}/evaluation.parquet").to_pylist()[0]
    expected = variation_of_information(truth, watershed, ignore_labels=(0,))
    assert (row["vi_split"], row["vi_merge"]) == pytest.approx(tuple(expected))
    assert (row["vi_split"], row["vi_merge"], row["rand_error"]) == pytest.approx((1.336, 0.121, 0.250), abs=1e-3)
    assert main(["segment", "--collection", out, "--model", "threshold:0.5", "--out", str(tmp_path / "found")]) == 2


def test_pages_of_a_tiff_are_a_volume(data_dir: Path, tmp_path: Path) -> None:
    folder, out = data_dir / "fibsem_gala/snemi_mini", str(tmp_path / "snemi")
    names = [str(folder / f"train-{name}.tif") for name in ("probabilities", "labels")]
    assert main(["ingest", names[0], "--labels", names[1], "--volumes", "--out", out]) == 0
    (image,) = open_collection(out)
    np.testing.assert_array_equal(image.numpy()[0], tifffile.imread(names[0]))
    np.testing.assert_array_equal(image.labels().numpy(), tifffile.imread(names[1]))
    assert (image.num_planes, image.plane_distance_um) == (32, None)
