"""One driver at a time: a lease on an output folder, kept alive by a heartbeat and taken over from the dead."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raydom.errors import ConfigError
from raydom.storage import files

HEARTBEAT_S = 5.0
DEAD_AFTER_S = 60.0
"""A driver on another machine counts as dead when its heartbeat is so old; clocks may differ by less than this."""


@contextmanager
def lease(uri: str, heartbeat_s: float = HEARTBEAT_S) -> Iterator[None]:
    """Hold the lease at ``uri``, a small file, for the time of a ``with`` block.

    Raises:
        ConfigError: When another driver that is alive holds it, naming its machine and process.
    """
    mine = {"holder": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid()}
    held = _read(uri)
    if held is not None and _is_alive(held):
        raise ConfigError(
            f"{uri}: another run is at work on this output (process {held['pid']} on {held['host']}, last seen "
            f"{max(0.0, time.time() - held['seen_at']):.0f} s ago). Wait for it or stop it, then give the command "
            "again; if it is dead, the lease can be taken over in a minute."
        )
    files.write_json(uri, mine | {"seen_at": time.time()})
    now = _read(uri)
    if now is None or now["holder"] != mine["holder"]:  # two began at once: the last to write holds it
        raise ConfigError(f"{uri}: another run has just begun on this output. Wait for it, then try again.")
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(heartbeat_s):
            files.write_json(uri, mine | {"seen_at": time.time()})

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        files.remove(uri)


def _read(uri: str) -> dict[str, Any] | None:
    try:
        return files.read_json(uri)
    except FileNotFoundError:
        return None


def _is_alive(held: dict[str, Any]) -> bool:
    if held["host"] != socket.gethostname():
        return time.time() - held["seen_at"] < DEAD_AFTER_S
    try:
        os.kill(held["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives and is somebody else's
        pass
    return time.time() - held["seen_at"] < DEAD_AFTER_S  # else the number was given to another process since
