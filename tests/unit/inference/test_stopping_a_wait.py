"""A driver that is told to stop while it waits for workers that never come ends its wait."""

import os
import signal
import threading

import pytest

from raydom.errors import StoppedError
from raydom.inference.stopping import draining, settled, stop_asked


def test_the_wait_ends_when_no_block_is_in_flight_any_more():
    settling = threading.Thread(target=lambda: stop_asked(wait_s=60) and settled())
    with pytest.raises(StoppedError, match="blocks in flight are done"), draining():
        settling.start()
        os.kill(os.getpid(), signal.SIGTERM)  # alone it ends nothing: blocks may be in flight
        threading.Event().wait(60)
    settling.join()
    with draining():
        assert not stop_asked()
