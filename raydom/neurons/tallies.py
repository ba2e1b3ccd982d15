"""What uint8 maps say of groups of pixels, as integers: put together from parts, they are those of the whole.

Sums, extremes and counts of integers are the same in whatever order they are added, so statistics of a superpixel that
several blocks share do not tell how the image was cut; floating point means would, in their last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Int32, Int64, Integer, UInt8

from raydom.errors import DataError

BINS = 16
"""Of the histograms: each counts 256 / BINS neighbouring values."""


@dataclass(frozen=True, slots=True)
class Tallies:
    """A row for each of n groups, a column for each of c maps."""

    sums: Int64[np.ndarray, "n c"]
    squares: Int64[np.ndarray, "n c"]
    """Sums of squares."""
    minimum: UInt8[np.ndarray, "n c"]
    maximum: UInt8[np.ndarray, "n c"]
    histogram: Int32[np.ndarray, "n c bins"] | Int64[np.ndarray, "n c bins"]

    def taken(self, rows: slice) -> Tallies:
        """Some of the groups."""
        return Tallies(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @classmethod
    def summed(cls, parts: Iterable[tuple[Tallies, Int64[np.ndarray, " m"]]], num_groups: int) -> Tallies:
        """Of each group, the rows of all parts as one.

        Args:
            parts: Each with the group of each of its rows, no two of which are of one group. One is held at a time.
            num_groups: All of which occur.

        Raises:
            DataError: If there is no part, or parts have different maps.
        """
        total: Tallies | None = None
        for part, number in parts:
            if total is None:
                shape = (num_groups, part.sums.shape[1])
                total = cls(
                    sums=np.zeros(shape, np.int64),
                    squares=np.zeros(shape, np.int64),
                    minimum=np.full(shape, 255, np.uint8),
                    maximum=np.zeros(shape, np.uint8),
                    histogram=np.zeros((*shape, BINS), part.histogram.dtype),
                )
            if part.sums.shape[1] != total.sums.shape[1]:
                raise DataError(
                    f"parts of a graph must have the same maps; one has {part.sums.shape[1]} and another "
                    f"{total.sums.shape[1]}."
                )
            for name in ("sums", "squares", "histogram"):
                getattr(total, name)[number] += getattr(part, name)
            total.minimum[number] = np.minimum(total.minimum[number], part.minimum)
            total.maximum[number] = np.maximum(total.maximum[number], part.maximum)
        if total is None:
            raise DataError("a graph is made of one part at least; got none.")
        return total

    def to_arrays(self) -> dict[str, np.ndarray]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Tallies:
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows with the same key, the keys in ascending order."""

    order: Int64[np.ndarray, " m"]
    """The rows, those of one key after another."""
    starts: Int64[np.ndarray, " n"]
    """Where in ``order`` those of each key begin."""

    @classmethod
    def of(cls, *keys: Integer[np.ndarray, " m"]) -> Groups:
        """Groups by one key or several, of which the first counts most."""
        order = np.lexsort(keys[::-1]) if len(keys) > 1 else np.argsort(keys[0], kind="stable")
        return cls(order, starts_of_runs(*(key[order] for key in keys)))

    @property
    def number(self) -> Int64[np.ndarray, " m"]:
        """Which group each row is in, from 0."""
        number = np.empty(len(self.order), np.int64)
        number[self.order] = np.repeat(np.arange(len(self.starts)), np.diff(self.starts, append=len(self.order)))
        return number

    def sums(self, rows: Integer[np.ndarray, "m ..."]) -> Integer[np.ndarray, "n ..."]:
        """Of each group, in the dtype of the rows."""
        return self._reduced(np.add, rows)

    def _reduced(self, ufunc: np.ufunc, rows: np.ndarray) -> np.ndarray:
        if not len(self.starts):
            return rows[:0]
        return ufunc.reduceat(rows[self.order], self.starts, axis=0, dtype=rows.dtype)


def starts_of_runs(*columns: Integer[np.ndarray, " m"]) -> Int64[np.ndarray, " n"]:
    """Where rows begin that differ from the one before."""
    if not len(columns[0]):
        return np.empty(0, np.int64)
    differs = np.zeros(len(columns[0]), bool)
    differs[0] = True
    for column in columns:
        differs[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(differs)


def tallies(
    number: Integer[np.ndarray, " m"], values: UInt8[np.ndarray, "c m"], num_groups: int, counts: type[np.signedinteger]
) -> Tallies:
    """Statistics of the pixels of each group.

    Args:
        number: The group of each pixel, 0 to ``num_groups`` - 1, all of which occur.
        values: Of each pixel, map after map.
        num_groups: How many there are.
        counts: dtype of the histogram.
    """
    # Neighbours mostly share their group: runs of pixels are added up first, far fewer than pixels are then sorted.
    starts = starts_of_runs(number)
    groups = Groups.of(number[starts])

    def of_groups(ufunc: np.ufunc, reduced: np.ndarray, dtype: type) -> np.ndarray:
        if not num_groups:
            return np.empty(0, dtype)
        return ufunc.reduceat(ufunc.reduceat(reduced, starts, dtype=dtype)[groups.order], groups.starts)

    return Tallies(
        sums=_columns(lambda row: of_groups(np.add, row, np.int64), values),
        squares=_columns(lambda row: of_groups(np.add, row.astype(np.uint16) ** 2, np.int64), values),
        minimum=_columns(lambda row: of_groups(np.minimum, row, np.uint8), values),
        maximum=_columns(lambda row: of_groups(np.maximum, row, np.uint8), values),
        histogram=_columns(lambda row: _histogram(number, row, num_groups).astype(counts), values),
    )


def _histogram(number: np.ndarray, values: np.ndarray, num_groups: int) -> np.ndarray:
    cells = number.astype(np.int64) * BINS + values // (256 // BINS)
    return np.bincount(cells, minlength=num_groups * BINS).reshape(num_groups, BINS)


def _columns(of_map: Callable[[np.ndarray], np.ndarray], values: UInt8[np.ndarray, "c m"]) -> np.ndarray:
    return np.stack([of_map(row) for row in values], axis=1)
