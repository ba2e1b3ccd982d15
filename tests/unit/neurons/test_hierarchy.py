from __future__ import annotations

import numpy as np
import pytest
from test_multicut import planar, same_partition

from raydom.config.neurons import SOLVERS, MulticutConfig
from raydom.errors import DataError
from raydom.neurons.hierarchy import part_numbers, reduced, solved, subproblems
from raydom.neurons.multicut import energy, multicut
from raydom.neurons.signed_graphs import components, signed_graph


def squares(points, side):
    return part_numbers(*(points * side).astype(np.int64).T)


def test_a_quarter_of_a_square_s_number_is_that_of_its_two_by_two() -> None:
    rows, columns = (axis.ravel() for axis in np.mgrid[:6, :7])
    numbers = part_numbers(rows, columns)
    assert len(np.unique(numbers)) == 42
    np.testing.assert_array_equal(numbers >> 2, part_numbers(rows // 2, columns // 2))
    assert part_numbers(np.array([2**31 - 1]), np.array([2**31 - 1])).tolist() == [2**62 - 1]


def test_a_subproblem_has_the_nodes_of_its_part_and_the_edges_within() -> None:
    graph = signed_graph(5, np.array([[0, 3], [3, 4], [1, 2], [0, 1]]), np.array([1.0, -2.0, 3.0, 4.0]))
    a, b = subproblems(graph, np.array([7, 2, 2, 7, 7]))
    assert (a.nodes.tolist(), a.graph.edges.tolist(), a.graph.costs.tolist()) == ([1, 2], [[0, 1]], [3])
    assert (b.nodes.tolist(), b.graph.edges.tolist(), b.graph.costs.tolist()) == ([0, 3, 4], [[0, 1], [1, 2]], [1, -2])


def test_every_partition_of_a_reduced_graph_costs_what_it_costs_in_the_whole() -> None:
    edges, costs, _, points = planar(200, noise=2.0)
    graph = signed_graph(200, edges, costs)
    problems = list(subproblems(graph, squares(points, 3)))
    small, node = reduced(graph, problems, [solved(problem, MulticutConfig()) for problem in problems])
    labels = np.random.default_rng(0).integers(0, 5, small.num_nodes)
    assert small.num_nodes < 150
    assert energy(small.edges, small.costs, labels) == pytest.approx(energy(edges, costs, labels[node]))


@pytest.mark.parametrize("solver", SOLVERS)
def test_parts_find_planted_cells_that_are_larger_than_they_are(solver) -> None:
    edges, costs, cells, points = planar(600, noise=0.7)
    config = MulticutConfig(solver=solver, max_edges=100)
    found = multicut(600, edges, costs, config, squares(points, 4))
    assert (found.solver, found.bound) == (f"{solver} in parts", None)
    assert same_partition(found.labels, cells)


@pytest.mark.parametrize("solver", ["gaec", "kernighan-lin"])
def test_solved_in_parts_little_energy_is_lost_and_parts_stay_connected(solver) -> None:
    edges, costs, _, points = planar(2000, noise=1.5, num_cells=100)
    whole = multicut(2000, edges, costs, MulticutConfig(solver=solver))
    found = multicut(2000, edges, costs, MulticutConfig(solver=solver, max_edges=500), squares(points, 4))
    assert found.energy <= 0.98 * whole.energy
    joined = edges[found.labels[edges[:, 0]] == found.labels[edges[:, 1]]]
    np.testing.assert_array_equal(components(2000, joined), found.labels)


def test_small_graphs_and_one_part_are_solved_at_once() -> None:
    edges, costs, _, points = planar(200, noise=2.0)
    whole = multicut(200, edges, costs, MulticutConfig())
    small = multicut(200, edges, costs, MulticutConfig(), squares(points, 4))
    one = multicut(200, edges, costs, MulticutConfig(max_edges=1), np.zeros(200, np.int64))
    np.testing.assert_array_equal(small.labels, whole.labels)
    np.testing.assert_array_equal(one.labels, whole.labels)


def test_parts_that_fit_no_graph_are_refused() -> None:
    with pytest.raises(DataError, match="got 2, the least -1"):
        multicut(3, np.array([[0, 1]]), np.array([1.0]), MulticutConfig(), np.array([0, -1]))
