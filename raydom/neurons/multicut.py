"""Which superpixels are one neuron: the partition of a graph whose cut edges cost least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped

from raydom.config.neurons import MulticutConfig
from raydom.errors import ConfigError, DataError
from raydom.neurons.hierarchy import solve_in_parts
from raydom.neurons.signed_graphs import energy, signed_graph
from raydom.neurons.solvers import solve

__all__ = ["Multicut", "edge_costs", "energy", "multicut"]


@dataclass(frozen=True, slots=True)
class Multicut:
    """A partition of the nodes of a graph, whose parts are connected."""

    labels: Int64[np.ndarray, " m"]
    """The part of each node, from 0 in the order of their first nodes."""
    energy: float
    """Sum of the costs of the edges between parts."""
    bound: float | None
    """No partition has less energy; of the exact solver only. It is the energy itself where the optimum is proven (to
    1e-6 of the greatest cost of a piece that is solved apart)."""
    solver: str
    """What found it."""


def edge_costs(
    probabilities: Float[np.ndarray, " n"],
    config: MulticutConfig,
    sizes: Shaped[np.ndarray, " n"] | None = None,
) -> Float64[np.ndarray, " n"]:
    """Costs of cutting edges: log((1 - p) / p) + log((1 - beta) / beta), above 0 where joining is likelier.

    Args:
        probabilities: p, that an edge is a boundary. Those of 0 and 1 count as ``clip`` and 1 - ``clip``.
        config: ``beta``, ``clip`` and ``size_weights``.
        sizes: Length of each edge (faces, px), for ``size_weights``; costs are multiplied by the share of the longest.

    Raises:
        DataError: A probability is no number from 0 to 1, or a size is not above 0.
        ConfigError: Edges are to be weighed and no sizes are given.

    Source: Andres et al. 2012, Globally optimal closed-surface segmentation for connectomics.
    """
    p = probabilities.astype(np.float64)
    _refuse(~((p >= 0) & (p <= 1)), p, "the boundary probability", "a number from 0 to 1")
    p = np.clip(p, config.clip, 1 - config.clip)
    costs = np.log((1 - p) / p) + np.log((1 - config.beta) / config.beta)
    if not config.size_weights:
        return costs
    if sizes is None:
        raise ConfigError("size_weights weighs edges by their sizes, which are not given; pass them or switch it off.")
    lengths = sizes.astype(np.float64)
    _refuse(~((lengths > 0) & np.isfinite(lengths)), lengths, "the size", "a finite number above 0")
    return costs * lengths / lengths.max(initial=0)


def multicut(
    num_nodes: int,
    edges: Int64[np.ndarray, "n 2"],
    costs: Float64[np.ndarray, " n"],
    config: MulticutConfig,
    parts: Int64[np.ndarray, " m"] | None = None,
) -> Multicut:
    """The partition of the graph with the least energy that the solver finds; always the same for the same graph
    (unless the exact solver is ended by its time limit).

    Nodes without edges are alone. Costs of parallel edges add up.

    Args:
        num_nodes: Nodes are 0 to ``num_nodes`` - 1.
        edges: Pairs of nodes.
        costs: Of cutting each edge, as `edge_costs` gives them.
        config: Which solver. With more than ``max_edges`` edges, and ``parts``, parts of the graph are solved first.
        parts: A number for each node, of the square of the image's grid that it is in (`hierarchy.part_numbers`).

    Raises:
        DataError: An edge joins a node to itself or one that is not there, a cost is not finite, or numbers differ.
    """
    _check(num_nodes, edges, costs, parts)
    graph = signed_graph(num_nodes, edges, costs)
    if parts is None or len(graph.edges) <= config.max_edges:
        labels, bound = solve(graph, config)
        return Multicut(labels, energy(graph.edges, graph.costs, labels), bound, config.solver)
    labels = solve_in_parts(graph, parts, config)
    return Multicut(labels, energy(graph.edges, graph.costs, labels), None, f"{config.solver} in parts")


def _check(num_nodes: int, edges: np.ndarray, costs: np.ndarray, parts: np.ndarray | None) -> None:
    if num_nodes < 0 or len(edges) != len(costs):
        raise DataError(
            f"A graph of {num_nodes} nodes and {len(edges)} edges has {len(costs)} costs; give one an edge."
        )
    if parts is not None and (len(parts) != num_nodes or parts.min(initial=0) < 0):
        raise DataError(
            f"parts must be a number >= 0 for each of {num_nodes} nodes; "
            f"got {len(parts)}, the least {parts.min(initial=0)}."
        )
    outside = np.logical_or(edges < 0, edges >= num_nodes).any(axis=1)
    _refuse(outside, edges, "the pair of nodes", f"two of 0 to {num_nodes - 1}")
    _refuse(edges[:, 0] == edges[:, 1], edges, "the pair of nodes", "two different nodes")
    _refuse(~np.isfinite(costs), costs, "the cost", "a finite number")


def _refuse(wrong: Any, values: np.ndarray, what: str, wanted: str) -> None:
    if wrong.any():
        first = int(wrong.argmax())
        count = f"{int(wrong.sum())} of {len(wrong)} edges"
        raise DataError(f"Edge {first}: {what} is {values[first]}, which must be {wanted}; so of {count}.")
