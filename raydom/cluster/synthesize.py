"""Drawing of synthetic images as tasks of Ray."""

from __future__ import annotations

import functools

from raydom.cluster.tasks import map_on_ray
from raydom.config import ClusterConfig
from raydom.ingestion.synthesize import Map

IMAGES_PER_TASK = 16
"""So many take about a second to draw, far longer than the way to this driver and back."""


def on_ray(run: ClusterConfig) -> Map:
    """Draws images on Ray; to be given to ``synthesize`` as its ``map``."""
    return functools.partial(map_on_ray, run=run, per_task=IMAGES_PER_TASK)
