"""Tells that a job waits for the first node that can do its work: one that an autoscaler starts takes minutes."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from raydom.cluster.autoscaler import read_capacity
from raydom.cluster.capacity import Capacity, Resources, describe, describe_types, room, workers_now

LOOK_EVERY_S = 1.0
TELL_EVERY_S = 60.0

logger = logging.getLogger(__name__)


class Waiting:
    """What to tell of it, and when.

    Args:
        needs: Of a worker; what it names first is what is waited for.
        workers: That must be there before work begins.
    """

    def __init__(self, needs: Resources, workers: int = 1) -> None:
        self._needs, self._workers = needs, workers
        self._had_them = False
        self._since: float | None = None
        self._told_at = 0.0

    def look(self, capacity: Capacity, now: float) -> str | None:
        """A line to print, if it is time for one.

        Args:
            capacity: The cluster as it is.
            now: Seconds of a clock.
        """
        what = self._what()
        if workers_now(capacity, self._needs) >= self._workers:
            since, self._since, self._had_them = self._since, None, True
            return None if since is None else f"{what} came after {now - since:.0f} s"
        if self._since is None:
            self._since = self._told_at = now
            return f"waiting for {what}: {self._missing(capacity)}, {_coming(capacity, self._needs)}"
        if now - self._told_at < TELL_EVERY_S:
            return None
        self._told_at = now
        return f"waiting for {what} since {now - self._since:.0f} s"

    def _what(self) -> str:
        if self._workers > 1:
            return f"room for {self._workers} workers"
        return f"{'another' if self._had_them else 'the first'} {next(iter(self._needs))}"

    def _missing(self, capacity: Capacity) -> str:
        each = describe(self._needs)
        if self._workers > 1:
            return f"of {each} each, there is room for {workers_now(capacity, self._needs)} now"
        return f"no node with {each} is there"


def _coming(capacity: Capacity, needs: Resources) -> str:
    if capacity.autoscaler is None:
        return "and Ray does not tell what its autoscaler can start"
    types = [kind for kind in capacity.autoscaler.types if room(kind.resources, needs)]
    if not types:
        return "and no autoscaler that could start one is at work"
    return f"the autoscaler can start {describe_types(types)}"


@contextmanager
def waiting_told(needs: Resources, quiet: bool, workers: int = 1) -> Iterator[None]:
    """For the time of a ``with`` block, prints when the cluster has no room for so many workers, and when it has."""
    if quiet:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        waiting = Waiting(needs, workers)
        while True:
            try:
                line = waiting.look(read_capacity(), time.monotonic())
            except Exception as error:  # the head may be away for a moment, which ends no job
                logger.debug("the nodes cannot be seen: %s", error)
                line = None
            if line:
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()
            if over.wait(LOOK_EVERY_S):
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
