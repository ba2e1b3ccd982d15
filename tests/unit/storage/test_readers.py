from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from raydom.errors import DataError
from raydom.storage.readers import read_image, read_pictures

RGB = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
WIDE = np.random.default_rng(1).integers(0, 65536, (13, 17), dtype=np.uint16)
FIRST = np.moveaxis(RGB, -1, 0)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("planar", [False, True])
def test_rgb_tiff_is_three_channels_in_any_layout(tmp_path: Path, compression: str | None, planar: bool) -> None:
    path = tmp_path / "a.tif"
    options = {"planarconfig": "separate"} if planar else {}
    data = FIRST if planar else RGB
    tifffile.imwrite(path, data, photometric="rgb", compression=compression, metadata=None, **options)
    picture = read_image(str(path))
    np.testing.assert_array_equal(picture.pixels, FIRST)
    assert picture.channels == ("red", "green", "blue")
    assert picture.pixel_size_um is None
    assert picture.plane == ""


def test_jpeg_in_tiff_comes_near(tmp_path: Path) -> None:
    path, smooth = tmp_path / "a.tif", np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[:, None], 48, axis=1)
    tifffile.imwrite(path, np.stack([smooth] * 3, -1), photometric="rgb", compression="jpeg", tile=(16, 16))
    assert np.abs(read_image(str(path)).pixels.astype(int) - smooth).max() <= 12


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64", ">u2"])
def test_gray_tiff_keeps_its_dtype_and_values(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, WIDE.astype(dtype), byteorder=">" if dtype == ">u2" else None, metadata=None)
    picture = read_image(str(path))
    assert picture.pixels.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(picture.pixels, WIDE.astype(dtype)[None])


def test_white_is_zero_and_palette_tiffs_are_read_as_they_look(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "white.tif", RGB[..., 0], photometric="miniswhite", metadata=None)
    np.testing.assert_array_equal(read_image(str(tmp_path / "white.tif")).pixels, 255 - FIRST[:1])
    colours = np.zeros((3, 256), np.uint16)
    colours[0], colours[1] = np.arange(256) * 257, np.arange(256)[::-1] * 257
    tifffile.imwrite(tmp_path / "p.tif", RGB[..., 0], photometric="palette", colormap=colours, metadata=None)
    pixels = read_image(str(tmp_path / "p.tif")).pixels
    np.testing.assert_array_equal(pixels, np.stack([RGB[..., 0], 255 - RGB[..., 0], 0 * RGB[..., 0]]))
    indices = next(read_pictures(str(tmp_path / "p.tif"), as_labels=True)).pixels
    np.testing.assert_array_equal(indices, FIRST[:1])


def test_alpha_is_dropped_and_told_unless_it_is_constant(tmp_path: Path) -> None:
    opaque = np.concatenate([RGB, np.full((13, 17, 1), 255, np.uint8)], -1)
    for name, rgba, notes in (("opaque", opaque, 0), ("clear", np.concatenate([RGB, RGB[..., :1]], -1), 1)):
        tifffile.imwrite(tmp_path / f"{name}.tif", rgba, photometric="rgb", extrasamples=["unassalpha"], metadata=None)
        Image.fromarray(rgba).save(tmp_path / f"{name}.png")
        for suffix in ("tif", "png"):
            picture = read_image(str(tmp_path / f"{name}.{suffix}"))
            np.testing.assert_array_equal(picture.pixels, FIRST)
            assert len(picture.notes) == notes


def test_ome_tiff_tells_channels_pixel_size_and_planes(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    data = np.random.default_rng(0).integers(0, 9, (2, 3, 2, 13, 17), dtype=np.uint16)
    metadata = {
        "axes": "TZCYX",
        "Channel": {"Name": ["DAPI", "GFP"]},
        "PhysicalSizeX": 325.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.325,
        "PhysicalSizeYUnit": "µm",
    }
    tifffile.imwrite(path, data, metadata=metadata, compression="zlib")
    pictures = list(read_pictures(str(path)))
    assert [picture.plane for picture in pictures][:4] == ["_t000_z000", "_t000_z001", "_t000_z002", "_t001_z000"]
    np.testing.assert_array_equal(pictures[4].pixels, data[1, 1])
    assert pictures[0].channels == ("DAPI", "GFP")
    assert pictures[0].pixel_size_um == pytest.approx(0.325)
    with pytest.raises(DataError, match="stack of planes"):
        read_image(str(path))


def test_each_position_of_an_ome_tiff_is_an_image_with_its_own_metadata(tmp_path: Path) -> None:
    path, stack = tmp_path / "a.ome.tif", np.stack([WIDE, WIDE // 2, WIDE // 3])

    def metadata(axes: str, size: float, *names: str) -> dict:
        sizes = {f"PhysicalSize{axis}{unit}": "µm" if unit else size for axis in "XY" for unit in ("", "Unit")}
        return {"axes": axes, "Channel": {"Name": list(names)}, **sizes}

    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(stack[:2], metadata=metadata("CYX", 0.5, "DAPI", "GFP"))
        writer.write(stack[:, :5], metadata=metadata("ZYX", 0.25, "DAPI"))
    first, *others = read_pictures(str(path))
    np.testing.assert_array_equal(first.pixels, stack[:2])
    assert (first.plane, first.channels, first.pixel_size_um) == ("_p000", ("DAPI", "GFP"), 0.5)
    assert [picture.plane for picture in others] == ["_p001_z000", "_p001_z001", "_p001_z002"]
    np.testing.assert_array_equal(others[2].pixels, stack[2:, :5])
    assert (others[2].channels, others[2].pixel_size_um) == (("DAPI",), 0.25)


@pytest.mark.parametrize("ome", [True, False])
def test_big_tiff_is_read_like_any(tmp_path: Path, ome: bool) -> None:
    path = tmp_path / "a.btf"
    with tifffile.TiffWriter(path, bigtiff=True, ome=ome) as writer:
        writer.write(np.stack([WIDE, WIDE // 2]), tile=(16, 16), compression="zlib", metadata={"axes": "ZYX"})
    assert path.read_bytes()[2] == 43
    np.testing.assert_array_equal([picture.pixels[0] for picture in read_pictures(str(path))], [WIDE, WIDE // 2])


def test_imagej_tiff_tells_its_unit_or_nothing(tmp_path: Path) -> None:
    for unit, expected in (("um", 0.5), ("pixel", None)):
        path = tmp_path / f"{unit}.tif"
        tifffile.imwrite(path, WIDE, imagej=True, resolution=(2, 2), metadata={"unit": unit})
        assert read_image(str(path)).pixel_size_um == expected


def test_a_resolution_for_printing_is_no_pixel_size(tmp_path: Path) -> None:
    for name, per_cm, expected in (("microscope", 20_000, 0.5), ("print", 118.11, None)):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, WIDE, resolution=(per_cm, per_cm), resolutionunit="centimeter", metadata=None)
        size = read_image(str(path)).pixel_size_um
        assert size == expected if expected is None else size == pytest.approx(expected)


def test_pixels_that_are_not_square_are_only_refused_when_their_size_is_asked(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", WIDE, imagej=True, resolution=(2, 1), metadata={"unit": "um"})
    picture = read_image(str(tmp_path / "a.tif"))
    with pytest.raises(DataError, match=r"not square \(1 x 0\.5 um\)"):
        _ = picture.pixel_size_um


def test_pages_that_say_nothing_are_planes_unless_told_to_be_channels(tmp_path: Path) -> None:
    path, data = str(tmp_path / "a.tif"), np.stack([WIDE, WIDE // 2, WIDE // 3, WIDE // 4])
    with tifffile.TiffWriter(path) as writer:
        for page in data:
            writer.write(page, metadata=None, contiguous=False)
    pictures = list(read_pictures(path))
    assert [picture.plane for picture in pictures] == ["_z000", "_z001", "_z002", "_z003"]
    np.testing.assert_array_equal(pictures[2].pixels, data[2:3])
    (picture,) = read_pictures(path, pages="channels")
    np.testing.assert_array_equal(picture.pixels, data)
    assert picture.channels[3] == "channel_3"


def test_png_of_every_kind(tmp_path: Path) -> None:
    def read(as_labels: bool = False) -> np.ndarray:
        return next(read_pictures(str(tmp_path / "a.png"), as_labels=as_labels)).pixels

    Image.fromarray(RGB).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(), FIRST)
    Image.fromarray(WIDE).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(), WIDE[None])
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.stack([WIDE, WIDE // 2, WIDE // 3], -1)))
    np.testing.assert_array_equal(read(), np.stack([WIDE, WIDE // 2, WIDE // 3]))  # all 16 bits of colour
    Image.fromarray(RGB[..., 0] > 99).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(), 255 * (FIRST[:1] > 99))
    palette = Image.fromarray(RGB[..., 0] % 3, mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(as_labels=True), FIRST[:1] % 3)
    np.testing.assert_array_equal(read()[0], 255 * (FIRST[0] % 3 == 1))


def test_gif_labels_are_their_values(tmp_path: Path) -> None:
    mask = (255 * (RGB[..., 0] > 99)).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "a.gif")
    np.testing.assert_array_equal(next(read_pictures(str(tmp_path / "a.gif"), as_labels=True)).pixels, mask[None])


def test_frames_of_a_gif_are_a_stack(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((5, 7), value, np.uint8)) for value in (10, 20, 30)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    pictures = list(read_pictures(str(tmp_path / "a.gif")))
    assert [(picture.plane, picture.pixels.shape, int(picture.pixels.mean())) for picture in pictures] == [
        ("_t000", (1, 5, 7), 10), ("_t001", (1, 5, 7), 20), ("_t002", (1, 5, 7), 30)
    ]  # fmt: skip


def test_jpeg_is_an_image_but_no_label(tmp_path: Path) -> None:
    path = str(tmp_path / "a.jpg")
    Image.fromarray(np.full((8, 9, 3), 128, np.uint8)).save(path, quality=95)
    assert np.abs(read_image(path).pixels.astype(int) - 128).max() <= 2
    with pytest.raises(DataError, match="lossy"):
        list(read_pictures(path, as_labels=True))


def encoded(kind: str) -> bytes:
    sink = io.BytesIO()
    if kind.startswith("tiff"):
        stack = np.random.default_rng(0).integers(0, 256, (6, 40, 50), dtype=np.uint8)
        options = {"compression": "lzw"} if kind == "tiff-lzw" else {}
        options |= {"imagej": True, "metadata": {"axes": "ZYX"}} if kind == "tiff-imagej" else {"metadata": None}
        tifffile.imwrite(sink, stack, photometric="minisblack", **options)
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(sink, format=kind)
    return sink.getvalue()


@pytest.mark.parametrize("kind", ["tiff", "tiff-lzw", "tiff-imagej", "png", "jpeg", "gif"])
def test_no_truncated_file_passes(kind: str, tmp_path: Path) -> None:
    whole, path = encoded(kind), tmp_path / "a.img"
    path.write_bytes(whole)
    assert len(list(read_pictures(str(path)))) == (6 if kind.startswith("tiff") else 1)
    end = 17 if kind in ("tiff", "tiff-imagej") else 1  # the last 16 bytes of these two are padding
    for length in (0, 1, 9, len(whole) // 3, len(whole) // 2, len(whole) - 30, len(whole) - end):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=str(path)):
            list(read_pictures(str(path)))


@pytest.mark.parametrize("kind", ["tiff", "tiff-lzw", "png", "jpeg", "gif"])
def test_a_corrupt_file_is_refused_or_read_whole_but_never_a_traceback(kind: str, tmp_path: Path) -> None:
    whole, path, generator = encoded(kind), tmp_path / "a.img", np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(60):
        content = bytearray(whole)
        for position in generator.integers(0, min(len(whole), 400), 4):
            content[position] = int(generator.integers(256))
        path.write_bytes(bytes(content))
        try:
            pictures = list(read_pictures(str(path)))
            outcomes["read"] += 1
            assert all(picture.pixels.ndim == 3 and picture.pixels.size for picture in pictures)
        except DataError as error:
            outcomes["refused"] += 1
            assert str(path) in str(error)
    assert outcomes["refused"] > 0
    assert kind != "png" or outcomes["read"] == 0  # every PNG chunk has a checksum


def test_a_header_that_claims_the_impossible_is_refused(tmp_path: Path) -> None:
    sink = io.BytesIO()
    tifffile.imwrite(sink, RGB[..., 0], metadata=None, compression="zlib")
    content = bytearray(sink.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as tiff:
        offsets = [tiff.pages[0].tags[name].valueoffset for name in ("ImageWidth", "ImageLength", "RowsPerStrip")]
    for offset in offsets:
        content[offset : offset + 2] = (60_000).to_bytes(2, "little")
    path = tmp_path / "bomb.tif"
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"claims 3\.4 GiB"):
        list(read_pictures(str(path)))
    bomb = tmp_path / "bomb.gif"
    bomb.write_bytes(b"GIF89a" + (60_000).to_bytes(2, "little") * 2 + b"\0\0\0," + b"\0" * 9 + b"\2;")
    with pytest.raises(DataError, match=r"bomb\.gif"):
        list(read_pictures(str(bomb)))


def test_what_is_no_image_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"hello, this is text")
    with pytest.raises(DataError, match=r"a\.png: neither TIFF, PNG.*begins with 68 65"):
        read_image(str(tmp_path / "a.png"))
    (tmp_path / "a.lif").write_bytes(b"p\0\0\0 hello")
    with pytest.raises(DataError, match=r"a\.lif: neither TIFF, PNG"):
        read_image(str(tmp_path / "a.lif"))
    with pytest.raises(DataError, match="there is no such file"):
        read_image(str(tmp_path / "missing.png"))
    tifffile.imwrite(tmp_path / "two.tif", WIDE, metadata=None)
    tifffile.imwrite(tmp_path / "two.tif", WIDE[:5], metadata=None, append=True)
    with pytest.raises(DataError, match="holds 2 images"):
        read_image(str(tmp_path / "two.tif"))
    Image.new("CMYK", (5, 5)).save(tmp_path / "cmyk.jpg")
    with pytest.raises(DataError, match="colour mode CMYK"):
        read_image(str(tmp_path / "cmyk.jpg"))
