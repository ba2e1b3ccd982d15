"""Tables of how well the borders of superpixels were judged, by the forest and then by the multicut."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int8

BINS = 10


def edge_scores(
    probabilities: Float[np.ndarray, " n"], cut: Bool[np.ndarray, " n"], labels: Int8[np.ndarray, " n"]
) -> pa.Table:
    """How many borders are wrong: a row for the forest alone, cut from a probability of one half, and the multicut.

    Args:
        probabilities: That an edge is a boundary.
        cut: Whether the multicut cut it.
        labels: 1 boundary, 0 none, -1 unknown, which does not count (`raydom.neurons.truth.edge_labels`).

    Returns:
        Numbers of known edges and true boundaries, of those wrongly joined and wrongly cut, precision and recall of
        boundaries (null where nothing was cut, or nothing is a boundary).
    """
    known = labels >= 0
    true = labels[known] == 1
    rows = []
    for name, found in (("forest", probabilities[known] >= 0.5), ("multicut", cut[known])):
        both = int((found & true).sum())
        rows.append(
            {
                "by": name,
                "edges": len(true),
                "boundaries": int(true.sum()),
                "wrongly joined": int((true & ~found).sum()),
                "wrongly cut": int((found & ~true).sum()),
                "precision": both / int(found.sum()) if found.any() else None,
                "recall": both / int(true.sum()) if true.any() else None,
            }
        )
    return pa.Table.from_pylist(rows)


def reliability(probabilities: Float[np.ndarray, " n"], labels: Int8[np.ndarray, " n"]) -> pa.Table:
    """What probabilities are worth: of edges about as probable, how many are boundaries; a row a tenth."""
    known = labels >= 0
    p, true = probabilities[known].astype(np.float64), labels[known] == 1
    tenth = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(tenth, minlength=BINS)
    some = np.flatnonzero(counts)
    return pa.table(
        {
            "from": some / BINS,
            "to": (some + 1) / BINS,
            "edges": counts[some],
            "mean probability": np.bincount(tenth, p, BINS)[some] / counts[some],
            "share of boundaries": np.bincount(tenth, true, BINS)[some] / counts[some],
        }
    )
