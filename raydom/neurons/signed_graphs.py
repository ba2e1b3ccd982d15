"""Graphs whose edges cost something to cut: contraction, pieces, and the energy of a partition."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True, slots=True)
class SignedGraph:
    """A simple graph: no edge twice, none from a node to itself, in the order of their nodes."""

    num_nodes: int
    edges: Int64[np.ndarray, "n 2"]
    """Two nodes, the lesser first; rows ascend."""
    costs: Float64[np.ndarray, " n"]
    """Of cutting an edge; above 0 it attracts, below 0 it repels."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a graph, its nodes numbered anew."""

    nodes: Int64[np.ndarray, " m"]
    """Their numbers in the whole graph, ascending."""
    graph: SignedGraph


def signed_graph(num_nodes: int, edges: Int64[np.ndarray, "n 2"], costs: Float64[np.ndarray, " n"]) -> SignedGraph:
    """Put edges in order; costs of parallel edges add up, edges from a node to itself are gone."""
    low, high = edges.min(axis=1), edges.max(axis=1)
    proper = low < high
    keys, place = np.unique(low[proper] * max(num_nodes, 1) + high[proper], return_inverse=True)
    pairs = np.stack(np.divmod(keys, max(num_nodes, 1)), axis=1)
    sums = np.bincount(place, costs[proper], minlength=len(keys))
    return SignedGraph(num_nodes, pairs, sums.astype(np.float64))  # of nothing, sums are integers


def scaled(graph: SignedGraph) -> tuple[SignedGraph, int]:
    """The graph with costs up to 1, for thresholds that are absolute in the solvers; and the power of two taken out.

    A power of two rounds nothing.
    """
    exponent = int(np.frexp(np.abs(graph.costs).max(initial=0))[1])
    return replace(graph, costs=np.ldexp(graph.costs, -exponent)), exponent


def energy(edges: Int64[np.ndarray, "n 2"], costs: Float64[np.ndarray, " n"], labels: Int64[np.ndarray, " m"]) -> float:
    """Sum of the costs of the edges between nodes of different labels, rounded once: the same in any order."""
    return math.fsum(costs[labels[edges[:, 0]] != labels[edges[:, 1]]].tolist())


def numbered(labels: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """The same partition with numbers from 0 in the order of each part's first node."""
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[place]


def first_nodes(labels: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """For each node the first node of its part."""
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    return first[place]


def components(num_nodes: int, edges: Int64[np.ndarray, "n 2"]) -> Int64[np.ndarray, " m"]:
    """The connected component of each node, numbered from 0 in the order of their first nodes."""
    ones = np.ones(len(edges), np.int8)
    matrix = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(num_nodes, num_nodes))
    return numbered(connected_components(matrix, directed=False)[1].astype(np.int64))


def connected(graph: SignedGraph, labels: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """Parts that hang together, as a multicut's must: pieces of a part without an edge between them become two.

    No edge is cut by that, so the energy stays.
    """
    inside = labels[graph.edges[:, 0]] == labels[graph.edges[:, 1]]
    return components(graph.num_nodes, graph.edges[inside])


def attracted(graph: SignedGraph) -> Int64[np.ndarray, " m"]:
    """Components of the graph of attractive edges; some optimal multicut joins no two of them.

    To split a part between such components cuts only edges that do not attract.

    Source: Alush and Goldberger 2013, Break and Conquer.
    """
    return components(graph.num_nodes, graph.edges[graph.costs > 0])


def contracted(graph: SignedGraph, labels: Int64[np.ndarray, " m"]) -> SignedGraph:
    """Each part becomes one node; ``labels`` are numbers from 0 without a gap."""
    return signed_graph(int(labels.max(initial=-1)) + 1, labels[graph.edges], graph.costs)


def pieces(graph: SignedGraph, groups: Int64[np.ndarray, " m"]) -> Iterator[Piece]:
    """The groups that have edges within, in ascending order."""
    group = groups[graph.edges[:, 0]]
    inner = np.flatnonzero(group == groups[graph.edges[:, 1]])
    inner = inner[np.argsort(group[inner], kind="stable")]
    wanted, starts = np.unique(group[inner], return_index=True)
    order = np.argsort(groups, kind="stable")
    place = np.empty(graph.num_nodes, np.int64)
    begins, ends = (np.searchsorted(groups[order], wanted, side) for side in ("left", "right"))
    for begin, end, chosen in zip(begins, ends, np.split(inner, starts[1:]), strict=False):
        nodes = order[begin:end]
        place[nodes] = np.arange(len(nodes))
        yield Piece(nodes, SignedGraph(len(nodes), place[graph.edges[chosen]], graph.costs[chosen]))
