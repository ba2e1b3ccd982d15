"""What there is to do: a task is a square of an image and what is to be done with it.

Tasks are made when they are looked at. What is kept is how each image is cut, and the numbers of those tasks that are
meant, so a million of them take no more memory than as many integers, and travel as short text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import overload

import numpy as np
from jaxtyping import Bool, Int

from raydom.types import Block, Region


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work: a block of one of the jobs of this run, and what is to be done with it."""

    job: int
    kind: str
    """block, overview, pyramid or finish; overview and finish are of the whole image, pyramid of a part of it."""
    block: Block
    fingerprint: str

    @property
    def key(self) -> str:
        """Unlike every other task of the same job."""
        return f"{self.kind}:{self.block.block_id}"


@dataclass(frozen=True, slots=True)
class Cut:
    """The tasks of one kind of an image: squares from the first pixel on, row by row, cut off at the far edges."""

    job: int
    kind: str
    image_id: str
    shape: tuple[int, ...]
    """Of the image, px."""
    size: int
    """Side of the squares, px; that of the image if there is one task of all of it."""
    fingerprint: str

    @property
    def grid(self) -> tuple[int, ...]:
        """Squares along each axis."""
        return tuple(-(-side // self.size) for side in self.shape)

    @property
    def largest_px(self) -> int:
        """Pixels of the largest square."""
        return math.prod(min(side, self.size) for side in self.shape)

    def __len__(self) -> int:
        return math.prod(self.grid)

    def task(self, number: int) -> Task:
        """One of them, by its place in the order."""
        start = []
        for count in reversed(self.grid):
            number, place = divmod(number, count)
            start.append(place * self.size)
        start.reverse()
        stop = tuple(min(first + self.size, side) for first, side in zip(start, self.shape, strict=True))
        return Task(self.job, self.kind, Block(self.image_id, Region(tuple(start), stop)), self.fingerprint)

    def number(self, block_id: str) -> int:
        """The place in the order of the square that has this id."""
        number = 0
        for side, start in zip(self.shape, block_id[len(self.image_id) + 1 :].split("-"), strict=True):
            number = number * -(-side // self.size) + int(start) // self.size
        return number


class Tasks(Sequence[Task]):
    """Tasks of any number of images, in their order.

    Args:
        cuts: Of the images.
        numbers: Which of their tasks, counted through all cuts. Default: all.
    """

    def __init__(self, cuts: Sequence[Cut], numbers: Int[np.ndarray, " n"] | range | None = None) -> None:
        self.cuts = cuts
        self.begins = np.concatenate([[0], np.cumsum([len(cut) for cut in cuts], dtype=np.int64)])
        """The number of the first task of each cut; last, how many there are."""
        self._numbers = range(int(self.begins[-1])) if numbers is None else numbers

    @classmethod
    def joined(cls, several: Iterable[Tasks]) -> Tasks:
        """All tasks of several, one after the other."""
        cuts: list[Cut] = []
        numbers, before = [np.arange(0)], 0
        for one in several:
            cuts += one.cuts
            numbers.append(np.asarray(one._numbers, np.int64) + before)
            before += int(one.begins[-1])
        return cls(cuts, np.concatenate(numbers))

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[Task]:
        for cut, number in self._places():
            yield self.cuts[cut].task(number)

    @overload
    def __getitem__(self, index: int) -> Task: ...

    @overload
    def __getitem__(self, index: slice) -> Tasks: ...

    def __getitem__(self, index: int | slice) -> Task | Tasks:
        if isinstance(index, slice):
            return self._some(self._numbers[index])
        number = int(self._numbers[index])
        cut = int(np.searchsorted(self.begins, number, side="right")) - 1
        return self.cuts[cut].task(number - int(self.begins[cut]))

    def chosen(self, which: Bool[np.ndarray, " n"] | Sequence[int]) -> Tasks:
        """Some of them: those that are true, or those at these places."""
        return self._some(np.asarray(self._numbers, np.int64)[which])

    def image_ids(self, which: Bool[np.ndarray, " n"] | None = None) -> set[str]:
        """The images that they are of; or those of them that are true."""
        own = self._cut_of()
        return {self.cuts[cut].image_id for cut in np.unique(own if which is None else own[which])}

    def of_images(self, image_ids: Collection[str]) -> Bool[np.ndarray, " n"]:
        """Which of them are of these images."""
        chosen = np.array([cut.image_id in image_ids for cut in self.cuts], bool)
        return np.asarray(chosen[self._cut_of()], bool)

    @property
    def largest_px(self) -> int:
        """Pixels of the largest of them."""
        return max(self.cuts[cut].largest_px for cut in np.unique(self._cut_of()))

    def to_json(self) -> str:
        """As text; neighbours are told as runs, so that a few numbers tell thousands."""
        told: list[tuple[list[object], list[int]]] = []
        last = None
        for cut, number in self._places():
            if cut != last:
                told.append((list(astuple(self.cuts[cut])), [number, number]))
            runs = told[-1][1]
            if number == runs[-1]:
                runs[-1] += 1
            else:
                runs += [number, number + 1]
            last = cut
        return json.dumps(told, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Tasks:
        cuts, numbers, before = [], [np.arange(0)], 0
        for (job, kind, image_id, shape, size, fingerprint), runs in json.loads(text):
            cuts.append(Cut(job, kind, image_id, tuple(shape), size, fingerprint))
            numbers += [before + np.arange(*run) for run in zip(runs[::2], runs[1::2], strict=True)]
            before += len(cuts[-1])
        return cls(cuts, np.concatenate(numbers))

    def _some(self, numbers: Int[np.ndarray, " n"] | range) -> Tasks:
        some = Tasks.__new__(Tasks)
        some.cuts, some.begins, some._numbers = self.cuts, self.begins, numbers
        return some

    def _cut_of(self) -> Int[np.ndarray, " n"]:
        """Of each task its cut."""
        return np.searchsorted(self.begins, np.asarray(self._numbers, np.int64), side="right") - 1

    def _places(self) -> Iterator[tuple[int, int]]:
        """Of each task its cut, and its number in there."""
        cuts = self._cut_of()
        numbers = np.asarray(self._numbers, np.int64) - self.begins[cuts]
        yield from zip(cuts.tolist(), numbers.tolist(), strict=True)
