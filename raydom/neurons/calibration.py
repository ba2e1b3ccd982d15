"""From votes of a forest to probabilities, and how good probabilities are."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

LEAST_VOTE = 1e-3
"""Votes are held within this and one minus this before their log odds are taken."""


def calibration_curve(
    method: str, votes: Float64[np.ndarray, " n"], labels: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, "2 k"]:
    """The curve from votes to probabilities, as points that straight lines join.

    Args:
        method: ``none``; ``isotonic``, any curve that never falls; ``sigmoid``, log odds that are linear in those of
            the votes, which needs fewer edges.
        votes: Of edges that the trees were not grown from.
        labels: Whether those are boundaries.
    """
    if method == "isotonic":
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(votes, labels)
        return np.stack([fitted.X_thresholds_, fitted.y_thresholds_]).astype(np.float64)
    if method == "sigmoid":
        fitted = LogisticRegression(C=np.inf).fit(_log_odds(votes), labels)
        points = np.linspace(0, 1, 1001)
        return np.stack([points, fitted.predict_proba(_log_odds(points))[:, 1]])
    return np.array([[0.0, 1.0], [0.0, 1.0]])


def calibrated(votes: Float64[np.ndarray, " n"], curve: Float64[np.ndarray, "2 k"]) -> Float64[np.ndarray, " n"]:
    """Probabilities of votes; beyond the curve, that of its end."""
    return np.interp(votes, *curve)


def log_loss(probabilities: Shaped[np.ndarray, " n"], labels: Shaped[np.ndarray, " n"]) -> float:
    """Mean negative log likelihood, nats; an undecided forest has ln 2. Probabilities within 0.001 of 0 and 1 count as
    that, as the costs of the multicut have them."""
    held = np.clip(probabilities.astype(np.float64), LEAST_VOTE, 1 - LEAST_VOTE)
    return float(-np.where(labels == 1, np.log(held), np.log1p(-held)).mean())


def _log_odds(votes: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n 1"]:
    held = np.clip(votes, LEAST_VOTE, 1 - LEAST_VOTE)
    return np.log(held / (1 - held))[:, None]
