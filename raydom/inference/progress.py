"""Progress of long work: a bar on a terminal, plain lines elsewhere, nothing when told to be quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 5.0


class ProgressReport:
    """Counts pieces of work; use as a context manager.

    Args:
        label: What is being done.
        total: Number of pieces.
        unit: What a piece is called, in the plural.
        quiet: Print nothing.
    """

    def __init__(self, label: str, total: int, unit: str = "blocks", quiet: bool = False) -> None:
        self.label, self.total, self.unit, self.quiet = label, total, unit, quiet
        self.done = self.failed = 0
        self._began = self._last_line = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> ProgressReport:
        self._began = self._last_line = time.monotonic()
        if not self.quiet and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[failures]}"),
                transient=False,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total or None, rate="", failures="")
        elif not self.quiet and self.total:
            self._line()
        return self

    def update(self, done: int = 1, failed: int = 0) -> None:
        """Count finished pieces; ``failed`` of the ``done`` ones went wrong."""
        self.done += done
        self.failed += failed
        if self._bar is not None:
            rate = f"{self._rate():.2f} {self.unit}/s"
            failures = f"{self.failed} failed" if self.failed else ""
            self._bar.update(self._task, completed=self.done, rate=rate, failures=failures)
        elif not self.quiet and time.monotonic() - self._last_line > LINE_EVERY_S:
            self._line()

    def at(self, done: int, total: int, failed: int = 0) -> None:
        """Set how many pieces are done, how many there are, and how many of those done went wrong."""
        if self._bar is not None:
            self._bar.update(self._task, total=total)
        self.total = total
        self.update(done - self.done, failed - self.failed)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif not self.quiet:
            self._line()

    def _rate(self) -> float:
        return self.done / max(time.monotonic() - self._began, 1e-9)

    def _line(self) -> None:
        self._last_line = time.monotonic()
        parts = [f"{self.label}: {self.done}/{self.total} {self.unit}"]
        if self.done:
            left = (self.total - self.done) / self._rate()
            parts += [f"{self._rate():.2f} {self.unit}/s", f"ETA {left:.0f} s"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        sys.stderr.write(", ".join(parts) + "\n")
        sys.stderr.flush()
