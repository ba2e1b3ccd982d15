"""STROTSS against the plain loop of its paper: seconds, and the loss that both end at.

    RAYDOM_DATA=... RAYDOM_WEIGHTS=... uv run python benchmarks/styles_strotss.py --px 512

The plain loop is what both published codes do: the paper's start, 250 steps of RMSprop a scale, every distance has a
gradient, the style's moments are computed in each step, features lie in torch's default order. Against it, the same
steps as raydom computes them, and raydom's own start and steps. Network, layers, scales, weights and numbers of samples
are the same. All results are judged by one loss: that of the last scale, the mean over five draws of locations.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from raydom.algorithms import strotss
from raydom.config import StrotssConfig
from raydom.networks.features import load_features
from raydom.report.tables import show_table
from raydom.storage.readers import read_image

DRAWS = 5


def cosine(x: Tensor, y: Tensor) -> Tensor:
    norms = x.norm(dim=1, keepdim=True) * y.norm(dim=1, keepdim=True).T
    return 1 - x @ y.T / norms.clamp_min(1e-6)


def emd(distances: Tensor) -> Tensor:
    return torch.maximum(distances.min(dim=0).values.mean(), distances.min(dim=1).values.mean())


def plain_loss(x: Tensor, c: Tensor, s: Tensor, alpha: float) -> Tensor:
    of_x, of_c = cosine(x, x), cosine(c, c)
    content = (of_x / of_x.sum(0) - of_c / of_c.sum(0)).abs().mean() * len(x)
    x_centred, s_centred = x - x.mean(0), s - s.mean(0)
    covariances = x_centred.T @ x_centred / len(x) - s_centred.T @ s_centred / len(s)
    moments = (x.mean(0) - s.mean(0)).abs().mean() + covariances.abs().mean()
    squared = x[:, :3].square().sum(1)[:, None] + s[:, :3].square().sum(1) - 2 * x[:, :3] @ s[:, :3].T
    palette = emd(cosine(x[:, :3], s[:, :3]) + (squared.clamp_min(1e-5) / 3).sqrt())
    return (alpha * content + emd(cosine(x, s)) + moments + palette / max(alpha, 1)) / (alpha + 2)


def plain_maps(image: Tensor, sight: strotss.Sight) -> list[Tensor]:
    x, maps = sight.network.convention(image), [image]
    indices = [sight.network.layer_index[layer] for layer in sight.layers]
    for index, stage in enumerate(sight.network.stages[: max(indices) + 1]):
        x = stage(x)
        if index in indices:
            maps.append(x)
    return maps


def plain(
    content: Tensor, style: Tensor, sight: strotss.Sight, config: StrotssConfig, generator: torch.Generator
) -> Tensor:
    """From the paper's start."""
    sizes = strotss.scales(content.shape[2:], config.smallest_px)
    image = style.mean(dim=(2, 3), keepdim=True)
    for number, shape in enumerate(sizes):
        last, alpha = number == len(sizes) - 1, 16.0 * config.content_weight / 2**number
        c = F.interpolate(content, size=shape, mode="bilinear", antialias=True)
        s = F.interpolate(style, size=shape, mode="bilinear", antialias=True)
        image = F.interpolate(image, size=shape, mode="bilinear")
        if not last or number == 0:
            image = image + strotss.laplacian_pyramid(c, 1)[0]
        pyramid = [part.detach().clone().requires_grad_() for part in strotss.laplacian_pyramid(image)]
        optimizer = torch.optim.RMSprop(pyramid, lr=config.learning_rate / 2 if last else config.learning_rate)
        with torch.no_grad():
            c_maps, s_maps = plain_maps(c, sight), plain_maps(s, sight)
            everywhere = torch.rand(config.style_samples, 2, generator=generator)
            s_columns = strotss.hypercolumns(s_maps, 0, everywhere)
        for step in range(config.steps):
            if step % strotss.REDRAW_STEPS == 0:
                grid = strotss.grid_locations(shape, generator)
            where = strotss.drawn(grid, config.samples, generator, None)[0]
            x_columns = strotss.hypercolumns(plain_maps(strotss.collapsed(pyramid), sight), 0, where)
            optimizer.zero_grad()
            plain_loss(x_columns, strotss.hypercolumns(c_maps, 0, where), s_columns, alpha).backward()
            optimizer.step()
        image = strotss.collapsed(pyramid).detach()
    return image


def final_loss(image: Tensor, content: Tensor, style: Tensor, sight: strotss.Sight, config: StrotssConfig) -> float:
    """Of the last scale, at locations that no run has drawn."""
    generator = torch.Generator().manual_seed(1)
    alpha = strotss.content_weights(len(strotss.scales(content.shape[2:], config.smallest_px)), config.content_weight)[
        -1
    ]
    (samples,) = strotss.style_samples(style, max(content.shape[2:]), sight, 5000, generator)
    losses = []
    with torch.no_grad():
        maps, content_maps = sight.maps(image), sight.maps(content)
        for _ in range(DRAWS):
            where = strotss.drawn(strotss.grid_locations(content.shape[2:], generator), 1024, generator, None)[0]
            x, c = (strotss.hypercolumns(m, 0, where) for m in (maps, content_maps))
            losses.append(float(strotss.total_loss(x, c, samples[0], alpha, "normalized")))
    return math.fsum(losses) / DRAWS


def crop(path: Path, px: int) -> Tensor:
    pixels = np.asarray(read_image(str(path)).pixels)
    image = torch.from_numpy(np.ascontiguousarray(pixels.astype(np.float32) / 255))[None]
    top, left = ((side - px) // 2 for side in image.shape[2:])
    return image[..., top : top + px, left : left + px]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--px", type=int, default=512)
    parser.add_argument("--plain-steps", type=int, default=250)
    parser.add_argument("--layers", nargs="*", default=())
    parser.add_argument("--samples", type=int, default=StrotssConfig().samples)
    parser.add_argument("--style-samples", type=int, default=StrotssConfig().style_samples)
    args = parser.parse_args()
    data, weights = Path(os.environ["RAYDOM_DATA"]), next(Path(os.environ["RAYDOM_WEIGHTS"]).glob("squeezenet1_1*"))
    network = load_features("squeezenet1_1", str(weights)).to(memory_format=torch.channels_last)
    sight = strotss.Sight(network, tuple(args.layers) or network.default_hypercolumn_layers)
    config = StrotssConfig(samples=args.samples, style_samples=args.style_samples)
    paper = replace(config, steps=args.plain_steps, optimizer="rmsprop")
    content = crop(data / "retina_chase_db1" / "images" / "03L.jpg", args.px)
    style = crop(data / "retina_drive" / "images" / "29.tif", args.px)
    colour = style.mean(dim=(2, 3), keepdim=True)
    matched = (content - content.mean(dim=(2, 3), keepdim=True)) / content.std(dim=(2, 3), keepdim=True)
    matched = (matched * style.std(dim=(2, 3), keepdim=True) + colour).clamp(0, 1)

    def ours(start: Tensor, config: StrotssConfig) -> Tensor:
        own, drawing = (torch.Generator().manual_seed(seed) for seed in (1, 0))

        def samples(px: int) -> list[dict[int, strotss.StyleSamples]]:
            return strotss.style_samples(style, px, sight, config.style_samples, own)

        return strotss.transfer(content, start, samples, sight, config, drawing)

    rows: list[dict[str, str | float]] = []
    runs: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: plain(content, style, sight, paper, torch.Generator().manual_seed(0)),
        "raydom, the same steps": lambda: ours(colour, paper),
        "raydom": lambda: ours(matched, config),
    }
    for name, run in runs.items():
        wall, cpu = time.perf_counter(), time.process_time()
        image = run()
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        loss = final_loss(image, content, style, sight, config)
        rows.append({"strotss": name, "seconds": seconds, "CPU seconds": cpu_seconds, "final loss": loss})
        show_table(pa.Table.from_pylist(rows[-1:]), digits=4)


if __name__ == "__main__":
    main()
