"""How likely each edge of a graph of superpixels is a boundary: a random forest, calibrated, with auto-context.

Auto-context is a forest after a forest: the next one also sees what the one before said of an edge and of the edges
that it meets, so that what is plain in the neighbourhood helps where an edge itself tells little. In training these
are votes of trees that had not seen the edge: a forest is nearly sure of its own training edges, and the next would
learn to trust it.

Source: Tu & Bai 2010 (IEEE TPAMI 32:1744), on edges of a graph in place of pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float32, Float64, Int8, Integer

from raydom.config.neurons import ForestConfig
from raydom.errors import DataError
from raydom.neurons.calibration import calibrated, calibration_curve
from raydom.neurons.context import CONTEXT_NAMES, edge_context
from raydom.neurons.features import EDGES_AT_ONCE
from raydom.neurons.trees import TreeArrays, Trees, grown, tree_arrays


@dataclass(frozen=True, slots=True)
class EdgeGraph:
    """The edges of an image that a forest learns from."""

    features: Float32[np.ndarray, "n f"]
    uv: Integer[np.ndarray, "n 2"]
    """Superpixels that each edge joins; only which edges share one matters."""
    labels: Int8[np.ndarray, " n"]
    """1 boundary, 0 none, -1 unknown: not learned from, but seen by the edges around."""


@dataclass(frozen=True, slots=True)
class EdgeForest:
    """Forests, one a round of auto-context and one before, and the calibration of the last."""

    names: tuple[str, ...]
    """Of the features."""
    rounds: tuple[Trees, ...]
    curve: Float64[np.ndarray, "2 k"]
    """From votes of the last forest to probabilities."""

    @classmethod
    def fit(
        cls, graphs: Sequence[EdgeGraph], config: ForestConfig, names: tuple[str, ...], num_threads: int = 1
    ) -> EdgeForest:
        """Learn from the graphs of one or more images.

        Args:
            graphs: Edges with features and labels.
            config: Trees, calibration, rounds of auto-context, seed.
            names: Of the features.
            num_threads: CPUs that are ours. The forest is the same for any number.

        Raises:
            DataError: If there is no labelled edge of either class, or features are not finite or not as many as names.
        """
        return cls.fit_and_judge(graphs, config, names, num_threads)[0]

    @classmethod
    def fit_and_judge(
        cls, graphs: Sequence[EdgeGraph], config: ForestConfig, names: tuple[str, ...], num_threads: int = 1
    ) -> tuple[EdgeForest, Float32[np.ndarray, " k"]]:
        """As ``fit``; also tells, for the labelled edges in their order, what trees that had not seen an edge say of it
        (calibrated by a curve that was fitted to these edges)."""
        for number, graph in enumerate(graphs):
            _check(graph.features, names, f"graph {number}")
        labels = np.concatenate([np.empty(0, np.int8), *(graph.labels for graph in graphs)])
        known = labels >= 0
        counts = np.bincount(labels[known], minlength=2)
        if not counts.all():
            raise DataError(
                f"the {len(labels)} edges of {len(graphs)} graphs have {counts[1]} known boundaries and {counts[0]} "
                "known joins; a forest needs both. Is the truth that of these images, and are superpixels smaller than "
                "objects?"
            )
        plain = np.concatenate([graph.features for graph in graphs])
        ends = np.cumsum([len(graph.labels) for graph in graphs])[:-1]
        rounds, votes, seen = list[Trees](), np.empty(0), plain
        for number in range(config.autocontext + 1):
            if rounds:
                parts = zip(graphs, np.split(votes, ends), strict=True)
                seen = np.hstack([plain, np.vstack([edge_context(graph.uv, part) for graph, part in parts])])
            trees, unseen_votes = grown(seen[known], labels[known] == 1, config, config.seed + number, num_threads)
            rounds.append(trees)
            votes = trees.votes(seen, num_threads)
            votes[known] = unseen_votes
        curve = calibration_curve(config.calibration, votes[known], labels[known] == 1)
        return cls(names, tuple(rounds), curve), calibrated(votes[known], curve).astype(np.float32)

    def probabilities(
        self, features: Float32[np.ndarray, "n f"], uv: Integer[np.ndarray, "n 2"], num_threads: int = 1
    ) -> Float32[np.ndarray, " n"]:
        """How likely each edge of an image is a boundary.

        Args:
            features: Of all edges of the image.
            uv: Superpixels that each joins.
            num_threads: CPUs that are ours; probabilities are the same for any number.

        Raises:
            DataError: If features are not finite, or not as many as those that the forest was trained on.
        """
        return self.judged(lambda rows: features[rows], uv, num_threads)

    def judged(
        self,
        describe: Callable[[slice], Float32[np.ndarray, "n f"]],
        uv: Integer[np.ndarray, "n 2"],
        num_threads: int = 1,
    ) -> Float32[np.ndarray, " n"]:
        """The same of edges whose features are described some at a time, each round anew.

        Args:
            describe: Gives the features of some edges.
            uv: Superpixels that each edge joins.
            num_threads: CPUs that are ours.
        """
        votes = np.empty(len(uv))
        for number, trees in enumerate(self.rounds):
            context = edge_context(uv, votes) if number else np.empty((len(uv), 0), np.float32)
            for start in range(0, len(uv), EDGES_AT_ONCE):
                rows = slice(start, start + EDGES_AT_ONCE)
                features = describe(rows)
                _check(features, self.names, "the graph")
                votes[rows] = trees.votes(np.hstack([features, context[rows]]), num_threads)
        return calibrated(votes, self.curve).astype(np.float32)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """As plain arrays by name, for a file that holds no code."""
        arrays = {"curve": self.curve, "names": np.frombuffer("\n".join(self.names).encode(), np.uint8)}
        for number, trees in enumerate(self.rounds):
            arrays |= {f"{number}.{field.name}": getattr(trees.arrays, field.name) for field in fields(TreeArrays)}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> EdgeForest:
        """What ``to_arrays`` told: a forest whose probabilities are the same to the last bit.

        Raises:
            DataError: If an array is missing, or nodes lead out of their tree.
        """
        try:
            names = tuple(arrays["names"].tobytes().decode().split("\n"))
            num_rounds = sum(name.endswith(".num_nodes") for name in arrays)
            rounds = [tree_arrays(arrays, f"{number}.") for number in range(num_rounds)]
            curve = arrays["curve"]
        except KeyError as error:
            raise DataError(
                f"the forest lacks its array {error}; is this the file of another kind of model?"
            ) from error
        if not rounds:
            raise DataError("the forest has no trees; is this the file of another kind of model?")
        widths = [len(names) + (len(CONTEXT_NAMES) if number else 0) for number in range(num_rounds)]
        return cls(names, tuple(Trees(*each) for each in zip(rounds, widths, strict=True)), curve)


def _check(features: Float32[np.ndarray, "n f"], names: tuple[str, ...], where: str) -> None:
    if features.shape[1] != len(names):
        raise DataError(
            f"{where} has {features.shape[1]} features an edge and the forest knows {len(names)} by name; use the maps "
            "and settings that it was trained with."
        )
    finite = np.isfinite(features)
    if not finite.all():
        column = names[int(np.flatnonzero(~finite.all(axis=0))[0])]
        raise DataError(f"{where} has {np.count_nonzero(~finite)} features that are not finite, such as {column!r}.")
