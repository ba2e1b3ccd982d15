import numpy as np
import pytest
from scipy import ndimage

from raydom.images.augment import PARTICLES_COVER, augment, jitter_intensity, with_particles, without_objects


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


def draws(seed: int):
    """What the first augmentations draw: flips, quarter turns, jitter; and the generator after them."""
    generator = np.random.default_rng(seed)
    return generator.random(2) < 0.5, int(generator.integers(4)), generator.uniform(-1.0, 1.0, size=3), generator


@pytest.mark.parametrize("seed", range(4))
def test_flip_rotate_and_intensity_are_the_first_draws_and_the_only_ones(seed):
    image, label, valid = crop()
    generator = np.random.default_rng(seed)
    a, b, c = augment(image, label, valid, ("flip", "rotate", "intensity"), generator)
    (flip_y, flip_x), turns, jitter, after = draws(seed)
    moved = [np.rot90(x[..., :: -1 if flip_y else 1, :: -1 if flip_x else 1], turns, (-2, -1)) for x in crop()]
    np.testing.assert_array_equal(
        a, jitter_intensity(moved[0], 1 + 0.25 * jitter[0], 0.1 * jitter[1], 0.35 * jitter[2])
    )
    assert np.array_equal(b, moved[1]) and np.array_equal(c, moved[2])
    assert generator.random() == after.random()


def test_what_one_augmentation_draws_does_not_hang_on_the_others():
    image, label, valid = np.full((3, 24, 24), 0.5, np.float32), np.zeros((24, 24), int), np.ones((24, 24), bool)

    def change(names, seed):
        return augment(image, label, valid, names, np.random.default_rng(seed))[0] - image

    noisy = [seed for seed in range(20) if change(("noise",), seed).any()]
    assert 5 < len(noisy) < 15
    for seed in noisy:
        colour = change(("colour",), seed)
        assert np.ptp(colour, axis=(1, 2)).max() == 0 and len(np.unique(colour)) == 3  # a constant for each channel
        np.testing.assert_allclose(
            change(("colour", "noise", "flip"), seed), colour + change(("noise",), seed), atol=1e-6
        )


@pytest.mark.parametrize("name", ["particles", "blur", "noise", "colour"])
def test_appearance_leaves_labels_and_comes_again_from_its_seed(name):
    image, label, valid = (np.tile(array, (1,) * (array.ndim - 2) + (5, 5)) for array in crop(9))
    changed = 0
    for seed in range(12):
        (a, b, c), again = (augment(image, label, valid, (name,), np.random.default_rng(seed)) for _ in range(2))
        assert np.array_equal(b, label) and np.array_equal(c, valid) and np.array_equal(a, again[0])
        assert a.dtype == np.float32 and a.shape == image.shape
        changed += not np.array_equal(a, image)
    assert changed == 12 if name == "colour" else 1 <= changed <= 10


def test_particles_are_dark_discs_of_two_sizes():
    white = np.ones((2, 200, 200), np.float32)
    sizes = set()
    for seed in range(30):
        seen = with_particles(white, (2.0, 5.0), np.random.default_rng(seed))
        assert np.array_equal(seen[0], seen[1]) and 0 <= seen.min() <= 0.15 and seen.max() == 1
        assert np.mean(seen < 1) < 2 * PARTICLES_COVER * 1.6  # a disc of 2 px with its soft edge covers more
        blobs, _ = ndimage.label(seen[0] < 0.5)
        sizes |= set(np.bincount(blobs.ravel())[1:].tolist())
    singles = [size for size in sizes if size <= 85]  # larger ones touch each other
    assert any(abs(size - np.pi * 2**2) < 3 for size in singles) and any(
        abs(size - np.pi * 5**2) < 5 for size in singles
    )
    assert white.min() == 1


def test_without_objects_only_the_background_is_left():
    y, x = np.mgrid[:60, :70]
    foreground = (y - 30) ** 2 + (x - 20) ** 2 < 12**2
    slope = (0.5 + 0.004 * x)[None].astype(np.float32)
    generator = np.random.default_rng(0)
    noise = 0.02 * generator.standard_normal((1, 60, 70)).astype(np.float32)
    image = np.where(foreground, np.float32(0.1), slope + noise)
    cleared = without_objects(image, foreground, generator)
    far = ~ndimage.binary_dilation(foreground, iterations=3)
    np.testing.assert_array_equal(cleared[:, far], image[:, far])
    inside = cleared[0, foreground] - slope[0, foreground]
    assert np.abs(inside).max() < 0.15 and abs(inside.mean()) < 0.01  # the object was 0.48 darker
    assert 0.015 < inside.std() < 0.03


def test_what_has_no_background_cannot_be_cleared_and_what_has_no_object_stays():
    image = np.random.default_rng(0).random((1, 20, 20), np.float32)
    assert without_objects(image, np.ones((20, 20), bool), np.random.default_rng(0)) is None
    np.testing.assert_array_equal(without_objects(image, np.zeros((20, 20), bool), np.random.default_rng(0)), image)
