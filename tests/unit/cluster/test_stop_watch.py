import threading
import time

from raydom.cluster import stopping
from raydom.cluster.stopping import StopWatch, drained
from raydom.storage.receipts import RunFolder


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


def test_a_stop_is_passed_on_although_head_and_store_are_away_for_a_moment(monkeypatch):
    told, looked, ended = [], [], threading.Event()

    def put(key, value, namespace):
        told.append(key)
        if len(told) == 1:
            raise ConnectionError("the head is away")

    def marks(folder, run_id):
        looked.append(run_id)
        if len(looked) == 1:
            raise OSError("the store is away")
        return {}

    monkeypatch.setattr(stopping.internal_kv, "_internal_kv_put", put)
    monkeypatch.setattr(RunFolder, "marks", marks)
    monkeypatch.setattr(stopping, "stop_asked", lambda wait_s: True)
    monkeypatch.setattr(stopping, "settled", lambda over: ended.set())
    monkeypatch.setattr(stopping, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(stopping, "SETTLE_S", 0.02)
    with drained("run", [RunFolder("out")]):
        assert ended.wait(60)
    assert told == ["run"] * 2 and looked == ["run"] * 2
