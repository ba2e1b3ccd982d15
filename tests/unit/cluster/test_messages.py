import logging

from ray._private import worker as ray_worker

from raydom.cluster import messages

LOST = """The node with node id: 00bf5c and address: 10.231.7.2 and node name: node1 has been marked dead because the \
detector has missed too many heartbeats from it. This can happen when a \t(1) raylet crashes unexpectedly (OOM, etc.)
\t(2) raylet has lagging heartbeats due to slow network or busy workload."""
AGAIN = "Task _map_task failed. There are infinite retries remaining, so the task will be retried. Error: "
NODE = AGAIN + "Task failed because the node it was running on is dead or unavailable. Node IP: 10.231.7.2."
CRASH = AGAIN + "The worker died."
RAYLET = """Raylet is terminated. Termination is unexpected. Last 20 lines of the Raylet logs:
    *** StackTrace Information ***"""

WAIT = "There are tasks with infeasible resource requests that cannot be scheduled. See https://docs.ray.io."


def test_a_lost_node_is_one_line_and_everything_else_is_printed_as_ever(monkeypatch, caplog):
    printed = []
    monkeypatch.setattr(ray_worker, "print_to_stdstream", lambda data, ignore_prefix: printed.append(data["lines"]))
    for _ in range(2):  # a session may follow another
        messages.in_a_line()
    with caplog.at_level(logging.WARNING):
        for message in (NODE, LOST, RAYLET, LOST, CRASH, WAIT):
            ray_worker.print_to_stdstream({"lines": [message], "pid": "raylet", "is_err": False}, ignore_prefix=False)
        ray_worker.print_to_stdstream({"lines": [RAYLET], "pid": 7, "is_err": False}, ignore_prefix=False)
    assert printed == [[CRASH], [RAYLET]]
    (told,) = caplog.messages
    assert told.startswith("node node1 (10.231.7.2) is lost")


def test_this_ray_has_the_function_that_is_replaced():
    assert callable(ray_worker.print_to_stdstream)
