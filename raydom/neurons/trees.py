"""Random forests as plain arrays: grown by scikit-learn, kept without pickle, and asked as fast as there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree._tree import NODE_DTYPE, Tree

from raydom.config.neurons import ForestConfig
from raydom.errors import DataError

ROWS_AT_ONCE = 4096
"""Of features that a thread works on: they stay in its cache while tree after tree is asked."""


@dataclass(frozen=True, slots=True)
class TreeArrays:
    """The nodes of all trees, tree after tree; in each its root first."""

    num_nodes: Int64[np.ndarray, " trees"]
    left: Int32[np.ndarray, " nodes"]
    """Number, within the tree, of the node for values up to the threshold; -1 in leaves."""
    right: Int32[np.ndarray, " nodes"]
    feature: Int32[np.ndarray, " nodes"]
    threshold: Float64[np.ndarray, " nodes"]
    vote: Float64[np.ndarray, " nodes"]
    """Share of boundaries among the training edges of the node."""


class Trees:
    """A forest that votes, for each row of features, on how likely it is of class 1.

    The arrays are put back into scikit-learn's compiled trees, which ``scikit-learn>=1.7,<2`` builds from arrays when
    it unpickles: four times faster than walking the trees with numpy.
    """

    def __init__(self, arrays: TreeArrays, num_features: int) -> None:
        _check(arrays, num_features)
        self.arrays = arrays
        self.num_features = num_features
        ends = np.cumsum(arrays.num_nodes)
        self._trees = [self._tree(slice(end - n, end)) for n, end in zip(arrays.num_nodes, ends, strict=True)]

    def votes(self, features: Float32[np.ndarray, "n f"], num_threads: int = 1) -> Float64[np.ndarray, " n"]:
        """The mean of the trees' votes, 0 to 1; the same to the last bit for any number of threads."""
        parts = [features[start : start + ROWS_AT_ONCE] for start in range(0, len(features), ROWS_AT_ONCE)]
        with ThreadPoolExecutor(num_threads) as pool:
            return np.concatenate([np.empty(0), *pool.map(self._votes, parts)])

    def votes_of(self, tree: int, features: Float32[np.ndarray, "n f"]) -> Float64[np.ndarray, " n"]:
        """What one tree says."""
        return self._trees[tree].predict(features)[:, 0]

    def _votes(self, features: Float32[np.ndarray, "n f"]) -> Float64[np.ndarray, " n"]:
        # Tree after tree: scikit-learn's forests add up in the order in which their threads finish.
        total = np.zeros(len(features))
        for tree in range(len(self._trees)):
            total += self.votes_of(tree, features)
        return total / len(self._trees)

    def _tree(self, nodes: slice) -> Tree:
        state = np.zeros(nodes.stop - nodes.start, NODE_DTYPE)
        state["left_child"], state["right_child"] = self.arrays.left[nodes], self.arrays.right[nodes]
        state["feature"], state["threshold"] = self.arrays.feature[nodes], self.arrays.threshold[nodes]
        values = np.ascontiguousarray(self.arrays.vote[nodes, None, None])
        tree = Tree(self.num_features, np.ones(1, np.intp), 1)
        tree.__setstate__({"max_depth": 0, "node_count": len(state), "nodes": state, "values": values})
        return tree


def grown(
    features: Float32[np.ndarray, "n f"],
    labels: Bool[np.ndarray, " n"],
    config: ForestConfig,
    seed: int,
    num_threads: int = 1,
) -> tuple[Trees, Float64[np.ndarray, " n"]]:
    """A forest, and what its trees say of the rows that each was not grown from (out of bag).

    Classes weigh by their numbers, so that votes estimate probabilities; weights that balance them would shift these.
    The forest does not depend on the number of threads.

    Returns:
        The forest, and for each row the mean vote of the trees that did not see it; where all have, the share of the
        class.
    """
    forest = RandomForestClassifier(
        config.trees,
        min_samples_leaf=config.min_leaf,
        max_depth=config.max_depth,
        random_state=seed,
        n_jobs=num_threads,
    ).fit(features, labels)
    grown_trees = [estimator.tree_ for estimator in forest.estimators_]
    trees = Trees(_arrays(grown_trees), features.shape[1])
    total, asked = np.zeros(len(labels)), np.zeros(len(labels), np.int64)
    for tree, seen in enumerate(forest.estimators_samples_):
        unseen = np.ones(len(labels), bool)
        unseen[seen] = False
        total[unseen] += trees.votes_of(tree, features[unseen])
        asked += unseen
    return trees, np.where(asked > 0, total / np.maximum(asked, 1), labels.mean())


def _arrays(trees: Sequence[Tree]) -> TreeArrays:
    def all_of(name: str, dtype: type) -> np.ndarray:
        return np.concatenate([getattr(tree, name) for tree in trees]).astype(dtype)

    return TreeArrays(
        num_nodes=np.array([tree.node_count for tree in trees], np.int64),
        left=all_of("children_left", np.int32),
        right=all_of("children_right", np.int32),
        feature=all_of("feature", np.int32),
        threshold=all_of("threshold", np.float64),
        vote=np.concatenate([tree.value[:, 0, 1] for tree in trees]),
    )


def _check(arrays: TreeArrays, num_features: int) -> None:
    """Refuse nodes that lead out of their tree, or round in circles: compiled trees follow them unchecked."""
    size = np.repeat(arrays.num_nodes, arrays.num_nodes)
    own = np.arange(len(size)) - np.repeat(np.cumsum(arrays.num_nodes) - arrays.num_nodes, arrays.num_nodes)
    lengths = {
        field.name: len(getattr(arrays, field.name)) for field in fields(TreeArrays) if field.name != "num_nodes"
    }
    if set(lengths.values()) != {len(size)} or not arrays.num_nodes.all():
        raise DataError(f"the trees have {len(size)} nodes, and arrays of {lengths}; the file is damaged.")
    inner = arrays.left >= 0
    wrong = (arrays.left == 0) | (inner != (arrays.right >= 0))
    for child in (arrays.left, arrays.right):
        wrong |= inner & ((child <= own) | (child >= size))
    wrong |= inner & ((arrays.feature < 0) | (arrays.feature >= num_features))
    if wrong.any():
        raise DataError(
            f"{np.count_nonzero(wrong)} of {len(size)} nodes of the trees lead out of their tree, or ask for a feature "
            f"beyond the {num_features} there are; the file is damaged."
        )


def tree_arrays(arrays: Mapping[str, np.ndarray], prefix: str) -> TreeArrays:
    """Those whose names begin so."""
    return TreeArrays(**{field.name: arrays[prefix + field.name] for field in fields(TreeArrays)})
