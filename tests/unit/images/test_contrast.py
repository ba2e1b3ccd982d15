import numpy as np
from skimage.color import rgb2hsv
from skimage.exposure import equalize_adapthist

from raydom.images.contrast import clahe


def test_colours_and_single_channels_are_equalised_as_scikit_image_does():
    rgb = np.random.default_rng(0).uniform(0.02, 0.2, (3, 72, 88)).astype(np.float32)
    rgb[0] *= np.linspace(0.3, 2, 88, dtype=np.float32)
    np.testing.assert_allclose(clahe(rgb), equalize_adapthist(rgb.transpose(1, 2, 0)).transpose(2, 0, 1), atol=2e-3)
    two = clahe(rgb[:2])
    for channel in range(2):
        np.testing.assert_allclose(two[channel], equalize_adapthist(rgb[channel]), atol=1e-6)


def test_a_dark_image_gains_contrast_and_keeps_its_hues():
    y, x = np.mgrid[:64, :70]
    spots = 0.05 + 0.05 * ((y // 8 + x // 8) % 2)
    image = np.stack([spots, 0.5 * spots, 0.2 * spots]).astype(np.float32)
    seen = clahe(image)
    assert seen.min() >= 0 and seen.max() <= 1 and seen.std() > 4 * image.std()
    before, after = (rgb2hsv(one.transpose(1, 2, 0)) for one in (image, seen))
    lit = after[..., 2] > 0
    np.testing.assert_allclose(after[lit][:, :2], before[lit][:, :2], atol=1e-4)


def test_what_is_constant_or_black_stays_so():
    for image in (np.full((1, 20, 30), 0.3, np.float32), np.zeros((3, 9, 11), np.float32)):
        np.testing.assert_array_equal(clahe(image), image)
