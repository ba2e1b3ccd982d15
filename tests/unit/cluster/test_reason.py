import pytest
from ray.exceptions import RayError

from raydom.cluster.blocks import _failure

ACCOUNT = """\x1b[36mray::MapWorker(MapBatches(BlockActor)).submit()\x1b[39m (pid=2819, ip=192.0.2.2)
  File "threads.py", line 58, in run
    result = self.fn(*self.args, **self.kwargs)
OSError: [Errno 28] No space left on device: '/x/y'

The above exception was the direct cause of the following exception:

ray.exceptions.UserCodeException: UDF failed to process a data block.
To change retry attempts, configure `ray.data.DataContext.get_current()` if you believe this to be transient."""


@pytest.mark.parametrize(
    ("account", "told"),
    [
        (ACCOUNT, "OSError: [Errno 28] No space left on device: '/x/y', on the node 192.0.2.2"),
        ("The actor died.\nIts node was lost.", "Its node was lost"),
        ("", "RayError"),
    ],
)
def test_what_a_worker_raised_is_told_and_not_ray_s_advice(account, told):
    assert _failure(RayError(account)) == f"the workers failed: {told}"


def test_a_node_without_room_for_the_job_s_files_is_named_with_the_remedy():
    account = """Failed to set up runtime environment.
[Node 10.231.7.2] Traceback (most recent call last):
  File "packaging.py", line 971, in download_and_unpack_package
OSError: [Errno 28] No space left on device"""
    assert _failure(RayError(account)) == (
        "a node could not be given the job's files: OSError: [Errno 28] No space left on device, on the node 10.231.7.2"
        ". Make room there, or end its Ray"
    )
