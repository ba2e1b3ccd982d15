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
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from raydom.errors import ClusterError, ConfigError, DataError
from raydom.storage import files

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
DEAD_AFTER_S = 60.0
"""A driver counts as dead when its heartbeat is so old; clocks of machines may differ by less than this."""
SETTLE_S = 1.0
"""Where nothing can be written exclusively, a driver that begins looks again after so long."""


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

        Of drivers that begin at once on a disk only one does: its file is made exclusively, and that of a dead driver
        is replaced under a lock of the file system (on some shared disks such locks do not reach other machines).
        Elsewhere (object stores, disks without hard links or locks) it is the last of those that write within
        ``SETTLE_S``; a driver that takes longer from its look to its write takes over from one that has begun, which
        learns it at its next heartbeat.

        Raises:
            ConfigError: When another driver that is alive holds it, naming its machine and process, and when the
                file cannot be written.
        """
        try:
            with _alone(self._uri) as is_locked:
                held = _read(self._uri)
                if held is not None and _is_alive(held):
                    raise ConfigError(
                        f"{self._uri}: another run is at work on this output (process {held['pid']} on {held['host']}, "
                        f"last seen {max(0.0, time.time() - held['seen_at']):.0f} s ago). Wait for it or stop it, then "
                        "give the command again; if it is dead, the lease can be taken over in a minute."
                    )
                self.predecessor_seen_at = None if held is None else float(held["seen_at"])
                is_begun = is_locked or (held is None and self._create())
                if is_locked:
                    self._write()
                elif not is_begun:
                    self._write()
                    time.sleep(SETTLE_S)
                    is_begun = self._is_mine()
        except FileExistsError:
            is_begun = False
        except OSError as error:
            raise ConfigError(
                f"{self._uri}: the output cannot be written ({error}). Make room or give the permission, or choose "
                "another --out."
            ) from error
        if not is_begun:
            raise ConfigError(
                f"{self._uri}: another run has just begun on this output. Wait for it, then try again; if there is "
                "none, remove this file."
            )

    def beat(self) -> None:
        """Say that this driver is alive, unless another one has taken over meanwhile."""
        with self._beating:
            try:
                with _alone(self._uri):
                    held = _read(self._uri)
                    if held is None or held["holder"] == self._me["holder"]:
                        self._write()
                    else:
                        self._lost = (
                            f"{self._uri}: process {held['pid']} on {held['host']} has taken over this output, because "
                            f"this run gave no sign of life for {time.time() - self._seen_at:.0f} s. It stops here; "
                            "what it finished is kept."
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
        # The disk may be why the run ends; the dead hold nothing anyway.
        with contextlib.suppress(OSError, ConfigError), _alone(self._uri):
            if self._is_mine():
                files.remove_files([self._uri])

    def _is_mine(self) -> bool:
        held = _read(self._uri)
        return held is not None and held["holder"] == self._me["holder"]

    def _create(self) -> bool:
        """Write the file where there is none; False where that cannot be done exclusively.

        Raises:
            FileExistsError: If another driver was faster.
        """
        now = time.time()
        is_made = files.create_json(self._uri, self._me | {"seen_at": now})
        self._seen_at = now
        return is_made

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


@contextmanager
def _alone(uri: str) -> Iterator[bool]:
    """Keeps other drivers from the lease that is there while this one looks and writes.

    Yields:
        Whether they are kept; not if there is no file yet, on object stores, and on disks without locks.
    """
    fs, path = files.file_system(uri)
    while isinstance(fs, LocalFileSystem) and fcntl is not None:
        try:
            descriptor = os.open(path, os.O_RDWR)  # network file systems lock only what may be written
        except (FileNotFoundError, NotADirectoryError):
            break
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                logger.debug("%s cannot be locked: %s", uri, error)
                break
            try:
                is_this = os.path.samestat(os.fstat(descriptor), Path(path).stat())
            except FileNotFoundError:
                is_this = False
            if is_this:  # else it was replaced or removed while this one waited
                yield True
                return
        finally:
            os.close(descriptor)
    yield False


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
    if held["host"] != socket.gethostname() or os.name == "nt":  # where os.kill would interrupt it
        return time.time() - held["seen_at"] < DEAD_AFTER_S
    try:
        os.kill(held["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives and is somebody else's
        pass
    return time.time() - held["seen_at"] < DEAD_AFTER_S  # else the number was given to another process since
