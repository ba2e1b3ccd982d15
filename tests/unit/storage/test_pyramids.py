from __future__ import annotations

import h5py
import numpy as np
import pytest
import tifffile

from raydom.storage import pictures, pyramids
from raydom.storage.pictures import LazyPixels
from raydom.storage.pyramids import bands, halved, parts, writable_levels, write_coarser, write_levels
from raydom.storage.readers import read_pictures
from raydom.storage.zarr_images import create_image
from raydom.types import Region


def make_levels(uri: str, shape: tuple[int, int, int]) -> list:
    channels = tuple(f"c{n}" for n in range(shape[0]))
    common = {"pixel_size_um": None, "channels": channels, "shard_px": 16, "chunk_px": 8, "num_levels": 6}
    return list(create_image(uri, name="a", axes="cyx", shape=shape, dtype="uint16", **common))


def expected_levels(pixels: np.ndarray, method: str) -> list[np.ndarray]:
    levels = [pixels]
    for _ in range(5):
        levels.append(halved(levels[-1], method))
    return levels


@pytest.mark.parametrize("method", ["mean", "nearest"])
@pytest.mark.parametrize("shape", [(1, 301, 275), (2, 128, 129), (1, 5, 400)])
def test_a_pyramid_filled_in_bands_or_in_parts_is_that_of_the_whole_image(tmp_path, monkeypatch, shape, method) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)
    expected = expected_levels(pixels, method)
    for name, largest in (("bands", 1 << 20), ("parts", 0)):
        monkeypatch.setattr(pyramids, "BAND_BYTES", largest)
        levels = make_levels(str(tmp_path / name), shape)
        write_levels(levels, pixels, method)
        for level, wanted in zip(levels, expected, strict=True):
            np.testing.assert_array_equal(level[:], wanted)


def test_parts_filled_by_themselves_in_any_order_make_the_same_pyramid(tmp_path) -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, (1, 300, 260), dtype=np.uint16)
    levels = make_levels(str(tmp_path / "a"), pixels.shape)
    levels[0][:] = pixels
    cut = parts(levels[0])
    assert len(cut) == 9
    assert cut[0] == Region((0, 0), (128, 128))
    for part in reversed(cut):
        write_coarser(writable_levels(str(tmp_path / "a")), "mean", part=part)
    write_coarser(writable_levels(str(tmp_path / "a")), "mean", start=3)
    for level, wanted in zip(levels, expected_levels(pixels, "mean"), strict=True):
        np.testing.assert_array_equal(level[:], wanted)


def test_an_image_of_many_channels_and_few_levels_is_filled_in_parts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pyramids, "BAND_BYTES", 0)
    pixels = np.random.default_rng(5).integers(0, 256, (9, 40, 1000), dtype=np.uint8)
    channels = tuple(f"c{n}" for n in range(9))
    uri = str(tmp_path / "a")
    levels = create_image(
        uri, name="a", axes="cyx", shape=pixels.shape, dtype="uint8", pixel_size_um=None, channels=channels, shard_px=64
    )
    write_levels(levels, pixels)
    assert len(levels) == 2
    np.testing.assert_array_equal(levels[0][:], pixels)
    np.testing.assert_array_equal(levels[1][:], halved(pixels, "mean"))


def test_lazy_pixels_are_read_once_and_never_as_a_whole(tmp_path) -> None:
    pixels = np.random.default_rng(2).integers(0, 65536, (1, 100, 60), dtype=np.uint16)
    rows_read: list[int] = []

    def read(rows: slice, columns: slice) -> np.ndarray:
        rows_read.extend(range(*rows.indices(100)))
        assert rows.stop - rows.start <= 16
        return pixels[:, rows, columns]

    write_levels(make_levels(str(tmp_path / "a"), pixels.shape), LazyPixels((1, 100, 60), pixels.dtype, read))
    assert rows_read == list(range(100))
    np.testing.assert_array_equal(writable_levels(str(tmp_path / "a"))[0][:], pixels)


KINDS = "one strip,one deflated strip,strips,tiles,levels,big-endian,rgb,planar rgb,inverted,h5"


@pytest.mark.parametrize("kind", KINDS.split(","))
def test_a_plane_read_piece_by_piece_is_the_plane_read_whole(tmp_path, monkeypatch, kind) -> None:
    gray = np.random.default_rng(3).integers(0, 65536, (90, 70), dtype=np.uint16)
    colour = np.random.default_rng(4).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    path = tmp_path / ("a.h5" if kind == "h5" else "a.tif")
    if kind == "h5":
        with h5py.File(path, "w") as file:
            file["raw"] = gray
    elif kind == "levels":
        with tifffile.TiffWriter(path, ome=True) as file:
            file.write(gray, tile=(32, 16), compression="zlib", subifds=1)
            file.write(gray[::2, ::2], tile=(32, 16), compression="zlib", subfiletype=1)
    else:
        pixels, options = {
            "one strip": (gray, {}),
            "one deflated strip": (gray, {"compression": "zlib", "rowsperstrip": 90}),
            "strips": (gray, {"compression": "zlib", "rowsperstrip": 8}),
            "tiles": (gray, {"compression": "lzw", "tile": (32, 16)}),
            "big-endian": (gray, {"byteorder": ">"}),
            "rgb": (colour, {"photometric": "rgb", "compression": "zlib", "rowsperstrip": 8}),
            "planar rgb": (np.moveaxis(colour, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
            "inverted": (gray, {"photometric": "miniswhite"}),
        }[kind]
        tifffile.imwrite(path, pixels, **options)
    (whole,) = [(p.channels, p.pixels) for p in read_pictures(str(path))]
    monkeypatch.setattr(pictures, "LAZY_BYTES", 100)
    for picture in read_pictures(str(path)):
        assert isinstance(picture.pixels, LazyPixels)
        assert (picture.channels, picture.pixels.shape, picture.pixels.dtype) == (
            whole[0],
            whole[1].shape,
            whole[1].dtype,
        )
        np.testing.assert_array_equal(picture.pixels[..., 17:50, 5:31], whole[1][..., 17:50, 5:31])
        np.testing.assert_array_equal(np.concatenate(list(bands(picture.pixels, 32)), axis=1), whole[1])
