"""Pictures of how neurons were segmented: superpixels, how likely their borders are, result, truth and mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Integer, Shaped, UInt8
from matplotlib import colormaps
from skimage.segmentation import find_boundaries

from raydom.errors import ConfigError, DataError
from raydom.neurons.mistakes import Mistakes, mistakes
from raydom.neurons.truth import Zero
from raydom.report.pictures import DPI, FALSE, LABEL_COLOURS, MISSED, Panel, displayed, grid

MERGED, SPLIT, LINE = FALSE, MISSED, (86, 180, 233)
Rgb = UInt8[np.ndarray, "h w 3"]
PROBABILITIES = colormaps["viridis"]
FILL_ALPHA, MISTAKE_ALPHA = 0.4, 0.25
PANEL_PX = (400, 1024)
"""Least and greatest width of a picture; in between, an image is drawn pixel by pixel."""
DIMMED = 0.6
"""Brightness of the image below what is marked on it."""


def draw_neurons(
    raw: Shaped[np.ndarray, "..."],
    superpixels: Integer[np.ndarray, "..."],
    uv: Integer[np.ndarray, "n 2"],
    probabilities: Float[np.ndarray, " n"],
    result: Integer[np.ndarray, "..."],
    path: str,
    *,
    truth: Integer[np.ndarray, "..."] | None = None,
    zero: Zero = "boundary",
    plane: int | None = None,
) -> None:
    """Write a PNG of an image, or of a plane of a volume, and all that was made of it.

    Args:
        raw: An image (h, w) or a volume (d, h, w).
        superpixels: Of it.
        uv: The two superpixels of each edge, the lesser first.
        probabilities: That an edge is a boundary.
        result: The neurons: superpixels joined.
        path: Where to write: a path or any fsspec URL.
        truth: True objects, with which two more pictures tell where the result is wrong.
        zero: What label 0 of the truth means.
        plane: Of a volume. Default: the middle one. (What is wrong is judged by the whole volume.)

    Raises:
        ConfigError: There is no such plane, or a plane is asked of an image.
        DataError: Edges are not those of the superpixels, or shapes differ.
    """
    images = {"superpixels": superpixels, "result": result} | ({} if truth is None else {"truth": truth})
    for name, image in images.items():
        if image.shape != raw.shape:
            raise DataError(f"{name} of shape {image.shape} cannot be drawn on an image of {raw.shape}.")
    at = _plane(raw.shape, plane)
    gray, cells = displayed(raw[at]), superpixels[at]
    borders = _borders(cells, uv)
    counts = f"{len(np.unique(cells))} superpixels", f"{len(np.unique(result[at]))} neurons"
    pictures = [
        ("image", gray),
        (counts[0], _tinted(gray, borders.marked(np.ones(len(uv))) > 0, LINE, 1.0)),
        ("how likely borders are membranes", _probable(gray, borders.marked(probabilities))),
        (counts[1], _filled(gray, result[at])),
    ]
    legend = {f"membrane: {p:.0%}": _rgb(p) for p in (0.0, 0.5, 1.0)}
    if truth is not None:
        found = mistakes(superpixels, uv, result, truth, zero)
        told = f"{found.merged.sum()} contacts wrongly merged, {found.split.sum()} wrongly split"
        pictures += [("truth", _filled(gray, truth[at])), (told, _judged(gray, cells, borders, found))]
        legend |= {"wrong merge": MERGED, "wrong split": SPLIT}
    panels = [Panel(image=rgb.transpose(2, 0, 1), caption=name, display_range=(0, 255)) for name, rgb in pictures]
    columns = len(panels) // 2
    width = float(np.clip(cells.shape[1], *PANEL_PX)) / DPI
    rows = [panels[:columns], panels[columns:]]
    grid(rows, ["", ""], [""] * columns, path, legend=legend, panel_inches=width)


def _plane(shape: tuple[int, ...], plane: int | None) -> tuple[int, ...]:
    """The index of what is drawn."""
    if len(shape) == 2 and plane is None:
        return ()
    if len(shape) != 3 or not 0 <= (at := shape[0] // 2 if plane is None else plane) < shape[0]:
        raise ConfigError(f"there is no plane {plane} of an image of shape {shape}; give one of a volume (d, h, w).")
    return (at,)


@dataclass(frozen=True, slots=True)
class Borders:
    """The pixels on both sides of the faces between superpixels of a picture."""

    shape: tuple[int, int]
    pixels: Int64[np.ndarray, " k"]
    """Row times width plus column; a pixel may be at several borders."""
    edges: Int64[np.ndarray, " k"]
    """Row of the table of edges."""

    def marked(self, values: Shaped[np.ndarray, " n"]) -> Float64[np.ndarray, "h w"]:
        """The greatest value of the edges that each pixel is at, -1 where it is at none."""
        drawn = np.full(self.shape, -1.0)
        np.maximum.at(drawn.reshape(-1), self.pixels, values[self.edges])
        return drawn


def _borders(cells: Integer[np.ndarray, "h w"], uv: Integer[np.ndarray, "n 2"]) -> Borders:
    place = np.arange(cells.size).reshape(cells.shape)
    here = np.concatenate([place[:-1].ravel(), place[:, :-1].ravel()])
    there = np.concatenate([place[1:].ravel(), place[:, 1:].ravel()])
    flat = cells.reshape(-1).astype(np.uint64)
    apart = (flat[here] != flat[there]) & (flat[here] > 0) & (flat[there] > 0)
    here, there = here[apart], there[apart]
    numbers, edge_of = np.unique(np.sort(np.stack([flat[here], flat[there]], axis=1)), axis=0, return_inverse=True)
    known, rows = np.unique(np.concatenate([uv.astype(np.uint64), numbers]), axis=0, return_inverse=True)
    row_of = np.full(len(known), -1)
    row_of[rows[: len(uv)]] = np.arange(len(uv))
    edges = row_of[rows[len(uv) :]]
    if (edges < 0).any():
        u, v = numbers[edges < 0][0]
        raise DataError(
            f"superpixels {u} and {v} touch, and no edge tells of them: the edges are of other superpixels."
        )
    return Borders((cells.shape[0], cells.shape[1]), np.concatenate([here, there]), np.tile(edges[edge_of], 2))


def _tinted(picture: Rgb, where: Bool[np.ndarray, "h w"], colour: Sequence[float], alpha: float) -> Rgb:
    drawn = picture.copy()
    drawn[where] = np.rint((1 - alpha) * drawn[where] + alpha * np.array(colour))
    return drawn


def _dimmed(gray: Rgb) -> Rgb:
    return np.rint(gray * DIMMED).astype(np.uint8)


def _rgb(probability: float) -> tuple[float, float, float]:
    red, green, blue, _ = PROBABILITIES(probability)
    return 255 * red, 255 * green, 255 * blue


def _probable(gray: Rgb, probability: Float64[np.ndarray, "h w"]) -> Rgb:
    drawn = _dimmed(gray)
    at_border = probability >= 0
    drawn[at_border] = np.rint(255 * PROBABILITIES(probability[at_border])[:, :3])
    return drawn


def _filled(gray: Rgb, labels: Integer[np.ndarray, "h w"]) -> Rgb:
    """Labels in six colours (neighbours may share one) with black lines between them; 0 stays gray."""
    colours = LABEL_COLOURS[labels.astype(np.int64) % len(LABEL_COLOURS)]
    filled = np.rint((1 - FILL_ALPHA) * gray + FILL_ALPHA * colours).astype(np.uint8)
    filled = np.where((labels > 0)[..., None], filled, gray)
    return _tinted(filled, find_boundaries(labels, mode="inner"), (0, 0, 0), 1.0)


def _judged(gray: Rgb, cells: Integer[np.ndarray, "h w"], borders: Borders, found: Mistakes) -> Rgb:
    """Areas and, brighter, contacts that are wrong."""
    drawn = _dimmed(gray)
    for superpixels, colour in ((found.split_superpixels, SPLIT), (found.merged_superpixels, MERGED)):
        drawn = _tinted(drawn, np.isin(cells, superpixels), colour, MISTAKE_ALPHA)
    for contacts, colour in ((found.split, SPLIT), (found.merged, MERGED)):
        drawn = _tinted(drawn, borders.marked(contacts) > 0, colour, 1.0)
    return drawn
