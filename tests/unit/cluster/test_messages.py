import logging

from ray._private import worker as ray_worker

from raydom.cluster import messages

LOST = """The node with node id: 00bf5c and address: 10.231.7.2 and node name: node1 has been marked dead because the \
detector has missed too many heartbeats from it. This can happen when a \t(1) raylet crashes unexpectedly (OOM, etc.)
\t(2) raylet has lagging heartbeats due to slow network or busy workload."""
AGAIN = "Task _map_task failed. There are infinite retries remaining, so the task will be retried. Error: "
NODE = AGAIN + "Task failed because the node it was running on is dead or unavailable. Node IP: 10.231.7.2."
RAYLET = """Raylet is terminated. Termination is unexpected. Last 20 lines of the Raylet logs:
    *** StackTrace Information ***"""
DIED = """A worker died or was killed while executing a task by an unexpected system error. To troubleshoot the \
problem, check the logs for the dead worker. Lease ID: 17 Worker ID: 43c5 Node ID: d802 Worker IP address: 10.231.7.2 \
Worker port: 18690 Worker PID: 116 Worker exit type: SYSTEM_ERROR Worker exit detail: """
CRASH = DIED + "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1)"
FULL = (
    DIED
    + """Worker exits with an exit code None. Traceback (most recent call last):
  File "python/ray/_raylet.pyx", line 2693, in ray._raylet.task_execution_handler
OSError: [Errno 28] No space left on device
An unexpected internal error occurred while the worker was executing a task."""
)
INTERNAL = FULL[FULL.index("Traceback") :]
WAIT = "There are tasks with infeasible resource requests that cannot be scheduled. See https://docs.ray.io."
OTHER = "Memory on the node was 7.0GB/8.0GB, which exceeds the memory usage threshold. Ray killed this worker."


def test_losses_are_told_in_a_line_each_and_everything_else_is_printed_as_ever(monkeypatch, caplog):
    printed = []
    monkeypatch.setattr(ray_worker, "print_to_stdstream", lambda data, ignore_prefix: printed.append(data["lines"]))
    for _ in range(2):  # a session may follow another
        messages.in_a_line()
    with caplog.at_level(logging.WARNING):
        for message in (NODE, LOST, RAYLET, LOST, AGAIN, CRASH, INTERNAL, FULL, WAIT, OTHER):
            ray_worker.print_to_stdstream({"lines": [message], "pid": "raylet", "is_err": False}, ignore_prefix=False)
        ray_worker.print_to_stdstream({"lines": [RAYLET], "pid": 7, "is_err": False}, ignore_prefix=False)
    assert printed == [[OTHER], [RAYLET]]
    lost, crashed, full = caplog.messages
    assert lost.startswith("node1 (10.231.7.2) is lost")
    assert crashed.startswith("a worker on 10.231.7.2 died (killed, out of memory, or a crash in native code).")
    assert full.startswith("a worker on 10.231.7.2 died (OSError: [Errno 28] No space left on device).")


def test_this_ray_has_the_function_that_is_replaced():
    assert callable(ray_worker.print_to_stdstream)
