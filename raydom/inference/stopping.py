"""What a driver does when it is told to end (SIGTERM, as ``raydom stop`` and batch systems send it)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from raydom.errors import StoppedError

_asked = threading.Event()
_settled = threading.Event()
_ended = threading.Event()
AGAIN_S = 0.5
STOPPED = "told to stop: the blocks in flight are done and have their receipts."


@contextmanager
def draining() -> Iterator[None]:
    """For the time of a ``with`` block SIGTERM is only noted, so that blocks in flight can be finished.

    Use it inside a Ray session: Ray sets a handler of its own when it is joined. Outside the main thread, where no
    signal arrives, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(*_: object) -> None:
        _asked.set()
        if _settled.is_set() and not _ended.is_set():
            _ended.set()
            raise StoppedError(STOPPED)

    for event in (_asked, _settled, _ended):
        event.clear()
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _asked.clear()


def stop_asked(wait_s: float = 0.0) -> bool:
    """Whether the end was asked for; waits so long for it."""
    return _asked.wait(wait_s) if wait_s else _asked.is_set()


def settled(over: threading.Event) -> None:
    """Called on another thread when no block is in flight any more: ends what the main thread waits for, which may be
    a worker that never comes.

    Args:
        over: Set when the main thread waits no more, and before the handler of the signal is taken away.
    """
    _settled.set()
    while not over.is_set():  # a signal that comes just before the wait does not end it
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        if _ended.wait(AGAIN_S):
            break


def check_stop() -> None:
    """End here if that was asked for.

    Raises:
        StoppedError: If so.
    """
    if stop_asked():
        raise StoppedError(STOPPED)
