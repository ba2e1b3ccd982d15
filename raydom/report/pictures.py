"""Picture grids: images, their labels, and where a prediction is right or wrong."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from skimage.segmentation import find_boundaries

from raydom.errors import ConfigError
from raydom.storage.files import write_bytes_atomic

# The palette of Okabe and Ito, whose colours the colour-blind tell apart; these three also differ in brightness.
CORRECT, MISSED, FALSE = (0, 158, 115), (240, 228, 66), (213, 94, 0)
LABEL_COLOURS = np.array([(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167)])
OVERLAY_ALPHA = 0.6
PANEL_INCHES, DPI = 2.4, 150


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Panel:
    """One picture of a grid: an image, on which labels or a comparison may be drawn."""

    image: np.ndarray
    """Of shape (y, x) or (channels, y, x), any real dtype. Three channels are RGB, else the first one is shown."""
    labels: np.ndarray | None = None
    """Instances or a binary label, outlined in colour, of shape (y, x)."""
    truth: np.ndarray | None = None
    """With ``labels``: pixels are coloured as correct, missed and false instead."""
    caption: str = ""
    """A line below the picture."""
    display_range: tuple[float, float] | None = None
    """Intensities shown as black and white. Default: see ``displayed``."""


Cell = Panel | np.ndarray | str | None
"""A panel, a bare image, a text in an empty place, or an empty place."""


def grid(
    rows: Sequence[Sequence[Cell]],
    row_titles: Sequence[str],
    column_titles: Sequence[str],
    path: str,
    *,
    legend: Mapping[str, tuple[float, float, float]] | None = None,
    panel_inches: float = PANEL_INCHES,
) -> None:
    """Write a PNG of pictures in rows and columns, with a legend if pixels are coloured as right or wrong.

    Args:
        rows: The cells, each row as long as there are column titles.
        row_titles: One title a row, written on the left.
        column_titles: One title a column, written on top.
        path: Where to write: a path or any fsspec URL.
        legend: Names of colours (RGB, 0 to 255) in the pictures.
        panel_inches: Width of a picture, 150 px each.

    Raises:
        ConfigError: If titles and cells do not match, or a label has another shape than its image.
    """
    if len(rows) != len(row_titles) or any(len(row) != len(column_titles) for row in rows) or not column_titles:
        raise ConfigError(
            f"{path}: {len(row_titles)} row titles and {len(column_titles)} column titles do not fit rows of "
            f"{[len(row) for row in rows]} pictures."
        )
    panels = [[_as_panel(cell) for cell in row] for row in rows]
    heights = [_height(row) for row in panels]
    figure = Figure(
        figsize=(panel_inches * len(column_titles) + 0.4, panel_inches * sum(heights) + 0.25 * len(rows) + 0.5),
        dpi=DPI,
        layout="constrained",
    )
    axes = figure.subplots(len(rows), len(column_titles), squeeze=False, height_ratios=heights)
    for y, row in enumerate(panels):
        for x, panel in enumerate(row):
            _draw(axes[y, x], panel)
            if y == 0:
                axes[y, x].set_title(column_titles[x], fontsize=10)
        axes[y, 0].set_ylabel(row_titles[y], fontsize=10)
    named = dict(legend or {})
    if any(isinstance(panel, Panel) and panel.truth is not None for row in panels for panel in row):
        named |= {"correct": CORRECT, "missed": MISSED, "false": FALSE}
    if named:
        patches = [Patch(color=(r / 255, g / 255, b / 255), label=name) for name, (r, g, b) in named.items()]
        figure.legend(handles=patches, loc="outside lower center", ncols=len(named), frameon=False, fontsize=9)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    write_bytes_atomic(path, png.getvalue())


def displayed(image: np.ndarray, display_range: tuple[float, float] | None = None) -> np.ndarray:
    """An image as RGB for the eye, shape (y, x, 3), uint8.

    Without a range, an image is shown over the legal range of its dtype (0 to 1 for floats), so that two domains look
    as different as they are. One that leaves this range, or uses less than a quarter of it, is stretched between its
    0.1 and 99.9 percentiles. Pixels that are NaN or infinite are black.
    """
    stack = image[None] if image.ndim == 2 else image
    stack = (stack if stack.shape[0] == 3 else np.repeat(stack[:1], 3, axis=0)).astype(np.float32)
    finite = np.isfinite(stack)
    low, high = display_range or _display_range(stack[finite], image.dtype)
    fraction = np.divide(stack - low, (high - low) or 1, out=np.zeros_like(stack), where=finite)
    return np.rint(fraction.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def outlined(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """An RGB image (y, x, 3) with the outline of each label in one of six colours; neighbours may share one."""
    edges = find_boundaries(labels, mode="inner")
    drawn = image.copy()
    drawn[edges] = LABEL_COLOURS[labels[edges].astype(np.int64) % len(LABEL_COLOURS)]
    return drawn


def compared(image: np.ndarray, labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """An RGB image (y, x, 3) in gray, on which correct, missed and false foreground pixels are tinted."""
    gray = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    found, true = labels != 0, truth != 0
    for where, colour in ((found & true, CORRECT), (true & ~found, MISSED), (found & ~true, FALSE)):
        gray[where] = (1 - OVERLAY_ALPHA) * gray[where] + OVERLAY_ALPHA * np.array(colour)
    return np.rint(gray).astype(np.uint8)


def _display_range(values: np.ndarray, dtype: np.dtype) -> tuple[float, float]:
    limit = float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0
    if values.size == 0:
        return 0.0, limit
    low, high = (float(value) for value in np.percentile(values, (0.1, 99.9)))
    if values.min() >= 0 and values.max() <= limit and high >= limit / 4:
        return 0.0, limit
    return low, high


def _as_panel(cell: Cell) -> Panel | str | None:
    panel = Panel(image=cell) if isinstance(cell, np.ndarray) else cell
    if isinstance(panel, Panel):
        for name, label in (("labels", panel.labels), ("truth", panel.truth)):
            if label is not None and label.shape != panel.image.shape[-2:]:
                raise ConfigError(f"{name} of shape {label.shape} cannot be drawn on an image of {panel.image.shape}.")
        if panel.truth is not None and panel.labels is None:
            raise ConfigError("a panel with truth needs labels to compare it with.")
    return panel


def _height(row: Iterable[Panel | str | None]) -> float:
    """Height of a row, in panel widths: that of its tallest picture."""
    return max((p.image.shape[-2] / p.image.shape[-1] for p in row if isinstance(p, Panel)), default=1.0)


def _draw(axes: Axes, panel: Panel | str | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    if isinstance(panel, str):
        axes.text(0.5, 0.5, textwrap.fill(panel, 28), ha="center", va="center", fontsize=8, transform=axes.transAxes)
    if not isinstance(panel, Panel):
        return
    picture = displayed(panel.image, panel.display_range)
    if panel.labels is not None:
        picture = (
            outlined(picture, panel.labels) if panel.truth is None else compared(picture, panel.labels, panel.truth)
        )
    axes.imshow(picture)
    axes.set_xlabel(panel.caption, fontsize=8)
