"""Multicuts that are good but proven by nothing: greedy contraction, and what improves on it.

Parts need not be connected (`signed_graphs.connected` mends that at the end).
"""

from __future__ import annotations

import numpy as np
from bioimage_cpp.graph import UndirectedGraph
from bioimage_cpp.graph.multicut import (
    FusionMoveMulticut,
    GreedyAdditiveMulticut,
    GreedyAdditiveProposalGenerator,
    KernighanLinMulticut,
    MulticutObjective,
    MulticutSolver,
)
from jaxtyping import Int64

from raydom.neurons.signed_graphs import SignedGraph, numbered, scaled

FUSION_ROUNDS = 100
FUSION_PATIENCE = 20
"""Rounds without a better multicut after which fusion ends."""


def gaec(graph: SignedGraph) -> Int64[np.ndarray, " m"]:
    """Greedy additive edge contraction: join what attracts most, add up parallel edges, until nothing attracts.

    Source: Keuper et al. 2015, arXiv:1505.06973.
    """
    return _solved(graph, GreedyAdditiveMulticut())


def kernighan_lin(graph: SignedGraph, start: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """Move nodes between neighbouring parts, and join and split parts, as long as that pays.

    Source: Keuper et al. 2015, arXiv:1505.06973 (Kernighan-Lin with joins).
    """
    return _solved(graph, KernighanLinMulticut(), start)


def fusion(graph: SignedGraph, start: Int64[np.ndarray, " m"], seed: int) -> Int64[np.ndarray, " m"]:
    """Fuse with random proposals: what both join is one node, and a multicut of that is no worse than either.

    Proposals are greedy contractions of noisy costs; the noise is as large as the mean cost.

    Source: Beier et al. 2015, Fusion moves for correlation clustering.
    """
    noise = float(np.abs(scaled(graph)[0].costs).mean())
    solver = FusionMoveMulticut(
        proposal_generator=GreedyAdditiveProposalGenerator(sigma=noise, seed=seed),
        sub_solver=KernighanLinMulticut(),
        number_of_iterations=FUSION_ROUNDS,
        stop_if_no_improvement=FUSION_PATIENCE,
        number_of_threads=1,
    )
    return _solved(graph, solver, start)


def _solved(
    graph: SignedGraph, solver: MulticutSolver, start: Int64[np.ndarray, " m"] | None = None
) -> Int64[np.ndarray, " m"]:
    base = UndirectedGraph.from_unique_edges(graph.num_nodes, graph.edges.astype(np.uint64))
    initial = None if start is None else start.astype(np.uint64)
    labels = solver.optimize(MulticutObjective(base, scaled(graph)[0].costs, initial))
    return numbered(labels.astype(np.int64))
