"""A driver that is told to stop while it waits for workers that never come ends its wait."""

import os
import signal
import threading

import pytest

from raydom.errors import StoppedError
from raydom.inference.stopping import draining, settled, stop_asked


def wait_to_be_stopped(wait):
    over = threading.Event()
    settling = threading.Thread(target=lambda: stop_asked(wait_s=60) and settled(over))
    settling.start()
    try:
        os.kill(os.getpid(), signal.SIGTERM)  # alone it ends nothing: blocks may be in flight
        wait()
    finally:
        over.set()
        settling.join()


def test_the_wait_ends_when_no_block_is_in_flight_any_more():
    with pytest.raises(StoppedError, match="blocks in flight are done"), draining():
        wait_to_be_stopped(lambda: threading.Event().wait(60))
    with draining():
        assert not stop_asked()


def test_a_wait_that_begins_just_after_the_signal_ends_too(monkeypatch):
    sent = []
    kill = signal.pthread_kill

    def lost_at_first(thread, number):
        sent.append(number)
        if len(sent) > 1:
            kill(thread, number)

    monkeypatch.setattr(signal, "pthread_kill", lost_at_first)
    with pytest.raises(StoppedError), draining():
        wait_to_be_stopped(lambda: threading.Event().wait(60))
    assert len(sent) == 2
