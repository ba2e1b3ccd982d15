"""What is said of the edges around an edge: the features that auto-context adds."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Integer

CONTEXT_NAMES = (
    "vote",
    *(f"votes around: {what}, {which}" for what in ("mean", "least", "most") for which in ("minimum", "maximum")),
)
"""Names of the columns of ``edge_context``."""


def edge_context(uv: Integer[np.ndarray, "n 2"], votes: Float64[np.ndarray, " n"]) -> Float32[np.ndarray, "n 7"]:
    """The vote on each edge, and mean, least and most of the votes on the other edges of each of its superpixels.

    Of the two superpixels the smaller and the larger number are told, so their order does not matter. A superpixel
    without another edge counts as if it had another like this.
    """
    num_edges = len(votes)
    if not num_edges:
        return np.empty((0, len(CONTEXT_NAMES)), np.float32)
    node = np.unique(uv.T, return_inverse=True)[1].reshape(-1)
    vote = np.tile(votes, 2)
    order = np.lexsort((vote, node))
    starts = np.flatnonzero(np.diff(node[order], prepend=-1))
    degree = np.diff(starts, append=len(order))
    others = np.maximum(degree[node] - 1, 1)
    mean = np.where(degree[node] > 1, (np.bincount(node, vote)[node] - vote) / others, vote)
    second = np.minimum(degree - 1, 1)
    columns = [mean]
    for extreme, next_to_it in ((starts, starts + second), (starts + degree - 1, starts + degree - 1 - second)):
        is_extreme = order[extreme][node] == np.arange(len(vote))
        columns.append(np.where(is_extreme, vote[order[next_to_it]][node], vote[order[extreme]][node]))
    pairs = [column.reshape(2, num_edges) for column in columns]
    told = [votes, *(part for pair in pairs for part in (pair.min(axis=0), pair.max(axis=0)))]
    return np.stack(told, axis=1).astype(np.float32)
