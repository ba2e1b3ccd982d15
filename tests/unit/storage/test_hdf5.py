from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from raydom.errors import ConfigError, DataError
from raydom.storage.readers import read_image, read_pictures, split_part

VOLUME = np.random.default_rng(0).integers(0, 256, (5, 13, 17), dtype=np.uint8)


def write(path: Path, **datasets: Any) -> str:
    with h5py.File(path, "w") as file:
        for name, pixels in datasets.items():
            file.create_dataset(name.replace("__", "/"), data=pixels)
    return str(path)


def test_a_dataset_is_named_after_a_colon() -> None:
    assert split_part("s3://b/a.h5:/x/y") == ("s3://b/a.h5", "/x/y")
    assert split_part("/a/*.HDF5:/x") == ("/a/*.HDF5", "/x")
    assert split_part("/a/b.h5") == ("/a/b.h5", None)
    assert split_part("memory://a.tif") == ("memory://a.tif", None)


def test_a_volume_is_a_picture_a_plane(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.h5", volumes__raw=VOLUME, volumes__other=VOLUME[0])
    pictures = list(read_pictures(f"{uri}:/volumes/raw"))
    assert [picture.plane for picture in pictures] == ["_z000", "_z001", "_z002", "_z003", "_z004"]
    np.testing.assert_array_equal(np.stack([picture.pixels[0] for picture in pictures]), VOLUME)
    assert read_image(f"{uri}:/volumes/other").plane == ""


def test_the_only_dataset_that_can_be_an_image_is_taken_and_several_are_listed(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.h5", stack=VOLUME[0], note=np.arange(5), version=3)
    np.testing.assert_array_equal(read_image(uri).pixels[0], VOLUME[0])
    uri = write(tmp_path / "b.h5", raw=VOLUME[0], truth=VOLUME[1])
    with pytest.raises(ConfigError, match=r"b\.h5: 2 datasets can be an image.*/raw \(13x17 uint8\), /truth"):
        read_image(uri)
    with pytest.raises(ConfigError, match="there is no dataset /row; the file has /raw"):
        read_image(f"{uri}:/row")
    with pytest.raises(ConfigError, match="0 datasets can be an image"):
        read_image(write(tmp_path / "c.h5", names=np.array([b"a", b"b"])))
    with pytest.raises(DataError, match=r"dataset /note of shape \(5,\)"):
        read_image(f"{tmp_path}/a.h5:/note")


def test_axes_are_those_that_are_asked_then_stated_then_beyond_doubt(tmp_path: Path) -> None:
    channels = VOLUME[:2]
    uri = write(tmp_path / "a.h5", raw=channels)
    assert next(iter(read_pictures(uri))).notes[0].endswith("--axes cyx")
    (picture,) = read_pictures(uri, axes="cyx")
    np.testing.assert_array_equal(picture.pixels, channels)
    with h5py.File(uri, "r+") as file:
        file["raw"].attrs["axistags"] = json.dumps({"axes": [{"key": "c"}, {"key": "y"}, {"key": "x"}]})
        file["raw"].attrs["element_size_um"] = [4.0, 0.5, 0.5]
    picture = read_image(uri)
    assert (picture.pixels.shape, picture.pixel_size_um, picture.notes) == ((2, 13, 17), 0.5, ())
    assert len(list(read_pictures(uri, axes="zyx"))) == 2
    colour = read_image(write(tmp_path / "rgb.h5", raw=np.moveaxis(VOLUME[:3], 0, -1)))
    np.testing.assert_array_equal(colour.pixels, VOLUME[:3])
    assert colour.channels == ("red", "green", "blue")
    uri = write(tmp_path / "many.h5", raw=VOLUME[None])
    with pytest.raises(ConfigError, match=r"4 axes of /raw.*--axes, such as zcyx"):
        list(read_pictures(uri))
    with pytest.raises(ConfigError, match="--axes yx are 2"):
        list(read_pictures(uri, axes="yx"))
    with h5py.File(uri, "r+") as file:
        for axis, label in zip(file["raw"].dims, "tzyx", strict=True):
            axis.label = label
    assert len(list(read_pictures(uri))) == 5


def test_labels_have_the_axes_of_their_image_without_channels(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.h5", truth=VOLUME > 9)
    planes = list(read_pictures(uri, axes="zcyx", as_labels=True))
    np.testing.assert_array_equal(planes[3].pixels[0], 255 * (VOLUME[3] > 9))


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_no_truncated_file_passes(tmp_path: Path, compression: str | None) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=VOLUME, compression=compression)
    content = (tmp_path / "a.h5").read_bytes()
    for size in range(1, len(content), len(content) // 23):
        (tmp_path / "cut.h5").write_bytes(content[:size])
        with pytest.raises(DataError, match=r"cut\.h5"):
            list(read_pictures(str(tmp_path / "cut.h5")))


def test_what_hdf5_would_fill_in_is_refused_or_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "holes.h5", "w") as file:
        file.create_dataset("raw", (16, 16), "u1", chunks=(8, 8))[:8, :8] = 7
        file.create_dataset("empty", (16, 16), "u1", chunks=(8, 8))
        file.create_dataset("never", (16, 16), "u1")
        file.create_dataset("bomb", (1 << 20, 1 << 20), "u1", chunks=(1024, 1024))
        layout = h5py.VirtualLayout((16, 16), "u1")
        layout[:] = h5py.VirtualSource(str(tmp_path / "gone.h5"), "raw", (16, 16))
        file.create_virtual_dataset("virtual", layout)
        file["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/raw")
    write(tmp_path / "other.h5", raw=VOLUME[0])
    assert read_image(f"{tmp_path}/holes.h5:/raw").notes == ("3 of 4 chunks were never written and hold 0",)
    for part, told in (
        ("empty", "never written"), ("never", "never written"), ("bomb", "decompression bomb"),
        ("virtual", "in other files"), ("link", "in other files"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=told):
            read_image(f"{tmp_path}/holes.h5:/{part}")


def test_corrupt_chunks_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=VOLUME[0], chunks=(13, 17), compression="gzip", fletcher32=True)
        offset = file["raw"].id.get_chunk_info(0).byte_offset
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[offset + 20] ^= 0xFF
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.h5: cannot be read as HDF5"):
        read_image(str(tmp_path / "a.h5"))


def test_other_files_have_no_datasets(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"\xff\xd8\xff" + bytes(20))
    with pytest.raises(ConfigError, match="JPEG files have no parts"):
        read_image(f"{tmp_path}/a.h5:/raw")
