"""The solvers by name, for graphs that are solved at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from raydom.config.neurons import MulticutConfig
from raydom.neurons.exact import exact
from raydom.neurons.heuristics import fusion, gaec, kernighan_lin
from raydom.neurons.signed_graphs import SignedGraph, attracted, connected, pieces


def solve(graph: SignedGraph, config: MulticutConfig) -> tuple[Int64[np.ndarray, " m"], float | None]:
    """A multicut whose parts are connected.

    Returns:
        Labels from 0 in the order of first nodes; and of the exact solver the bound that no multicut goes below.
    """
    if config.solver == "exact":
        return exact(graph, config.time_limit_s)
    labels = attracted(graph)
    used = graph.num_nodes
    for piece in pieces(graph, labels.copy()):
        if piece.graph.costs.min() < 0:  # else all of it is joined
            labels[piece.nodes] = used + heuristic(piece.graph, config)
            used += len(piece.nodes)
    return connected(graph, labels), None


def heuristic(graph: SignedGraph, config: MulticutConfig) -> Int64[np.ndarray, " m"]:
    """Each solver starts from the one before it, so none is worse than that."""
    labels = gaec(graph)
    if config.solver != "gaec":
        labels = kernighan_lin(graph, labels)
    if config.solver == "fusion":
        labels = fusion(graph, labels, config.seed)
    return labels
