"""How fast the style methods are, against plain implementations of their papers, on a real image.

    RAYDOM_DATA=... RAYDOM_WEIGHTS=... uv run python benchmarks/styles.py nst seconds --side 512

nst: the time until the loss is what the plain published loop ends at. The loop is Gatys' notebook: one image at full
size from the start, every layer computed, L-BFGS. Against it ``nst`` with the same loss of the same network and
``coarse_steps``; with L-BFGS, with the network in bfloat16 too (down to 2 % less, as it sees the loss itself in
bfloat16), and with Adam.
seconds: each method once, as ``raydom.stylize`` with its defaults.

A row per measurement is printed; --evaluations shortens the plain loop.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import raydom
from raydom.algorithms.nst import StyleTargets, coarse_start, halved, style_targets, transfer
from raydom.config import NST_PRESETS, NstSettings
from raydom.errors import DataError
from raydom.networks.features import FeatureNetwork, load_features
from raydom.storage.readers import read_image

CONTENT, STYLE = "retina_drive/images/21.tif", "retina_chase_db1/images/01L.jpg"
NETWORKS = {
    # Of VGG-19 the first eight convolutions are at hand: the notebook's style layers as far as they go.
    "vgg19": ("vgg19*.safetensors", ("relu1_1", "relu2_1", "relu3_1"), ("relu3_2",)),
    "squeezenet1_1": ("squeezenet1_1*.safetensors", ("relu1", "fire3", "fire5"), ("fire4",)),
}


@dataclass(frozen=True)
class Trial:
    """What is measured on."""

    side_px: int
    evaluations: int
    networks: tuple[str, ...]
    data: Path
    weights: Path

    def image(self, path: str) -> Tensor:
        """The middle of an image file, (1, c, h, w) in 0..1."""
        pixels = read_image(str(self.data / path)).pixels
        top, left = ((size - self.side_px) // 2 for size in pixels.shape[1:])
        part = pixels[:, top : top + self.side_px, left : left + self.side_px]
        return torch.from_numpy(part.astype(np.float32) / 255)[None]

    def weights_of(self, name: str) -> str:
        return str(next(self.weights.glob(NETWORKS[name][0])))


# ------------------------------------------------------------------------------------------------------------- nst


class PlainGatys:
    """The published loop, written out: every layer computed, two products for a Gram matrix's gradient."""

    def __init__(self, network: FeatureNetwork, settings: NstSettings, content: Tensor, style: Tensor) -> None:
        self.network = network
        self.settings = settings
        with torch.no_grad():
            content_seen, style_seen = self.seen(content), self.seen(style)
        self.content_targets = [content_seen[layer] for layer in settings.content_layers]
        self.style_targets = [self.gram(style_seen[layer]) for layer in settings.style_layers]

    def seen(self, image: Tensor) -> dict[str, Tensor]:
        x, features = self.network.convention(image), {}
        names = {index: layer for layer, index in self.network.layer_index.items()}
        for index, stage in enumerate(self.network.stages):
            x = stage(x)
            if index in names:
                features[names[index]] = x.clone()  # the next stage may work in place
        return features

    @staticmethod
    def gram(features: Tensor) -> Tensor:
        n, c, h, w = features.shape
        flat = features.view(n, c, h * w)
        return torch.bmm(flat, flat.transpose(1, 2)).div_(h * w)

    def loss(self, image: Tensor) -> Tensor:
        seen = self.seen(image)
        parts = []
        for layer, target in zip(self.settings.style_layers, self.style_targets, strict=True):
            weight = float(self.settings.style_weight or 0) / target.shape[1] ** 2
            parts.append(weight * F.mse_loss(self.gram(seen[layer]), target))
        for layer, target in zip(self.settings.content_layers, self.content_targets, strict=True):
            parts.append(self.settings.content_weight * F.mse_loss(seen[layer], target))
        return torch.stack(parts).sum()

    def run(self, content: Tensor, evaluations: int) -> list[tuple[float, float]]:
        """Seconds and loss at each evaluation."""
        image, curve = content.clone().requires_grad_(), []
        optimizer = torch.optim.LBFGS([image])
        began = time.perf_counter()

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(image)
            loss.backward()
            curve.append((time.perf_counter() - began, float(loss.detach())))
            return loss

        while len(curve) < evaluations:
            optimizer.step(closure)
        return curve[:evaluations]


class Reached(Exception):
    """The loss is there."""


def until(goal: float, content: Tensor, style: Tensor, network: FeatureNetwork, settings: NstSettings) -> list[float]:
    """Losses at full size until ``goal`` is reached, after ``coarse_steps``."""
    start = coarse_start(content, content, style_targets(halved(style), network, settings), settings)
    seen: list[float] = []

    def watch(step: int, loss: Tensor) -> None:
        seen.append(float(loss))
        if seen[-1] <= goal:
            raise Reached

    targets: StyleTargets = style_targets(style, network, settings)
    with contextlib.suppress(Reached):
        transfer(content, start, targets, replace(settings, steps=5 * settings.steps), watch)
    return seen


def nst(trial: Trial) -> None:
    content, style = trial.image(CONTENT), trial.image(STYLE)
    for name in trial.networks:
        _, style_layers, content_layers = NETWORKS[name]
        plain_network = load_features(name, trial.weights_of(name))
        fast_network = load_features(name, trial.weights_of(name)).to(memory_format=torch.channels_last)
        settings = replace(NST_PRESETS["gatys-notebook"], style_layers=style_layers, content_layers=content_layers)
        plain = PlainGatys(plain_network, settings, content, style)
        curve = plain.run(content, trial.evaluations)
        seconds, goal = min(curve, key=lambda point: point[1])
        print(
            f"nst {name} {trial.side_px} px: plain loop, {len(curve)} evaluations in {curve[-1][0]:.1f} s, loss "
            f"{curve[0][1]:.4g} to {curve[-1][1]:.4g}; least {goal:.4g} after {seconds:.1f} s",
            flush=True,
        )
        for optimizer, precision in (("lbfgs", "float32"), ("lbfgs", "bfloat16"), ("adam", "float32")):
            steps = max(1, trial.evaluations // 2)
            own = replace(settings, optimizer=optimizer, precision=precision, coarse_steps=steps, steps=steps)
            began = time.perf_counter()
            own_goal = goal * (0.98 if precision == "bfloat16" else 1)
            losses = until(own_goal, content, style, fast_network, own)
            took = time.perf_counter() - began
            reached = "reached" if losses[-1] <= own_goal else f"not reached ({min(losses):.4g})"
            print(
                f"nst {name} {trial.side_px} px: {optimizer}, {precision}, half size first: {reached} after "
                f"{took:.1f} s, {len(losses)} evaluations at full size; plain / this {seconds / took:.2f}",
                flush=True,
            )


# --------------------------------------------------------------------------------------------------------- seconds


def seconds(trial: Trial) -> None:
    """Each method once, with SqueezeNet where it takes a network."""
    images = (trial.image(path)[0].permute(1, 2, 0).numpy() for path in (CONTENT, STYLE))
    content, style = ((255 * pixels).astype(np.uint8) for pixels in images)
    network = {"features": "squeezenet1_1", "weights": trial.weights_of("squeezenet1_1")}
    raydom.stylize(content[:64, :64], style[:64, :64], "nst", steps=0, **network)  # imports and loads what is needed
    for method in raydom.methods():
        options = network if method in ("nst", "strotss", "analogy") else {}
        began = time.perf_counter()
        try:
            raydom.stylize(content, style, method, **options)
        except DataError as error:  # macenko, as these images are not stained
            print(f"seconds {method}: {error}", flush=True)
        else:
            print(f"seconds {method} {trial.side_px} px: {time.perf_counter() - began:.2f} s", flush=True)


CASES: dict[str, Callable[[Trial], None]] = {"nst": nst, "seconds": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", nargs="+", choices=list(CASES))
    parser.add_argument("--side", type=int, default=512, help="side of the images, px")
    parser.add_argument("--evaluations", type=int, default=100, help="of the plain loop")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS), help="for nst")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    trial = Trial(
        options.side,
        options.evaluations,
        tuple(options.networks),
        Path(os.environ["RAYDOM_DATA"]),
        Path(os.environ["RAYDOM_WEIGHTS"]),
    )
    for what in options.what:
        CASES[what](trial)
    return 0


if __name__ == "__main__":
    sys.exit(main())
