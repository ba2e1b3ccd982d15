"""Multicut solvers on the clock: against the bare library, up to the optimum, and in parts.

    uv run python benchmarks/multicut.py bare --edges 10000 100000 1000000
    uv run python benchmarks/multicut.py exact --edges 500 1000 2000 5000 10000
    uv run python benchmarks/multicut.py parts --edges 10000 100000 1000000

Graphs are like those of superpixels: neighbours among random points of a square, in cells of 12 points on average, as
neurons are of superpixels. Edges within a cell cost 2, others -2, plus normal noise: with 1.5 one of eleven edges has
the wrong sign, with 3 one of four.

`bare` runs each library solver on the same graph in the same process, turn by turn, and tells the medians.
`parts` solves squares of about 1000 points first (each measurement in a process of its own, for its peak of memory).
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from bioimage_cpp.graph import UndirectedGraph
from bioimage_cpp.graph.multicut import (
    FusionMoveMulticut,
    GreedyAdditiveMulticut,
    GreedyAdditiveProposalGenerator,
    KernighanLinMulticut,
    MulticutObjective,
)
from scipy.spatial import Delaunay, cKDTree

from raydom.config.neurons import MulticutConfig
from raydom.neurons.hierarchy import part_numbers
from raydom.neurons.multicut import multicut
from raydom.report.tables import show_table

NOISES = (1.5, 3.0)
POINTS_A_CELL = 12
POINTS_A_PART = 1000
BARE = {
    "gaec": lambda: [GreedyAdditiveMulticut()],
    "kernighan-lin": lambda: [GreedyAdditiveMulticut(), KernighanLinMulticut()],
    "fusion": lambda: [
        GreedyAdditiveMulticut(),
        KernighanLinMulticut(),
        FusionMoveMulticut(
            proposal_generator=GreedyAdditiveProposalGenerator(),
            sub_solver=KernighanLinMulticut(),
            number_of_iterations=100,
            stop_if_no_improvement=20,
        ),
    ],
}


@dataclass(frozen=True)
class Problem:
    """A graph like one of superpixels."""

    num_nodes: int
    edges: np.ndarray
    costs: np.ndarray
    points: np.ndarray

    @property
    def parts(self) -> np.ndarray:
        """The square of each point."""
        side = max(2, round((self.num_nodes / POINTS_A_PART) ** 0.5))
        return part_numbers(*(self.points * side).astype(np.int64).T)


def planar(num_edges: int, noise: float, seed: int = 0) -> Problem:
    """Neighbours among random points; a planar graph has three times as many edges as nodes."""
    generator = np.random.default_rng(seed)
    num_nodes = num_edges // 3
    points = generator.random((num_nodes, 2))
    triangles = Delaunay(points).simplices
    edges = np.unique(np.sort(triangles[:, [[0, 1], [1, 2], [0, 2]]].reshape(-1, 2)), axis=0).astype(np.int64)
    cells = cKDTree(generator.random((num_nodes // POINTS_A_CELL, 2))).query(points)[1]
    mean = np.where(cells[edges[:, 0]] == cells[edges[:, 1]], 2.0, -2.0)
    return Problem(num_nodes, edges, mean + generator.normal(0, noise, len(edges)), points)


def bare(problem: Problem, solver: str) -> float:
    """The library alone, its graph included; the energy."""
    graph = UndirectedGraph.from_unique_edges(problem.num_nodes, problem.edges.astype(np.uint64))
    objective = MulticutObjective(graph, problem.costs)
    for step in BARE[solver]():
        step.optimize(objective)
    return float(objective.energy())


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def against_bare(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for num_edges in options.edges:
        for noise in NOISES:
            problem = planar(num_edges, noise)
            graph = (problem.num_nodes, problem.edges, problem.costs)
            for solver in BARE:
                if solver == "fusion" and num_edges > options.most_fused:
                    continue
                config = MulticutConfig(solver=solver)
                runs = [
                    (timed(lambda: bare(problem, solver)), timed(lambda: multicut(*graph, config)))  # noqa: B023
                    for _ in range(options.repeats)
                ]
                theirs, ours = (median(run[side][0] for run in runs) for side in (0, 1))
                reached, found = runs[0][0][1], runs[0][1][1].energy
                rows.append(
                    {
                        "edges": len(problem.edges),
                        "noise": noise,
                        "solver": solver,
                        "bare s": theirs,
                        "ours s": ours,
                        "ratio": ours / theirs,
                        "edges/s": round(len(problem.edges) / ours),
                        "energy": found,
                        "against bare %": 100 * (found - reached) / abs(reached),
                    }
                )
    return rows


def to_the_optimum(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for num_edges in options.edges:
        for noise in NOISES:
            problem = planar(num_edges, noise)
            graph = (problem.num_nodes, problem.edges, problem.costs)
            config = MulticutConfig(solver="exact", time_limit_s=options.time_limit_s)
            seconds, best = timed(lambda: multicut(*graph, config))  # noqa: B023
            others = {name: multicut(*graph, MulticutConfig(solver=name)).energy for name in BARE}
            rows.append(
                {
                    "edges": len(problem.edges),
                    "noise": noise,
                    "exact s": seconds,
                    "energy": best.energy,
                    "bound gap %": 100 * (best.energy - best.bound) / abs(best.bound),
                    **{f"{name} +%": 100 * (e - best.energy) / abs(best.energy) for name, e in others.items()},
                }
            )
    return rows


def one_in_parts(file: Path, config: MulticutConfig, whole: bool) -> tuple[float, float, float]:
    """Seconds, energy and MiB above what the process held with the problem ready."""
    stored = np.load(file)
    problem = Problem(len(stored["points"]), stored["edges"], stored["costs"], stored["points"])
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size from now on
    before = peak_mib()
    parts = None if whole else problem.parts
    seconds, found = timed(lambda: multicut(problem.num_nodes, problem.edges, problem.costs, config, parts))
    return seconds, found.energy, peak_mib() - before


def peak_mib() -> float:
    """Of this process; what ``getrusage`` tells began with its parent's peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def in_parts(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for num_edges in options.edges:
        for noise in NOISES:
            results = []
            problem = planar(num_edges, noise)
            with TemporaryDirectory() as folder:
                file = Path(folder) / "problem.npz"
                np.savez(file, edges=problem.edges, costs=problem.costs, points=problem.points)
                for whole in (True, False):
                    config = MulticutConfig(max_edges=num_edges * 2 if whole else max(1, num_edges // options.share))
                    with multiprocessing.get_context("spawn").Pool(1) as pool:
                        results.append(pool.apply(one_in_parts, (file, config, whole)))
            (whole_s, best, whole_mib), (parts_s, found, parts_mib) = results
            rows.append(
                {
                    "edges": num_edges,
                    "noise": noise,
                    "whole s": whole_s,
                    "parts s": parts_s,
                    "gap %": 100 * (found - best) / abs(best),
                    "whole MiB": round(whole_mib),
                    "parts MiB": round(parts_mib),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("bare", "exact", "parts"))
    parser.add_argument("--edges", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3, help="of each timing of `bare`")
    parser.add_argument("--most-fused", type=int, default=100_000, help="edges of the largest graph for fusion")
    parser.add_argument("--time-limit-s", type=float, default=60.0, help="of the exact solver")
    parser.add_argument("--share", type=int, default=8, help="parts are made of graphs with more edges than 1/share")
    options = parser.parse_args()
    measure = {"bare": against_bare, "exact": to_the_optimum, "parts": in_parts}[options.what]
    show_table(pa.Table.from_pylist(measure(options)))


if __name__ == "__main__":
    main()
