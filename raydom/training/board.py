"""The metrics of a training as TensorBoard shows them."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from raydom.storage import files
from raydom.training.loop import Report

MAX_POINTS = 5000
"""About how many points a curve has at most."""


class Board:
    """Writes TensorBoard event files to ``OUT/tensorboard``; a training that goes on goes on there.

    Event files grow in place, which object stores do not allow: for a run in one nothing is written, and the table of
    metrics in the run has the same figures. Use as a context manager.
    """

    def __init__(self, out: str, num_steps: int) -> None:
        self._folder = None if files.is_url(out) else files.join(out, "tensorboard")
        self._every = max(1, num_steps // MAX_POINTS)
        self._writer: Any = None

    def __enter__(self) -> Board:
        return self

    def update(self, report: Report) -> None:
        """Write a report, if it is its turn; steps that are done again after a restart take the place of the former."""
        if self._folder is None or (report.step % self._every and report.score is None):
            return
        if self._writer is None:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(self._folder, purge_step=report.step)
        for name, value in report.losses.items():
            self._writer.add_scalar(name.replace(".", "/"), value, report.step)
        self._writer.add_scalar("learning_rate", report.learning_rate, report.step)
        if report.score is not None:
            self._writer.add_scalar("score", report.score, report.step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
