from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from raydom.errors import DataError
from raydom.storage.readers import read_pictures
from raydom.storage.video import _check_end

av = pytest.importorskip("av")

GRAY = np.random.default_rng(0).integers(0, 255, (9, 22, 34), np.uint8)
TIMES = (0, 40, 80, 120, 160, 900, 940, 1000, 2040)
"""Milliseconds: a camera that stood still for a while."""


def write(path: Path, codec: str = "ffv1", kind: str = "gray", frames: np.ndarray = GRAY, turned: int = 0) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        height, width = frames.shape[1:3]
        stream.width, stream.height = width, height
        stream.pix_fmt, stream.time_base = kind, Fraction(1, 1000)
        if turned:
            stream.set_display_rotation(turned)
        for pixels, time in zip(frames, TIMES, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24" if pixels.ndim == 3 else kind)
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("bits", [8, 10, 16])
def test_gray_frames_of_a_lossless_video_are_exact(bits: int, tmp_path: Path) -> None:
    frames = GRAY if bits == 8 else (GRAY.astype(np.uint16) << (bits - 8)) + 3
    path = write(tmp_path / "a.mkv", kind={8: "gray", 10: "gray10le", 16: "gray16le"}[bits], frames=frames)
    pictures = list(read_pictures(str(path)))
    np.testing.assert_array_equal([picture.pixels[0] for picture in pictures], frames)
    assert [picture.plane for picture in pictures] == [f"_t{number:06d}" for number in range(9)]
    assert {(picture.channels, picture.notes) for picture in pictures} == {(("gray",), ())}


def test_colour_is_red_green_and_blue(tmp_path: Path) -> None:
    frames = np.zeros((9, 22, 34, 3), np.uint8)
    frames[..., 0], frames[:, 3, :, 1] = 200, 100
    first = next(read_pictures(str(write(tmp_path / "a.mkv", kind="bgr0", frames=frames))))
    np.testing.assert_array_equal(first.pixels, np.moveaxis(frames[0], -1, 0))
    lossy = list(read_pictures(str(write(tmp_path / "a.mp4", "mpeg4", "yuv420p", frames))))
    assert len(lossy) == 9
    assert np.abs(lossy[0].pixels[:, 10:, :].mean(axis=(1, 2)) - (200, 0, 0)).max() < 4


@pytest.mark.parametrize(("fps", "chosen"), [(25, range(9)), (10, (0, 3, 5, 7, 8)), (2, (0, 5, 7, 8)), (0.5, (0, 8))])
def test_frames_are_chosen_by_the_time_they_are_shown(fps: float, chosen: range, tmp_path: Path) -> None:
    pictures = list(read_pictures(str(write(tmp_path / "a.mkv")), fps=fps))
    assert [picture.plane for picture in pictures] == [f"_t{number:06d}" for number in chosen]
    np.testing.assert_array_equal([picture.pixels[0] for picture in pictures], GRAY[list(chosen)])


@pytest.mark.parametrize(("name", "codec", "kind"), [("a.mkv", "ffv1", "gray"), ("a.avi", "mpeg4", "yuv420p"),
                                                     ("a.mp4", "mpeg4", "yuv420p")])  # fmt: skip
def test_a_video_that_was_cut_off_or_damaged_is_refused(name: str, codec: str, kind: str, tmp_path: Path) -> None:
    frames = GRAY if kind == "gray" else np.stack([GRAY] * 3, axis=-1)
    path = write(tmp_path / name, codec, kind, frames)
    content = path.read_bytes()
    for size in (5, 20, 200, len(content) // 2, len(content) - 40):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=name):
            list(read_pictures(str(path)))
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(60) + content[middle + 60 :])
    with pytest.raises(DataError, match=name):
        list(read_pictures(str(path)))


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mp4", "a.mov"])
def test_the_last_frame_of_a_time_lapse_is_shown_as_long_as_the_others(name: str, tmp_path: Path) -> None:
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(1, 3))
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for level in (0, 50, 100):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(list(read_pictures(str(tmp_path / name)))) == 3


def test_a_video_that_ends_long_before_its_last_frame_could_be_over_is_refused() -> None:
    _check_end(12.0, last_time_s=10.0, shown_s=2.0)
    with pytest.raises(DataError, match=r"its frames end at 8\.00 s, it should at 12\.00 s"):
        _check_end(12.0, last_time_s=8.0, shown_s=2.0)


def test_labels_are_read_from_lossless_videos_only(tmp_path: Path) -> None:
    labels = list(read_pictures(str(write(tmp_path / "a.mkv")), as_labels=True))
    np.testing.assert_array_equal([label.pixels[0] for label in labels], GRAY)
    path = write(tmp_path / "a.mp4", "mpeg4", "yuv420p", np.stack([GRAY] * 3, axis=-1))
    with pytest.raises(DataError, match=r"a\.mp4: mpeg4 is lossy"):
        list(read_pictures(str(path), as_labels=True))


def test_rotation_is_told_and_not_applied(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "mpeg4", "yuv420p", np.stack([GRAY] * 3, axis=-1), turned=90)
    first = next(read_pictures(str(path)))
    assert first.pixels.shape == (3, 22, 34)
    assert first.notes == ("the rotation that a video's player applies is not applied",)


def test_photos_in_the_container_of_videos_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(DataError, match="HEIF and AVIF photos are not supported"):
        list(read_pictures(str(tmp_path / "a.mp4")))
