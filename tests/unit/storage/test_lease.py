import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

import raydom.storage.lease as lease_module
from raydom.errors import ClusterError, ConfigError
from raydom.storage import files
from raydom.storage.lease import DEAD_AFTER_S, Lease, lease


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


@pytest.mark.parametrize("place", ["nothing", "damaged", "dead", "store", "disk without links or locks"])
def test_of_two_drivers_that_look_at_once_one_begins(tmp_path, monkeypatch, place):
    path = tmp_path / "lease.json"
    uri = "memory://test-lease/lease.json" if place == "store" else str(path)
    if place == "damaged":
        path.write_text("")
    if place == "dead":
        _held(path, host="elsewhere", seen_at=time.time() - 120)
    if place.startswith("disk"):
        monkeypatch.setattr(files.Path, "hardlink_to", _unsupported)
        monkeypatch.setattr(lease_module.fcntl, "flock", _unsupported)
    monkeypatch.setattr(lease_module, "SETTLE_S", 0.3)
    both_looked, waits_s, read = threading.Barrier(2), {"0": 0.0, "1": 0.1}, lease_module._read
    drivers, begun = [Lease(uri), Lease(uri)], []

    def look(uri):
        held, name = read(uri), threading.current_thread().name
        if name in waits_s:
            wait_s = waits_s.pop(name)
            with contextlib.suppress(threading.BrokenBarrierError):  # the other one is kept from looking
                both_looked.wait(0.3)
            time.sleep(wait_s)  # the first writes and looks again before the second writes
        return held

    def begin(driver):
        with contextlib.suppress(ConfigError):
            driver.take()
            begun.append(driver)

    monkeypatch.setattr(lease_module, "_read", look)
    threads = [threading.Thread(target=begin, args=(one,), name=str(n)) for n, one in enumerate(drivers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1 and begun[0]._is_mine()
    begun[0].release()
    assert not files.exists(uri) and not list(tmp_path.iterdir())


def _unsupported(*arguments):
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


def test_the_heart_beats(tmp_path):
    path = tmp_path / "lease.json"
    with lease(str(path), heartbeat_s=0.02):
        first = json.loads(path.read_text())["seen_at"]
        deadline = time.monotonic() + 5
        while json.loads(path.read_text())["seen_at"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def _wait(until):
    deadline = time.monotonic() + 5
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_driver_that_was_taken_for_dead_is_told_and_leaves_the_lease_to_its_successor(tmp_path):
    path = tmp_path / "lease.json"
    with pytest.raises(ClusterError, match="process 4711 on elsewhere has taken over"), lease(str(path), 0.02) as held:
        held.check()
        _held(path, holder="another", host="elsewhere", pid=4711)
        _wait(lambda: held._lost)
        held.check()
    assert json.loads(path.read_text())["holder"] == "another"


def test_a_driver_that_was_suspended_looks_before_it_goes_on(tmp_path):
    path = tmp_path / "lease.json"
    held = Lease(str(path))
    held.take()
    _held(path, holder="another", pid=4711)
    held._seen_at -= DEAD_AFTER_S  # as if this process had been stopped: its heart as well
    with pytest.raises(ClusterError, match="process 4711"):
        held.check()


def test_the_heart_survives_a_disk_that_fails_for_a_moment_but_not_one_that_fails_until_the_lease_is_up(
    tmp_path, monkeypatch
):
    path = tmp_path / "lease.json"
    held = Lease(str(path))
    held.take()
    first = path.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", _no_space)
        held.beat()
    held.check()
    held.beat()
    assert path.read_text() != first
    monkeypatch.setattr(files, "write_json", _no_space)
    held._seen_at -= DEAD_AFTER_S
    with pytest.raises(ClusterError, match=r"could not be renewed for 6\d s .*No space left"):
        held.check()


def _no_space(uri, content):
    raise OSError(28, "No space left on device", uri)


@pytest.mark.parametrize("content", ["", '{"holder": "x", "ho', "[]", '{"holder": "x"}'])
def test_a_damaged_lease_is_nobody_s_and_an_output_that_cannot_be_written_is_refused(tmp_path, content, monkeypatch):
    path = tmp_path / "lease.json"
    path.write_text(content)
    with lease(str(path)):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    monkeypatch.setattr(files, "write_json", _no_space)
    with pytest.raises(ConfigError, match=r"cannot be written \(.*No space left.*another --out"), lease(str(path)):
        pass
