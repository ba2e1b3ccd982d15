"""How far a score would vary with other images of the same kind."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

LEVEL = 0.95


def bootstrap_interval(
    units: Float64[np.ndarray, "units terms"],
    score: Callable[[np.ndarray], np.ndarray],
    num_resamples: int,
    seed: int,
) -> tuple[Float64[np.ndarray, " scores"], Float64[np.ndarray, " scores"]] | None:
    """Percentile bootstrap interval at 95 % of scores of a sum over independent units.

    Units are drawn with replacement, as many as there are, and the scores are taken of the sum of the drawn: the
    interval is that between the 2.5th and the 97.5th percentile. With few units (below ten or so) it is too narrow.

    Args:
        units: What each unit adds to the sum. Units are what is independent: images, or the stacks they belong to.
        score: The scores of a sum; NaN where one is not defined, and such resamples do not count for it.
        num_resamples: How often units are drawn.
        seed: Of the draws.

    Returns:
        The lower and the upper ends; None if there is nothing to draw from: a single unit, or no resamples.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13.
    """
    num_units = len(units)
    if num_units < 2 or num_resamples == 0:
        return None
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(num_resamples):
        times = np.bincount(generator.integers(num_units, size=num_units), minlength=num_units)
        drawn.append(score(times @ units))
    tail = 50 * (1 - LEVEL)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN")
        low, high = np.nanpercentile(np.stack(drawn), [tail, 100 - tail], axis=0)
    return low, high
