import numpy as np
import pytest

from raydom.errors import DataError
from raydom.images.domains import cluster_images, examples, hsv_features, mean_colour, principal_components


def features_of(*colour: float) -> np.ndarray:
    """Of an image of one colour, with as many channels as there are numbers."""
    return hsv_features(np.tile(np.array(colour, np.float32)[:, None, None], (1, 5, 7)))


@pytest.mark.parametrize(
    ("colour", "hue", "saturation", "value"),
    [
        ((1, 0, 0), 0, 1, 1),
        ((0, 0.5, 0), 120, 1, 0.5),
        ((0, 0, 1), 240, 1, 1),
        ((1, 1, 0.5), 60, 0.5, 1),
        ((0.3, 0.3, 0.3), None, 0, 0.3),
        ((0.3,), None, 0, 0.3),  # one channel is gray
        ((0.2, 0.2), 60, 1, 0.2),  # two are red and green, here yellow
        ((0, 1, 0, 1, 1), 120, 1, 1),  # of five, the first three
    ],
)
def test_pure_colours(colour, hue, saturation, value):
    found = mean_colour(features_of(*colour)[None])
    assert (found.hue_degrees is None) == (hue is None)
    assert hue is None or found.hue_degrees == pytest.approx(hue, abs=1e-3)
    assert (found.saturation, found.value) == pytest.approx((saturation, value), abs=1e-6)


def test_the_mean_of_hues_on_both_sides_of_red_is_red_and_gray_pixels_have_no_say():
    image = np.array([[[1, 1, 0.7]], [[0.2, 0, 0.7]], [[0, 0.2, 0.7]]], np.float32)
    hue = mean_colour(hsv_features(image)[None]).hue_degrees
    assert min(hue, 360 - hue) < 1e-3


def make_images() -> tuple[np.ndarray, np.ndarray]:
    """Features of four separated kinds of images, and the clusters that they must be in."""
    kinds = [((0.8, 0.1, 0.1), 5), ((0.1, 0.1, 0.1), 3), ((0.9, 0.9, 0.9), 3), ((0.1, 0.6, 0.1), 2)]
    noise = np.random.default_rng(0)
    rows = [features_of(*np.clip(np.array(c) + noise.normal(0, 0.01, 3), 0, 1)) for c, n in kinds for _ in range(n)]
    return np.array(rows), np.repeat(np.arange(4), [n for _, n in kinds])


def test_separated_colours_are_clusters_the_largest_first_and_of_equal_ones_the_darker():
    features, expected = make_images()
    for seed in range(3):
        np.testing.assert_array_equal(cluster_images(features, 4, seed), expected)
    order = np.random.default_rng(1).permutation(len(features))
    np.testing.assert_array_equal(cluster_images(features[order], 4), expected[order])


def test_hues_of_nearly_gray_images_do_not_make_the_clusters():
    noise = np.random.default_rng(0).normal(0, 0.001, (20, 3))
    value = np.repeat([0.2, 0.8], 10)
    clusters = cluster_images(np.column_stack([noise, value]), 2)
    np.testing.assert_array_equal(clusters, np.repeat([0, 1], 10))


def test_more_clusters_than_different_images_are_refused():
    features = np.array([features_of(0.5)] * 4 + [features_of(0.6)])
    with pytest.raises(DataError, match=r"5 images of 2 different mean colours cannot make 3.*--clusters 2 or fewer"):
        cluster_images(features, 3)


def test_images_that_differ_in_value_alone_lie_on_a_line():
    plane, shares = principal_components(np.array([features_of(v) for v in (0.1, 0.2, 0.4, 0.9)]))
    np.testing.assert_allclose(shares, [1, 0], atol=1e-12)
    assert np.all(np.diff(plane[:, 0]) > 0) and np.abs(plane[:, 1]).max() < 1e-9


def test_examples_are_the_middle_of_a_cluster_and_its_ends():
    points = np.array([[0, 0], [1, 0], [2, 0], [9, 9], [4.2, 0]], float)
    assert examples(points, np.array([0, 0, 0, 1, 0]), 3) == ((2, 4, 0), (3,))
