from __future__ import annotations

import numpy as np
import pytest
from test_multicut import complete, partitions, planar

from raydom.config.neurons import MulticutConfig
from raydom.neurons.cycles import Relaxation, Separation
from raydom.neurons.exact import certain, exact
from raydom.neurons.multicut import multicut
from raydom.neurons.signed_graphs import energy, signed_graph


def least_energy(edges, costs, num_nodes):
    labels = partitions(num_nodes)
    return float(((labels[:, edges[:, 0]] != labels[:, edges[:, 1]]) * costs).sum(axis=1).min())


def random_graph(seed):
    """Of 3 to 8 nodes, with whole numbers for costs (many ties) or normal ones of any size."""
    generator = np.random.default_rng(seed)
    num_nodes = int(generator.integers(3, 9))
    edges = complete(num_nodes)[generator.random(num_nodes * (num_nodes - 1) // 2) < generator.uniform(0.4, 1)]
    costs = (
        generator.integers(-3, 4, len(edges)) if seed % 2 else generator.normal(0, 10.0 ** (seed % 7 - 3), len(edges))
    )
    return num_nodes, edges, costs.astype(np.float64)


@pytest.mark.parametrize("seed", range(60))
def test_no_partition_of_a_small_graph_has_less_energy(seed) -> None:
    num_nodes, edges, costs = random_graph(seed)
    found = multicut(num_nodes, edges, costs, MulticutConfig(solver="exact"))
    tolerance = 1e-6 * np.abs(costs).max(initial=0)
    assert found.energy == pytest.approx(least_energy(edges, costs, num_nodes), abs=tolerance)
    assert found.bound == found.energy


@pytest.mark.parametrize("seed", range(60))
def test_what_is_certain_is_joined_in_some_best_partition(seed) -> None:
    num_nodes, edges, costs = random_graph(seed)
    kept = certain(signed_graph(num_nodes, edges, costs))
    labels = partitions(num_nodes)
    energies = ((labels[:, edges[:, 0]] != labels[:, edges[:, 1]]) * costs).sum(axis=1)
    best = labels[np.isclose(energies, energies.min(), rtol=0, atol=1e-9)]
    together = np.array([(row[:, None] == row)[kept[:, None] == kept].all() for row in best])
    assert together.any()


@pytest.mark.parametrize("seed", range(20))
def test_the_relaxation_bounds_every_partition_and_decides_what_better_ones_share(seed) -> None:
    num_nodes, edges, costs = random_graph(seed)
    graph = signed_graph(num_nodes, edges, costs)
    relaxation = Relaxation.of(graph)
    while relaxation.tighten(deadline=np.inf):
        pass
    labels = partitions(num_nodes)
    cut = labels[:, graph.edges[:, 0]] != labels[:, graph.edges[:, 1]]
    energies = (cut * graph.costs).sum(axis=1)
    assert relaxation.bound <= energies.min() + 1e-9 * np.abs(costs).sum()
    limit = float(np.quantile(energies, 0.2))
    joined, apart = relaxation.decided(limit)
    better = cut[energies < limit - 1e-9 * np.abs(costs).sum()]
    assert not better[:, joined].any()
    assert better[:, apart].all()


def test_a_cut_edge_between_joined_ends_is_found_with_the_shortest_path_around() -> None:
    # A square with a diagonal: 0-1-2-3-0 attract, 1-3 attracts; 0-2 repels.
    graph = signed_graph(4, np.array([[0, 1], [1, 2], [2, 3], [0, 3], [1, 3], [0, 2]]), np.array([1.0] * 5 + [-1.0]))
    x = (graph.costs < 0).astype(float)
    x[graph.edges.tolist().index([0, 1])] = 0.5
    rows = Separation(graph).violated(x).toarray()
    used = {tuple(graph.edges[place].tolist()): rows[0, place] for place in np.flatnonzero(rows[0])}
    assert used == {(0, 2): 1, (0, 3): -1, (2, 3): -1}


def test_of_a_thousand_edges_the_optimum_is_proven_where_kernighan_lin_stops_short() -> None:
    edges, costs, _, _ = planar(340, noise=3.0)
    found = multicut(340, edges, costs, MulticutConfig(solver="exact"))
    assert found.bound == found.energy
    assert found.energy < multicut(340, edges, costs, MulticutConfig()).energy


def test_when_time_is_over_the_best_found_is_told_with_a_bound_and_no_claim() -> None:
    generator = np.random.default_rng(0)
    edges = complete(30)
    costs = generator.normal(0, 1, len(edges))
    graph = signed_graph(30, edges, costs)
    labels, bound = exact(graph, time_limit_s=1e-3)
    reached = energy(edges, costs, labels)
    assert reached <= multicut(30, edges, costs, MulticutConfig()).energy
    assert np.minimum(costs, 0).sum() <= bound < reached - 1


def test_a_bound_at_the_end_of_time_holds() -> None:
    for seed in range(20):
        num_nodes, edges, costs = random_graph(seed)
        labels, bound = exact(signed_graph(num_nodes, edges, costs), time_limit_s=1e-9)
        least = least_energy(edges, costs, num_nodes)
        slack = 1e-9 * np.abs(costs).sum()
        assert bound - slack <= least <= energy(edges, costs, labels) + slack
