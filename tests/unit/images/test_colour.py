"""sRGB and CIE Lab, against scikit-image."""

import numpy as np
import torch
from skimage.color import lab2rgb, rgb2lab

from raydom.images.colour import gray_to_lightness, lab_to_srgb, lightness_to_gray, srgb_to_lab

RGB = np.random.default_rng(0).random((3, 7, 5))


def test_lab_is_that_of_scikit_image() -> None:
    lab = np.stack(srgb_to_lab(*RGB))
    np.testing.assert_allclose(lab, rgb2lab(RGB, channel_axis=0), atol=1e-9)
    np.testing.assert_allclose(np.stack(lab_to_srgb(*lab)), lab2rgb(lab, channel_axis=0), atol=1e-6)


def test_there_and_back_is_the_same_colour_black_and_white_included() -> None:
    rgb = np.concatenate([RGB.reshape(3, -1), np.array([[0, 1, 1e-4], [0, 1, 0], [0, 1, 0]])], axis=1)
    np.testing.assert_allclose(np.stack(lab_to_srgb(*srgb_to_lab(*rgb))), rgb, atol=2e-6)


def test_tensors_and_arrays_give_the_same() -> None:
    from_tensor = torch.stack(srgb_to_lab(*torch.from_numpy(RGB)))
    np.testing.assert_allclose(from_tensor.numpy(), np.stack(srgb_to_lab(*RGB)), atol=1e-12)


def test_white_has_lightness_100_and_gray_no_colour() -> None:
    np.testing.assert_allclose(srgb_to_lab(*np.ones((3, 1))), [[100], [0], [0]], atol=1e-2)
    gray = np.linspace(0, 1, 9)
    np.testing.assert_allclose(gray_to_lightness(gray), srgb_to_lab(gray, gray, gray)[0], atol=1e-9)
    np.testing.assert_allclose(lightness_to_gray(gray_to_lightness(gray)), gray, atol=1e-6)


def test_colours_outside_the_gamut_stay_legal() -> None:
    rgb = np.stack(lab_to_srgb(np.array([50.0, -20.0, 120.0]), np.array([300.0, 0.0, 0.0]), np.array([-300.0, 0, 0])))
    assert np.isfinite(rgb).all() and rgb.min() >= 0 and rgb.max() <= 1
