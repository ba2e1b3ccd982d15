"""Reads mutated image files in a process of its own: ``python fuzz.py FOLDER NUMBER SEED [FILE...]``.

Writes a line of JSON a file: what became of it. A file that takes too long ends the process with its traceback, and so
does one that kills it: then the last line names the file before it.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import resource
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from PIL import Image

from raydom.errors import ConfigError, DataError
from raydom.storage.readers import read_pictures

TOO_LONG_S = 20
MEMORY_BYTES = 8 << 30


def write_samples(folder: Path) -> list[Path]:
    """Small files of every format that can be written here."""
    generator = np.random.default_rng(0)
    gray = generator.integers(0, 255, (24, 31), dtype=np.uint8)
    smooth = np.add.outer(np.arange(24), np.arange(31)).astype(np.uint16) * 700
    colour = np.stack([gray, gray.T[:24, :1] + gray, 255 - gray], axis=-1)
    tifffile.imwrite(folder / "plain.tif", smooth)
    tifffile.imwrite(folder / "strips.tif", colour, photometric="rgb", compression="zlib", rowsperstrip=5)
    tifffile.imwrite(folder / "tiles.tif", smooth, compression="lzw", tile=(16, 16), predictor=True)
    tifffile.imwrite(folder / "stack.ome.tif", np.stack([smooth] * 3), metadata={"axes": "ZYX"}, bigtiff=True)
    tifffile.imwrite(folder / "imagej.tif", np.stack([smooth] * 2), imagej=True, metadata={"axes": "TYX"})
    Image.fromarray(gray).save(folder / "gray.png")
    Image.fromarray(smooth).save(folder / "deep.png")
    Image.fromarray(colour).save(folder / "colour.jpg")
    Image.fromarray(gray).save(folder / "frames.gif", save_all=True, append_images=[Image.fromarray(255 - gray)])
    with h5py.File(folder / "volume.h5", "w") as file:
        file.create_dataset("raw", data=np.stack([gray] * 2), chunks=(1, 8, 8), compression="gzip", fletcher32=True)
    encoded = [(folder / "gray.png").read_bytes()] * 2
    pq.write_table(pa.table({"image": encoded, "name": ["a", "b"]}), folder / "rows.parquet")
    return sorted(folder.iterdir())


def write_video(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 40 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """Some bytes changed, removed, repeated or cut off; mostly near the beginning, where headers are."""
    data = bytearray(content)
    for _ in range(int(generator.integers(1, 4))):
        reach = len(data) if generator.random() < 0.4 else min(len(data), 256)
        place, length = int(generator.integers(0, max(1, reach))), int(generator.integers(1, 9))
        kind = int(generator.integers(0, 6))
        if kind == 0:
            data[place : place + 1] = bytes([int(generator.integers(0, 256))])
        elif kind == 1:
            data[place : place + length] = bytes(generator.integers(0, 256, length, dtype=np.uint8))
        elif kind == 2:
            data[place : place + length] = generator.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * length
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place:place] = data[place : place + length]
        else:
            del data[int(generator.integers(0, max(1, len(data)))) :]
    return bytes(data)


def outcome(path: Path) -> str:
    """``read``, ``refused``, or what went wrong."""
    try:
        for picture in read_pictures(str(path)):
            pixels = np.asarray(picture.pixels)
            if pixels.ndim != 3 or not pixels.size or len(picture.channels) != len(pixels):
                return f"no image: {pixels.shape}, {picture.channels}"
        return "read"
    except (DataError, ConfigError) as error:
        return "refused" if str(path) in str(error) and len(str(error)) < 2000 else f"unclear: {error}"
    except MemoryError:
        return "out of memory"
    except BaseException as error:  # what must not come out of a reader
        return f"{type(error).__name__}: {error}"


def main() -> None:
    folder, number, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warnings.simplefilter("ignore")
    logging.lastResort = None  # what libraries log is for the readers to see
    samples = [*write_samples(folder), write_video(folder / "movie.mp4"), *map(Path, sys.argv[4:])]
    for sample in samples:
        told = outcome(sample)
        if told != "read":
            raise SystemExit(f"{sample}: {told}, before any mutation")
    generator = np.random.default_rng(seed)
    for one in range(number):
        sample = samples[one % len(samples)]
        content = mutated(sample.read_bytes(), generator)
        path = folder / f"mutated{sample.suffix}"
        path.write_bytes(content)
        faulthandler.dump_traceback_later(TOO_LONG_S, exit=True)
        told = outcome(path)
        faulthandler.cancel_dump_traceback_later()
        sys.stdout.write(json.dumps({"number": one, "sample": sample.name, "outcome": told}) + "\n")
        sys.stdout.flush()
        if told not in ("read", "refused"):
            path.rename(folder / f"bad-{one}{sample.suffix}")


if __name__ == "__main__":
    main()
