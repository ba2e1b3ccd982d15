import signal

import pytest

from raydom.cluster import session
from raydom.cluster.capacity import Autoscaler, Capacity
from raydom.config import RunConfig
from raydom.errors import ClusterError, ConfigError


@pytest.mark.parametrize(
    ("address", "raised", "told", "error"),
    [
        (None, Exception("The current node timed out during startup."), r"timed out.*--serial", ClusterError),
        ("1.2.3.4:5", ConnectionError("nobody there"), r"1\.2\.3\.4:5.*nobody there.*--address", ConfigError),
    ],
)
def test_a_ray_that_does_not_start_or_answer_is_told_with_the_remedy(monkeypatch, address, raised, told, error):
    def init(**options):
        raise raised

    monkeypatch.setattr(session.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(session.ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", "")  # the session changes it
    with pytest.raises(error, match=told), session.ray_session(RunConfig(address=address)):
        pass


def test_an_embedded_ray_opens_no_dashboard_and_a_handler_of_sigterm_outlives_it(monkeypatch):
    given = {}

    def init(**options):
        given.update(options)
        signal.signal(signal.SIGTERM, lambda *_: None)  # as Ray does

    monkeypatch.setattr(session.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(session.ray, "init", init)
    monkeypatch.setattr(session.ray, "shutdown", lambda: None)
    monkeypatch.setattr(session, "read_capacity", lambda: Capacity({"CPU": 1.0}, (), Autoscaler()))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", "")
    before = signal.getsignal(signal.SIGTERM)

    def ours(*_):
        pass

    try:
        signal.signal(signal.SIGTERM, ours)
        with session.ray_session(RunConfig()):
            assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)
    assert given["include_dashboard"] is False and given["address"] == "local"
