"""What the Ray that this process is at has, and what its autoscaler can start.

Ray tells a driver neither whether there is an autoscaler nor what it can start, so this is looked up where the
autoscaler has it: on the head node, in the file that its monitor process was started with (clusters of ``ray up``, and
any ``ray start --head --autoscaling-config``; either version of the autoscaler); on Kubernetes in the RayCluster.
"""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path
from typing import Any

import ray  # first: psutil comes with it

# isort: split
import psutil
import yaml
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raydom.cluster.capacity import Autoscaler, Capacity

logger = logging.getLogger(__name__)

HEAD = "node:__internal_head__"
"""What the head node alone has."""
LOOK_S = 120.0
"""So long the head may take to look; it may have to start a process for it."""


def read_capacity() -> Capacity:
    """The cluster as it is now."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    head = next((node for node in alive if HEAD in node["Resources"]), alive[0])
    others = tuple(node["Resources"] for node in alive if node is not head)
    return Capacity(head["Resources"], others, autoscaler_of(ray.get_runtime_context().gcs_address, head["NodeID"]))


@functools.lru_cache(maxsize=1)
def autoscaler_of(gcs_address: str, head: str) -> Autoscaler | None:
    """The autoscaler of the Ray with this address; None if it cannot be known what it starts.

    Args:
        gcs_address: Of the Ray that this process is at.
        head: Its head node.
    """
    try:
        if ray.get_runtime_context().get_node_id() == head:
            return find_autoscaler(gcs_address)
        on_head = NodeAffinitySchedulingStrategy(head, soft=False)
        looked: Autoscaler | None = ray.get(
            ray.remote(find_autoscaler)
            .options(num_cpus=0, max_retries=0, scheduling_strategy=on_head)
            .remote(gcs_address),
            timeout=LOOK_S,
        )
        return looked
    except (RayError, OSError, LookupError, TypeError, ValueError) as error:
        logger.debug("what the autoscaler can start is not known: %s", error)
        return None


def find_autoscaler(gcs_address: str) -> Autoscaler | None:
    """The autoscaler of a Ray whose head node this is."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:  # it ended, or belongs to somebody else
            continue
        if f"--gcs-address={gcs_address}" in words and any(Path(word).name == "monitor.py" for word in words):
            given = dict(word.split("=", 1) for word in words if "=" in word)
            config = given.get("--autoscaling-config")
            return Autoscaler() if config is None else Autoscaler.of(yaml.safe_load(Path(config).read_text()))
    if {"RAY_CLUSTER_NAME", "RAY_CLUSTER_NAMESPACE"} <= os.environ.keys():  # KubeRay sets them
        return Autoscaler.of(_kuberay_config(os.environ["RAY_CLUSTER_NAME"], os.environ["RAY_CLUSTER_NAMESPACE"]))
    return None


def _kuberay_config(cluster: str, namespace: str) -> dict[str, Any]:
    """The configuration that KubeRay's autoscaler derives from its RayCluster, which the head may read as well."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr as derive
    from ray.autoscaler._private.kuberay.node_provider import KubernetesHttpApiClient

    config: dict[str, Any] = derive(KubernetesHttpApiClient(namespace).get(f"rayclusters/{cluster}"))
    return config
