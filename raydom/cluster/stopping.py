"""How the workers of a run learn that its driver was told to stop, and how the driver learns that they have.

The driver leaves a word in the cluster's own key-value store; workers look for it before each block, at most once a
second. A worker that finds it finishes the block that it is at, writes its receipts, and takes its mark away.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ray.experimental import internal_kv

from raydom.inference.stopping import stop_asked
from raydom.storage.receipts import RunFolder

LOOK_EVERY_S = 1.0
"""How often a worker looks."""
ANSWER_S = 1.0
"""A worker does not wait longer for the answer, which does not come while its machine is cut off from the head."""
SETTLE_S = 2.0
"""After so long every worker that begins a batch has looked."""
NAMESPACE = "raydom"


class StopWatch:
    """Asked by a worker before each block: has the driver of this run been told to stop?

    That the head does not answer stops no worker.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._is_told = False
        self._looked = -LOOK_EVERY_S
        self._looking: threading.Thread | None = None

    def __call__(self) -> bool:
        waits = self._looking is not None and self._looking.is_alive()
        if not self._is_told and not waits and time.monotonic() - self._looked >= LOOK_EVERY_S:
            self._looking = threading.Thread(target=self._look, daemon=True)  # Ray's calls wait for minutes
            self._looking.start()
            self._looking.join(ANSWER_S)
            self._looked = time.monotonic()
        return self._is_told

    def _look(self) -> None:
        with contextlib.suppress(Exception):
            self._is_told = bool(internal_kv._internal_kv_exists(self._run_id, namespace=NAMESPACE))


class Draining:
    """Tells the workers of a run when its driver is told to stop, and knows when none of them is at work any more."""

    def __init__(self, run_id: str, folders: Sequence[RunFolder]) -> None:
        self._run_id, self._folders = run_id, folders
        self._told_at: float | None = None
        self._looked = 0.0
        self._ended = threading.Event()

    def tell(self) -> None:
        """Wait for the stop, or the end, and pass it on; on a thread, as batches may take long to come back."""
        while not self._ended.is_set():
            if stop_asked(wait_s=0.2):
                internal_kv._internal_kv_put(self._run_id, b"stop", namespace=NAMESPACE)
                self._told_at = time.monotonic()
                return

    def end(self) -> None:
        """The run is over."""
        self._ended.set()

    def is_done(self) -> bool:
        """Whether the stop was told and every worker has finished what it was at."""
        now = time.monotonic()
        if self._told_at is None or now - self._told_at < SETTLE_S or now - self._looked < 0.5:
            return False
        self._looked = now
        return not any(folder.mark_files(self._run_id) for folder in self._folders)


@contextmanager
def drained(run_id: str, folders: Sequence[RunFolder]) -> Iterator[Draining]:
    """For the time of a ``with`` block, passes on to the workers of a run that it is to stop."""
    draining = Draining(run_id, folders)
    teller = threading.Thread(target=draining.tell, daemon=True)
    teller.start()
    try:
        yield draining
    finally:
        draining.end()
        teller.join()
