"""Volumes as images of a collection: all planes of a region, whatever is done to y and x."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.image import Image as OmeImage
from ome_zarr_models.v05.image_label import ImageLabel as OmeLabel

from raydom.config import ImageFilter
from raydom.errors import ConfigError, DataError
from raydom.images.intensity import image_statistics, stream_statistics, to_fraction
from raydom.storage.collection import Image, open_collection, write_manifest
from raydom.storage.planes import open_planes
from raydom.storage.pyramids import halved, writable_levels, write_coarser
from raydom.storage.summary import describe
from raydom.storage.whole_images import write_image
from raydom.storage.zarr_images import create_image, create_labels, open_array, read_multiscale, write_region
from raydom.types import ImageRecord, Region

SHAPE = (2, 35, 75, 52)


def make_record(image_id: str, pixels: np.ndarray, *labels: str) -> ImageRecord:
    return ImageRecord(
        image_id=image_id, uri=f"images/{image_id}.zarr", axes="czyx" if pixels.ndim == 4 else "cyx",
        shape=pixels.shape, dtype=str(pixels.dtype), pixel_size_um=0.25, channels=("a", "b")[: len(pixels)],
        domain=None, split=None, group=None, labels=labels, statistics=image_statistics(pixels), source_file="",
        sha256="", label_kinds=("instance",) * len(labels), extra=(("plane_distance_um", 0.5),),
    )  # fmt: skip


@pytest.fixture
def volume(tmp_path: Path) -> tuple[Image, np.ndarray, np.ndarray]:
    """A volume in shards of 32 px and chunks of 16, of several levels, written shard by shard; with a label."""
    pixels = np.random.default_rng(0).integers(0, 65536, SHAPE, dtype=np.uint16)
    cells = (pixels[0] % 5).astype(np.uint32)
    record = make_record("v", pixels, "cells")
    uri = str(tmp_path / record.uri)
    sizes = {"pixel_size_um": 0.25, "plane_distance_um": 0.5, "shard_px": 32, "chunk_px": 16, "num_levels": 3}
    create_image(uri, name="v", axes="czyx", shape=SHAPE, dtype="uint16", channels=("a", "b"), **sizes)
    create_labels(uri, "cells", shape=SHAPE[1:], dtype="uint32", **sizes)
    for region in (Region((0, 0), (64, 52)), Region((64, 0), (75, 52))):
        write_region(uri, "0", region, pixels[(..., *region.slices)])
        write_region(uri, "labels/cells/0", region, cells[(..., *region.slices)])
    write_coarser(writable_levels(uri), "mean")
    write_coarser(writable_levels(uri, "labels/cells"), "nearest")
    write_manifest(str(tmp_path), [record])
    return open_collection(str(tmp_path))["v"], pixels, cells


def test_a_region_has_all_planes(volume: tuple[Image, np.ndarray, np.ndarray]) -> None:
    image, pixels, cells = volume
    part = (slice(5, 70), slice(11, 40))
    np.testing.assert_array_equal(image.numpy(), pixels)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(image)).numpy(part), pixels[(..., *part)])
    np.testing.assert_array_equal(image.dask()[:, 3:9].compute(), pixels[:, 3:9])
    label = image.labels("cells")
    np.testing.assert_array_equal(label.numpy(part), cells[(..., *part)])
    np.testing.assert_array_equal(label.dask().compute(), cells)
    assert label.spatial_shape == image.spatial_shape == (35, 75, 52)
    assert (image.is_volume, image.num_planes, image.num_channels) == (True, 35, 2)
    assert image.plane_shape == image.level_shape() == (75, 52)
    assert image.plane_distance_um == 0.5
    with pytest.raises(ConfigError, match="not inside"):
        image.numpy(Region((0, 0), (75, 53)))


def test_coarser_levels_keep_the_planes(volume: tuple[Image, np.ndarray, np.ndarray]) -> None:
    image, pixels, cells = volume
    np.testing.assert_array_equal(image.numpy(level=1), halved(pixels, "mean"))
    np.testing.assert_array_equal(image.labels("cells").numpy(level=2), cells[:, ::4, ::4])
    assert image.level_shape(2) == (19, 13)


def test_a_volume_is_valid_ome_zarr(volume: tuple[Image, np.ndarray, np.ndarray]) -> None:
    image, _, _ = volume
    metadata = OmeImage.from_zarr(zarr.open_group(image.uri, mode="r")).ome_attributes.multiscales[0]
    OmeLabel.from_zarr(zarr.open_group(f"{image.uri}/labels/cells", mode="r"))
    assert [axis.name for axis in metadata.axes] == ["c", "z", "y", "x"]
    assert {axis.unit for axis in metadata.axes if axis.type == "space"} == {"micrometer"}
    assert metadata.datasets[2].coordinateTransformations[0].scale == [1.0, 0.5, 1.0, 1.0]
    read = read_multiscale(image.uri)
    assert (read.plane_distance_um, read.pixel_sides_um) == (0.5, (0.25, 0.25))
    array = open_array(image.uri, "0")
    assert (array.chunks, array.shards) == ((2, 18, 16, 16), (2, 36, 32, 32))  # 35 planes in two chunks


def test_a_missing_shard_of_a_volume_is_told(volume: tuple[Image, np.ndarray, np.ndarray]) -> None:
    image, _, _ = volume
    (Path(image.uri) / "0/c/0/0/1/0").unlink()
    assert image.numpy((slice(0, 32), slice(None))).any()
    with pytest.raises(DataError, match=r"shard at \(32, 0\) is missing"):
        image.numpy((slice(30, 40), slice(0, 5)))


def test_a_whole_volume_is_written_in_shards_that_fit_memory(tmp_path: Path) -> None:
    pixels = np.zeros((1, 600, 300, 9), np.float32)
    pixels[0, 7, 280, 3] = 1.0
    record = make_record("v", pixels, "cells")
    write_image(str(tmp_path / "v.zarr"), record, pixels, {"cells": pixels[0].astype(np.uint8)})
    assert open_array(str(tmp_path / "v.zarr"), "0").shards[2] == 64  # 600 planes x 4 bytes x 64**2 < 32 MiB
    np.testing.assert_array_equal(open_array(str(tmp_path / "v.zarr"), "0")[:], pixels)
    assert open_array(str(tmp_path / "v.zarr"), "labels/cells/0").shards[1] == 128


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "uint32"])
def test_statistics_of_a_volume_are_those_of_its_planes_side_by_side(dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 120, (3, 5, 21, 13)).astype(dtype)
    flat = image_statistics(pixels.reshape(3, 5 * 21, 13))
    assert image_statistics(pixels) == flat
    streamed = stream_statistics(lambda: [pixels[:, :, :9], pixels[:, :, 9:]])
    np.testing.assert_allclose(streamed.percentiles, flat.percentiles, rtol=1e-6)
    np.testing.assert_allclose(streamed.lab_mean, flat.lab_mean)
    assert to_fraction(pixels, flat).shape == pixels.shape


def test_commands_on_planes_refuse_volumes_and_info_tells_them(tmp_path: Path) -> None:
    volume = make_record("v", np.zeros((1, 4, 9, 7), np.uint8))
    plane = make_record("p", np.zeros((1, 9, 7), np.uint8))
    write_manifest(str(tmp_path), [volume, plane])
    facts = describe(open_collection(str(tmp_path)))
    assert facts["planes"] == {"1": 1, "4": 1}
    assert (facts["height_px"], facts["width_px"]) == ([9, 9], [7, 7])
    with pytest.raises(
        ConfigError, match=r"1 of 2 images are volumes, such as v of 4 planes.*without --volumes.*--keep axes=cyx"
    ):
        open_planes(str(tmp_path))
    assert [image.image_id for image in open_planes(str(tmp_path), ImageFilter(keep=("axes=cyx",)))] == ["p"]
    assert plane.plane_distance_um is None
    assert (plane.is_volume, plane.num_planes, plane.plane_shape) == (False, 1, (9, 7))
