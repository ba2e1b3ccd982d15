"""Deep Image Analogy: how much faster than one position at a time, and what is left of the content.

    RAYDOM_DATA=... RAYDOM_WEIGHTS=... uv run python benchmarks/styles_analogy.py speed --px 256
    RAYDOM_DATA=... RAYDOM_WEIGHTS=... uv run python benchmarks/styles_analogy.py content

``speed``: every field and every rebuilt layer of one transfer is found a second time, from the same start, as a public
port does it: PatchMatch position by position in numpy, five sweeps forth and back; features by 300 steps of Adam. Both
are judged alike: patches by their exact mean distance, features by the distance left.

Seconds are those of the processor (one thread: OMP_NUM_THREADS=1), so that other work on the machine does not count.

``content``: the content score of the content guard and the correlation of edges, for each weight level.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from figure import ROWS, pixels_of
from torch import Tensor

import raydom
from raydom.algorithms import analogy, patchmatch
from raydom.config import AnalogyConfig
from raydom.images.content import content_score
from raydom.networks.features import load_features

SWEEPS = 5
ADAM_STEPS = 300
ADAM_RATE = 0.1


# ---------------------------------------------------------------------------------------- one position at a time


def plain_field(
    first: np.ndarray, second: np.ndarray, patch_size: int, field: np.ndarray, radius: int, rng: np.random.Generator
) -> np.ndarray:
    """PatchMatch in scan-line order, on features (h, w, c)."""
    (height, width, _), (other_height, other_width, _) = first.shape, second.shape
    reach = patch_size // 2

    def distance(y: int, x: int, v: int, u: int) -> float:
        up, down = min(reach, y, v), min(reach, height - 1 - y, other_height - 1 - v) + 1
        left, right = min(reach, x, u), min(reach, width - 1 - x, other_width - 1 - u) + 1
        own = first[y - up : y + down, x - left : x + right]
        other = second[v - up : v + down, u - left : u + right]
        return 1 - float(np.vdot(own, other)) / ((up + down) * (left + right))

    field = field.copy()
    best = np.array([[distance(y, x, *field[:, y, x]) for x in range(width)] for y in range(height)])
    for sweep in range(SWEEPS):
        step = -1 if sweep % 2 else 1
        for y in range(height)[::step]:
            for x in range(width)[::step]:
                candidates = []
                if 0 <= x - step < width:
                    candidates.append(field[:, y, x - step] + (0, step))
                if 0 <= y - step < height:
                    candidates.append(field[:, y - step, x] + (step, 0))
                for v, u in candidates:
                    if 0 <= v < other_height and 0 <= u < other_width and (d := distance(y, x, v, u)) < best[y, x]:
                        field[:, y, x], best[y, x] = (v, u), d
                size = radius
                while size >= 1:
                    v, u = field[:, y, x]
                    v = int(rng.integers(max(v - size, 0), min(v + size + 1, other_height)))
                    u = int(rng.integers(max(u - size, 0), min(u + size + 1, other_width)))
                    if (d := distance(y, x, v, u)) < best[y, x]:
                        field[:, y, x], best[y, x] = (v, u), d
                    size //= 2
    return field


def plain_deconvolution(target: Tensor, start: Tensor, forward: Callable[[Tensor], Tensor]) -> Tensor:
    x = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=ADAM_RATE)
    for _ in range(ADAM_STEPS):
        optimizer.zero_grad()
        (forward(x) - target).square().sum().backward()
        optimizer.step()
    return x.detach()


# ------------------------------------------------------------------------------------------------------- comparison


class Twice:
    """The steps of a transfer, each done a second time in the plain way."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, float, float, float]] = []
        self.seen: tuple[Tensor, Tensor, int] | None = None
        self.own = {name: getattr(analogy, name) for name in ("describe", "improved", "deconvolve")}
        self.spare_s = 0.0
        for name in self.own:
            setattr(analogy, name, getattr(self, name))

    def describe(self, first: Tensor, second: Tensor, patch_size: int, generator: torch.Generator) -> tuple:
        self.seen = first, second, patch_size
        self.began = time.process_time()
        self.patches = self.own["describe"](first, second, patch_size, generator)
        self.describe_s = time.process_time() - self.began
        return self.patches

    def improved(self, field: Tensor, patches: object, others: object, **options: object) -> Tensor:
        began = time.process_time()
        ours = self.own["improved"](field, patches, others, **options)
        ours_s = time.process_time() - began + self.describe_s
        self.describe_s = 0.0  # described once for both ways
        first, second, patch_size = self.seen
        if patches is not self.patches[0]:
            first, second = second, first
        began = time.process_time()
        arrays = [np.ascontiguousarray(one.permute(1, 2, 0).numpy()) for one in (first, second)]
        plain = plain_field(*arrays, patch_size, field.numpy(), options["radius"], np.random.default_rng(0))
        plain_s = time.process_time() - began
        self.spare_s += plain_s
        exact = patchmatch.describe(first, second, patch_size, torch.Generator(), numbers=1 << 20)
        left = [1 - float(patchmatch.field_similarity(one, *exact).mean()) for one in (ours, torch.from_numpy(plain))]
        shape = " x ".join(map(str, first.shape[1:]))
        self.rows.append((f"field of {shape}", ours_s, plain_s, *left))
        self.spare_s += time.process_time() - began - plain_s
        return ours

    def deconvolve(self, target: Tensor, start: Tensor, forward: Callable, iterations: int) -> Tensor:
        began = time.process_time()
        ours = self.own["deconvolve"](target, start, forward, iterations)
        ours_s = time.process_time() - began
        began = time.process_time()
        plain = plain_deconvolution(target, start, forward)
        plain_s = time.process_time() - began
        with torch.no_grad():
            first, *left = (float((forward(x) - target).square().sum()) for x in (start, ours, plain))
        shape = " x ".join(map(str, start.shape[1:]))
        self.rows.append((f"features of {shape}", ours_s, plain_s, *(one / first for one in left)))
        self.spare_s += time.process_time() - began
        return ours


def speed(data: Path, weights: str, px: int) -> None:
    content_file, style_file, scale = ROWS["CHASE as DRIVE"]
    content, style = (
        torch.from_numpy(pixels_of(data / file, by)[None, :, :px, :px]).float() / 255
        for file, by in ((content_file, scale), (style_file, 1.0))
    )
    network = load_features("squeezenet1_1", weights).to(memory_format=torch.channels_last)
    config = AnalogyConfig()
    twice = Twice()
    began = time.process_time()
    prepared = analogy.style_features(style, network, config)
    analogy.transfer(content, prepared, config, torch.Generator().manual_seed(0))
    total_s = time.process_time() - began - twice.spare_s
    plain_s = total_s + sum(plain - ours for _, ours, plain, *_ in twice.rows)
    print(
        f"{tuple(content.shape[2:])} px in the style of {tuple(style.shape[2:])} px, {torch.get_num_threads()} threads"
    )
    print("what | ours, s | plain, s | distance left, ours | plain")
    for what, ours, plain, left, plain_left in twice.rows:
        print(f"{what} | {ours:.2f} | {plain:.2f} | {left:.4f} | {plain_left:.4f}")
    print(f"the whole transfer | {total_s:.1f} | {plain_s:.1f} | {plain_s / total_s:.1f} times as fast")


def content(data: Path, weights: str) -> None:
    print("pair | settings | s | content score | correlation of edges")
    for pair, (content_file, style_file, scale) in ROWS.items():
        image, style = pixels_of(data / content_file, scale), pixels_of(data / style_file)
        for name, options in {
            **{f"weight level {level}": {"weight_level": level} for level in (1, 2, 3)},
            "photo": {"detail": "content"},
            "from the histogram-matched image": {"init": "histogram"},
        }.items():
            began = time.process_time()
            result = raydom.stylize(
                image, style, "analogy", channel_axis=0, features="squeezenet1_1", weights=weights, **options
            )
            took_s = time.process_time() - began
            both = [x.astype(np.float32) for x in (image, result)]
            score = content_score(*both, *(x.std(axis=(1, 2)).tolist() for x in both))
            edges = np.corrcoef(*(edge_strength(x).ravel() for x in both))[0, 1]
            print(f"{pair} | {name} | {took_s:.0f} | {score:.2f} | {edges:.2f}", flush=True)


def edge_strength(pixels: np.ndarray) -> np.ndarray:
    """Length of the gradient of the mean over channels, which contrast may have inverted."""
    return np.hypot(*np.gradient(pixels.mean(axis=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "content"))
    parser.add_argument("--px", type=int, default=256, help="largest side for speed, px")
    options = parser.parse_args()
    data = Path(os.environ["RAYDOM_DATA"])
    weights = str(next(Path(os.environ["RAYDOM_WEIGHTS"]).glob("squeezenet1_1*.safetensors")))
    if options.what == "speed":
        speed(data, weights, options.px)
    else:
        content(data, weights)


if __name__ == "__main__":
    main()
