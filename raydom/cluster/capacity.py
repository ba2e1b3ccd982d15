"""Whether the nodes of a cluster, or those that its autoscaler can start, have what a worker needs; no Ray here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from raydom.config import ClusterConfig, TrainRunConfig
from raydom.errors import ConfigError

Resources = Mapping[str, float]
"""Of a node, or a worker: amounts by Ray's names, as ``{"CPU": 8, "GPU": 1}``."""


@dataclass(frozen=True, slots=True)
class NodeType:
    """Nodes that an autoscaler can start."""

    name: str
    resources: Resources
    max_nodes: int


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """What an autoscaler can start; without types, there is none, or it starts nothing."""

    types: tuple[NodeType, ...] = ()
    max_nodes: int = 0
    """Beside the head, of all types together."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Autoscaler | None:
        """That with a cluster configuration (``cluster.yaml``); None if a type does not say what it has."""
        total = int(config["max_workers"])
        types = []
        for name, kind in config["available_node_types"].items():
            most = int(kind.get("max_workers", 0 if name == config["head_node_type"] else total))
            if most and not kind.get("resources"):
                return None
            if most:
                types.append(NodeType(name, kind["resources"], most))
        return cls(tuple(types), total)


@dataclass(frozen=True, slots=True)
class Capacity:
    """A cluster."""

    head: Resources
    others: tuple[Resources, ...]
    """Of the other nodes that are there now."""
    autoscaler: Autoscaler | None
    """None if it does not tell what it can start."""

    @property
    def nodes(self) -> tuple[Resources, ...]:
        return (self.head, *self.others)


def needs_of(run: ClusterConfig) -> Resources:
    """What a worker needs."""
    gpus = run.gpus_per_worker if isinstance(run, TrainRunConfig) else 0.0
    return {"GPU": gpus, "CPU": run.cpus_per_worker} if gpus else {"CPU": run.cpus_per_worker}


def room(node: Resources, needs: Resources) -> int:
    """Workers that a node has room for."""
    return int(min(node.get(kind, 0.0) / amount + 1e-9 for kind, amount in needs.items()))


def workers_now(capacity: Capacity, needs: Resources) -> int:
    """Workers that the nodes that are there have room for."""
    return sum(room(node, needs) for node in capacity.nodes)


def workers_at_most(capacity: Capacity, needs: Resources) -> int | None:
    """Workers that there is room for when all nodes have come; None if the autoscaler does not tell.

    Nodes with GPUs do not count for workers without, if there are others: they are too dear to be started for them.
    """
    if capacity.autoscaler is None:
        return None
    fitting = sorted(
        ((room(kind.resources, needs), kind) for kind in capacity.autoscaler.types), key=lambda one: -one[0]
    )
    if "GPU" not in needs:
        fitting = [one for one in fitting if one[0] and not one[1].resources.get("GPU")] or fitting
    count, left = room(capacity.head, needs), capacity.autoscaler.max_nodes
    for each, kind in fitting:
        nodes = min(kind.max_nodes, left)
        count, left = count + nodes * each, left - nodes
    return max(count, workers_now(capacity, needs))


def check_capacity(capacity: Capacity, needs: Resources, workers: int = 1) -> None:
    """Refuse workers that will never all be there at once.

    Raises:
        ConfigError: If there is no room for so many, and no node to come has it.
    """
    most = workers_at_most(capacity, needs)
    if most is None or most >= workers or workers_now(capacity, needs) >= workers:
        return
    asked = f"{workers} worker{'s' if workers > 1 else ''} of {describe(needs)} asked for, room for {most} at most"
    there = f"there {'are' if capacity.others else 'is'} {_count(describe(node) for node in capacity.nodes)}"
    types = capacity.autoscaler.types if capacity.autoscaler else ()
    could = (
        f"its autoscaler can start {describe_types(types)}"
        if types
        else "no autoscaler that could start more is at work"
    )
    raise ConfigError(f"{asked}: {there}; {could}. {_remedy(capacity, needs, workers)}")


def describe(resources: Resources) -> str:
    """GPUs and CPUs in words."""
    shown = {kind: resources.get(kind, 0.0) for kind in ("GPU", "CPU")}
    told = [f"{amount:g} {kind}{'' if amount == 1 else 's'}" for kind, amount in shown.items() if amount]
    return " and ".join(told) or "no CPUs"


def describe_types(types: Iterable[NodeType]) -> str:
    """Types of nodes in words."""
    return ", ".join(f"{kind.name} ({describe(kind.resources)}, up to {kind.max_nodes})" for kind in types)


def _count(nodes: Iterable[str]) -> str:
    listed = list(nodes)
    return ", ".join(
        f"{listed.count(one)} node{'s' * (listed.count(one) > 1)} with {one}" for one in dict.fromkeys(listed)
    )


def _remedy(capacity: Capacity, needs: Resources, workers: int) -> str:
    """What to do: about GPUs first, then about the CPUs beside them, then about the number of nodes."""
    types = capacity.autoscaler.types if capacity.autoscaler else ()
    candidates = [*capacity.nodes, *(kind.resources for kind in types)]
    for kind, amount in needs.items():
        most = max((node.get(kind, 0.0) for node in candidates), default=0.0)
        if most >= amount:
            candidates = [node for node in candidates if node.get(kind, 0.0) >= amount]
        elif kind == "GPU" and not most:
            return (
                "Leave --gpus-per-worker out to compute on CPUs, or add nodes with GPUs to the cluster (a node type of "
                "its autoscaler, as in cluster.yaml, or nodes that you start), or join another with --address."
            )
        elif not most:
            return (
                "Add nodes with CPUs to the cluster, wait for those that are to join it, or join another by --address."
            )
        else:
            where = " where there are GPUs" if kind == "CPU" and "GPU" in needs else ""
            return f"Give --{kind.lower()}s-per-worker {most:g} or less: no node has more{where}."
    return f"Give fewer --workers than {workers}, or let the cluster have more nodes."
