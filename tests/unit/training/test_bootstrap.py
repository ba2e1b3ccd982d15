from __future__ import annotations

import numpy as np
import pytest

from raydom.training.bootstrap import bootstrap_interval


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    units = np.stack([values, np.ones(400)], axis=1)
    interval = bootstrap_interval(units, lambda total: total[:1] / total[1:], 4000, seed=1)
    assert interval is not None
    error = 1.96 * values.std() / 20
    assert np.concatenate(interval) == pytest.approx([values.mean() - error, values.mean() + error], abs=0.02)


def test_equal_units_leave_no_doubt_and_a_single_one_no_interval() -> None:
    low, high = bootstrap_interval(np.full((7, 1), 3.0), lambda total: total / 7, 50, seed=0) or ((), ())
    assert (low, high) == ([3.0], [3.0])
    assert bootstrap_interval(np.ones((1, 1)), np.sqrt, 50, seed=0) is None
    assert bootstrap_interval(np.ones((7, 1)), np.sqrt, 0, seed=0) is None


def test_resamples_without_a_score_do_not_count() -> None:
    def share(total: np.ndarray) -> np.ndarray:
        return np.array([total[0] / total[1] if total[1] else np.nan, np.nan])

    low, high = bootstrap_interval(np.array([[1.0, 2.0], [0.0, 0.0]]), share, 100, seed=0) or ((), ())
    np.testing.assert_array_equal(low, [0.5, np.nan])
    np.testing.assert_array_equal(high, [0.5, np.nan])
