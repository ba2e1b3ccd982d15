"""What is told while a job waits for nodes: at once, then each minute, then that they came."""

from raydom.cluster.capacity import Autoscaler, Capacity, NodeType
from raydom.cluster.waiting import Waiting

GPU = NodeType("gpu", {"CPU": 8, "GPU": 1}, 8)
EMPTY = Capacity({}, (), Autoscaler((NodeType("cpu", {"CPU": 8}, 4), GPU), 12))
ONE = Capacity({}, (GPU.resources,), EMPTY.autoscaler)
NEEDS = {"GPU": 1.0, "CPU": 1.0}


def test_the_wait_for_the_first_gpu_is_told_at_once_and_each_minute():
    waiting = Waiting(NEEDS)
    assert waiting.look(EMPTY, 100.0) == (
        "waiting for the first GPU: no node with 1 GPU and 1 CPU is there, the autoscaler can start gpu (1 GPU and 8 "
        "CPUs, up to 8)"
    )
    lines = {second: line for second in range(101, 235) if (line := waiting.look(EMPTY, second))}
    assert lines == {160: "waiting for the first GPU since 60 s", 220: "waiting for the first GPU since 120 s"}
    assert waiting.look(ONE, 235.0) == "the first GPU came after 135 s"
    assert waiting.look(ONE, 236.0) is None


def test_nothing_is_told_where_nothing_is_waited_for_and_lost_gpus_are_told():
    waiting = Waiting(NEEDS)
    assert waiting.look(ONE, 0.0) is None
    assert waiting.look(EMPTY, 1.0).startswith("waiting for another GPU: no node with 1 GPU")
    assert waiting.look(ONE, 31.0) == "another GPU came after 30 s"


def test_an_autoscaler_that_does_not_tell_and_none_at_all_are_told_apart():
    unknown = Waiting({"CPU": 2.0}).look(Capacity({}, (), None), 0.0)
    assert unknown == (
        "waiting for the first CPU: no node with 2 CPUs is there, and Ray does not tell what its autoscaler can start"
    )
    assert (
        Waiting(NEEDS)
        .look(Capacity({}, (), Autoscaler()), 0.0)
        .endswith("no autoscaler that could start one is at work")
    )


def test_a_training_tells_how_many_of_its_workers_have_room():
    told = Waiting(NEEDS, workers=3).look(ONE, 0.0)
    assert told.startswith("waiting for room for 3 workers: of 1 GPU and 1 CPU each, there is room for 1 now, the")
