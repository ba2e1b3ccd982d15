import json
import os
import socket
import subprocess
import sys
import time

import pytest

from raydom.errors import ConfigError
from raydom.storage.lease import lease


def _held(path, **fields):
    holder = {"holder": "x", "host": socket.gethostname(), "pid": os.getpid(), "seen_at": time.time()} | fields
    path.write_text(json.dumps(holder))


def test_a_second_driver_is_refused_and_the_lease_ends_with_the_first(tmp_path):
    path = tmp_path / "lease.json"
    told = rf"process {os.getpid()} on .*last seen 0 s ago"
    with lease(str(path)), pytest.raises(ConfigError, match=told), lease(str(path)):
        pass
    assert not path.exists()
    with lease(str(path)):
        pass


def test_it_is_taken_over_from_a_dead_process_at_once_and_from_a_silent_machine_later(tmp_path):
    path = tmp_path / "lease.json"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    _held(path, pid=gone.pid)
    with lease(str(path)):
        pass
    _held(path, host="elsewhere")
    with pytest.raises(ConfigError, match="on elsewhere"), lease(str(path)):
        pass
    _held(path, host="elsewhere", seen_at=time.time() - 120)
    with lease(str(path)):
        pass


def test_the_heart_beats(tmp_path):
    path = tmp_path / "lease.json"
    with lease(str(path), heartbeat_s=0.02):
        first = json.loads(path.read_text())["seen_at"]
        deadline = time.monotonic() + 5
        while json.loads(path.read_text())["seen_at"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.02)
