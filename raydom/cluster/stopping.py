"""How the workers of a run learn that its driver was told to stop, and how the driver learns that they have.

The driver leaves a word in the cluster's own key-value store; workers look for it before each block, at most once a
second. A worker that finds it finishes the block that it is at, writes its receipts, and takes its mark away.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ray
from ray.experimental import internal_kv

from raydom.inference.stopping import settled, stop_asked
from raydom.storage.receipts import RunFolder

LOOK_EVERY_S = 1.0
"""How often a worker looks."""
ANSWER_S = 1.0
"""A worker does not wait longer for the answer, which does not come while its machine is cut off from the head."""
CONNECT_S = 5.0
"""A node that takes no connection within this time is not there."""
SETTLE_S = 2.0
"""After so long every worker that begins a batch has looked."""
NAMESPACE = "raydom"

logger = logging.getLogger(__name__)


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


def node_is_alive(node: str) -> bool:
    """Whether the head takes a node for alive and it can be reached: the head may take half a minute to learn more."""
    return any(
        entry["NodeID"] == node and entry["Alive"] and _is_there(entry["NodeManagerAddress"], entry["NodeManagerPort"])
        for entry in ray.nodes()
    )


def _is_there(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError:
        return False
    return True


@contextmanager
def drained(run_id: str, folders: Sequence[RunFolder]) -> Iterator[None]:
    """For the time of a ``with`` block, in which the driver waits for its workers, passes on to them that they are to
    stop; when none of them is at work any more, the block ends.

    Raises:
        StoppedError: When it was told to stop and they have.
    """
    over = threading.Event()

    def watch() -> None:  # on a thread: batches may take long to come back, or never begin
        while not stop_asked(wait_s=0.2):
            if over.is_set():
                return
        is_told, pause = False, 0.0
        while not over.wait(pause):
            try:
                if not is_told:
                    internal_kv._internal_kv_put(run_id, b"stop", namespace=NAMESPACE)
                    is_told, pause = True, SETTLE_S
                    continue
                pause = LOOK_EVERY_S / 2
                marks = [mark for folder in folders for mark in folder.marks(run_id).values()]
                if not any(node_is_alive(mark["node"]) for mark in marks):
                    settled(over)
                    return
            except Exception as error:  # the head, or the store, may be away for a moment
                logger.debug("the stop cannot be passed on: %s", error)
                pause = LOOK_EVERY_S / 2

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
