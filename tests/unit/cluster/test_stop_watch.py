import threading
import time

from raydom.cluster import stopping
from raydom.cluster.stopping import StopWatch


def test_a_worker_goes_on_while_the_head_does_not_answer_and_stops_once_it_does(monkeypatch):
    back, asked = threading.Event(), []

    def exists(key, namespace):
        asked.append(key)
        return back.wait(60)

    monkeypatch.setattr(stopping.internal_kv, "_internal_kv_exists", exists)
    monkeypatch.setattr(stopping, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(stopping, "ANSWER_S", 0.05)
    watch = StopWatch("run")
    assert [watch() for _ in range(5)] == [False] * 5
    assert asked == ["run"]  # not a question more before that one is answered
    back.set()
    deadline = time.monotonic() + 30
    while not watch() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert watch()
