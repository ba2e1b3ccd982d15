import numpy as np
import pytest

from raydom.images.augment import augment, jitter_intensity


def crop(side: int = 5):
    label = np.arange(side * side).reshape(side, side)
    return label[None].astype(np.float32), label, label % 2 == 0


def test_label_and_mask_follow_the_image():
    image, label, valid = crop()
    for seed in range(20):
        a, b, c = augment(image, label, valid, ("flip", "rotate"), np.random.default_rng(seed))
        np.testing.assert_array_equal(a[0], b)
        np.testing.assert_array_equal(b % 2 == 0, c)


def test_flips_and_rotations_reach_all_eight_symmetries():
    image, label, valid = crop(3)
    seen = {
        augment(image, label, valid, ("flip", "rotate"), np.random.default_rng(seed))[1].tobytes()
        for seed in range(200)
    }
    assert len(seen) == 8


def test_nothing_named_changes_nothing():
    image, label, valid = crop()
    a, b, c = augment(image, label, valid, (), np.random.default_rng(0))
    assert np.array_equal(a, image) and np.array_equal(b, label) and np.array_equal(c, valid)


def test_intensity_leaves_label_and_mask_and_order_of_values():
    image, label, valid = crop()
    a, b, c = augment(image, label, valid, ("intensity",), np.random.default_rng(1))
    assert np.array_equal(b, label) and np.array_equal(c, valid) and not np.array_equal(a, image)
    assert a.dtype == np.float32 and np.all(np.diff(a.ravel()) > 0)


def test_intensity_by_hand():
    image = np.array([[[0.25, -0.25]]], np.float32)
    np.testing.assert_allclose(jitter_intensity(image, 2.0, 0.5, np.log(0.5)), [[[1.5, -0.5]]], rtol=1e-6)


@pytest.mark.parametrize("names", [("flip",), ("rotate", "flip"), ("intensity", "rotate")])
def test_a_draw_is_a_function_of_its_generator(names):
    first, second = (augment(*crop(), names, np.random.default_rng(7)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
