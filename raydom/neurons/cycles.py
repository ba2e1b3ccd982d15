"""The linear relaxation of the multicut: cycle inequalities, found as they are violated, and what its duals prove."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.optimize import linprog
from scipy.sparse import coo_array, csr_array, vstack
from scipy.sparse.csgraph import dijkstra

from raydom.neurons.signed_graphs import SignedGraph

VIOLATION = 1e-5
"""By which an inequality must fail to be added; ten times what the solver lets pass."""
PER_HOP = 1e-7
"""Added to the length of each edge, so that of paths as short the one of fewest edges is taken, which has no chord."""
SLACK = 0.3
"""Inequalities further from equality are left out of the next program, unless the bound stays where it was."""
PROGRESS = 1e-7
"""Relative growth of the bound that counts as some."""
SOURCES = 512
"""Shortest path trees in memory at a time."""


@dataclass(frozen=True, slots=True)
class Separation:
    """Finds cycle inequalities that a solution violates.

    It is enough to ask that no repelling edge be cut whose ends are joined by a path of attractive ones (x of the edge
    <= sum of x of the path, 1 for cut): what else a solution can violate costs nothing to mend.

    Source: Lange et al. 2018, Partial optimality and fast lower bounds (conflicted cycles).
    """

    graph: SignedGraph
    attractive: Int64[np.ndarray, " a"] = field(init=False)
    repelling: Int64[np.ndarray, " r"] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attractive", np.flatnonzero(self.graph.costs > 0))
        object.__setattr__(self, "repelling", np.flatnonzero(self.graph.costs < 0))

    def violated(self, x: Float64[np.ndarray, " n"]) -> csr_array:
        """Rows of inequalities (row times x <= 0) that x violates, one a repelling edge at most."""
        edges, nodes = self.graph.edges, self.graph.num_nodes
        lengths = np.maximum(x[self.attractive], 0) + PER_HOP
        u, v = edges[self.attractive].T
        both = (np.concatenate([u, v]), np.concatenate([v, u]))
        paths = coo_array((np.tile(lengths, 2), both), shape=(nodes, nodes)).tocsr()
        open_edges = self.repelling[x[self.repelling] > VIOLATION]
        sources, tree = np.unique(edges[open_edges, 0], return_inverse=True)
        rows = [csr_array((0, len(edges)))]
        for begin in range(0, len(sources), SOURCES):
            chunk = sources[begin : begin + SOURCES]
            distance, before = dijkstra(paths, indices=chunk, limit=1 + nodes * PER_HOP, return_predecessors=True)
            mine = (tree >= begin) & (tree < begin + len(chunk))
            asked, of = open_edges[mine], tree[mine] - begin
            fails = distance[of, edges[asked, 1]] < x[asked] - VIOLATION
            rows.append(self._rows(asked[fails], of[fails], before))
        return vstack(rows, format="csr")

    def _rows(self, cut: Int64[np.ndarray, " k"], tree: Int64[np.ndarray, " k"], before: np.ndarray) -> csr_array:
        """An inequality per repelling edge and its path back to the root of a tree."""
        edges, nodes = self.graph.edges, self.graph.num_nodes
        keys = edges[:, 0] * nodes + edges[:, 1]
        row, at, root = np.arange(len(cut)), edges[cut, 1], edges[cut, 0]
        found = [(row, cut, np.ones(len(cut)))]
        while len(row):
            parent = before[tree[row], at].astype(np.int64)
            step = np.searchsorted(keys, np.minimum(at, parent) * nodes + np.maximum(at, parent))
            found.append((row, step, np.full(len(row), -1.0)))
            going = parent != root[row]
            row, at = row[going], parent[going]
        rows, columns, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return csr_array((values, (rows, columns)), shape=(len(cut), len(edges)))


@dataclass(slots=True)
class Relaxation:
    """The linear program so far: what is known of every multicut that is better than the best one found.

    With multipliers y >= 0 of the inequalities, and reduced costs r = costs + y times rows, no x in [0, 1] that obeys
    them costs less than the sum of min(0, r). That holds for any y, so a solver's tolerance cannot make it wrong.
    """

    graph: SignedGraph
    rows: csr_array
    x: Float64[np.ndarray, " n"]
    bound: float
    reduced: Float64[np.ndarray, " n"]
    """Of the multipliers that gave the bound."""
    converged: bool = False

    @classmethod
    def of(cls, graph: SignedGraph) -> Relaxation:
        """Without inequalities: every repelling edge is cut, and no other."""
        x = (graph.costs < 0).astype(np.float64)
        bound = float(np.minimum(graph.costs, 0).sum())
        return cls(graph, csr_array((0, len(graph.edges))), x, bound, graph.costs)

    def tighten(self, deadline: float) -> bool:
        """Add what x violates and solve again; False when nothing is violated or time is over."""
        new = Separation(self.graph).violated(self.x)
        self.converged = new.shape[0] == 0
        left = deadline - time.monotonic()
        if self.converged or left <= 0:
            return False
        self.rows = vstack([self.rows, new], format="csr")
        options = {"time_limit": left}
        costs = self.graph.costs
        solved = linprog(
            costs, A_ub=self.rows, b_ub=np.zeros(self.rows.shape[0]), bounds=(0, 1), method="highs", options=options
        )
        if solved.status != 0:
            return False
        multipliers = np.maximum(-solved.ineqlin.marginals, 0)
        reduced = costs + self.rows.T @ multipliers
        bound = float(np.minimum(reduced, 0).sum())
        self.x = solved.x
        if bound > self.bound + PROGRESS * abs(self.bound):
            self.rows = self.rows[self.rows @ self.x > -SLACK]
        if bound >= self.bound:
            self.bound, self.reduced = bound, reduced
        return True

    def decided(self, best: float) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Edges joined, and edges cut, in every multicut that costs less than ``best``."""
        price = self.bound + np.abs(self.reduced) > best
        return price & (self.reduced > 0), price & (self.reduced < 0)
