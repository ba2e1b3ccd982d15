from __future__ import annotations

import numpy as np

from raydom.report.neuron_tables import edge_scores, reliability

P = np.array([0.9, 0.8, 0.2, 0.5, 0.1, 1.0], np.float32)
LABELS = np.array([1, 0, 1, 0, 0, -1], np.int8)


def test_wrong_borders_are_counted_for_the_forest_and_the_multicut_without_unknown_ones() -> None:
    forest, multicut = edge_scores(P, np.array([True, False, True, False, False, True]), LABELS).to_pylist()
    assert forest == {
        "by": "forest",
        "edges": 5,
        "boundaries": 2,
        "wrongly joined": 1,
        "wrongly cut": 2,
        "precision": 1 / 3,
        "recall": 1 / 2,
    }
    assert (multicut["wrongly joined"], multicut["wrongly cut"], multicut["precision"]) == (0, 0, 1)


def test_nothing_cut_has_no_precision_and_no_boundary_no_recall() -> None:
    nothing = edge_scores(P * 0, np.zeros(6, bool), LABELS * 0).to_pylist()
    assert [(row["precision"], row["recall"]) for row in nothing] == [(None, None)] * 2


def test_the_share_of_boundaries_is_told_by_tenths_of_the_probability() -> None:
    rows = reliability(np.array([0.04, 0.06, 0.92, 1.0, 0.95]), np.array([0, 1, 1, 1, -1], np.int8)).to_pylist()
    assert [(row["from"], row["to"], row["edges"], row["share of boundaries"]) for row in rows] == [
        (0.0, 0.1, 2, 0.5),
        (0.9, 1.0, 2, 1.0),
    ]
    np.testing.assert_allclose([row["mean probability"] for row in rows], [0.05, 0.96])
