"""Independent tasks on Ray: the cluster twin of the built-in ``map``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from raydom.cluster.session import num_workers, ray_session  # first: it sets what Ray reads when it is imported

# isort: split
import ray
from ray.exceptions import RayError

from raydom.cluster.waiting import waiting_told
from raydom.config import ClusterConfig
from raydom.errors import ClusterError

A = TypeVar("A")
B = TypeVar("B")


def map_on_ray(
    function: Callable[[A], B], arguments: Sequence[A], run: ClusterConfig, per_task: int = 1
) -> Iterator[B]:
    """What a function gives for each argument, in any order. A task whose worker dies is repeated.

    Args:
        function: Sent to each worker once.
        arguments: Of the calls.
        run: Where to run.
        per_task: Calls that a worker does one after another, so that they take longer than the way to it and back.

    Raises:
        ClusterError: If workers keep failing.
    """
    with ray_session(run), waiting_told({"CPU": run.cpus_per_worker}, run.quiet):
        task = ray.remote(_apply).options(num_cpus=run.cpus_per_worker)
        waiting = iter([arguments[n : n + per_task] for n in range(0, len(arguments), per_task)])
        shared = ray.put(function)
        running = [task.remote(shared, part) for part in itertools.islice(waiting, 2 * num_workers(run))]
        try:
            while running:
                (done,), running = ray.wait(running, num_returns=1)
                running += [task.remote(shared, part) for part in itertools.islice(waiting, 1)]
                yield from ray.get(done)
        except RayError as error:
            raise ClusterError(
                f"the workers failed: {str(error).strip().splitlines()[-1]} What is finished is kept: the same "
                "command goes on from there."
            ) from error
        finally:  # an interrupted driver leaves nobody who still writes
            for ref in running:
                ray.cancel(ref, force=True)


def _apply(function: Callable[[A], B], arguments: Sequence[A]) -> list[B]:
    return [function(argument) for argument in arguments]
