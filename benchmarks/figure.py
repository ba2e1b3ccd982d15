"""A picture of real images: content, style, and every method at two settings.

    RAYDOM_DATA=... RAYDOM_WEIGHTS=... uv run python benchmarks/figure.py --out benchmarks/results/styles.png

The images may not be redistributed, so the picture stays where it is made.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

import raydom
from raydom.errors import ConfigError, DataError
from raydom.report.pictures import Cell, grid
from raydom.storage.readers import read_image

SIDE_PX = 384
ROWS = {
    "CHASE as DRIVE": ("retina_chase_db1/images/05L.jpg", "retina_drive/images/29.tif", 0.58),
    "VNC as ISBI": ("vnc_sstem/images/07.tif", "isbi2012_em/images/13.png", 1.0),
    "H&E as fluorescence": (
        "dsb2018_nuclei/images/histology_purple_a08166d91d2c.png",
        "dsb2018_nuclei/images/fluorescence_7af09f98ec29.png",
        1.0,
    ),
    "H&E as another hospital's": ("histology_domains/domain_0", "histology_domains/domain_3", 1.0),
    "T98G B as A": (
        "phase_contrast_t98g/B_elongated/images/set34.tif",
        "phase_contrast_t98g/A_spread/images/set17.tif",
        1.0,
    ),
}
SETTINGS = {
    "meanstd": ("meanstd", {}),
    "histogram": ("histogram", {}),
    "reinhard": ("reinhard", {}),
    "macenko": ("macenko", {}),
    "nst": ("nst", {}),
    "nst, style x 30": ("nst", {"style_ratio": 300.0, "steps": 100}),
    "strotss": ("strotss", {}),
    "strotss, content / 4": ("strotss", {"content_weight": 0.25}),
    "analogy": ("analogy", {}),
    "analogy, the style's detail": ("analogy", {"detail": "style"}),
}


def pixels_of(path: Path, scale: float = 1.0) -> np.ndarray:
    """Pixels (c, h, w) of the middle of an image file; of the first file of a folder."""
    path = sorted(p for p in path.rglob("*") if p.suffix in (".png", ".tif", ".jpg"))[0] if path.is_dir() else path
    pixels = read_image(str(path)).pixels
    step = round(1 / scale)
    pixels = pixels[:, ::step, ::step]
    start = [max(0, (size - SIDE_PX) // 2) for size in pixels.shape[1:]]
    return np.ascontiguousarray(pixels[:, start[0] : start[0] + SIDE_PX, start[1] : start[1] + SIDE_PX])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="benchmarks/results/styles.png")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--features", default="squeezenet1_1")
    options = parser.parse_args()
    data = Path(os.environ["RAYDOM_DATA"])
    shared = {"features": options.features}
    if options.features == "squeezenet1_1":
        shared["weights"] = str(next(Path(os.environ["RAYDOM_WEIGHTS"]).glob("squeezenet1_1*.safetensors")))
    cells: list[list[Cell]] = []
    for name in options.rows:
        content_path, style_path, scale = ROWS[name]
        content, style = pixels_of(data / content_path, scale), pixels_of(data / style_path)
        row: list[Cell] = [content, style]
        for title, (method, own) in SETTINGS.items():
            began = time.perf_counter()
            learned = shared if method in ("nst", "strotss", "analogy") else {}
            try:
                row.append(raydom.stylize(content, style, method, channel_axis=0, **learned, **own))
            except (ConfigError, DataError) as error:  # macenko is for H&E alone
                sys.stdout.write(f"{name}, {title}: {error}\n")
                row.append("is for H&E alone")
            sys.stdout.write(f"{name}, {title}: {time.perf_counter() - began:.1f} s\n")
        cells.append(row)
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    grid(cells, options.rows, ["content", "style", *SETTINGS], options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
