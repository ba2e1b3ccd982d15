"""Progress of a training: a bar on a terminal, plain lines elsewhere, nothing when told to be quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from raydom.training.loop import Report

LINE_EVERY_S = 5.0


class TrainingProgress:
    """Shows steps, ETA, losses and scores on the standard error stream; use as a context manager."""

    def __init__(self, label: str, num_steps: int, quiet: bool = False) -> None:
        self._label, self._num_steps, self._quiet = label, num_steps, quiet
        self._bar: Progress | None = None
        self._first: tuple[int, float] | None = None
        self._last: Report | None = None
        self._score: float | None = None
        self._last_line = 0.0

    def __enter__(self) -> TrainingProgress:
        if not self._quiet and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
            times = (TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[values]}"))
            self._bar = Progress(*columns, *times)
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self._num_steps, values="")
        return self

    def update(self, report: Report) -> None:
        """Show a report; after a restart, steps may go back."""
        new_score = report.score is not None
        self._last, self._score = report, report.score if new_score else self._score
        if self._first is None or report.step < self._first[0]:
            self._first = (report.step, time.monotonic())
        if self._bar is not None:
            self._bar.update(self._task, completed=report.step, values=self._values())
        elif not self._quiet and (new_score or time.monotonic() - self._last_line > LINE_EVERY_S):
            self._line()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _values(self) -> str:
        assert self._last is not None
        values = [f"{name} {value:.3f}" for name, value in self._last.losses.items()]
        if self._score is not None:
            values.append(f"validation score {self._score:.3f} (best {self._last.best_score or 0.0:.3f})")
        return ", ".join(values)

    def _line(self) -> None:
        assert self._last is not None and self._first is not None
        self._last_line = time.monotonic()
        done = self._last.step - self._first[0]
        left = (self._num_steps - self._last.step) * (self._last_line - self._first[1]) / done if done else None
        eta = "" if left is None else f", ETA {left:.0f} s"
        sys.stderr.write(f"{self._label}: {self._last.step}/{self._num_steps} steps{eta}, {self._values()}\n")
        sys.stderr.flush()
