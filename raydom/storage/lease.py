"""One driver at a time: a lease on an output folder, kept alive by a heartbeat and taken over from the dead."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raydom.errors import ClusterError, ConfigError, DataError
from raydom.storage import files

logger = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
DEAD_AFTER_S = 60.0
"""A driver counts as dead when its heartbeat is so old; clocks of machines may differ by less than this."""


class Lease:
    """That this process may write an output; lost when another driver took this one for dead.

    Args:
        uri: The small file that names the holder.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._me = {"holder": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid()}
        self._seen_at = time.time()
        self._lost: str | None = None
        self.predecessor_seen_at: float | None = None
        """When the dead driver that it was taken over from was last seen (as ``time.time``); None if there was none."""
        self._beating = threading.Lock()

    def take(self) -> None:
        """Begin to hold it.

        Raises:
            ConfigError: When another driver that is alive holds it, naming its machine and process, and when the
                file cannot be written.
        """
        held = _read(self._uri)
        if held is not None and _is_alive(held):
            raise ConfigError(
                f"{self._uri}: another run is at work on this output (process {held['pid']} on {held['host']}, last "
                f"seen {max(0.0, time.time() - held['seen_at']):.0f} s ago). Wait for it or stop it, then give the "
                "command again; if it is dead, the lease can be taken over in a minute."
            )
        self.predecessor_seen_at = None if held is None else float(held["seen_at"])
        try:
            self._write()
        except OSError as error:
            raise ConfigError(
                f"{self._uri}: the output cannot be written ({error}). Make room or give the permission, or choose "
                "another --out."
            ) from error
        if not self._is_mine():  # two began at once: the last to write holds it
            raise ConfigError(f"{self._uri}: another run has just begun on this output. Wait for it, then try again.")

    def beat(self) -> None:
        """Say that this driver is alive, unless another one has taken over meanwhile."""
        with self._beating:
            try:
                held = _read(self._uri)
                if held is None or held["holder"] == self._me["holder"]:
                    self._write()
                else:
                    self._lost = (
                        f"{self._uri}: process {held['pid']} on {held['host']} has taken over this output, because "
                        f"this run gave no sign of life for {time.time() - self._seen_at:.0f} s. It stops here; what "
                        "it finished is kept."
                    )
            except Exception as error:  # whatever a store raises: it may work again at the next beat
                silent_s = time.time() - self._seen_at
                logger.warning("%s: no heartbeat for %.0f s: %s", self._uri, silent_s, error)
                if silent_s > DEAD_AFTER_S - HEARTBEAT_S:
                    self._lost = (
                        f"{self._uri}: it could not be renewed for {silent_s:.0f} s ({error}), so that another run may "
                        "take over this output. It stops here; the same command goes on from there."
                    )

    def check(self) -> None:
        """Make sure that it is still held.

        Raises:
            ClusterError: When another driver took over, or when it could, naming it.
        """
        if self._lost is None and time.time() - self._seen_at > DEAD_AFTER_S / 2:  # suspended, or its disk was
            self.beat()
        if self._lost is not None:
            raise ClusterError(self._lost)

    def release(self) -> None:
        """End it, unless it is another driver's by now."""
        with contextlib.suppress(OSError):  # the disk may be why the run ends; the dead hold nothing anyway
            if self._is_mine():
                files.remove(self._uri)

    def _is_mine(self) -> bool:
        held = _read(self._uri)
        return held is not None and held["holder"] == self._me["holder"]

    def _write(self) -> None:
        now = time.time()
        files.write_json(self._uri, self._me | {"seen_at": now})
        self._seen_at = now


@contextmanager
def lease(uri: str, heartbeat_s: float = HEARTBEAT_S) -> Iterator[Lease]:
    """Hold the lease at ``uri``, a small file, for the time of a ``with`` block.

    Raises:
        ConfigError: When another driver that is alive holds it, or the file cannot be written.
    """
    held = Lease(uri)
    held.take()
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(heartbeat_s):
            held.beat()

    heart = threading.Thread(target=live, daemon=True)
    heart.start()
    try:
        yield held
    finally:
        ended.set()
        heart.join()
        held.release()


def _read(uri: str) -> dict[str, Any] | None:
    """Who holds the lease. A damaged one is nobody's: a holder that lives notices when it is taken."""
    try:
        held = files.read_json(uri)
    except FileNotFoundError:
        return None
    except DataError as error:
        logger.warning("%s; it is taken as nobody's.", error)
        return None
    if not isinstance(held, dict) or not {"holder", "host", "pid", "seen_at"} <= held.keys():
        logger.warning("%s: it does not name its holder; it is taken as nobody's.", uri)
        return None
    return held


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
