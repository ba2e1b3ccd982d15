"""Drawing of synthetic images as tasks of Ray: the cluster twin of the built-in ``map``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from raydom.cluster.session import num_workers, ray_session  # first: it sets what Ray reads when it is imported

# isort: split
import ray
from ray.exceptions import RayError

from raydom.config import ClusterConfig
from raydom.errors import ClusterError
from raydom.ingestion.synthesize import Map
from raydom.types import ImageRecord

IMAGES_PER_TASK = 16
"""So many take about a second to draw, far longer than the way to this driver and back."""


def on_ray(run: ClusterConfig) -> Map:
    """Draws images on Ray; to be given to ``synthesize`` as its ``map``. A task whose worker dies is repeated."""

    def apply(function: Callable[[int], ImageRecord], numbers: Sequence[int]) -> Iterator[ImageRecord]:
        with ray_session(run):
            task = ray.remote(_draw).options(num_cpus=run.cpus_per_worker)
            waiting = iter([numbers[n : n + IMAGES_PER_TASK] for n in range(0, len(numbers), IMAGES_PER_TASK)])
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

    return apply


def _draw(function: Callable[[int], ImageRecord], numbers: Sequence[int]) -> list[ImageRecord]:
    return [function(number) for number in numbers]
