"""Image files of microscopes and of everyday programs as arrays: TIFF, PNG, JPEG, GIF, ND2, HDF5, CZI, LIF,
Parquet, video.

The format is told by the first bytes, not by the name. Every file is read strictly: what is truncated, corrupt or
ambiguous is refused, also where the libraries underneath would only log it, or fill the gap with zeros.

A file of one plane is one picture. A stack (Z or T axes, several positions, frames of an animation, or TIFF pages
that are not said to be anything else) is one picture a plane, told apart by ``Picture.plane``: ``_t000_z003``; or, if
it is asked for, one a volume.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import zarr

from raydom.errors import ConfigError, DataError
from raydom.storage import files
from raydom.storage.parquet import PARQUET_SUFFIXES, read_parquet
from raydom.storage.pictures import (
    LazyPixels,
    Picture,
    ReadOptions,
    check_size,
    default_channels,
    is_large,
    length_um,
    lengths_um,
    plane_name,
)
from raydom.storage.stacks import joined_planes
from raydom.storage.video import VIDEO_SUFFIXES, is_video, read_video

SUFFIXES = (
    ".tif", ".tiff", ".btf", ".png", ".jpg", ".jpeg", ".jpe", ".gif", ".nd2", ".h5", ".hdf5", ".hdf", ".czi", ".lif",
    *VIDEO_SUFFIXES, *PARQUET_SUFFIXES,
)  # fmt: skip
"""Endings of the names of files that can be read."""
HAVE_PARTS = ("HDF5", "Parquet")
"""Kinds of files that hold several arrays, each with a name."""
READER_VERSIONS = {"CZI": 2}
"""Raised where a reader gives other pixels of the same files than it did; 1 where none is stated."""

LARGEST_PIXEL_UM = 20.0
"""A TIFF resolution that means larger pixels (below 1270 dpi) is one for printing, not for measuring."""


def read_image(uri: str) -> Picture:
    """The only picture of a file.

    Raises:
        DataError: If the file cannot be read, or holds several.
    """
    read = (replace(picture, pixels=np.asarray(picture.pixels)) for picture in read_pictures(uri))
    pictures = list(itertools.islice(read, 2))
    if len(pictures) != 1:
        raise DataError(f"{uri}: holds a stack of planes ({pictures[0].plane}, ...); name a file with one image.")
    return pictures[0]


def read_pictures(
    uri: str,
    *,
    pages: str = "planes",
    axes: str | None = None,
    fps: float | None = None,
    as_labels: bool = False,
    volumes: bool = False,
    copy: Path | None = None,
) -> Iterator[Picture]:
    """The pictures of an image file, one at a time.

    Args:
        uri: A path or URL; ``FILE.h5:/DATASET`` or ``FILE.parquet:/COLUMN`` of a file that holds several.
        copy: A local copy of the file, if there is one already.
        pages: What TIFF pages are that do not say so: ``planes`` or ``channels``.
        axes: The axes of an array that does not say so.
        fps: How many frames of a second of a video; None for all.
        as_labels: Read the numbers that stand for objects: the index where a palette has colours.
        volumes: The planes along z are one picture, a volume.

    Raises:
        ConfigError: If it is not clear which array of the file, or which axes, are meant.
        DataError: If the file is missing, of an unsupported type, truncated, corrupt or ambiguous.
    """
    kind, path = "an image", copy
    file_uri, part = split_part(uri)
    options = ReadOptions(pages=pages, axes=axes, fps=fps, as_labels=as_labels, part=part)
    try:
        with files.local_copy(file_uri) if copy is None else contextlib.nullcontext(copy) as path:
            kind, reader = _reader_of(path)
            if part is not None and kind not in HAVE_PARTS:
                raise ConfigError(f"{kind} files have no parts to be named; leave out :{part}.")
            pictures = reader(path, options)
            yield from joined_planes(pictures) if volumes else pictures
    except (DataError, ConfigError) as error:
        raise type(error)(f"{uri}: {error}") from error
    except Exception as error:  # decoders raise whatever they like on corrupt files
        if isinstance(error, FileNotFoundError) and not files.exists(file_uri):
            raise DataError(f"{uri}: there is no such file.") from error
        told = re.sub(r"\s+", " ", str(error))[:300].replace(str(path), "the file")
        raise DataError(f"{uri}: cannot be read as {kind}: {type(error).__name__}: {told}") from error


def reader_version(path: Path) -> int:
    """Which version of its reader reads a file; another one may have given other pixels."""
    try:
        kind, _ = _reader_of(path)
    except DataError:  # read_pictures tells it
        return 1
    return READER_VERSIONS.get(kind, 1)


def split_part(uri: str) -> tuple[str, str | None]:
    """``FILE.h5:/DATASET`` as the file and the dataset, a Parquet file likewise; None if the URI names no part."""
    match = re.fullmatch(r"(.+\.(?:h5|hdf5|hdf|parquet|pq)):(/.+)", uri, flags=re.IGNORECASE)
    return (match[1], match[2]) if match else (uri, None)


def _reader_of(path: Path) -> tuple[str, Any]:
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise DataError("the file is empty.")
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF", _read_tiff
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG", _read_png
    if head[:3] == b"\xff\xd8\xff":
        return "JPEG", _read_jpeg
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF", _read_gif
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        from raydom.storage.hdf5 import read_hdf5

        return "HDF5", read_hdf5
    if head[:4] == b"\xda\xce\xbe\x0a" or head[4:8] == b"jP  ":
        return "ND2", _read_nd2
    if head[:10] == b"ZISRAWFILE":
        from raydom.storage.vendors import read_czi

        return "CZI", read_czi
    if head[:4] == b"\x70\0\0\0" and head[8:9] == b"\x2a":
        from raydom.storage.vendors import read_lif

        return "LIF", read_lif
    if head[:4] == b"PAR1":
        return "Parquet", read_parquet
    if is_video(head):
        return "video", read_video
    raise DataError(
        f"neither TIFF, PNG, JPEG, GIF, ND2, HDF5, CZI, LIF, Parquet nor video (begins with {head[:8].hex(' ')}): of "
        "an unsupported type, or corrupt."
    )


# ------------------------------------------------------------------------------------------- PNG, JPEG, GIF (Pillow)


def _read_png(path: Path, options: ReadOptions) -> Iterator[Picture]:
    bit_depth, color_type = _check_png(path)
    if bit_depth == 16:  # Pillow would cut 16-bit colour down to 8 bits
        import imagecodecs

        pixels = imagecodecs.png_decode(path.read_bytes())
        samples = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]
        yield _colour_picture(samples, has_alpha=color_type in (4, 6))
        return
    yield from _read_pillow(path, options.as_labels)


def _check_png(path: Path) -> tuple[int, int]:
    """Bit depth and colour type; Pillow reads files whose last chunks are missing, or whose checksums are wrong."""
    header = (0, 0)
    with path.open("rb") as file:
        file.seek(8)
        while True:
            start = file.read(8)
            if len(start) < 8:
                raise DataError("the PNG file is truncated.")
            size, name = int.from_bytes(start[:4], "big"), start[4:]
            body = file.read(size) if size <= path.stat().st_size else b""
            checksum = file.read(4)
            if len(body) < size or len(checksum) < 4:
                raise DataError("the PNG file is truncated.")
            if zlib.crc32(name + body) != int.from_bytes(checksum, "big"):
                raise DataError(f"the PNG file is corrupt: the checksum of its {name!r} chunk is wrong.")
            if name == b"IHDR":
                header = (body[8], body[9])
            if name == b"acTL":
                raise DataError("animated PNG is not supported; export the frames.")
            if name == b"IEND":
                return header


def _read_jpeg(path: Path, options: ReadOptions) -> Iterator[Picture]:
    if options.as_labels:
        raise DataError("JPEG is lossy and cannot hold labels; use PNG, GIF or TIFF.")
    yield from _read_pillow(path, options.as_labels)


def _read_gif(path: Path, options: ReadOptions) -> Iterator[Picture]:
    if not path.read_bytes().rstrip(b"\0").endswith(b";"):
        raise DataError("the GIF file is truncated.")
    yield from _read_pillow(path, options.as_labels)


def _read_pillow(path: Path, as_labels: bool) -> Iterator[Picture]:
    from PIL import Image, ImageFile

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this process: a truncated file would pass.")
    with Image.open(path) as image:
        num_frames = getattr(image, "n_frames", 1)
        if num_frames > 1 and image.format != "GIF":
            raise DataError(f"holds {num_frames} images; export them as single files.")
        turned = image.getexif().get(0x0112, 1) != 1  # must be asked before the pixels are loaded
        for frame in range(num_frames):
            if num_frames > 1:
                image.seek(frame)
            picture = _pillow_picture(image, as_labels)
            notes = (*picture.notes, "EXIF orientation is not applied") if turned else picture.notes
            plane = f"_t{frame:03d}" if num_frames > 1 else ""
            yield Picture(picture.pixels, picture.channels, None, plane, notes)


def _pillow_picture(image: Any, as_labels: bool) -> Picture:
    image.load()
    mode = image.mode
    if mode in ("1", "L", "I", "F") or mode.startswith("I;16"):
        pixels = np.asarray(image)
        if mode == "1":
            pixels = pixels.astype(np.uint8) * 255
        return _colour_picture(np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("="))[None]))
    if mode in ("P", "PA"):
        indices = np.asarray(image if mode == "P" else image.getchannel("P"))
        colours = np.zeros((256, 3), np.uint8)
        palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        colours[: len(palette)] = palette
        used = colours[np.unique(indices)]
        if (used == used[:, :1]).all():
            return _colour_picture(colours[indices, 0][None])
        if as_labels:
            return _colour_picture(indices[None].copy())
        return _colour_picture(np.moveaxis(colours[indices], -1, 0))
    if mode not in ("LA", "RGB", "RGBA"):
        raise DataError(f"colour mode {mode} is not supported; convert the image to RGB or gray.")
    samples = np.moveaxis(np.asarray(image), -1, 0)
    if image.format == "GIF" and (samples[:3] == samples[:1]).all():
        samples = np.concatenate([samples[:1], samples[3:]])
    return _colour_picture(samples, has_alpha=mode.endswith("A"))


def _colour_picture(samples: np.ndarray, has_alpha: bool = False) -> Picture:
    """A picture of samples first; the alpha channel, if there is one, is the last and is dropped."""
    notes: tuple[str, ...] = ()
    if has_alpha:
        if samples[-1].min() != samples[-1].max():
            notes = ("a transparency (alpha) channel that is not constant was dropped",)
        samples = samples[:-1]
    return Picture(np.ascontiguousarray(samples), default_channels(len(samples)), None, notes=notes)


# ----------------------------------------------------------------------------------------------------- TIFF (tifffile)


def _read_tiff(path: Path, options: ReadOptions) -> Iterator[Picture]:
    import tifffile

    with _complaints("tifffile") as complaints, tifffile.TiffFile(path) as tiff:
        len(tiff.pages)  # walks the chain of pages; asked one by one, a chain that bites its tail has no end
        positions = _positions(tiff)
        for series in positions:
            _check_stored(series, path)
        _check_last_directory(tiff)
        for number, series in enumerate(positions):
            prefix = plane_name("p", [len(positions)], [number])
            for picture in _series_pictures(tiff, number, series, options):
                _refuse(complaints)
                yield replace(picture, plane=prefix + picture.plane)
                _refuse(complaints)  # of pixels that were read meanwhile


def _positions(tiff: Any) -> list[Any]:
    """The images of a TIFF file without thumbnails: one, or several if it is an OME-TIFF, which says what they are."""
    series = [one for one in tiff.series if not one.keyframe.is_reduced]
    if not series:
        raise DataError("the TIFF file holds no image.")
    if len(series) > 1 and not tiff.is_ome:
        shapes = ", ".join("x".join(str(size) for size in one.shape) for one in series[:5])
        raise DataError(f"holds {len(series)} images ({shapes}); export them as single files.")
    if len(series) > 1:
        listed = len(_ome_images(tiff.ome_metadata))
        if listed != len(series):
            raise DataError(f"{len(series)} of the {listed} images that its OME metadata lists are in the file.")
    return series


def _series_pictures(tiff: Any, number: int, series: Any, options: ReadOptions) -> Iterator[Picture]:
    """The planes of one image, the ``number``-th of the file."""
    from tifffile import PHOTOMETRIC

    axes, pixels = str(series.axes), _series_pixels(series)
    if options.pages == "channels" and "C" not in axes:
        unnamed = [axis for axis in axes if axis in "IQ"]
        axes = axes.replace(unnamed[0], "C") if len(unnamed) == 1 else axes
    page, sides = series.keyframe, _tiff_pixel_sides(tiff, series.keyframe, number)
    distance = _tiff_plane_distance(tiff, number)
    names = _tiff_channel_names(tiff, number)
    others = [axis for axis in axes if axis not in "CSYX"]
    own = [axis for axis in "CSYX" if axis in axes]
    size = dict(zip(axes, pixels.shape, strict=True))

    for index in np.ndindex(*(size[axis] for axis in others)):
        at: dict[str, Any] = dict(zip(others, index, strict=True))

        def read(rows: slice, columns: slice, at: dict[str, Any] = at) -> Picture:
            place = at | {"Y": rows, "X": columns}
            plane = np.asarray(pixels[tuple(place.get(axis, slice(None)) for axis in axes)])
            kept = [axis for axis in axes if axis in own]
            return _tiff_plane(plane.transpose([kept.index(axis) for axis in own]), axes, page, names, options)

        picture = read(slice(0, 1), slice(0, size["X"]))
        shape = (picture.pixels.shape[0], size["Y"], size["X"])
        # What the colours of a palette mean depends on which of them are used, so they are not read piece by piece.
        if is_large(shape, picture.pixels.dtype) and page.photometric != PHOTOMETRIC.PALETTE:
            lazy = LazyPixels(shape, picture.pixels.dtype, lambda *part: np.asarray(read(*part).pixels))
            picture = replace(picture, pixels=lazy)
        else:
            picture = read(slice(0, size["Y"]), slice(0, size["X"]))
        plane = plane_name(others, [size[axis] for axis in others], index)
        yield replace(picture, pixel_sides_um=sides, plane=plane, plane_distance_um=distance)


def _series_pixels(series: Any) -> Any:
    """Decoded, if that is not much; else an array that reads what is asked for."""
    shape, axes = tuple(series.shape), str(series.axes)
    if "X" not in axes or "Y" not in axes or series.dtype.kind not in "buif":
        raise DataError(f"axes {axes} of shape {shape} and dtype {series.dtype} are no image.")
    if not is_large(shape, series.dtype):
        return series.asarray().reshape(shape)
    if series.dataoffset is not None:  # not compressed, in one piece
        return _Uncompressed(series.parent.filehandle.path, series.dataoffset, series.parent.byteorder, series)
    if is_large(series.keyframe.chunks, series.dtype):  # decoded once, not once for each piece that is asked for
        return series.asarray(out="memmap").reshape(shape)
    return zarr.open_array(series.aszarr(level=0), mode="r")


class _Uncompressed:
    """An array in one piece of a file. Each access maps the file anew, so that what was read does not stay mapped."""

    def __init__(self, path: str, offset: int, byteorder: str, series: Any) -> None:
        self._path, self._offset = path, offset
        self.shape, self.dtype = tuple(series.shape), np.dtype(byteorder + series.dtype.char)

    def __getitem__(self, index: Any) -> np.ndarray:
        mapped = np.memmap(self._path, self.dtype, "r", self._offset, self.shape)
        return np.array(mapped[index])


def _check_stored(series: Any, path: Path) -> None:
    """Refuse what tifffile would fill with zeros, and headers that promise what no file of this size can hold."""
    size = series.dtype.itemsize * int(np.prod(series.shape, dtype=np.int64))
    check_size(size, path.stat().st_size)
    missing = sum(page is None for page in series.pages)
    if missing:
        raise DataError(f"{missing} of {len(series.pages)} planes are missing.")
    empty = sum(not count for page in series.pages for count in page.databytecounts)
    if empty:
        raise DataError(f"{empty} strips or tiles have no data.")
    cut = sum(
        offset + count > page.parent.filehandle.size
        for page in series.pages
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
    )
    if cut:
        raise DataError(f"truncated: {cut} strips or tiles go beyond the end of the file.")


def _check_last_directory(tiff: Any) -> None:
    """Refuse a file that ends inside its last page's directory, which tifffile reads as far as it goes."""
    layout, file, start = tiff.tiff, tiff.filehandle, tiff.pages[-1].offset
    file.seek(start)
    (num_tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    if start + layout.tagnosize + num_tags * layout.tagsize + layout.offsetsize > file.size:
        raise DataError("truncated: it ends inside the directory of its last page.")


def _tiff_plane(pixels: np.ndarray, axes: str, page: Any, names: tuple[str, ...], options: ReadOptions) -> Picture:
    """One plane, or a part of one, axes some of ``CSYX``, with its samples as channels."""
    from tifffile import PHOTOMETRIC

    photometric, num_samples = page.photometric, page.samplesperpixel
    if photometric not in (
        PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE, PHOTOMETRIC.YCBCR
    ) or (photometric == PHOTOMETRIC.YCBCR and page.compression not in (6, 7)):  # fmt: skip
        raise DataError(f"colour space {getattr(photometric, 'name', photometric)} is not supported; convert to RGB.")
    if photometric == PHOTOMETRIC.PALETTE and page.colormap is not None:
        colours = page.colormap >> 8 if (page.colormap % 257 == 0).all() else page.colormap
        used = colours[:, np.unique(pixels)]
        if (used == used[:1]).all():
            pixels = colours[0].astype(np.uint8 if colours.max() < 256 else np.uint16)[pixels]
        elif not options.as_labels:
            pixels = colours.astype(np.uint8 if colours.max() < 256 else np.uint16)[:, pixels]
            return _colour_picture(pixels)
    if photometric == PHOTOMETRIC.MINISWHITE and pixels.dtype.kind in "bu":
        bits = page.bitspersample
        pixels = ~pixels if pixels.dtype.kind == "b" else (2**bits - 1 - pixels).astype(pixels.dtype)
    if pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8) * 255
    has_alpha = "S" in axes and any(int(kind) in (1, 2) for kind in page.extrasamples[-1:])
    samples = pixels.reshape((-1, *pixels.shape[-2:]))
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    if has_alpha and len(samples) == num_samples:
        return _colour_picture(samples, has_alpha=True)
    channels = names if len(names) == len(samples) and "S" not in axes else default_channels(len(samples))
    return Picture(np.ascontiguousarray(samples), channels, None)


def _tiff_channel_names(tiff: Any, number: int) -> tuple[str, ...]:
    names: list[Any] = []
    if tiff.is_ome:
        channels = _ome_elements(tiff.ome_metadata, number, "Channel")
        names = [channel.get("Name") or channel.get("ID", "") for channel in channels]
    elif tiff.is_imagej:
        labels = (tiff.imagej_metadata or {}).get("Labels", ())
        names = list(labels) if isinstance(labels, list | tuple) else [labels]
    cleaned = tuple(str(name).strip().replace("\n", " ") for name in names)
    return cleaned if all(cleaned) and len(set(cleaned)) == len(cleaned) else ()


def _tiff_pixel_sides(tiff: Any, page: Any, number: int) -> tuple[float, float] | None:
    """From OME or ImageJ metadata, or from the resolution of the page if that has a unit; else None."""
    if tiff.is_ome:
        for pixels in _ome_elements(tiff.ome_metadata, number, "Pixels"):
            sizes = [float(pixels.get(f"PhysicalSize{axis}") or 0) for axis in "YX"]
            units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "YX"]
            return lengths_um(sizes, units)
        return None
    tags = page.tags
    per_unit = [_ratio(tags[name].value) if name in tags else 0.0 for name in ("YResolution", "XResolution")]
    steps = [1 / value if value else 0.0 for value in per_unit]
    if tiff.is_imagej:
        return lengths_um(steps, [str((tiff.imagej_metadata or {}).get("unit", "")).strip()] * 2)
    unit = int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 1
    sides = lengths_um(steps, [{2: "inch", 3: "cm"}.get(unit, "")] * 2)
    return sides if sides and max(sides) <= LARGEST_PIXEL_UM else None


def _tiff_plane_distance(tiff: Any, number: int) -> float | None:
    """From OME or ImageJ metadata."""
    if tiff.is_ome:
        for pixels in _ome_elements(tiff.ome_metadata, number, "Pixels"):
            return length_um(float(pixels.get("PhysicalSizeZ") or 0), pixels.get("PhysicalSizeZUnit", "µm"))
        return None
    stated = (tiff.imagej_metadata or {}) if tiff.is_imagej else {}
    spacing = stated.get("spacing", 0)
    return length_um(spacing, str(stated.get("unit", "")).strip()) if isinstance(spacing, int | float) else None


def _ratio(value: Any) -> float:
    """A rational of a TIFF tag; 0 if it is none."""
    try:
        numerator, denominator = value
        return numerator / denominator if denominator else 0.0
    except TypeError:
        return float(value)


def _ome_images(xml: str | None) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(xml or "<OME/>")
    return [element for element in root.iter() if element.tag.rsplit("}", 1)[-1] == "Image"]


def _ome_elements(xml: str | None, number: int, name: str) -> Iterator[ElementTree.Element]:
    """The elements of that name inside one image of an OME-XML."""
    for image in _ome_images(xml)[number : number + 1]:
        for element in image.iter():
            if element.tag.rsplit("}", 1)[-1] == name:
                yield element


@contextlib.contextmanager
def _complaints(library: str) -> Iterator[list[str]]:
    """What a library logs as an error in this thread while it reads; it may go on where we must not."""
    found: list[str] = []
    reading = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # A tag that cannot be understood is no fault of the pixels.
            if record.thread == reading and "TiffTag" not in record.getMessage():
                found.append(record.getMessage())

    listener = Listener(level=logging.ERROR)
    logger = logging.getLogger(library)
    logger.addHandler(listener)
    try:
        yield found
        _refuse(found)
    finally:
        logger.removeHandler(listener)


def _refuse(complaints: Sequence[str]) -> None:
    if complaints:
        raise DataError(f"truncated or corrupt: {'; '.join(complaints[:3])}.")


# ----------------------------------------------------------------------------------------------------------- ND2 (nd2)


def _read_nd2(path: Path, options: ReadOptions) -> Iterator[Picture]:
    import nd2

    def missing_frame(index: int = 0) -> np.ndarray:
        raise DataError(f"plane {index} is missing: the file is truncated, or its acquisition was stopped.")

    with nd2.ND2File(path) as file:
        if hasattr(file._rdr, "_missing_frame"):  # it gives zeros, with no way to tell them from pixels
            file._rdr._missing_frame = missing_frame
        sizes = dict(file.sizes)
        stacked = [axis for axis in sizes if axis not in "CSYX"]
        num_planes = int(np.prod([sizes[axis] for axis in stacked]))
        positions = list(file.loop_indices) or [{}]
        if len(positions) != num_planes:
            raise DataError(f"truncated or corrupt: {len(positions)} of {num_planes} planes are listed.")
        metadata = file.metadata.channels if file.metadata and file.metadata.channels else []
        shape = (sizes.get("C", 1), sizes["Y"], sizes["X"], sizes.get("S", 1))
        calibrated = bool(metadata) and all(metadata[0].volume.axesCalibrated[:2])
        sides = (file.voxel_size().y, file.voxel_size().x) if calibrated else None
        has_distance = calibrated and metadata[0].volume.axesCalibrated[2] and sizes.get("Z", 1) > 1
        distance = length_um(file.voxel_size().z, "um") if has_distance else None
        names = tuple(str(entry.channel.name) for entry in metadata)
        for number, position in enumerate(positions):
            frame = np.ascontiguousarray(file.read_frame(number)).reshape(shape)
            samples = np.ascontiguousarray(np.moveaxis(frame, -1, 1).reshape(-1, *shape[1:3]))
            channels = names if len(names) == len(samples) == len(set(names)) else default_channels(len(samples))
            index = [position.get(axis, 0) for axis in stacked]
            plane = plane_name(stacked, [sizes[axis] for axis in stacked], index)
            yield Picture(samples, channels, sides, plane, plane_distance_um=distance)
