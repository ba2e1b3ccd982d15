"""The best multicut there is, with its proof: an integer program whose cycle inequalities are added as they are needed.

First what is certain is joined, and what no attractive path connects is solved apart. Of each piece the linear
relaxation is tightened until it violates nothing; its bound often meets the energy of a heuristic solution, which is
then optimal. If not, edges that the reduced costs decide are fixed and a branch-and-bound solver takes over, again and
again until its solution violates nothing.

Source: Kappes et al. 2011, Globally optimal image partitioning by multicuts (cutting planes).
"""

from __future__ import annotations

import math
import time

import numpy as np
from jaxtyping import Int64
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import vstack

from raydom.neurons.cycles import Relaxation, Separation
from raydom.neurons.heuristics import fusion, gaec, kernighan_lin
from raydom.neurons.signed_graphs import (
    SignedGraph,
    attracted,
    components,
    connected,
    contracted,
    energy,
    first_nodes,
    pieces,
    scaled,
)

TOLERANCE = 1e-6
"""Of the greatest cost: a bound this near to the energy proves the optimum."""
MARGIN = 1e-9
"""By which a sum must be larger to count as larger, relative."""


def exact(graph: SignedGraph, time_limit_s: float) -> tuple[Int64[np.ndarray, " m"], float]:
    """A multicut, and a bound that none goes below.

    Args:
        graph: Of a few thousand edges.
        time_limit_s: After that the best one found counts, s.

    Returns:
        Labels; and the bound, which is the energy itself if the multicut is proven optimal (to 1e-6 of the greatest
        cost of a piece).
    """
    deadline = time.monotonic() + time_limit_s
    unit, exponent = scaled(graph)
    labels = certain(unit)
    small = contracted(unit, labels)
    group = attracted(small)
    bound = float(small.costs[group[small.edges[:, 0]] != group[small.edges[:, 1]]].sum())
    solution = np.arange(small.num_nodes)
    proven = True
    for piece in sorted(pieces(small, group), key=lambda piece: len(piece.graph.edges)):
        best, of_piece, is_optimal = _optimal(piece.graph, deadline)
        solution[piece.nodes] = piece.nodes[first_nodes(best)]
        bound += of_piece
        proven &= is_optimal
    labels = connected(graph, solution[labels])
    reached = energy(graph.edges, graph.costs, labels)
    return labels, reached if proven else min(math.ldexp(bound, exponent), reached)


def certain(graph: SignedGraph) -> Int64[np.ndarray, " m"]:
    """Nodes that are one in every optimal multicut, by the edges of single nodes.

    An edge that attracts more than all other edges of one of its ends weigh is joined: else that end could be moved
    over, at a gain. Done again on what is left, until no edge is so strong. A leaf goes this way as well.

    Source: Lange et al. 2018, Partial optimality and fast lower bounds (edge criterion).
    """
    labels = np.arange(graph.num_nodes)
    small = graph
    while True:
        weight = np.bincount(small.edges.ravel(), np.repeat(np.abs(small.costs), 2), minlength=small.num_nodes)
        lighter_end = weight[small.edges].min(axis=1)
        strong = 2 * small.costs > lighter_end * (1 + MARGIN)
        if not strong.any():
            return labels
        joined = components(small.num_nodes, small.edges[strong])
        labels = joined[labels]
        small = contracted(small, joined)


def _optimal(graph: SignedGraph, deadline: float) -> tuple[Int64[np.ndarray, " m"], float, bool]:
    """Labels, a bound and whether they are proven optimal, of one piece."""
    labels, best = _best(graph, kernighan_lin(graph, gaec(graph)))
    tolerance = TOLERANCE * float(np.abs(graph.costs).max())
    relaxation = Relaxation.of(graph)
    while best - relaxation.bound > tolerance and relaxation.tighten(deadline):
        pass
    if best - relaxation.bound > tolerance:
        labels, best = _best(graph, labels, _rounded(graph, relaxation.x))
    if best - relaxation.bound > tolerance:
        labels, best = _best(graph, labels, fusion(graph, labels, seed=0))
    if relaxation.converged and best - relaxation.bound > tolerance:
        return _branch_and_bound(relaxation, labels, best, tolerance, deadline)
    return labels, relaxation.bound, best - relaxation.bound <= tolerance


def _branch_and_bound(
    relaxation: Relaxation, labels: Int64[np.ndarray, " m"], best: float, tolerance: float, deadline: float
) -> tuple[Int64[np.ndarray, " m"], float, bool]:
    """Integer programs with more and more inequalities, each of which gives a bound."""
    graph, rows, bound = relaxation.graph, relaxation.rows, relaxation.bound
    joined, cut = relaxation.decided(best + tolerance)
    separation = Separation(graph)
    while best - bound > tolerance and (left := deadline - time.monotonic()) > 0:
        solved = milp(
            graph.costs,
            integrality=graph.costs > 0,  # then the others, as small as their paths allow, are whole as well
            bounds=Bounds(cut.astype(float), 1.0 - joined),
            constraints=LinearConstraint(rows, ub=0),
            options={"time_limit": left, "mip_rel_gap": 0},
        )
        if solved.mip_dual_bound is not None:
            bound = max(bound, min(solved.mip_dual_bound, best))
        if solved.x is None:
            break
        labels, best = _best(graph, labels, _rounded(graph, solved.x))
        new = separation.violated(np.round(solved.x))
        if new.shape[0] == 0:
            break
        rows = vstack([rows, new], format="csr")
    return labels, bound, best - bound <= tolerance


def _rounded(graph: SignedGraph, x: np.ndarray) -> Int64[np.ndarray, " m"]:
    """What a solution of a program says, mended: parts are what it joins along attractive edges."""
    return kernighan_lin(graph, components(graph.num_nodes, graph.edges[(graph.costs > 0) & (x < 0.5)]))


def _best(graph: SignedGraph, *found: Int64[np.ndarray, " m"]) -> tuple[Int64[np.ndarray, " m"], float]:
    """The labels of least energy, the first of equals, and that energy."""
    energies = [energy(graph.edges, graph.costs, labels) for labels in found]
    place = int(np.argmin(energies))
    return found[place], energies[place]
