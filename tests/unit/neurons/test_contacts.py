from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import bioimage_cpp as bic
import numpy as np
import pytest

from raydom.errors import DataError
from raydom.neurons.contacts import Contacts, contacts, merged_contacts
from raydom.neurons.regions import Regions, merged_regions, regions

SHAPES = [(37, 29), (5, 23, 31)]


def example(shape: tuple[int, ...], seed: int = 0, num_maps: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Superpixels of a few pixels, with ids in no order, and noise."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros(shape, np.int32)
    seeds.reshape(-1)[rng.choice(seeds.size, 25, replace=False)] = np.arange(1, 26)
    labels = bic.segmentation.watershed(rng.random(shape).astype(np.float32), seeds)
    ids = np.concatenate([[0], rng.choice(2**40, 25, replace=False) + 1]).astype(np.uint64)
    return ids[labels], rng.integers(0, 256, (num_maps, *shape), np.uint8)


def cut(shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of blocks of random sizes."""
    rows, columns = (
        [0, *np.sort(rng.choice(np.arange(1, size), rng.integers(0, 5), replace=False)), size] for size in shape[-2:]
    )
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            yield slice(int(top), int(bottom)), slice(int(left), int(right))


def assert_equal(a: Contacts | Regions, b: Contacts | Regions) -> None:
    ours, theirs = a.to_arrays(), b.to_arrays()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.dtype == theirs[name].dtype
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(6))
def test_parts_of_any_cut_make_the_graph_of_the_whole(shape, seed):
    labels, maps = example(shape, seed)
    if seed % 2:
        labels[..., 3:9, 4:11] = 0
    rng = np.random.default_rng(seed)
    touching, lying = [], []
    for rows, columns in cut(shape, rng):
        own = (rows.stop - rows.start, columns.stop - columns.start)
        grown = (..., slice(rows.start, rows.stop + 1), slice(columns.start, columns.stop + 1))
        touching.append(contacts(labels[grown], maps[grown], own))
        lying.append(regions(labels[..., rows, columns], maps[..., rows, columns], (rows.start, columns.start)))
    rng.shuffle(touching)
    assert_equal(merged_contacts(touching), contacts(labels, maps, shape[-2:]))
    assert_equal(merged_regions(lying), regions(labels, maps, (0, 0)))


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_and_means_are_those_of_the_library(shape):
    labels, maps = example(shape)
    dense = np.unique(labels, return_inverse=True)[1].reshape(shape).astype(np.uint32)
    ours = contacts(dense + 1, maps, shape[-2:])
    graph = bic.graph.region_adjacency_graph(dense)
    np.testing.assert_array_equal(ours.uv - 1, graph.uv_ids())
    for index, values in enumerate(maps):
        theirs = bic.graph.features.edge_map_features(graph, dense, values.astype(np.float32))
        np.testing.assert_allclose(ours.maps.sums[:, index] / (2 * ours.faces), theirs[:, 0], rtol=1e-6)
        np.testing.assert_array_equal(ours.faces, theirs[:, 1])


def test_a_contact_by_hand():
    labels = np.array([[7, 7, 2], [7, 2, 2]], np.uint32)
    maps = np.array([[[10, 20, 30], [40, 50, 255]]], np.uint8)
    found = contacts(labels, maps, (2, 3))
    np.testing.assert_array_equal(found.uv, [[2, 7]])
    np.testing.assert_array_equal(found.axis_faces, [[1, 2]])  # 20|50; 20|30 and 40|50
    np.testing.assert_array_equal(found.maps.sums, [[20 + 50 + 20 + 30 + 40 + 50]])
    np.testing.assert_array_equal(found.maps.squares, [[2 * 400 + 2 * 2500 + 900 + 1600]])
    assert (found.maps.minimum.item(), found.maps.maximum.item()) == (20, 50)
    np.testing.assert_array_equal(np.flatnonzero(found.maps.histogram), [1, 2, 3])
    np.testing.assert_array_equal(found.maps.histogram.ravel()[1:4], [3, 1, 2])


def test_a_region_by_hand():
    labels = np.zeros((2, 3, 4), np.uint32)
    labels[1, 0, 1:3] = labels[1, 2, 0] = 5
    found = regions(labels, np.full((1, 2, 3, 4), 9, np.uint8), (10, 20))
    pixels = np.array([[1, 10, 21], [1, 10, 22], [1, 12, 20]])
    assert (found.label.tolist(), found.voxels.tolist(), found.maps.squares.tolist()) == ([5], [3], [[243]])
    np.testing.assert_array_equal(found.coordinates, [pixels.sum(axis=0)])
    np.testing.assert_array_equal(found.products, [pixels.T @ pixels])


def test_one_superpixel_has_no_contact_and_none_no_region():
    maps = np.zeros((2, 4, 5), np.uint8)
    assert contacts(np.ones((4, 5), np.uint32), maps, (4, 5)).u.size == 0
    nothing = regions(np.zeros((4, 5), np.uint32), maps, (0, 0))
    assert nothing.label.size == 0
    assert_equal(merged_regions([nothing, nothing]), nothing)


def test_a_graph_is_read_back_from_its_arrays():
    labels, maps = example((17, 13))
    touching, lying = contacts(labels, maps, (17, 13)), regions(labels, maps, (0, 0))
    assert_equal(Contacts.from_arrays(touching.to_arrays()), touching)
    assert_equal(Regions.from_arrays(lying.to_arrays()), lying)


def test_maps_of_other_pixels_and_blocks_beyond_the_labels_are_refused():
    labels = np.ones((4, 5), np.uint32)
    with pytest.raises(DataError, match=r"\(4, 6\)"):
        contacts(labels, np.zeros((1, 4, 6), np.uint8), (4, 5))
    with pytest.raises(DataError, match="5 x 5 px"):
        contacts(labels, np.zeros((1, 4, 5), np.uint8), (5, 5))
    with pytest.raises(DataError, match="one has 2 and another 1"):
        merged_contacts([contacts(labels, np.zeros((n, 4, 5), np.uint8), (4, 5)) for n in (1, 2)])
