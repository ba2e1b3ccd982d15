from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from raydom.errors import DataError
from raydom.storage.readers import read_image, read_pictures

HEADS = {
    "czi": b"ZISRAWFILE" + bytes(22),
    "lif": b"\x70\0\0\0\x09\0\0\0\x2a\x02\0\0\0<\0>\0",
    "video": b"\0\0\0\x18ftypmp42" + bytes(12),
}


@pytest.mark.parametrize(("kind", "package"), [("czi", "czifile"), ("lif", "liffile"), ("video", "av")])
def test_without_the_extra_a_file_is_refused_naming_it(
    kind: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(HEADS[kind])
    monkeypatch.setitem(sys.modules, package, None)
    told = rf"a\.{kind}: .*needs the extra {kind} of raydom: uv run --extra {kind} .*pip install -e '\.\[{kind}\]'"
    with pytest.raises(DataError, match=told):
        read_image(str(path))


@pytest.mark.parametrize(("kind", "package"), [("czi", "czifile"), ("lif", "liffile"), ("video", "av")])
def test_a_file_that_is_only_its_beginning_is_refused(kind: str, package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(HEADS[kind])
    with pytest.raises(DataError, match=rf"a\.{kind}: "):
        read_image(str(path))


def czi_segment(name: bytes, content: bytes) -> bytes:
    return struct.pack("<16sqq", name, len(content), len(content)) + content


def czi_entry(position: int, starts: dict[str, int], shape: tuple[int, ...], stored: tuple[int, ...]) -> bytes:
    """The directory's entry of a tile with axes y and x, and whatever ``starts`` has besides."""
    sizes = {"X": (shape[1], stored[1]), "Y": (shape[0], stored[0])}
    entry = struct.pack("<2siqiiB5xi", b"DV", 1, position, 0, 0, 0, len(starts))  # 1: uint16
    for axis in sorted(starts, key="XYCZSM".index):
        entry += struct.pack("<4siifi", axis.encode(), starts[axis], *(sizes.get(axis, (1, 1))[:1]), 0.0,
                             sizes.get(axis, (1, 1))[1])  # fmt: skip
    return entry


def write_czi(path: Path, tiles: list[tuple[dict[str, int], np.ndarray, int]]) -> None:
    """A CZI file of tiles: where each begins, its pixels, and how much larger than they it is (in a pyramid)."""
    metadata = b"<ImageDocument><Metadata/></ImageDocument>"
    segments, entries, position = [], [], 32 + 512
    for starts, pixels, factor in tiles:
        shape = (pixels.shape[0] * factor, pixels.shape[1] * factor)
        entry = czi_entry(position, starts, shape, pixels.shape)
        head = struct.pack("<iiq", 0, 0, pixels.nbytes) + entry
        segments.append(czi_segment(b"ZISRAWSUBBLOCK", head.ljust(256, b"\0") + pixels.tobytes()))
        entries.append(entry)
        position += len(segments[-1])
    directory = czi_segment(b"ZISRAWDIRECTORY", struct.pack("<i124x", len(entries)) + b"".join(entries))
    described = czi_segment(b"ZISRAWMETADATA", struct.pack("<ii248x", len(metadata), 0) + metadata)
    header = struct.pack("<iiii16s16siqqiq", 1, 0, 0, 0, b"", b"", 0, position, position + len(directory), 0, 0)
    parts = [czi_segment(b"ZISRAWFILE", header.ljust(512, b"\0")), *segments, directory, described]
    path.write_bytes(b"".join(parts))


def test_each_scene_of_a_czi_file_is_a_picture_of_its_own_size_without_its_pyramid(tmp_path: Path) -> None:
    pytest.importorskip("czifile")
    path = tmp_path / "a.czi"
    first = np.arange(2 * 6 * 8, dtype=np.uint16).reshape(2, 6, 8)
    second = 500 + np.arange(2 * 4 * 10, dtype=np.uint16).reshape(2, 4, 10)
    tiles = [({"S": 0, "C": c, "Z": 0, "Y": 20, "X": 5 + x, "M": x // 4}, first[c, :, x : x + 4], 1)
             for c in (0, 1) for x in (0, 4)]  # fmt: skip
    tiles += [({"S": 1, "C": c, "Z": 0, "Y": 900, "X": 700, "M": 0}, second[c], 1) for c in (0, 1)]
    tiles += [({"S": 0, "C": c, "Z": 0, "Y": 20, "X": 5}, first[c, ::2, ::2], 2) for c in (0, 1)]
    write_czi(path, tiles)
    pictures = {picture.plane: picture.pixels for picture in read_pictures(str(path))}
    assert sorted(pictures) == ["_p000", "_p001"]
    np.testing.assert_array_equal(pictures["_p000"], first)
    np.testing.assert_array_equal(pictures["_p001"], second)
    write_czi(path, tiles[:3] + tiles[4:])  # a hole in a mosaic is black, and no plane is missing
    assert not next(read_pictures(str(path))).pixels[1, :, 4:].any()
    write_czi(path, tiles[:5])
    with pytest.raises(DataError, match="1 of 2 planes are missing"):
        list(read_pictures(str(path)))


def write_lif(path: Path, pixels: np.ndarray) -> None:
    """A LIF file of one image with axes t, z, c, y and x, each channel a plane of its own."""
    lengths, strides = dict(zip("tzcyx", pixels.shape, strict=True)), dict(zip("tzcyx", pixels.strides, strict=True))
    dimensions = "".join(
        f'<DimensionDescription DimID="{number}" NumberOfElements="{lengths[axis]}" Origin="0" Length="1e-5" Unit="m" '
        f'BitInc="0" BytesInc="{strides[axis]}"/>'
        for axis, number in (("x", 1), ("y", 2), ("z", 3), ("t", 4))
    )
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" Max="1" '
        f'Unit="" LUTName="Gray" IsLUTInverted="0" BytesInc="{number * strides["c"]}" BitInc="0"/>'
        for number in range(lengths["c"])
    )
    described = (
        f'<LMSDataContainerHeader Version="2"><Element Name="a"><Data/><Memory Size="0" MemoryBlockID="B0"/><Children>'
        f'<Element Name="b"><Data><Image><ImageDescription><Channels>{channels}</Channels><Dimensions>{dimensions}'
        f'</Dimensions></ImageDescription></Image></Data><Memory Size="{pixels.nbytes}" MemoryBlockID="B1"/></Element>'
        "</Children></Element></LMSDataContainerHeader>"
    ).encode("utf-16-le")
    head = struct.pack("<IIBI", 0x70, 5 + len(described), 0x2A, len(described) // 2) + described
    name = "B1".encode("utf-16-le")
    block = struct.pack("<IIBQBI", 0x70, 14 + len(name), 0x2A, pixels.nbytes, 0x2A, len(name) // 2) + name
    path.write_bytes(head + block + pixels.tobytes())


def test_a_lif_file_is_read_plane_by_plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    liffile = pytest.importorskip("liffile")
    path = tmp_path / "a.lif"
    pixels = np.arange(3 * 2 * 2 * 6 * 8, dtype=np.uint16).reshape(3, 2, 2, 6, 8)
    write_lif(path, pixels)
    monkeypatch.delattr(liffile.LifImage, "asarray")  # which reads a whole image
    pictures = {picture.plane: picture.pixels for picture in read_pictures(str(path))}
    assert sorted(pictures) == [f"_t00{t}_z00{z}" for t in range(3) for z in range(2)]
    for t, z in np.ndindex(3, 2):
        np.testing.assert_array_equal(pictures[f"_t00{t}_z00{z}"], pixels[t, z])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.lif: "):
        list(read_pictures(str(path)))
