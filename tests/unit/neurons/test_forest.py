from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from raydom.config.neurons import ForestConfig
from raydom.errors import DataError
from raydom.neurons.calibration import calibrated, calibration_curve, log_loss
from raydom.neurons.context import CONTEXT_NAMES, edge_context
from raydom.neurons.forest import EdgeForest, EdgeGraph

CONFIG = ForestConfig(trees=40)
NAMES = ("a", "b")


def ring(seed: int, num_edges: int = 300, noise: float = 0.1) -> EdgeGraph:
    """Edges in a ring; the first feature tells boundaries, the second nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num_edges).astype(np.int8)
    features = np.stack([labels + noise * rng.standard_normal(num_edges), rng.random(num_edges)], axis=1)
    nodes = np.arange(num_edges)
    return EdgeGraph(features.astype(np.float32), np.stack([nodes, (nodes + 1) % num_edges], axis=1), labels)


def test_what_can_be_told_is_learned():
    forest = EdgeForest.fit([ring(0), ring(1)], CONFIG, NAMES)
    new = ring(2)
    np.testing.assert_array_equal(forest.probabilities(new.features, new.uv) > 0.5, new.labels == 1)


def test_votes_are_those_of_scikit_learn():
    graph = ring(0, noise=0.8)
    theirs = RandomForestClassifier(40, min_samples_leaf=2, random_state=0).fit(graph.features, graph.labels)
    ours = EdgeForest.fit([graph], CONFIG, NAMES).probabilities(graph.features, graph.uv)
    np.testing.assert_array_equal(ours, theirs.predict_proba(graph.features)[:, 1].astype(np.float32))


@pytest.mark.parametrize("calibration", ["none", "isotonic", "sigmoid"])
def test_a_forest_is_read_back_from_its_arrays_and_does_not_depend_on_threads(calibration):
    config = replace(CONFIG, calibration=calibration, autocontext=1)
    graphs, new = [ring(0, noise=0.8), ring(1, noise=0.8)], ring(2, 9001, noise=0.8)
    forest, again = (EdgeForest.fit(graphs, config, NAMES, num_threads=n) for n in (1, 3))
    arrays = forest.to_arrays()
    assert all(array.dtype != object for array in arrays.values())
    for name, array in again.to_arrays().items():
        np.testing.assert_array_equal(array, arrays[name])
    read = EdgeForest.from_arrays({name: array.copy() for name, array in arrays.items()})
    assert read.names == NAMES
    np.testing.assert_array_equal(
        read.probabilities(new.features, new.uv), forest.probabilities(new.features, new.uv, num_threads=3)
    )


@pytest.mark.parametrize("calibration", ["isotonic", "sigmoid"])
def test_calibration_lowers_the_log_loss_of_other_edges(calibration):
    """Few features that tell little, and small leaves: votes are surer than they may be."""
    graphs, new = [ring(seed, 500, noise=1.5) for seed in range(4)], ring(9, 3000, noise=1.5)
    config = replace(CONFIG, min_leaf=1)
    losses = [
        log_loss(EdgeForest.fit(graphs, each, NAMES).probabilities(new.features, new.uv), new.labels)
        for each in (config, replace(config, calibration=calibration))
    ]
    assert losses[1] < losses[0] - 0.03


def test_curves_by_hand():
    votes, labels = np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, True, False, True])
    curve = calibration_curve("isotonic", votes, labels)
    np.testing.assert_allclose(calibrated(np.array([0.0, 0.1, 0.2, 0.25, 0.3, 0.9]), curve), [0, 0, 0.5, 0.5, 0.5, 1])
    np.testing.assert_array_equal(calibrated(votes, calibration_curve("none", votes, labels)), votes)
    many = np.repeat([0.2, 0.8], 1000)
    as_told = np.arange(2000) % 1000 < 1000 * many
    np.testing.assert_allclose(calibrated(many, calibration_curve("sigmoid", many, as_told)), many, atol=1e-3)


def stars(seed: int, num: int = 150) -> EdgeGraph:
    """Pairs of edges that share a superpixel and a label, which only the first of them tells."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(0, 2, num), 2).astype(np.int8)
    features = rng.random((2 * num, 2)).astype(np.float32)
    features[::2, 0] = labels[::2]
    features[:, 1] = np.arange(2 * num) % 2
    first = 3 * np.arange(num)
    return EdgeGraph(features, np.stack([np.repeat(first, 2), (first[:, None] + [1, 2]).ravel()], axis=1), labels)


def test_autocontext_sees_what_only_neighbours_tell():
    graphs, new = [stars(0), stars(1)], stars(2)
    blind = slice(1, None, 2)
    without, with_it = (
        EdgeForest.fit(graphs, replace(CONFIG, autocontext=rounds), NAMES).probabilities(new.features, new.uv)[blind]
        for rounds in (0, 1)
    )
    right = new.labels[blind] == 1
    assert ((without > 0.5) == right).mean() < 0.65
    assert ((with_it > 0.5) == right).mean() > 0.95


def test_context_by_hand():
    """Edges 0-1, 0-2, 0-3 and 3-4."""
    uv = np.array([[0, 1], [2, 0], [0, 3], [3, 4]])
    around = dict(zip(CONTEXT_NAMES, edge_context(uv, np.array([0.1, 0.4, 0.8, 0.3])).T, strict=True))
    expected = {
        "vote": [0.1, 0.4, 0.8, 0.3],
        "votes around: mean, minimum": [0.1, 0.4, 0.25, 0.3],
        "votes around: mean, maximum": [0.6, 0.45, 0.3, 0.8],
        "votes around: least, minimum": [0.1, 0.1, 0.1, 0.3],
        "votes around: least, maximum": [0.4, 0.4, 0.3, 0.8],
        "votes around: most, minimum": [0.1, 0.4, 0.3, 0.3],
        "votes around: most, maximum": [0.8, 0.8, 0.4, 0.8],
    }
    for name, column in expected.items():
        np.testing.assert_allclose(around[name], column, rtol=1e-6, err_msg=name)
    assert edge_context(np.empty((0, 2), np.int64), np.empty(0)).shape == (0, len(CONTEXT_NAMES))


def test_edges_of_unknown_label_are_not_learned_from():
    graph, rng = ring(0), np.random.default_rng(0)
    hidden = replace(graph, labels=np.where(rng.random(300) < 0.5, -1, graph.labels).astype(np.int8))
    kept = hidden.labels >= 0
    few = EdgeGraph(graph.features[kept], graph.uv[kept], graph.labels[kept])
    a, b = (EdgeForest.fit([each], CONFIG, NAMES).to_arrays() for each in (hidden, few))
    np.testing.assert_array_equal(a["0.threshold"], b["0.threshold"])


def test_an_image_of_one_superpixel_has_no_probabilities():
    forest = EdgeForest.fit([ring(0)], replace(CONFIG, autocontext=1), NAMES)
    assert forest.probabilities(np.empty((0, 2), np.float32), np.empty((0, 2), np.int64)).shape == (0,)


def test_graphs_that_teach_nothing_and_broken_forests_are_refused():
    graph = ring(0)
    with pytest.raises(DataError, match="300 edges of 1 graphs have 300 known boundaries and 0 known joins"):
        EdgeForest.fit([replace(graph, labels=np.ones(300, np.int8))], CONFIG, NAMES)
    with pytest.raises(DataError, match="0 edges of 0 graphs"):
        EdgeForest.fit([], CONFIG, NAMES)
    with pytest.raises(DataError, match=r"graph 0 has 2 features.*knows 1"):
        EdgeForest.fit([graph], CONFIG, ("a",))
    forest = EdgeForest.fit([graph], CONFIG, NAMES)
    with pytest.raises(DataError, match="1 features that are not finite, such as 'b'"):
        forest.probabilities(np.array([[0, np.inf]], np.float32), np.array([[0, 1]]))
    arrays = forest.to_arrays()
    with pytest.raises(DataError, match="curve"):
        EdgeForest.from_arrays({name: array for name, array in arrays.items() if name != "curve"})
    loop = arrays["0.left"].copy()
    loop[loop > 0] = 1
    with pytest.raises(DataError, match="lead out of their tree"):
        EdgeForest.from_arrays(arrays | {"0.left": loop})
