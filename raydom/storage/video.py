"""Frames of videos (MP4, MOV, AVI, Matroska, WebM), by a reader that is an extra of this package.

A video is read once, from its beginning, a frame at a time. What the decoder would conceal (a damaged frame, a part
that is missing) is refused, and so is a file that ends before its container says so. Rotation, the shape of pixels
and interlacing, which players apply, are told but not applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from raydom.errors import DataError
from raydom.storage.pictures import Picture, ReadOptions, as_cyx, check_size, default_channels
from raydom.storage.vendors import import_extra

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
PHOTO_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
"""Photos have the container of MP4."""
MATROSKA_TICK_S = Fraction(1, 1000)
"""Matroska rounds times to this, so that every third frame of 30 a second is now before, now after its tenth."""
SHORT_S = 1.0
"""A video that ends earlier than stated by more, beyond the time that its last frame is shown, lacks frames. How long
that is is often not stated; then it may be as long as any other frame is shown."""


def is_video_name(uri: str) -> bool:
    """Whether a file is called as videos are."""
    return uri.lower().endswith(VIDEO_SUFFIXES)


def is_video(head: bytes) -> bool:
    """Whether a file that begins so is a video that ``read_video`` can read.

    Raises:
        DataError: For a photo in the container of a video.
    """
    if head[4:8] == b"ftyp" and head[8:12] in PHOTO_BRANDS:
        raise DataError("HEIF and AVIF photos are not supported; convert them to PNG or TIFF.")
    is_avi = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    return is_avi or head[:4] == b"\x1a\x45\xdf\xa3" or head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide")


def read_video(path: Path, options: ReadOptions) -> Iterator[Picture]:
    """The frames of a video, named by their number (from 0) in it: ``_t000123``.

    Gray stays as it is stored, 8 or 16 bits; any other colour becomes RGB, of 16 bits if a component has more than 8.

    Args:
        options: With ``fps``, of each 1 / fps seconds the first frame that is shown in it; else every frame.

    Raises:
        DataError: If the file is damaged or shortened, holds no video or several, or cannot hold labels.
    """
    av = import_extra("av", "video")
    _check_whole(path)
    with av.open(str(path)) as container:
        stream = _only_stream(container, av)
        decoder = stream.codec_context
        decoder.thread_count = 1  # files are read side by side
        decoder.options = {"err_detect": "crccheck+explode"}
        if options.as_labels and decoder.codec.lossy:
            raise DataError(f"{decoder.codec.name} is lossy and cannot hold labels; use FFV1, PNG or TIFF.")
        number = num_packets = 0
        last_slot = last_time = None
        shown_s = 0.0
        for packet in container.demux(stream):
            num_packets += bool(packet.size)
            for frame in packet.decode():
                if packet.is_corrupt or frame.is_corrupt:
                    raise DataError(f"truncated or corrupt: frame {number} is damaged.")
                slot = number if options.fps is None else _slot(frame, options.fps, stream)
                if slot != last_slot:
                    yield _picture(frame, f"_t{number:06d}", options, path.stat().st_size)
                if frame.time is not None:
                    own_s = float((frame.duration or 0) * frame.time_base)
                    shown_s = max(shown_s, own_s, frame.time - (frame.time if last_time is None else last_time))
                    last_time = frame.time
                number, last_slot = number + 1, slot
        _check_number(stream, num_packets, number)
        _check_end(_stated_end_s(container, stream), last_time, shown_s)


def _only_stream(container: Any, av: Any) -> Any:
    """The video without covers and thumbnails."""
    covers = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & covers]
    if len(streams) != 1:
        raise DataError(f"holds {len(streams) or 'no'} videos; a file with one is needed.")
    return streams[0]


def _slot(frame: Any, fps: float, stream: Any) -> int:
    """Which of the 1 / fps seconds since the beginning a frame is first shown in."""
    if frame.pts is None:
        raise DataError("its frames have no times; leave out --fps, or convert it to MP4 or Matroska.")
    time = (frame.pts - (stream.start_time or 0)) * frame.time_base
    rounding = min(frame.time_base, MATROSKA_TICK_S) / 2
    return int((time + rounding) * Fraction(fps).limit_denominator(1_000_000) // 1)


def _picture(frame: Any, plane: str, options: ReadOptions, stored_bytes: int) -> Picture:
    known = frame.format
    components = known.components
    is_gray = known.name.startswith(("gray", "mono"))
    if options.as_labels and not (is_gray or known.is_rgb):
        raise DataError(f"colours of kind {known.name} cannot hold labels; encode them as gray.")
    wide = max(component.bits for component in components) > 8
    check_size(frame.width * frame.height * 3 * (1 + wide), stored_bytes)
    notes = []
    if frame.rotation:
        notes.append("the rotation that a video's player applies is not applied")
    if frame.interlaced_frame:
        notes.append("interlaced frames were kept as they are")
    if any(component.is_alpha for component in components):
        notes.append("the transparency (alpha) of a video was dropped")
    if is_gray:
        name = known.name if known.name.startswith("gray") else "gray"
        pixels = frame.to_ndarray(format=name)
    else:
        pixels = frame.to_ndarray(format="rgb48le" if wide else "rgb24")
    samples = as_cyx(np.asarray(pixels), "yx" if is_gray else "yxc")
    return Picture(samples, default_channels(len(samples)), None, plane, tuple(notes))


def _check_whole(path: Path) -> None:
    """Refuse a file that ends inside one of its outermost parts; a demuxer would read it as far as it goes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        walk = {b"RIFF": _riff_end, b"\x1a\x45\xdf\xa3": _matroska_end}.get(head[:4], _box_end)
        position = 0
        while position < size:
            file.seek(position)
            end = walk(file.read(16).ljust(16, b"\0"), position, size)
            if end > size:
                raise DataError(f"truncated: it should have {end} bytes, but has {size}.")
            position = end


def _riff_end(head: bytes, start: int, size: int) -> int:
    """Where a part of an AVI file ends; what follows the last part is no concern of ours."""
    length = int.from_bytes(head[4:8], "little")
    return start + 8 + length + length % 2 if head[:4] == b"RIFF" and (length or start == 0) else size


def _box_end(head: bytes, start: int, size: int) -> int:
    """Where a box of an MP4 or MOV file ends; a length of 0 means the end of the file."""
    length = int.from_bytes(head[:4], "big")
    if length == 1:
        length = int.from_bytes(head[8:16], "big")
    return start + max(length, 8) if length else size


def _matroska_end(head: bytes, start: int, size: int) -> int:
    """Where an element of a Matroska file ends; a live recording does not know."""
    id_bytes = 9 - head[0].bit_length()
    first = head[id_bytes] if id_bytes <= 4 else 0
    size_bytes = 9 - first.bit_length()
    if id_bytes > 4 or size_bytes > 8:
        raise DataError(f"truncated or corrupt: there is no element at byte {start}.")
    unknown = (1 << 7 * size_bytes) - 1
    length = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big") & unknown
    return size if length == unknown else start + id_bytes + size_bytes + length


def _check_number(stream: Any, num_packets: int, num_frames: int) -> None:
    """Refuse a video of fewer frames than its container states."""
    if num_frames == 0:
        raise DataError("holds no frame.")
    if num_packets < stream.frames:
        raise DataError(f"truncated or corrupt: {stream.frames - num_packets} of {stream.frames} frames are missing.")


def _check_end(stated_s: float | None, last_time_s: float | None, shown_s: float) -> None:
    """Refuse a video whose last frame, shown for up to ``shown_s``, is over long before its container states."""
    if stated_s is not None and last_time_s is not None and last_time_s + shown_s + SHORT_S < stated_s:
        raise DataError(f"truncated or corrupt: its frames end at {last_time_s:.2f} s, it should at {stated_s:.2f} s.")


def _stated_end_s(container: Any, stream: Any) -> float | None:
    """When the video ends; None if only that of sound and video together is stated."""
    start_s = float((stream.start_time or 0) * stream.time_base)
    if stream.duration is not None:
        return start_s + float(stream.duration * stream.time_base)
    tagged = stream.metadata.get("DURATION", "").split(":")  # of Matroska: 00:01:02.345000000
    try:
        hours, minutes, seconds = (float(part) for part in tagged)
        return 3600 * hours + 60 * minutes + seconds
    except ValueError:
        only = len(container.streams) == 1 and container.duration is not None
        return start_s + container.duration / 1e6 if only else None
