from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.image import Image
from ome_zarr_models.v05.image_label import ImageLabel

from raydom.errors import ConfigError, DataError
from raydom.storage import files
from raydom.storage.pyramids import halved, writable_levels, write_coarser
from raydom.storage.zarr_images import (
    create_image,
    create_labels,
    list_labels,
    missing_shards,
    open_array,
    read_multiscale,
    shard_regions,
    write_region,
)
from raydom.types import Region

SHAPE = (3, 75, 52)


def read_region(uri: str, path: str, region: Region) -> np.ndarray:
    return np.asarray(open_array(uri, path)[(..., *region.slices)])


def make_image(uri: str, pixel_size_um: float | None = 0.5, label: bool = True) -> np.ndarray:
    """An image of 75 x 52 px in shards of 32 and chunks of 16, with three levels and one label."""
    pixels = np.random.default_rng(0).integers(0, 65536, SHAPE, dtype=np.uint16)
    common = {"pixel_size_um": pixel_size_um, "shard_px": 32, "chunk_px": 16, "num_levels": 3}
    create_image(
        uri, name="cells", axes="cyx", shape=SHAPE, dtype="uint16", channels=("red", "green", "blue"), **common
    )
    for region in shard_regions(open_array(uri, "0")):
        write_region(uri, "0", region, pixels[(slice(None), *region.slices)])
    write_coarser(writable_levels(uri), "mean")
    if label:
        create_labels(uri, "nuclei", shape=SHAPE[1:], dtype="uint8", **common)
        for region in shard_regions(open_array(uri, "labels/nuclei/0")):
            write_region(uri, "labels/nuclei/0", region, (pixels[0] % 2).astype(np.uint8)[region.slices])
        write_coarser(writable_levels(uri, "labels/nuclei"), "nearest")
    return pixels


@pytest.fixture(params=["local", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "cells.zarr")
    files.remove("memory://test-zarr-images")
    return "memory://test-zarr-images/cells.zarr"


def test_pixels_come_back_by_raydom_by_zarr_and_by_dask(uri: str) -> None:
    pixels = make_image(uri)
    np.testing.assert_array_equal(read_region(uri, "0", Region((3, 5), (70, 31))), pixels[:, 3:70, 5:31])
    np.testing.assert_array_equal(zarr.open_group(uri, mode="r")["0"][:], pixels)
    np.testing.assert_array_equal(da.from_zarr(uri, component="0").compute(), pixels)
    np.testing.assert_array_equal(read_region(uri, "labels/nuclei/0", Region.whole((75, 52))), pixels[0] % 2)


def test_the_metadata_are_valid_ome_zarr_and_say_what_was_said(uri: str) -> None:
    make_image(uri)
    group = zarr.open_group(uri, mode="r")
    Image.from_zarr(group)
    ImageLabel.from_zarr(group["labels/nuclei"])
    read = read_multiscale(uri)
    assert (read.axes, read.paths, read.pixel_sides_um) == ("cyx", ("0", "1", "2"), (0.5, 0.5))
    assert (read.channels, list_labels(uri)) == (("red", "green", "blue"), ("nuclei",))
    assert read_multiscale(uri, "labels/nuclei").axes == "yx"
    array = group["0"]
    assert (array.shards, array.chunks) == ((3, 32, 32), (3, 16, 16))
    steps = group.attrs["ome"]["multiscales"][0]["datasets"][2]["coordinateTransformations"]
    assert steps[0]["scale"] == [1, 2, 2]
    assert steps[1]["translation"] == [0, 0.75, 0.75]  # 1.5 px: the centre of four


def test_an_unknown_pixel_size_is_not_claimed(tmp_path: Path) -> None:
    uri = str(tmp_path / "cells.zarr")
    make_image(uri, pixel_size_um=None)
    assert read_multiscale(uri).pixel_sides_um is None
    group = zarr.open_group(uri, mode="r")
    Image.from_zarr(group)
    assert "unit" not in group.attrs["ome"]["multiscales"][0]["axes"][1]


def test_pyramids_are_means_of_images_and_nearest_of_labels(uri: str) -> None:
    pixels = make_image(uri)
    level = read_region(uri, "1", Region.whole((38, 26)))
    blocks = pixels[:, :74].reshape(3, 37, 2, 26, 2).astype(float).mean(axis=(2, 4))
    assert np.abs(level[:, :37] - blocks).max() <= 0.5
    last = pixels[:, 74].reshape(3, 26, 2).astype(float).mean(axis=2)
    assert np.abs(level[:, 37] - last).max() <= 0.5  # the odd row is the mean of what exists
    np.testing.assert_array_equal(read_region(uri, "2", Region.whole((19, 13))), halved(level, "mean"))
    np.testing.assert_array_equal(
        read_region(uri, "labels/nuclei/1", Region.whole((38, 26))), (pixels[0] % 2)[::2, ::2]
    )


def test_halving_keeps_a_constant_of_any_dtype() -> None:
    for dtype, value in (("uint8", 255), ("int16", -7), ("uint32", 4_000_000_001), ("float32", 0.1)):
        pixels = np.full((2, 5, 3), value, dtype)
        np.testing.assert_array_equal(halved(pixels, "mean"), np.full((2, 3, 2), value, dtype))


def test_a_write_that_splits_a_shard_is_refused(uri: str) -> None:
    make_image(uri, label=False)
    with pytest.raises(ConfigError, match=r"axis y would be written from 16 to 64 px, which splits a shard of 32 px"):
        write_region(uri, "0", Region((16, 0), (64, 32)), np.zeros((3, 48, 32), np.uint16))
    with pytest.raises(ConfigError, match="not inside the image"):
        write_region(uri, "0", Region((64, 32), (96, 64)), np.zeros((3, 32, 32), np.uint16))
    write_region(uri, "0", Region((64, 32), (75, 52)), np.zeros((3, 11, 20), np.uint16))


def test_pixels_that_do_not_fit_are_refused(uri: str) -> None:
    make_image(uri, label=False)
    for wrong in (np.zeros((2, 32, 32), np.uint16), np.zeros((3, 32, 32), np.int16)):
        with pytest.raises(ConfigError, match="cannot be written where"):
            write_region(uri, "0", Region((0, 0), (32, 32)), wrong)
    with pytest.raises(DataError, match="no such Zarr array"):
        write_region(uri, "7", Region((0, 0), (32, 32)), np.zeros((3, 32, 32), np.uint16))


def test_an_image_is_only_replaced_when_asked(tmp_path: Path) -> None:
    uri = str(tmp_path / "cells.zarr")
    make_image(uri)
    small = {"name": "a", "axes": "cyx", "shape": (1, 5, 7), "dtype": "uint8", "channels": ("gray",)}
    with pytest.raises(ConfigError, match="there is an image already"):
        create_image(uri, pixel_size_um=None, **small)
    create_image(uri, pixel_size_um=None, overwrite=True, **small)
    assert list_labels(uri) == ()
    assert read_multiscale(uri).channels == ("gray",)


def test_a_small_image_is_three_objects_and_its_shards_of_zeros_exist(tmp_path: Path) -> None:
    uri = str(tmp_path / "cells.zarr")
    create_image(uri, name="a", axes="cyx", shape=(1, 256, 256), dtype="uint8", pixel_size_um=None, channels=("gray",))
    write_region(uri, "0", Region.whole((256, 256)), np.zeros((1, 256, 256), np.uint8))
    stored = sorted(str(path.relative_to(uri)) for path in Path(uri).rglob("*") if path.is_file())
    assert stored == ["0/c/0/0/0", "0/zarr.json", "zarr.json"]


def test_several_labels_are_listed_and_a_damaged_shard_is_an_error(tmp_path: Path) -> None:
    uri = str(tmp_path / "cells.zarr")
    make_image(uri)
    create_labels(uri, "fov", shape=SHAPE[1:], dtype="uint8", pixel_size_um=None)
    assert list_labels(uri) == ("nuclei", "fov")
    shard = tmp_path / "cells.zarr/0/c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(bytes(content))
    with pytest.raises(Exception, match=r".+"):
        read_region(uri, "0", Region.whole((75, 52)))


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Zarr group"):
        read_multiscale(str(tmp_path / "nothing.zarr"))
    zarr.create_group(str(tmp_path / "plate.zarr"), attributes={"ome": {"version": "0.5", "plate": {}}})
    with pytest.raises(DataError, match=r"no OME-Zarr 0\.4 or 0\.5 image"):
        read_multiscale(str(tmp_path / "plate.zarr"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_rust_codecs_read_what_python_wrote_and_the_other_way_round(tmp_path: Path, dtype: str) -> None:
    pytest.importorskip("zarrs")
    codecs = ("zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline")
    pixels = (np.random.default_rng(0).random((2, 70, 91)) * 200).astype(dtype)
    pixels[:, :32] = 0  # chunks of nothing but the fill value are stored as well
    for writer in codecs:
        with zarr.config.set({"codec_pipeline.path": writer}):
            (level,) = create_image(
                str(tmp_path), name="x", axes="cyx", shape=pixels.shape, dtype=dtype, pixel_size_um=None,
                channels=("a", "b"), shard_px=64, chunk_px=16, overwrite=True,
            )  # fmt: skip
            level[...] = pixels
        for reader in codecs:
            with zarr.config.set({"codec_pipeline.path": reader}):
                assert missing_shards(str(tmp_path), "0") == []
                np.testing.assert_array_equal(open_array(str(tmp_path), "0")[...], pixels)
                np.testing.assert_array_equal(open_array(str(tmp_path), "0")[:, 5:66, 7:], pixels[:, 5:66, 7:])
