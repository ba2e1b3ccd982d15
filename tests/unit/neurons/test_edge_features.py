from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raydom.errors import DataError
from raydom.neurons.contacts import contacts
from raydom.neurons.features import EdgeFeatures, edge_features
from raydom.neurons.regions import regions

NAMES = ("raw", "boundary")


def told(labels: np.ndarray, maps: np.ndarray, anisotropy: float = 1.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The edges of an image, and their features by name."""
    touching = contacts(labels, maps, labels.shape[-2:])
    features, names = edge_features(touching, regions(labels, maps, (0, 0)), NAMES[: len(maps)], anisotropy)
    assert len(set(names)) == len(names) == features.shape[1]
    assert np.isfinite(features).all()
    return touching.uv, dict(zip(names, features.T, strict=True))


def example(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.permutation(np.prod([-(-n // 4) for n in shape])) + 1
    blocks = coarse.reshape([-(-n // 4) for n in shape])
    for axis in range(len(shape)):
        blocks = np.repeat(blocks, 4, axis=axis)
    return blocks[tuple(slice(n) for n in shape)].astype(np.uint32), rng.integers(0, 256, (2, *shape), np.uint8)


def test_two_bars_by_hand():
    """A bar of 2 x 6 above one of 4 x 6 px."""
    labels = np.repeat([1, 2], [12, 24]).reshape(6, 6).astype(np.uint32)
    raw = np.full((1, 6, 6), 10, np.uint8)
    raw[:, 1], raw[:, 2] = 100, 200
    uv, features = told(labels, raw)
    np.testing.assert_array_equal(uv, [[1, 2]])
    expected = {
        "raw: mean": 150,
        "raw: deviation": 50,
        "raw: minimum": 100,
        "raw: maximum": 200,
        "raw: above superpixels": 150 - (55 + 57.5) / 2,
        "raw of superpixels: mean, difference": 2.5,
        "raw of superpixels: mean, maximum": 57.5,
        "contact: area": 6,
        "contact over surface, minimum": 1,
        "contact over section, maximum": 6 / np.sqrt(12),
        "size, minimum": 12,
        "size, sum": 36,
        # Second moments of a bar of n px: n²/12, so axes are as its sides.
        "elongation, maximum": 3,
        "elongation, minimum": 1.5,
        "neighbours, maximum": 1,
        "centroids: distance": 3,
    }
    assert {name: features[name].item() for name in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(23, 29), (7, 13, 17)])
def test_numbers_and_order_of_superpixels_do_not_matter(shape):
    labels, maps = example(*shape)
    renumbered = (labels.max() + 1 - labels) * 1000
    uv, features = told(labels, maps)
    others, same = told(renumbered, maps)
    back = np.sort(labels.max() + 1 - others.astype(np.int64) // 1000, axis=1)
    order = np.lexsort((back[:, 1], back[:, 0]))
    np.testing.assert_array_equal(back[order], uv)
    for name, column in features.items():
        np.testing.assert_array_equal(same[name][order], column, err_msg=name)


def test_mirrored_and_shifted_images_have_the_same_edges():
    labels, maps = example(21, 26)
    uv, features = told(labels, maps)
    flipped_uv, flipped = told(np.ascontiguousarray(labels[:, ::-1]), np.ascontiguousarray(maps[..., ::-1]))
    np.testing.assert_array_equal(uv, flipped_uv)
    for name, column in features.items():
        np.testing.assert_allclose(flipped[name], column, rtol=1e-5, err_msg=name)
    touching = contacts(labels, maps, labels.shape)
    far = edge_features(touching, regions(labels, maps, (2**31, 2**31)), NAMES)[0]  # products overflow, and back
    np.testing.assert_allclose(far, np.stack(list(features.values()), axis=1), rtol=1e-5)


def test_quantiles_are_within_a_bin_of_the_exact_ones():
    labels, maps = example(40, 40)
    labels = (labels > np.median(labels)).astype(np.uint32) + 1
    _, features = told(labels, maps)
    across = [maps[0][:-1][labels[:-1] != labels[1:]], maps[0][1:][labels[:-1] != labels[1:]]]
    along = [maps[0][:, :-1][labels[:, :-1] != labels[:, 1:]], maps[0][:, 1:][labels[:, :-1] != labels[:, 1:]]]
    exact = np.quantile(np.concatenate(across + along), [0.1, 0.5, 0.9])
    ours = [features[f"raw: {name}"].item() for name in ("quantile 0.1", "median", "quantile 0.9")]
    np.testing.assert_allclose(ours, exact, atol=3)


def test_thick_planes_make_areas_and_distances_larger():
    labels = np.zeros((2, 3, 6), np.uint32)
    labels[0], labels[1], labels[1, :, 3:] = 1, 2, 3
    uv, features = told(labels, np.zeros((1, 2, 3, 6), np.uint8), anisotropy=5.0)
    np.testing.assert_array_equal(uv, [[1, 2], [1, 3], [2, 3]])
    np.testing.assert_array_equal(features["contact: area"], [9, 9, 3 * 5])
    np.testing.assert_array_equal(features["contact: share across planes"], [1, 1, 0])
    np.testing.assert_allclose(features["centroids: distance"], [np.hypot(5, 1.5), np.hypot(5, 1.5), 3])
    np.testing.assert_array_equal(features["size, maximum"], [90, 90, 45])


def test_a_graph_without_edges_has_features_without_rows():
    labels, maps = np.ones((5, 4), np.uint32), np.zeros((2, 5, 4), np.uint8)
    uv, features = told(labels, maps)
    assert len(uv) == 0
    assert len(features["contact: area"]) == 0


def test_other_maps_and_unknown_superpixels_are_refused():
    labels, maps = example(9, 8)
    touching, lying = contacts(labels, maps, labels.shape), regions(labels, maps, (0, 0))
    with pytest.raises(DataError, match="1 maps are named; contacts have 2"):
        edge_features(touching, lying, ("raw",))
    with pytest.raises(DataError, match="such as 1000"):
        edge_features(replace(touching, v=touching.v + np.uint64(1000 - touching.v[0])), lying, NAMES)


def test_some_edges_are_described_as_among_all() -> None:
    labels, maps = example(40, 33)
    touching, lying = contacts(labels, maps, labels.shape), regions(labels, maps, (0, 0))
    described = EdgeFeatures(touching, lying, NAMES)
    whole, names = edge_features(touching, lying, NAMES)
    assert described.names == names and len(touching.u) > 20
    parts = [described.of(slice(start, start + 7)) for start in range(0, len(touching.u), 7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
