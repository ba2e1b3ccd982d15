"""An actor that passes the progress of a training to its driver. Imports nothing heavy, so that it starts quickly."""

from __future__ import annotations

from typing import Any


class Mailbox:
    """Holds reports, plain dictionaries, until they are taken."""

    def __init__(self) -> None:
        self._reports: list[dict[str, Any]] = []

    def put(self, report: dict[str, Any]) -> None:
        """Keep a report; between two calls of ``take``, those with a score and the last are kept."""
        self._reports = [kept for kept in self._reports if kept["score"] is not None] + [report]

    def take(self) -> list[dict[str, Any]]:
        """The reports since the last call."""
        taken, self._reports = self._reports, []
        return taken
