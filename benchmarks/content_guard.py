"""Content scores of good and of destroyed blocks of real images: where should the content guard's threshold be?

    RAYDOM_DATA=... RAYDOM_WEIGHTS=... uv run python benchmarks/content_guard.py

Rows go to OUT/content_guard.parquet after each image; images that are there already are skipped.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.io import imread

from raydom import stylize
from raydom.images.content import content_score
from raydom.images.intensity import image_statistics, to_fraction
from raydom.images.tiles import cut_blocks

SIDE_PX = 512
PAIRS = {
    "drive-chase": (["retina_drive/images/21.tif", "retina_drive/images/30.tif"], "retina_chase_db1/images/04L.jpg"),
    "chase-drive": (
        ["retina_chase_db1/images/01L.jpg", "retina_chase_db1/images/07R.jpg"], "retina_drive/images/29.tif",
    ),
    "isbi-vnc": (["isbi2012_em/images/00.png", "isbi2012_em/images/15.png"], "vnc_sstem/images/05.tif"),
    "vnc-isbi": (["vnc_sstem/images/00.tif", "vnc_sstem/images/08.tif"], "isbi2012_em/images/13.png"),
    "dsb": (
        ["dsb2018_nuclei/images/fluorescence_cb4df20a83b2.png", "dsb2018_nuclei/images/fluorescence_e5a6c5e01e6a.png"],
        "dsb2018_nuclei/images/histology_purple_ef3ef194e565.png",
    ),
    "t98g": (
        ["phase_contrast_t98g/A_spread/images/set02.tif", "phase_contrast_t98g/A_spread/images/set26.tif"],
        "phase_contrast_t98g/B_elongated/images/set14.tif",
    ),
}  # fmt: skip
DEEP = ("relu1", "fire3", "fire5", "fire7", "fire9")
NST: dict[str, dict[str, Any]] = {
    "nst": {},
    "nst from the content": {"init": "content"},
    "nst, two layers": {"style_layers": ("relu1", "fire2"), "content_layers": ("relu1",)},
}
DESTRUCTIVE_NST: dict[str, dict[str, Any]] = {
    "nst, texture only": {"init": "noise", "content_weight": 0.0, "style_ratio": 1.0, "learning_rate": 0.05},
    "nst, all layers, style 1e5": {
        "style_layers": DEEP, "content_layers": ("fire9",), "style_ratio": 1e5, "steps": 60, "learning_rate": 0.1,
    },
}  # fmt: skip


def read(path: Path) -> np.ndarray:
    """(h, w) or (h, w, 3)."""
    image: np.ndarray = np.asarray(Image.open(path)) if path.suffix == ".png" else imread(path)
    return image[..., :3] if image.ndim == 3 else image


def fractions(image: np.ndarray) -> np.ndarray:
    planes = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    return np.ascontiguousarray(to_fraction(planes, image_statistics(planes)))


def destroyed(matched: np.ndarray, style: np.ndarray) -> dict[str, np.ndarray]:
    """What has nothing to do with the content, or little, in the style's intensities."""
    rng = np.random.default_rng(0)
    channels, height, width = matched.shape
    patches = matched.reshape(channels, height // 32, 32, width // 32, 32).transpose(1, 3, 0, 2, 4)
    shuffled = rng.permutation(patches.reshape(-1, channels, 32, 32)).reshape(patches.shape)
    mean, std = (getattr(style, name)(axis=(1, 2), keepdims=True) for name in ("mean", "std"))
    ends = [
        (0, 0),
        *((0, max(0, wanted - have)) for have, wanted in zip(style.shape[1:], (height, width), strict=True)),
    ]
    return {
        "style image": np.pad(style, ends, mode="symmetric")[:, :height, :width],
        "flipped": matched[:, ::-1],
        "moved by 16 px": np.roll(matched, (16, 16), axis=(1, 2)),
        "patches of 32 px shuffled": shuffled.transpose(2, 0, 3, 1, 4).reshape(matched.shape),
        "white noise": mean + std * rng.standard_normal(matched.shape),
        "blurred by 8 px": gaussian_filter(matched, (0, 8, 8)),
        "constant": np.broadcast_to(mean, matched.shape),
    }


def rows_of(content_path: Path, style_path: Path, weights: str) -> list[dict[str, Any]]:
    """Scores of the middle of one image after everything that is done to it, block by block."""
    image, style = read(content_path), read(style_path)
    top, left = ((length - SIDE_PX) // 2 for length in image.shape[:2])
    image = np.ascontiguousarray(image[top : top + SIDE_PX, left : left + SIDE_PX])
    content, looks = fractions(image), fractions(style)
    own, other = (pixels.std(axis=(1, 2)).tolist() for pixels in (content, looks))
    matched = {method: fractions(stylize(image, style, method)) for method in ("meanstd", "histogram", "reinhard")}

    def transfer(options: dict[str, Any]) -> np.ndarray:
        return fractions(stylize(image, style, features="squeezenet1_1", weights=weights, **options))

    kept = {"identity": content, "inverted": 1 - content, "gamma 2": content**2, "gamma 0.5": content**0.5}
    cases = [("kept", name, pixels, pixels.std(axis=(1, 2)).tolist()) for name, pixels in kept.items()]
    cases += [("kept", name, pixels, other) for name, pixels in matched.items()]
    cases += [("kept", name, transfer(options), other) for name, options in NST.items()]
    cases += [("destroyed", name, pixels, other) for name, pixels in destroyed(matched["meanstd"], looks).items()]
    cases += [("destroyed", name, transfer(options), other) for name, options in DESTRUCTIVE_NST.items()]
    found = []
    for kind, name, pixels, std in cases:
        for size in (256, 512):
            for block in cut_blocks("", image.shape[:2], size):
                part = (slice(None), *block.write.slices)
                score = content_score(content[part], pixels[part].astype(np.float32), own, std)
                found.append({"kind": kind, "case": name, "block_px": size, "score": score})
    return found


def show(rows: list[dict[str, Any]]) -> None:
    levels = (0, 5, 50, 95, 100)

    def line(name: str, chosen: Callable[[dict[str, Any]], bool]) -> None:
        scores = [row["score"] for row in rows if chosen(row)]
        print(f"{name:36s} {len(scores):5d} " + " ".join(f"{value:6.2f}" for value in np.percentile(scores, levels)))

    print(f"{'':36s} {'n':>5s} " + " ".join(f"{level:5d}%" for level in levels))
    for kind in ("kept", "destroyed"):
        line(f"{kind}, all", lambda row, kind=kind: row["kind"] == kind)
        for name in dict.fromkeys(row["case"] for row in rows if row["kind"] == kind):
            line(f"  {name}", lambda row, name=name: row["case"] == name)
    for pair in dict.fromkeys(row["pair"] for row in rows):
        for kind in ("kept", "destroyed"):
            line(f"{pair}, {kind}", lambda row, pair=pair, kind=kind: (row["pair"], row["kind"]) == (pair, kind))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    data = Path(os.environ["RAYDOM_DATA"])
    weights = str(next(Path(os.environ["RAYDOM_WEIGHTS"]).glob("squeezenet1_1*.safetensors")))
    path = options.out / "content_guard.parquet"
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    for pair, (contents, style) in PAIRS.items():
        for content in contents:
            key = {"pair": pair, "image": content}
            if not any(key.items() <= row.items() for row in rows):
                rows += [key | row for row in rows_of(data / content, data / style, weights)]
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.Table.from_pylist(rows), path)
    show(rows)


if __name__ == "__main__":
    main()
