"""Intensities of an image: global statistics, and the float32 fractions in which pixels travel through raydom.

A *fraction* is a pixel divided by the largest value of its dtype. Floating point images have no such value: they
are taken as they are when all their pixels lie in 0..1, else their 0.1 and 99.9 percentiles become 0 and 1. The
scale always comes from the whole image, so that every block of it is scaled alike.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped
from skimage.color import rgb2lab

from raydom.errors import DataError
from raydom.types import PERCENTILE_LEVELS, ImageStatistics

STRIP_PX = 1 << 20
"""Pixels of a channel looked at in one go, so that temporary float64 copies stay small."""
LOWER_BITS = 14
"""Of a pixel's lower 16 bits, those that are counted for percentiles of streamed floating point images."""

Pixels = Shaped[np.ndarray, "channels *planes height width"]
"""Of an image, or of a volume: ``planes`` then is one axis; else none."""
Fractions = Float32[np.ndarray, "channels *planes height width"]
Blocks = Callable[[], Iterable[Pixels]]
"""Gives the blocks of one image, channels first; called once for each pass over the image."""


def image_statistics(pixels: Pixels) -> ImageStatistics:
    """Exact statistics of a whole image in memory, in the units of its dtype.

    Percentiles are interpolated linearly (as numpy does). Three channels are taken as sRGB for the Lab statistics.

    Raises:
        DataError: For an empty image, a dtype that is no real number, and pixels that are NaN or infinite.
    """
    running = RunningStatistics(pixels.dtype, len(pixels))
    running.add(pixels)
    if _has_few_values(pixels.dtype):
        return running.statistics(lambda: [pixels])
    return running.statistics(
        lambda: [pixels], [tuple(np.percentile(channel, PERCENTILE_LEVELS).tolist()) for channel in pixels]
    )


def stream_statistics(blocks: Blocks) -> ImageStatistics:
    """The same statistics of an image that comes in blocks, in bounded memory and one to three passes.

    Exact for integers of up to 16 bits. For other dtypes the percentiles between the exact minimum and maximum are
    right to one in two million.
    """
    running: RunningStatistics | None = None
    for block in blocks():
        running = RunningStatistics(block.dtype, len(block)) if running is None else running
        running.add(block)
    if running is None:
        raise DataError("the image has no pixels.")
    return running.statistics(blocks)


class RunningStatistics:
    """Statistics of an image that comes in blocks, perhaps in several processes: their sums can be stored and merged.

    Integers of up to 16 bits need no more than that: each of their values is counted. For other dtypes percentiles
    (and Lab statistics) take further passes over the image at the end.
    """

    def __init__(self, dtype: np.dtype | str, num_channels: int) -> None:
        self._dtype = np.dtype(dtype)
        if self._dtype.kind not in "buif":
            raise DataError(f"pixels of dtype {dtype} are no intensities; use integers or floats.")
        few = _has_few_values(self._dtype)
        self._lowest = np.iinfo(self._dtype).min if self._dtype.kind == "i" and few else 0
        self._histograms = np.zeros((num_channels, 1 << 8 * self._dtype.itemsize if few else 0), dtype=np.int64)
        self._moments, self._lab = _Moments(), _Moments()
        self._counts_lab = few and num_channels == 3

    def add(self, block: Pixels) -> None:
        """Add pixels that were not added before.

        Raises:
            DataError: If they are NaN or infinite.
        """
        for strip in _strips(block):
            if not strip.size:
                continue
            if not self._histograms.size:
                self._moments.add(strip.reshape(len(strip), -1))
                continue
            for channel, pixels in enumerate(strip):
                flat = pixels.ravel() if self._lowest == 0 else pixels.ravel().astype(np.int64) - self._lowest
                self._histograms[channel] += np.bincount(flat, minlength=self._histograms.shape[1])
            if self._counts_lab:
                self._lab.add(_lab_of(strip, None))

    def merge(self, other: RunningStatistics) -> None:
        """Add what another one has."""
        self._histograms += other._histograms
        self._moments.merge(other._moments)
        self._lab.merge(other._lab)

    def to_bytes(self) -> bytes:
        """For storage; see ``from_bytes``."""
        sink = io.BytesIO()
        arrays: dict[str, Any] = {
            f"{name}_{field}": np.asarray(getattr(one, field))
            for name, one in (("moments", self._moments), ("lab", self._lab))
            for field in _Moments.__slots__
        }
        arrays |= {"dtype": np.array(str(self._dtype)), "histograms": self._histograms}
        np.savez_compressed(sink, **arrays)
        return zlib.crc32(sink.getvalue()).to_bytes(4, "big") + sink.getvalue()

    @classmethod
    def from_bytes(cls, stored: bytes) -> RunningStatistics:
        """The inverse of ``to_bytes``.

        Raises:
            DataError: If the bytes are not those that it gave.
        """
        if zlib.crc32(stored[4:]).to_bytes(4, "big") != stored[:4]:
            raise DataError("the stored statistics are damaged: their checksum is wrong.")
        with np.load(io.BytesIO(stored[4:])) as arrays:
            running = cls(str(arrays["dtype"]), len(arrays["histograms"]))
            running._histograms = arrays["histograms"]
            running._moments, running._lab = (
                _Moments(*(arrays[f"{name}_{field}"] for field in _Moments.__slots__)) for name in ("moments", "lab")
            )
            for one in (running._moments, running._lab):
                one.count = int(one.count)  # NumPy's would overflow where products of counts are taken
        return running

    def statistics(self, blocks: Blocks, percentiles: Sequence[tuple[float, ...]] | None = None) -> ImageStatistics:
        """The statistics of all that was added.

        Args:
            blocks: Gives the same pixels again, for dtypes that need it.
            percentiles: For each channel, if they are known.

        Raises:
            DataError: If there were no pixels.
        """
        if self._histograms.size:
            found = _counted_statistics(self._histograms, self._lowest)
        else:
            found = self._moments.statistics()
            found = replace(found, percentiles=tuple(percentiles or _selected_percentiles(blocks, found)))
        if len(found.mean) != 3:
            return found
        lab = self._lab
        if not self._counts_lab:
            for strip in (strip for block in blocks() for strip in _strips(block) if strip.size):
                lab.add(_lab_of(strip, found))
        in_lab = lab.statistics()
        return replace(found, lab_mean=in_lab.mean, lab_std=in_lab.std)


@dataclass(slots=True)
class _Moments:
    """Extremes, means and deviations of any real dtype, merged piece by piece (Chan et al. 1979)."""

    count: Any = 0
    mean: Any = 0.0
    m2: Any = 0.0
    """Sum of squared distances from the mean."""
    minimum: Any = np.inf
    maximum: Any = -np.inf

    def add(self, pixels: np.ndarray) -> None:
        values = pixels.astype(np.float64)
        if not np.isfinite(values).all():
            bad = int(values.size - np.isfinite(values).sum())
            raise DataError(f"{bad} or more pixels are NaN or infinite; replace them before ingesting the image.")
        mean = values.mean(axis=1)
        m2 = ((values - mean[:, None]) ** 2).sum(axis=1)
        self.merge(_Moments(values.shape[1], mean, m2, values.min(axis=1), values.max(axis=1)))

    def merge(self, other: _Moments) -> None:
        if not other.count:
            return
        total = self.count + other.count
        delta = other.mean - self.mean
        self.mean = self.mean + delta * (other.count / total)
        self.m2 = self.m2 + other.m2 + delta**2 * (self.count * other.count / total)
        self.minimum, self.maximum = np.minimum(self.minimum, other.minimum), np.maximum(self.maximum, other.maximum)
        self.count = total

    def statistics(self) -> ImageStatistics:
        """Without percentiles."""
        if not self.count:
            raise DataError("the image has no pixels.")
        return ImageStatistics(
            minimum=tuple(self.minimum.tolist()),
            maximum=tuple(self.maximum.tolist()),
            mean=tuple(self.mean.tolist()),
            std=tuple(np.sqrt(self.m2 / self.count).tolist()),
            percentiles=(),
        )


def pooled_statistics(
    statistics: Sequence[ImageStatistics], weights: Sequence[float | int] | None = None
) -> ImageStatistics:
    """Statistics of several images taken as one, without reading them again.

    Minimum, maximum, means and deviations are exact; percentiles are those of the mixture of the images' piecewise
    linear distributions. Pool images of different dtypes as fractions (``fraction_statistics``).

    Args:
        statistics: One entry an image, all with the same number of channels.
        weights: Weight of each image, such as its number of pixels. Default: all alike.
    """
    if not statistics:
        raise DataError("no images: there is nothing to pool statistics over.")
    counts = sorted({len(one.mean) for one in statistics})
    if len(counts) > 1:
        raise DataError(f"images with {counts} channels cannot be pooled; choose images with one number of channels.")
    weight = np.ones(len(statistics)) if weights is None else np.asarray(weights, dtype=np.float64)
    weight = weight / weight.sum()
    mean, std = _pooled_moments([s.mean for s in statistics], [s.std for s in statistics], weight)
    lab_means = [s.lab_mean for s in statistics if s.lab_mean is not None]
    lab_stds = [s.lab_std for s in statistics if s.lab_std is not None]
    has_lab = len(lab_means) == len(lab_stds) == len(statistics)
    lab_mean, lab_std = _pooled_moments(lab_means, lab_stds, weight) if has_lab else (None, None)
    return ImageStatistics(
        minimum=tuple(min(values) for values in zip(*(s.minimum for s in statistics), strict=True)),
        maximum=tuple(max(values) for values in zip(*(s.maximum for s in statistics), strict=True)),
        mean=mean,
        std=std,
        percentiles=tuple(
            _mixture_percentiles([s.percentiles[channel] for s in statistics], weight) for channel in range(counts[0])
        ),
        lab_mean=lab_mean,
        lab_std=lab_std,
    )


def to_fraction(pixels: Pixels, statistics: ImageStatistics | None) -> Fractions:
    """Pixels of an image, or of a block of it, as fractions of the legal range of its dtype.

    Args:
        pixels: Of any real dtype.
        statistics: Those of the *whole* image, in the units of its dtype. Only floating point images need them.

    Returns:
        0..1 for unsigned integers, bool and floats that lie in 0..1; -1..1 for signed integers. Other floats may
        leave 0..1 by the tails that lie outside the 0.1 and 99.9 percentiles.
    """
    offset, scale = _offset_and_scale(pixels.dtype, statistics)
    if offset == 0 and scale == 1:
        return pixels.astype(np.float32)
    if _has_few_values(pixels.dtype):  # every such integer is exact in float32
        return pixels.astype(np.float32) / np.float32(scale)
    return ((pixels.astype(np.float64) - offset) / scale).astype(np.float32)


def from_fraction(fraction: Fractions, dtype: np.dtype | str, statistics: ImageStatistics) -> Pixels:
    """The inverse of ``to_fraction``: pixels of ``dtype``, rounded to nearest and clipped to its legal range.

    Floats that lay in 0..1 are clipped to it; other floats have no legal range and are not clipped. Integers of up
    to 16 bits and bool survive the way there and back unchanged.
    """
    dtype = np.dtype(dtype)
    offset, scale = _offset_and_scale(dtype, statistics)
    if dtype.kind == "b":
        return fraction >= 0.5
    if dtype.kind == "f":
        unit = offset == 0 and scale == 1
        return (np.clip(fraction, 0, 1) if unit else fraction.astype(np.float64) * scale + offset).astype(dtype)
    legal = np.iinfo(dtype)
    highest = float(legal.max)
    if highest > legal.max:  # 64-bit: the nearest float lies just outside
        highest = float(np.nextafter(highest, 0.0))
    return np.clip(np.rint(fraction.astype(np.float64) * scale), legal.min, highest).astype(dtype)


def fraction_statistics(statistics: ImageStatistics, dtype: np.dtype | str) -> ImageStatistics:
    """Statistics in the units of ``dtype`` as statistics of the fractions. Lab statistics are the same in both."""
    offset, scale = _offset_and_scale(np.dtype(dtype), statistics)

    def rescale(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple((value - offset) / scale for value in values)

    return replace(
        statistics,
        minimum=rescale(statistics.minimum),
        maximum=rescale(statistics.maximum),
        mean=rescale(statistics.mean),
        std=tuple(value / scale for value in statistics.std),
        percentiles=tuple(rescale(channel) for channel in statistics.percentiles),
    )


def _offset_and_scale(dtype: np.dtype, statistics: ImageStatistics | None) -> tuple[float, float]:
    """``fraction = (pixel - offset) / scale``, one pair for all channels, so that their ratios survive."""
    if dtype.kind == "b":
        return 0.0, 1.0
    if dtype.kind in "ui":
        return 0.0, float(np.iinfo(dtype).max)
    if dtype.kind != "f":
        raise DataError(f"pixels of dtype {dtype} are no intensities; use an integer or floating point dtype.")
    assert statistics is not None, "floating point images are scaled by their statistics"
    lowest, highest = min(statistics.minimum), max(statistics.maximum)
    if lowest >= 0 and highest <= 1:
        return 0.0, 1.0
    channels = range(len(statistics.mean))
    low = min(statistics.percentile(channel, 0.1) for channel in channels)
    high = max(statistics.percentile(channel, 99.9) for channel in channels)
    if high > low:
        return low, high - low
    return low, (highest - lowest) or 1.0  # (nearly) constant: any scale will do


def _has_few_values(dtype: np.dtype) -> bool:
    """Whether the dtype has few enough values to count each of them."""
    return dtype.kind in "bui" and dtype.itemsize <= 2


def _strips(pixels: Pixels) -> Iterator[Shaped[np.ndarray, "channels rows width"]]:
    """A few rows at a time; of a volume those of all planes, one below the other."""
    pixels = pixels.reshape(len(pixels), -1, pixels.shape[-1])
    rows = max(1, STRIP_PX // max(1, pixels.shape[2]))
    for start in range(0, pixels.shape[1], rows):
        yield pixels[:, start : start + rows]


def _counted_statistics(histograms: np.ndarray, lowest: int) -> ImageStatistics:
    """Statistics of integers, from one exact histogram a channel whose first value is ``lowest``. Without Lab."""
    values = np.arange(histograms.shape[1], dtype=np.float64) + lowest
    if not histograms.sum():
        raise DataError("the image has no pixels.")
    present = [np.flatnonzero(counts) for counts in histograms]
    # Sums, not products of vectors, which would wake the threads of BLAS for each image.
    means = [float((values[p] * counts[p]).sum() / counts.sum()) for p, counts in zip(present, histograms, strict=True)]
    deviations = [
        float(np.sqrt(((values[p] - mean) ** 2 * counts[p]).sum() / counts.sum()))
        for p, counts, mean in zip(present, histograms, means, strict=True)
    ]
    return ImageStatistics(
        minimum=tuple(float(values[p[0]]) for p in present),
        maximum=tuple(float(values[p[-1]]) for p in present),
        mean=tuple(means),
        std=tuple(deviations),
        percentiles=tuple(_counted_percentiles(values, counts) for counts in histograms),
    )


def _counted_percentiles(values: np.ndarray, counts: np.ndarray) -> tuple[float, ...]:
    """Percentiles of ``np.repeat(values, counts)``, without making that array."""
    cumulative = np.cumsum(counts)
    rank = np.asarray(PERCENTILE_LEVELS) / 100 * (cumulative[-1] - 1)
    below = np.floor(rank).astype(np.int64)
    above = np.minimum(below + 1, cumulative[-1] - 1)
    low = values[np.searchsorted(cumulative, below, side="right")]
    high = values[np.searchsorted(cumulative, above, side="right")]
    return tuple((low + (rank - below) * (high - low)).tolist())


def _selected_percentiles(blocks: Blocks, statistics: ImageStatistics) -> tuple[tuple[float, ...], ...]:
    """Percentiles in two passes, whatever the outliers: counts of the upper half of each pixel's bits tell which values
    of it hold the wanted ranks, and only for those the lower half is counted."""
    num_channels = len(statistics.minimum)
    upper = np.zeros((num_channels, 1 << 16), dtype=np.int64)
    for channel, keys in _keys(blocks):
        upper[channel] += np.bincount(keys >> 16, minlength=1 << 16)
    counts = upper.sum(axis=1)
    rank = np.asarray(PERCENTILE_LEVELS)[None] / 100 * (counts[:, None] - 1)
    below = np.floor(rank).astype(np.int64)
    wanted = np.concatenate([below, np.minimum(below + 1, counts[:, None] - 1)], axis=1)
    cumulative = np.cumsum(upper, axis=1)
    bins = np.stack([np.searchsorted(c, w, side="right") for c, w in zip(cumulative, wanted, strict=True)])
    needed = [np.unique(one) for one in bins]
    slots = np.full((num_channels, 1 << 16), -1, dtype=np.int64)
    for slot, one in zip(slots, needed, strict=True):
        slot[one] = np.arange(len(one))
    lower = [np.zeros(len(one) << LOWER_BITS, dtype=np.int64) for one in needed]
    for channel, keys in _keys(blocks):
        slot = slots[channel][keys >> 16]
        counted = (slot << LOWER_BITS | (keys & 0xFFFF) >> (16 - LOWER_BITS))[slot >= 0]
        lower[channel] += np.bincount(counted, minlength=len(lower[channel]))
    result = []
    for channel, (low, high) in enumerate(zip(statistics.minimum, statistics.maximum, strict=True)):
        ends = np.cumsum(lower[channel].reshape(len(needed[channel]), -1), axis=1)
        within = wanted[channel] - (cumulative[channel] - upper[channel])[bins[channel]]
        places = [
            np.searchsorted(ends[slots[channel][bin_]], one, side="right")
            for bin_, one in zip(bins[channel], within, strict=True)
        ]
        values = np.clip(_values(bins[channel] << 16 | np.asarray(places) << (16 - LOWER_BITS)), low, high)
        first, second = np.split(values, 2)
        found = first + (rank[channel] - below[channel]) * (second - first)
        found[0], found[-1] = low, high
        result.append(tuple(found.tolist()))
    return tuple(result)


def _keys(blocks: Blocks) -> Iterator[tuple[int, np.ndarray]]:
    """Channel by channel, pixels as 32-bit numbers in the same order: those that their float32 bits make."""
    for block in blocks():
        for strip in _strips(block):
            for channel, pixels in enumerate(strip):
                bits = pixels.ravel().astype(np.float32).view(np.uint32).astype(np.int64)
                yield channel, np.where(bits >> 31, 0xFFFFFFFF - bits, bits | 0x80000000)


def _values(keys: np.ndarray) -> np.ndarray:
    """The inverse of ``_keys``."""
    bits = np.where(keys >> 31, keys & 0x7FFFFFFF, 0xFFFFFFFF - keys)
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def _lab_of(strip: Pixels, statistics: ImageStatistics | None) -> np.ndarray:
    """CIE Lab (3, n) of pixels taken as sRGB; only floating point ones need the statistics of their image."""
    return rgb2lab(np.clip(to_fraction(strip, statistics), 0, 1), channel_axis=0).reshape(3, -1)


def _pooled_moments(
    means: Sequence[tuple[float, ...]], stds: Sequence[tuple[float, ...]], weight: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of a weighted mixture (the weights sum to 1)."""
    mean = weight @ np.asarray(means)
    variance = weight @ (np.asarray(stds) ** 2 + (np.asarray(means) - mean) ** 2)
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())


def _mixture_percentiles(percentiles: Sequence[tuple[float, ...]], weight: np.ndarray) -> tuple[float, ...]:
    """Percentiles of a weighted mixture of distributions that are linear between their percentiles."""
    levels = np.asarray(PERCENTILE_LEVELS)
    values = np.unique(np.concatenate([np.asarray(one) for one in percentiles]))
    below = np.zeros(len(values))  # share of pixels < value; a step of the distribution needs both sides
    upto = np.zeros(len(values))  # share of pixels <= value
    for one, share in zip(percentiles, weight, strict=True):
        known = np.asarray(one)
        distinct, first = np.unique(known, return_index=True)
        last = np.append(first[1:], len(known)) - 1
        below += share * np.interp(values, distinct, levels[first], left=0.0, right=100.0)
        upto += share * np.interp(values, distinct, levels[last], left=0.0, right=100.0)
    return tuple(np.interp(levels, np.stack([below, upto], axis=1).ravel(), np.repeat(values, 2)).tolist())
