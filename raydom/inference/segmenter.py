"""A network asked about a part of an image, as it would answer about the whole.

*Passes* are the sizes at which the network sees the part: its own, and those of test-time augmentation. The grid of a
pass is that of the whole image resampled, and what the network reads begins at multiples of its stride on it, so that a
network whose receptive field lies within the halo gives the same answer, to the bit, from any part. A network that
looks further is asked about windows instead that lie the same on the grid for any cut, blended where they overlap.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32
from torch import Tensor, nn

from raydom.config import ModelSpec, PredictionConfig
from raydom.errors import DataError
from raydom.images.resample import grid_size, resample, source_region
from raydom.images.tiles import padded_shape, read_region, reflected
from raydom.images.votes import voted
from raydom.networks.maskrcnn import label_image
from raydom.types import Region

BATCH = 8
"""Windows and turned views that a GPU is given at a time. A CPU is given one: more were not faster (0.8 to 1.2 times),
and change the last bits, by which windows there are in a block."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What the network sees of a part of an image at one size."""

    grid: tuple[int, ...]
    """Shape of the whole image at that size, px."""
    core: Region
    """What is wanted, px of the grid."""
    read: Region
    """What the network needs for it, px of the grid padded to the network's stride."""

    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Which rows and columns of the grid stand where in ``read``: padding mirrors them."""
        rows, columns = (reflected(self.read.start[axis], self.read.stop[axis], self.grid[axis]) for axis in (0, 1))
        return rows, columns

    @property
    def inner(self) -> Region:
        """The part of the grid that ``read`` is made of."""
        rows, columns = self.positions()
        return Region((int(rows.min()), int(columns.min())), (int(rows.max()) + 1, int(columns.max()) + 1))


@dataclass(frozen=True, slots=True)
class NetworkInput:
    """A part of an image for a network, and what it is asked about."""

    pixels: np.ndarray
    """float32 (c, h, w) of ``inner``, fractions of the legal range."""
    inner: Region
    """Part of the image on its own grid for the network."""
    grid: tuple[int, ...]
    """Shape of that."""
    passes: Sequence[Pass]
    """Of ``wanted``."""
    wanted: Region
    """What is to be told of, px of the image."""
    shape: tuple[int, ...]
    """Of the image, px."""


class Segmenter:
    """A trained network and how it is asked.

    Args:
        network: In evaluation mode, on its device.
        spec: Of its model.
        config: Augmentation, windows and precision.
        halo: Context of what is wanted, px; at least the network's receptive field.
        device: Of the network.
    """

    def __init__(
        self, network: nn.Module, spec: ModelSpec, config: PredictionConfig, halo: int | None, device: torch.device
    ) -> None:
        self.network, self.spec, self.config, self.device = network, spec, config, device
        self.halo = spec.receptive_field_px if halo is None else halo
        self.batch = 1 if device.type == "cpu" else BATCH

    def passes(self, wanted: Region, shape: tuple[int, ...], grid: tuple[int, ...]) -> list[Pass]:
        """What the network sees of a region of an image of ``shape``, whose own size for the network is ``grid``."""
        found = []
        for factor in (1.0, *self.config.tta_scales):
            own = tuple(grid_size(size, factor) for size in grid)
            core = source_region(wanted, own, shape)
            if self.spec.exact:
                read = read_region(core, self.halo, self.spec.total_stride, own)
            elif self.spec.network.output == "objects":
                read = read_region(core, 0, self.spec.total_stride, own)
            else:
                windows = self.windows(core, own)
                read = Region(
                    (min(w.start[0] for w in windows), min(w.start[1] for w in windows)),
                    (max(w.stop[0] for w in windows), max(w.stop[1] for w in windows)),
                )
            found.append(Pass(own, core, read))
        return found

    def maps(self, part: NetworkInput) -> Float32[np.ndarray, "k h w"]:
        """What the network tells of each pixel that is wanted, in 0..1; the mean of all views."""
        total: Any = 0.0
        for one in part.passes:
            seen = self._seen(part, one)
            told = self._blended(seen, one) if not self.spec.exact else self._mean(self._answers([seen]))
            told = told[(slice(None), *one.core.relative_to(one.read).slices)]
            total = total + resample(told, one.core, part.wanted, one.grid, part.shape)
        return np.asarray(total / np.float32(len(part.passes)), np.float32)

    def objects(
        self, parts: Sequence[NetworkInput]
    ) -> Iterator[tuple[Int32[np.ndarray, "h w"], Float64[np.ndarray, " objects"]]]:
        """The objects of what is wanted of each part, of a network that tells them as a list: labels, and the
        confidence of each, of label 1 first.

        Raises:
            DataError: If it may have found more than it can tell.
        """
        answers = self._answers(self._seen(part, one) for part in parts for one in part.passes)
        limits = self.spec.network.maskrcnn
        most = min(limits.detections, limits.proposals)  # each object is one of the proposals
        for part in parts:
            views, scores = [], []
            for one in part.passes:
                rows, columns = (_nearest(part, one, axis) for axis in (0, 1))
                for (turns, flip, _), answer in zip(self._augmentations(), answers, strict=False):
                    found, (height, width) = answer.cpu(), one.read.shape
                    sides = (width, height) if turns % 2 else (height, width)
                    if len(found) >= most:
                        raise DataError(
                            f"the network tells of {most} objects at most (the lesser of maskrcnn.detections and "
                            f"maskrcnn.proposals), and found as many in {sides[0]} x {sides[1]} px: some may be "
                            "missing. Choose a smaller --instances.cell-px."
                        )
                    labels = label_image(found, sides, limits.mask_threshold)
                    views.append(_turned_back(labels[None], turns, flip)[0].numpy()[rows][:, columns])
                    scores.append(found.scores.numpy().astype(np.float64))
            yield voted(views, scores)

    def windows(self, core: Region, grid: tuple[int, ...]) -> list[Region]:
        """The windows that lie on a part of a grid; they cover it, whatever the part."""
        wanted = self.config.window_px or self.spec.window_px
        size = max(wanted // self.spec.total_stride, 1) * self.spec.total_stride
        starts = [
            [
                start
                for start in _starts(length, size, self._step(size))
                if start < stop and min(start + size, length) > begin
            ]
            for length, begin, stop in zip(
                padded_shape(grid, self.spec.total_stride), core.start, core.stop, strict=True
            )
        ]
        bounds = Region.whole(padded_shape(grid, self.spec.total_stride))
        return [Region((y, x), (y + size, x + size)).clipped(bounds) for y, x in itertools.product(*starts)]

    def _step(self, size: int) -> int:
        stride = self.spec.total_stride
        return max(stride, int(size * (1 - self.config.window_overlap)) // stride * stride)

    def _seen(self, part: NetworkInput, one: Pass) -> np.ndarray:
        """The pixels that a pass reads, padding and all."""
        rows, columns = one.positions()
        pixels = resample(part.pixels, part.inner, one.inner, part.grid, one.grid)
        return pixels[:, rows - one.inner.start[0]][:, :, columns - one.inner.start[1]]

    def _blended(self, pixels: np.ndarray, one: Pass) -> np.ndarray:
        """What overlapping windows tell, each weighing less towards its sides."""
        total: Any = None
        places = [(w, (slice(None), *w.relative_to(one.read).slices)) for w in self.windows(one.core, one.grid)]
        answers = self._answers(np.ascontiguousarray(pixels[where]) for _, where in places)
        for window, where in places:
            told = self._mean(answers)
            if total is None:
                total = np.zeros((len(told), *pixels.shape[1:]), np.float32)
                weights = np.zeros(pixels.shape[1:], np.float32)
            ramp = self._ramp(window.shape[0])[:, None] * self._ramp(window.shape[1])
            total[where] += told * ramp
            weights[where[1:]] += ramp
        return np.asarray(total / np.where(weights > 0, weights, 1))

    def _ramp(self, length: int) -> np.ndarray:
        width = max(1.0, length * self.config.window_overlap)
        position = np.arange(length) + 0.5
        return np.minimum(1.0, np.minimum(position, length - position) / width).astype(np.float32)

    def _answers(self, parts: Iterable[np.ndarray]) -> Iterator[Any]:
        """What the network tells of each part (c, h, w), turned and flipped in each way; it is asked about several at a
        time where they are of one shape."""
        inputs = (
            _turned(self._as_input(part, contrast), turns, flip)
            for part in parts
            for turns, flip, contrast in self._augmentations()
        )
        for _, alike in itertools.groupby(inputs, key=lambda image: image.shape):
            while batch := list(itertools.islice(alike, self.batch)):
                with torch.inference_mode(), self._autocast():
                    answers = list(self.network(torch.stack(batch)))
                yield from answers

    def _mean(self, answers: Iterator[Tensor]) -> np.ndarray:
        """The mean of what the network tells of the same pixels turned and flipped: of the next answers."""
        total: Any = 0.0
        views = self._augmentations()
        with torch.inference_mode():
            for (turns, flip, _), answer in zip(views, answers, strict=False):
                logits = answer.float()
                softmax = self.spec.network.output == "classes" and len(logits) > 1
                told = logits.softmax(dim=0) if softmax else logits.sigmoid()
                total = total + _turned_back(told, turns, flip)
            mean: Tensor = total / len(views)
        return mean.cpu().numpy()

    def _augmentations(self) -> list[tuple[int, bool, float]]:
        """Quarter turns, whether flipped, and the contrast."""
        turns = {1: (0,), 4: (0, 2), 8: (0, 1, 2, 3)}[self.config.tta]
        flips = (False,) if self.config.tta == 1 else (False, True)
        return [(turn, flip, c) for c in (1.0, *self.config.tta_contrasts) for flip in flips for turn in turns]

    def _as_input(self, pixels: np.ndarray, contrast: float) -> Tensor:
        scaled = (torch.from_numpy(pixels) - self.spec.low) / (self.spec.high - self.spec.low)
        return (scaled if contrast == 1 else 0.5 + contrast * (scaled - 0.5)).to(self.device)

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")


def _nearest(part: NetworkInput, one: Pass, axis: int) -> np.ndarray:
    """Where in what a pass reads each row (or column) lies that is wanted."""
    wanted = np.arange(part.wanted.start[axis], part.wanted.stop[axis]) + 0.5
    on_grid = np.floor(wanted * one.grid[axis] / part.shape[axis]).astype(np.int64)
    return np.asarray(on_grid.clip(one.read.start[axis], one.read.stop[axis] - 1) - one.read.start[axis])


def _starts(length: int, size: int, step: int) -> list[int]:
    """Where windows begin on an axis; the last ends with it."""
    return [*range(0, max(length - size, 0), step), max(length - size, 0)]


def _turned(image: Tensor, turns: int, flip: bool) -> Tensor:
    """(c, h, w), turned by so many quarters and then flipped."""
    turned = torch.rot90(image, turns, (-2, -1)) if turns else image
    return (turned.flip(-1) if flip else turned).contiguous()


def _turned_back(image: Tensor, turns: int, flip: bool) -> Tensor:
    unflipped = image.flip(-1) if flip else image
    return torch.rot90(unflipped, -turns, (-2, -1)) if turns else unflipped
