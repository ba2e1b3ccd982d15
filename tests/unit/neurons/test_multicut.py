from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial import Delaunay, cKDTree

from raydom.config.neurons import SOLVERS, MulticutConfig
from raydom.errors import ConfigError, DataError
from raydom.neurons.multicut import edge_costs, energy, multicut
from raydom.neurons.signed_graphs import components


def planar(num_nodes, noise, seed=0, num_cells=6):
    """Neighbours among random points, whose cells are to be found: edges, noisy costs, cells, points."""
    generator = np.random.default_rng(seed)
    points = generator.random((num_nodes, 2))
    triangles = Delaunay(points).simplices
    edges = np.unique(np.sort(triangles[:, [[0, 1], [1, 2], [0, 2]]].reshape(-1, 2)), axis=0).astype(np.int64)
    cells = cKDTree(generator.random((num_cells, 2))).query(points)[1].astype(np.int64)
    costs = np.where(cells[edges[:, 0]] == cells[edges[:, 1]], 2.0, -2.0) + generator.normal(0, noise, len(edges))
    return edges, costs, cells, points


def complete(num_nodes):
    return np.argwhere(np.triu(np.ones((num_nodes, num_nodes)), 1)).astype(np.int64)


def partitions(num_nodes):
    """All of them: each node joins one of the parts before it, or begins a new one."""
    found = [[0]]
    for _ in range(num_nodes - 1):
        found = [[*labels, part] for labels in found for part in range(max(labels) + 2)]
    return np.array(found)


def same_partition(a, b):
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


# ---------------------------------------------------------------------------------------------------------- costs


def test_an_undecided_edge_costs_nothing_and_odds_of_nine_cost_their_logarithm() -> None:
    costs = edge_costs(np.array([0.5, 0.1, 0.9]), MulticutConfig())
    np.testing.assert_allclose(costs, [0, math.log(9), -math.log(9)], atol=1e-12)


def test_more_prior_of_a_border_makes_every_edge_cheaper_to_cut_by_the_same() -> None:
    p = np.array([0.2, 0.5, 0.7], np.float32)
    change = edge_costs(p, MulticutConfig(beta=0.8)) - edge_costs(p, MulticutConfig(beta=0.5))
    np.testing.assert_allclose(change, -math.log(4))


def test_certain_edges_are_clipped_and_stay_finite() -> None:
    costs = edge_costs(np.array([0.0, 1.0], np.float32), MulticutConfig(clip=0.001))
    np.testing.assert_allclose(costs, [math.log(999), -math.log(999)])


def test_weights_are_the_share_of_the_longest_edge() -> None:
    costs = edge_costs(np.full(2, 0.1), MulticutConfig(size_weights=True), sizes=np.array([5, 20]))
    np.testing.assert_allclose(costs, [math.log(9) / 4, math.log(9)])


@pytest.mark.parametrize(("value", "told"), [(math.nan, "nan"), (1.5, "1.5"), (-0.1, "-0.1")])
def test_what_is_no_probability_is_refused_with_its_edge(value, told) -> None:
    with pytest.raises(DataError, match=rf"Edge 1: the boundary probability is {told}"):
        edge_costs(np.array([0.3, value]), MulticutConfig())


def test_weights_without_sizes_or_with_an_empty_edge_are_refused() -> None:
    config = MulticutConfig(size_weights=True)
    with pytest.raises(ConfigError, match="size_weights"):
        edge_costs(np.array([0.3]), config)
    with pytest.raises(DataError, match="Edge 0: the size is 0"):
        edge_costs(np.array([0.3]), config, sizes=np.array([0]))


# ------------------------------------------------------------------------------------------------------- solutions


@pytest.mark.parametrize("solver", SOLVERS)
def test_of_a_frustrated_triangle_the_weaker_attraction_is_cut(solver) -> None:
    edges = np.array([[0, 1], [0, 2], [1, 2]])
    found = multicut(3, edges, np.array([2.0, 1.0, -3.0]), MulticutConfig(solver=solver))
    assert (found.labels.tolist(), found.energy, found.solver) == ([0, 0, 1], -2.0, solver)
    assert found.bound == (-2.0 if solver == "exact" else None)


@pytest.mark.parametrize("solver", SOLVERS)
def test_of_a_triangle_of_equal_weights_no_cut_is_better_than_none(solver) -> None:
    edges = np.array([[0, 1], [0, 2], [1, 2]])
    assert multicut(3, edges, np.array([1.0, 1.0, -1.0]), MulticutConfig(solver=solver)).energy == 0


@pytest.mark.parametrize(("solver", "held"), [*((solver, 0.5) for solver in SOLVERS), ("exact", 5.0)])
def test_two_cliques_held_by_one_edge_come_apart_when_others_repel(solver, held) -> None:
    edges = complete(8)
    across = (edges < 4).sum(axis=1) == 1
    costs = np.where(across, -1.0, 1.0)
    costs[np.flatnonzero(across)[0]] = held  # more than the cliques' own edges, it misleads whoever is greedy
    found = multicut(8, edges, costs, MulticutConfig(solver=solver))
    assert found.labels.tolist() == [0] * 4 + [1] * 4
    assert found.energy == held - 15


@pytest.mark.parametrize("solver", SOLVERS)
def test_planted_cells_are_recovered_from_noisy_costs(solver) -> None:
    edges, costs, cells, _ = planar(300, noise=0.7)
    assert same_partition(multicut(300, edges, costs, MulticutConfig(solver=solver)).labels, cells)


@pytest.mark.parametrize("solver", SOLVERS)
def test_nodes_without_edges_are_alone(solver) -> None:
    none = np.zeros((0, 2), np.int64)
    for num_nodes in (0, 1, 3):
        found = multicut(num_nodes, none, np.zeros(0), MulticutConfig(solver=solver))
        assert (found.labels.tolist(), found.energy) == (list(range(num_nodes)), 0)


@pytest.mark.parametrize("seed", range(3))
def test_each_solver_is_as_good_as_those_before_it_and_better_than_all_or_nothing(seed) -> None:
    edges, costs, _, _ = planar(300, noise=3.0, seed=seed)
    energies = [multicut(300, edges, costs, MulticutConfig(solver=solver)).energy for solver in SOLVERS]
    assert energies == sorted(energies, reverse=True)
    assert energies[0] < min(0, energy(edges, costs, np.arange(300)))


@pytest.mark.parametrize("solver", SOLVERS)
def test_two_nodes_are_one_only_if_a_path_of_joined_edges_leads_from_one_to_the_other(solver) -> None:
    edges, costs, _, _ = planar(200, noise=4.0)
    labels = multicut(200, edges, costs, MulticutConfig(solver=solver)).labels
    joined = edges[labels[edges[:, 0]] == labels[edges[:, 1]]]
    np.testing.assert_array_equal(components(200, joined), labels)


@pytest.mark.parametrize("solver", SOLVERS)
def test_order_direction_and_doubling_of_edges_do_not_matter(solver) -> None:
    edges, costs, _, _ = planar(100, noise=3.0)
    config = MulticutConfig(solver=solver)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(edges)), 2))
    again = multicut(100, edges[order][:, ::-1], costs[order] / 2, config)
    expected = multicut(100, edges, costs, config)
    np.testing.assert_array_equal(again.labels, expected.labels)
    assert again.energy == expected.energy


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("exponent", [-30, 40])
def test_the_unit_of_costs_does_not_matter(solver, exponent) -> None:
    edges, costs, _, _ = planar(100, noise=3.0)
    config = MulticutConfig(solver=solver)
    found, expected = multicut(100, edges, costs * 2.0**exponent, config), multicut(100, edges, costs, config)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_the_energy_knows_neither_the_names_of_nodes_nor_the_order_of_edges() -> None:
    edges, costs, cells, _ = planar(100, noise=1.0)
    generator = np.random.default_rng(0)
    names, order = generator.permutation(100), generator.permutation(len(edges))
    renamed = np.empty(100, np.int64)
    renamed[names] = 7 - cells
    assert energy(names[edges[order]], costs[order], renamed) == energy(edges, costs, cells)


@pytest.mark.parametrize("solver", SOLVERS)
def test_graphs_apart_are_solved_as_if_alone(solver) -> None:
    config = MulticutConfig(solver=solver)
    (a, wa, _, _), (b, wb, _, _) = planar(80, noise=3.0), planar(90, noise=3.0, seed=1)
    both = multicut(170, np.concatenate([a, b + 80]), np.concatenate([wa, wb]), config)
    alone = multicut(80, a, wa, config), multicut(90, b, wb, config)
    np.testing.assert_array_equal(both.labels[:80], alone[0].labels)
    np.testing.assert_array_equal(both.labels[80:] - both.labels[80], alone[1].labels)


@pytest.mark.parametrize(
    ("edge", "cost", "told"),
    [
        ([1, 1], 1.0, "Edge 1: the pair of nodes is .1 1., which must be two different"),
        ([0, 3], 1.0, "Edge 1: the pair of nodes is .0 3., which must be two of 0 to 2"),
        ([-1, 0], 1.0, "Edge 1: the pair of nodes"),
        ([1, 2], math.inf, "Edge 1: the cost is inf"),
    ],
)
def test_a_wrong_edge_is_refused_by_its_number(edge, cost, told) -> None:
    with pytest.raises(DataError, match=told):
        multicut(3, np.array([[0, 1], edge]), np.array([1.0, cost]), MulticutConfig())
