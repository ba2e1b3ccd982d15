import numpy as np
import pytest

from raydom.images.targets import instance_targets, object_borders, relative_distance


def test_touching_objects_are_separated_by_two_pixels():
    instances = np.zeros((9, 12), np.int64)
    instances[2:7, 1:6], instances[2:7, 6:11] = 3, 8
    borders = object_borders(instances)
    inner = (instances > 0) & ~borders
    expected = np.zeros((9, 12), bool)
    expected[3:6, 2:5] = expected[3:6, 7:10] = True
    np.testing.assert_array_equal(inner, expected)
    assert not borders[instances == 0].any()


def test_objects_that_touch_at_a_corner_have_a_border_there():
    instances = np.kron(np.array([[1, 0], [0, 2]]), np.ones((4, 4), int))
    assert object_borders(instances)[3, 3] and object_borders(instances)[4, 4]


def test_an_edge_of_the_array_is_no_border():
    instances = np.ones((5, 7), np.int64)
    instances[:, 4:] = 0
    np.testing.assert_array_equal(object_borders(instances), np.arange(7) == np.full((5, 1), 3))
    np.testing.assert_allclose(relative_distance(instances), np.tile([1, 0.75, 0.5, 0.25, 0, 0, 0], (5, 1)))
    assert (relative_distance(np.full((3, 4), 6)) == 1).all() and not object_borders(np.full((3, 4), 6)).any()


def test_the_distance_is_relative_to_the_largest_of_its_own_object():
    instances = np.zeros((11, 11), np.int32)
    instances[1:6, 1:6], instances[6:9, 1:6], instances[10, 10] = 900_000, 2, 5
    distance = relative_distance(instances)
    assert [distance[instances == number].max() for number in (2, 5, 900_000)] == [1, 1, 1]
    np.testing.assert_allclose(distance[3, 1:6], [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(distance[7, 1:6], [0.5, 1, 1, 1, 0.5])  # the object above is not the same
    assert not distance[instances == 0].any()


@pytest.mark.parametrize("output", ["boundary", "distance"])
def test_targets_turn_with_the_labels_and_do_not_depend_on_the_numbers(output):
    generator = np.random.default_rng(0)
    instances = np.kron(generator.integers(0, 4, (5, 6)), np.ones((4, 3), int))
    targets = instance_targets(instances, output)
    assert targets.shape == (2, 20, 18) and targets.dtype == np.float32
    assert targets.min() == 0 and targets.max() == 1
    np.testing.assert_array_equal(instance_targets(instances[::-1].T, output), targets[:, ::-1].transpose(0, 2, 1))
    np.testing.assert_array_equal(instance_targets(np.array([0, 70, 3, 9])[instances], output), targets)
    assert not instance_targets(np.zeros((4, 5), np.uint16), output).any()
