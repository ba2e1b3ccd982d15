"""What the receipts of a job say of its tasks: a few bytes for each, however many there are.

The driver reads each receipt once in a run and puts small files of them together meanwhile. What it keeps is for each
task whether it is done, and when that was said. At the end all receipts are read once more, piece by piece, for the
report.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import IntEnum

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from raydom.inference.job import JobPlan
from raydom.inference.tasks import Cut, Tasks

LOOK_EVERY_S = 10.0
"""How often the driver counts the files of receipts."""
MANY_FILES = 512
"""New files of receipts, of which so many are put together while a run goes on."""
MANY_SMALL = 32
"""The same of files that were put together, and are small still."""


class State(IntEnum):
    """What is known of a task."""

    UNKNOWN = 0
    OK = 1
    FAILED = 2
    """Or quarantined."""


class Ledger:
    """The state of a job's tasks. Only the driver that holds the output's lease has one.

    Args:
        plan: Of the job.
    """

    def __init__(self, plan: JobPlan) -> None:
        self._plan, self._folder = plan, plan.job.folder
        self._begin: dict[str, int] = {}
        self._cuts: dict[tuple[str, str], tuple[Cut, int]] = {}
        total = 0
        for kind, tasks in plan.stages.items():
            self._begin[kind] = total
            for cut, begin in zip(tasks.cuts, tasks.begins[:-1].tolist(), strict=True):
                self._cuts[kind, cut.image_id] = (cut, total + begin)
            total += len(tasks)
        self._state = np.full(total, State.UNKNOWN, np.uint8)
        self._said_at = np.full(total, -np.inf)
        self._read: set[str] = set()
        """Files of receipts that are in the state."""
        self._small: list[str] = []
        self._looked_at = time.monotonic()

    # -------------------------------------------------------------------------------------------------------- questions

    def is_known(self, kind: str) -> Bool[np.ndarray, " tasks"]:
        """Which tasks of a stage have a receipt that holds: of this recipe and content."""
        return np.asarray(self._of(kind) != State.UNKNOWN)

    def is_ok(self, kind: str) -> Bool[np.ndarray, " tasks"]:
        """Which tasks of a stage are done."""
        return np.asarray(self._of(kind) == State.OK)

    @property
    def num_unknown(self) -> int:
        """Tasks of all stages without such a receipt."""
        return int((self._state == State.UNKNOWN).sum())

    def to_do(self, kind: str) -> Tasks:
        """The tasks of a stage without a receipt, of images of which all that comes before is done."""
        stages = self._plan.stages
        tasks = stages.get(kind)
        if tasks is None:
            return Tasks([])
        if kind == "overview":  # which nobody needs any more once the blocks are done
            done = stages["block"].image_ids() - stages["block"].image_ids(~self.is_known("block"))
        else:
            order = list(stages)
            earlier = [one for one in order[: order.index(kind)] if kind == "block" or one != "overview"]
            done = set().union(*(stages[one].image_ids(~self.is_ok(one)) for one in earlier))
        return tasks.chosen(~self.is_known(kind) & ~tasks.of_images(done))

    def _of(self, kind: str) -> np.ndarray:
        begin = self._begin.get(kind, 0)
        return self._state[begin : begin + len(self._plan.stages.get(kind, ()))]

    # --------------------------------------------------------------------------------------------------------- receipts

    def look(self, *, at_end: bool = False) -> None:
        """Read what workers have told since, and put small files of receipts together; at the end all of them."""
        new = [path for path in self._folder.receipt_files() if path not in self._read]
        again = self._small if len(self._small) >= (2 if at_end else MANY_SMALL) else []

        def note(path: str, table: pa.Table) -> None:
            if path not in self._read:
                self._note(table)

        kept = self._folder.compact([*again, *new], note)
        self._read = (self._read - {*again}) | kept.keys()
        self._small = [] if again else self._small
        self._small += [path for path, is_small in kept.items() if is_small]
        self._looked_at = time.monotonic()

    def tidy(self) -> None:
        """Between two batches: put the files of receipts together if there are many."""
        if time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return
        self._looked_at = time.monotonic()
        if sum(path not in self._read for path in self._folder.receipt_files()) >= MANY_FILES:
            self.look()

    def forget_failures(self) -> None:
        """What failed or was quarantined until now is to be done again."""
        failed = self._state == State.FAILED
        self._state[failed] = State.UNKNOWN
        self._said_at[failed] = -np.inf

    def receipts(self) -> Iterator[tuple[Int[np.ndarray, " n"], pa.Table]]:
        """The receipts that hold, a table at a time, and the number of each one's task, counted through all stages."""
        told = np.zeros(len(self._state), bool)
        for _, table in self._folder.receipt_tables(sorted(self._read)):
            numbers, said_at = self._numbers(table), table["finished_at"].to_numpy()
            found = np.flatnonzero(numbers >= 0)
            ours = numbers[found]
            holds = (self._said_at[ours] == said_at[found]) & (self._state[ours] != State.UNKNOWN) & ~told[ours]
            rows, first = found[holds], np.unique(ours[holds], return_index=True)[1]  # of doubles one
            rows = np.sort(rows[first])
            told[numbers[rows]] = True
            yield numbers[rows], table.take(pa.array(rows))

    def _note(self, table: pa.Table) -> None:
        numbers, said_at = self._numbers(table), table["finished_at"].to_numpy()
        self._note_changes(table, said_at)
        is_ok = np.array([status == "ok" for status in table["status"].to_pylist()], bool)
        order = np.argsort(said_at, kind="stable")
        order = order[numbers[order] >= 0]
        order = order[said_at[order] > self._said_at[numbers[order]]]
        # Of several values for one place the last is kept.
        self._said_at[numbers[order]] = said_at[order]
        self._state[numbers[order]] = np.where(is_ok[order], State.OK, State.FAILED)

    def _note_changes(self, table: pa.Table, said_at: Float[np.ndarray, " rows"]) -> None:
        """What was done of an image before it was something else meanwhile is not known any more: the output holds
        pixels of that, or none."""
        changed_at: dict[str, float] = {}
        columns = (table[name].to_pylist() for name in ("kind", "image_id", "fingerprint"))
        for kind, image_id, fingerprint, at in zip(*columns, said_at.tolist(), strict=True):
            cut, _ = self._cuts.get((kind, image_id), (None, 0))
            if cut is not None and cut.fingerprint != fingerprint:
                changed_at[image_id] = max(at, changed_at.get(image_id, at))
        for image_id, at in changed_at.items():
            for kind in self._plan.stages:
                cut, begin = self._cuts.get((kind, image_id), (None, 0))
                own = slice(begin, begin + (0 if cut is None else len(cut)))
                is_before = self._said_at[own] <= at
                self._state[own][is_before] = State.UNKNOWN
                self._said_at[own][is_before] = at

    def _numbers(self, table: pa.Table) -> Int[np.ndarray, " rows"]:
        """Of each receipt the number of its task; -1 of those that are of none, or of another recipe or content."""
        numbers = np.full(len(table), -1, np.int64)
        columns = (table[name].to_pylist() for name in ("kind", "image_id", "block_id", "fingerprint"))
        for row, (kind, image_id, block_id, fingerprint) in enumerate(zip(*columns, strict=True)):
            cut, begin = self._cuts.get((kind, image_id), (None, 0))
            if cut is not None and cut.fingerprint == fingerprint:
                numbers[row] = begin + cut.number(block_id)
        return numbers
