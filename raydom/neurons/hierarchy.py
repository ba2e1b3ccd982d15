"""Multicuts of graphs too large for one piece: parts first, then what is left of all.

Nodes that a part joins are one node from then on. Parts then become four times as large, until what is left is small
enough to be solved at once; Kernighan-Lin last mends what parts could not see. The parts belong to the image (squares
of its grid), so the result does not depend on who solves which of them, nor in which order.

Source: Pape et al. 2017, Solving large multicut problems for connectomics via domain decomposition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from raydom.config.neurons import MulticutConfig
from raydom.neurons.heuristics import kernighan_lin
from raydom.neurons.signed_graphs import (
    Piece,
    SignedGraph,
    attracted,
    connected,
    contracted,
    first_nodes,
    numbered,
    pieces,
)
from raydom.neurons.solvers import solve

FINAL_EDGES = 16
"""Times ``max_edges``: the largest piece that Kernighan-Lin goes over at the end."""


def part_numbers(rows: Int64[np.ndarray, " m"], columns: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """Numbers of squares of a grid, by row and column (below 2^31); a quarter of a number is that of its 2x2 squares.

    The bits of row and column take turns (Morton order).
    """
    bits = np.arange(31)
    taken = [((along[:, None] >> bits) & 1) << (2 * bits + shift) for along, shift in ((columns, 0), (rows, 1))]
    return taken[0].sum(axis=1) + taken[1].sum(axis=1)


def subproblems(graph: SignedGraph, parts: Int64[np.ndarray, " m"]) -> Iterator[Piece]:
    """What can be solved apart: each part's nodes with the edges between them. Parts without edges are left out."""
    return pieces(graph, parts)


def solved(problem: Piece, config: MulticutConfig) -> Int64[np.ndarray, " m"]:
    """The labels of a sub-problem, from 0; of nothing but the sub-problem, so that anyone can find them."""
    return solve(problem.graph, config)[0]


def reduced(
    graph: SignedGraph, problems: Sequence[Piece], solutions: Sequence[Int64[np.ndarray, " _"]]
) -> tuple[SignedGraph, Int64[np.ndarray, " m"]]:
    """The graph in which each joined set of nodes is one, and the node of it that each node became."""
    labels = np.arange(graph.num_nodes)
    for problem, solution in zip(problems, solutions, strict=True):
        labels[problem.nodes] = problem.nodes[first_nodes(solution)]
    labels = numbered(labels)
    return contracted(graph, labels), labels


def solve_in_parts(
    graph: SignedGraph, parts: Int64[np.ndarray, " m"], config: MulticutConfig
) -> Int64[np.ndarray, " m"]:
    """The whole of it, one sub-problem after another.

    Args:
        graph: With more than ``config.max_edges`` edges.
        parts: The part of each node, as `part_numbers` gives it.
        config: The exact solver has its time limit for each sub-problem.
    """
    labels, small = np.arange(graph.num_nodes), graph
    while len(small.edges) > config.max_edges and parts.max() > parts.min():
        problems = list(subproblems(small, parts))
        small, step = reduced(small, problems, [solved(problem, config) for problem in problems])
        labels, parts = step[labels], _of_nodes(parts, step) >> 2
    labels = solve(small, config)[0][labels]
    return _mended(graph, labels, config)


def _of_nodes(parts: Int64[np.ndarray, " m"], step: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " k"]:
    """The part of each joined node: that of any of its nodes, which all share it."""
    return parts[np.unique(step, return_index=True)[1]]


def _mended(graph: SignedGraph, labels: Int64[np.ndarray, " m"], config: MulticutConfig) -> Int64[np.ndarray, " m"]:
    """Kernighan-Lin over the whole graph, which starts from the labels and never makes them worse."""
    if config.solver == "gaec":
        return connected(graph, labels)
    result = labels.copy()
    used = graph.num_nodes
    for piece in pieces(graph, attracted(graph)):
        if piece.graph.costs.min() < 0 and len(piece.graph.edges) <= FINAL_EDGES * config.max_edges:
            result[piece.nodes] = used + kernighan_lin(piece.graph, numbered(labels[piece.nodes]))
            used += len(piece.nodes)
    return connected(graph, result)
