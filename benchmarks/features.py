"""Which feature network is good for style transfer: trained on photographs, made by a formula, or random?

For each pair, `nst` makes images of the target look like one of the source, through the first layer of each network; a
U-Net trained on the source then segments them. Each network has the same small grid (where to begin, and how much
style); its best setting is chosen by the labels of some images and told with the F1 of others.

    RAYDOM_DATA=... RAYDOM_WEIGHTS=... uv run python benchmarks/features.py --pairs drive-chase --seeds 0 1

The U-Nets are those of `adaptation.py --plain` in the same OUT (trained if they are not there). Rows are appended to
OUT/features.parquet; what is there already is skipped.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from adaptation import DOMAINS, PAIRS, RUN, model_of
from safetensors.torch import save_file
from torch import nn

import raydom
from raydom.algorithms.trained import load_trained
from raydom.cluster.session import ray_session
from raydom.config import ModelSpec
from raydom.images.intensity import to_fraction
from raydom.images.metrics import Confusion, confusion, scores
from raydom.images.resample import grid_size, resample
from raydom.images.synthetic import MICROSCOPES, make_cells, render
from raydom.report.tables import show_table
from raydom.storage.readers import read_image
from raydom.types import Region

INITS = ("meanstd", "content")
RATIOS = (3.0, 10.0, 30.0)
NUM_STEPS = 25
CUT_PX = 320
"""Side of the middle of each image that is stylised: of fundus images the part without a border."""
NUM_FILTERS = 64
BASELINES = ("none", "meanstd", "histogram", "reinhard")


# ------------------------------------------------------------------------------------------------------- networks


def first_layer(filters: np.ndarray, path: Path) -> dict[str, Any]:
    """Options that make SqueezeNet's first layer (3x3 px of RGB, stride 2, rectified) of these filters (n, 27)."""
    if not path.exists():
        weight = np.zeros((NUM_FILTERS, 27), np.float32)
        weight[: len(filters)] = filters
        path.parent.mkdir(parents=True, exist_ok=True)
        kernels = torch.from_numpy(weight.reshape(-1, 3, 3, 3))
        save_file({"0.weight": kernels, "0.bias": torch.zeros(NUM_FILTERS)}, path)
    return {"features": "squeezenet1_1", "weights": str(path)}


def untrained(seed: int, path: Path) -> dict[str, Any]:
    """As torchvision initialises it, before ImageNet."""
    filters = torch.empty(NUM_FILTERS, 3, 3, 3)
    nn.init.kaiming_uniform_(filters, generator=torch.Generator().manual_seed(seed))
    return first_layer(filters.flatten(1).numpy(), path)


def principal(path: Path) -> dict[str, Any]:
    """Principal components of patches of procedural images, whitened (with a floor), of both signs."""
    generator = np.random.default_rng(0)
    patches = []
    for microscope in MICROSCOPES.values():
        scene, _ = make_cells((512, 512), generator)
        image = render(scene, microscope, generator) / 255
        windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(1, 2))[:, ::4, ::4]
        patches.append(np.moveaxis(windows, 0, 2).reshape(-1, 27))
    values, vectors = np.linalg.eigh(np.cov(np.concatenate(patches).T))
    gain = np.sqrt(values.max() / np.maximum(values, 0.01 * values.max()))
    filters = (vectors * gain).T
    return first_layer(np.concatenate([filters, -filters]), path)


def networks(model: str, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """Options of `stylize` by name of the network; ``model`` is a run whose encoder is one of them."""
    photographs = next(Path(os.environ["RAYDOM_WEIGHTS"]).glob("squeezenet1_1*.safetensors"))
    return {
        "raydom": lambda: {"features": "raydom"},
        "ImageNet": lambda: {"features": "squeezenet1_1", "weights": str(photographs)},
        **{f"untrained {s}": lambda s=s: untrained(s, folder / f"untrained-{s}.safetensors") for s in range(3)},
        "principal": lambda: principal(folder / "principal.safetensors"),
        "encoder": lambda: {"features": f"encoder:{model}"},
    }


# --------------------------------------------------------------------------------------------------------- images


@cache
def image_of(domain: str, file: str, pixel_size_um: float) -> np.ndarray:
    """The middle of an image, as fractions (channel, y, x), at a pixel size."""
    pixels = to_fraction(read_image(file).pixels[:3], None)
    return _middle(_resampled(pixels, DOMAINS[domain].pixel_size_um / pixel_size_um))


@cache
def truth_of(domain: str, stem: str, pixel_size_um: float, data: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Label and field of view (or None) of that middle."""
    told, planes = DOMAINS[domain], []
    for folder in filter(None, (told.labels, told.mask)):
        file = next(path for path in (data / folder).iterdir() if path.stem == stem)
        plane = (read_image(str(file)).pixels[:1] != 0).astype(np.float32)
        planes.append(_middle(_resampled(plane, told.pixel_size_um / pixel_size_um))[0] > 0.5)
    return planes[0] != told.invert, planes[1] if told.mask else None


def _resampled(pixels: np.ndarray, scale: float) -> np.ndarray:
    shape = pixels.shape[1:]
    new_shape = tuple(grid_size(side, scale) for side in shape)
    return resample(pixels, Region.whole(shape), Region.whole(new_shape), shape, new_shape)


def _middle(pixels: np.ndarray) -> np.ndarray:
    top, left = (max(0, (side - CUT_PX) // 2) for side in pixels.shape[1:])
    return np.ascontiguousarray(pixels[:, top : top + CUT_PX, left : left + CUT_PX])


# ---------------------------------------------------------------------------------------------------------- rows


def model_run(name: str, seed: int, steps: int, data: Path, out: Path) -> str:
    run = out / "models" / f"{name}-s{seed}-{steps}-plain"
    if not (run / "complete.json").exists():
        with ray_session(RUN):
            model_of(name, seed, steps, False, data, out)
    return str(run)


def segmented(network: nn.Module, spec: ModelSpec, image: np.ndarray) -> np.ndarray:
    inputs = (torch.from_numpy(image)[None] - spec.low) / (spec.high - spec.low)
    with torch.inference_mode():
        return (network(inputs)[0, 0] > 0).numpy()


Setting = tuple[str, str, float]
"""Network (or baseline), start, and style against content."""
USUAL = (INITS[0], 10.0)
"""The start and ratio that nst has by itself."""


class Pair:
    """A source's U-Nets and style image, and the target's images."""

    def __init__(self, pair: str, runs: list[str], data: Path, out: Path) -> None:
        self.name, self.data, self.folder = pair, data, out / "first-layers"
        self.source, self.target = PAIRS[pair]
        self.runs, self.models = runs, [load_trained(run) for run in runs]
        self.pixel_size_um = self.models[0][1].pixel_size_um or 1.0
        self.style = image_of(self.source, str(data / DOMAINS[self.source].styles[0]), self.pixel_size_um)

    def row(self, part: str, setting: Setting) -> dict[str, Any]:
        """F1 of each U-Net on the images of a part (choose or score) after nst, or a baseline, with a setting."""
        domain = DOMAINS[self.target]
        stems = domain.train[:2] if part == "choose" else domain.score[:3]
        name, init, ratio = setting
        method, options = name, {}
        if name not in BASELINES:
            method, options = "nst", networks(self.runs[0], self.folder)[name]()
            options |= {"init": init, "style_ratio": ratio, "steps": NUM_STEPS}
        counts, seconds = [Confusion() for _ in self.models], 0.0
        for stem in stems:
            file = next(path for path in (self.data / domain.images).iterdir() if path.stem == stem)
            content = image_of(self.target, str(file), self.pixel_size_um)
            began = time.perf_counter()
            result = raydom.stylize(content, self.style, method, channel_axis=0, **options)
            seconds += time.perf_counter() - began
            label, mask = truth_of(self.target, stem, self.pixel_size_um, self.data)
            for index, (network, spec) in enumerate(self.models):
                counts[index] += confusion(segmented(network, spec, np.clip(result, 0, 1)), label, mask)
        f1 = [scores(found)["f1"] for found in counts]
        told = {"pair": self.name, "network": name, "init": init, "ratio": ratio, "part": part}
        return told | {"f1": float(np.mean(f1)), "f1_of_models": f1, "seconds_per_image": seconds / len(stems)}


def settings(name: str) -> list[Setting]:
    return [(name, "", 0.0)] if name in BASELINES else [(name, init, ratio) for init in INITS for ratio in RATIOS]


def summary(rows: list[dict[str, Any]]) -> pa.Table:
    """For each pair and network: the setting chosen, and the F1 with it and with the usual one on the scored images."""
    f1 = {tuple(row[k] for k in ("pair", "part", "network", "init", "ratio")): row["f1"] for row in rows}
    lines = []
    for pair, name in dict.fromkeys((row["pair"], row["network"]) for row in rows):
        best = max(settings(name), key=lambda setting: f1.get((pair, "choose", *setting), -1.0))
        line = {"pair": pair, "network": name, "start": best[1], "ratio": best[2]}
        line["f1"] = f1.get((pair, "score", *best))
        lines.append(line | {"f1 as usual": f1.get((pair, "score", name, *USUAL), line["f1"])})
    return pa.Table.from_pylist(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--networks", nargs="+", default=list(networks("", Path())), help="some of the networks")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the U-Nets")
    parser.add_argument("--steps", type=int, default=600, help="of training a U-Net")
    options = parser.parse_args()
    data, path = Path(os.environ["RAYDOM_DATA"]), options.out / "features.parquet"
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    for pair in options.pairs:
        runs = [model_run(PAIRS[pair][0], seed, options.steps, data, options.out) for seed in options.seeds]
        images = Pair(pair, runs, data, options.out)

        def scored(part: str, setting: Setting, images: Pair = images) -> float:
            told = dict(zip(("pair", "part", "network", "init", "ratio"), (images.name, part, *setting), strict=True))
            if not any(told.items() <= row.items() for row in rows):
                rows.append(images.row(part, setting))
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.Table.from_pylist(rows), path)
            return float(next(row["f1"] for row in rows if told.items() <= row.items()))

        for name in (*BASELINES, *options.networks):
            best = max(settings(name), key=lambda setting: scored("choose", setting))
            scored("score", best)
            if name not in BASELINES:
                scored("score", (name, *USUAL))
    show_table(summary(rows), digits=3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
