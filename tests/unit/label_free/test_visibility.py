import numpy as np
import pytest
import torch

from raydom.label_free.visibility import Visibility


def blobs(seed, n=4, size=64):
    """Noisy crops with bright discs, and where these are."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    masks = np.zeros((n, size, size), np.float32)
    for mask in masks:
        for cy, cx in generator.integers(4, size - 4, (8, 2)):
            mask[np.hypot(y - cy, x - cx) < 5] = 1
    pixels = 0.3 + 0.3 * masks[:, None] + 0.05 * generator.standard_normal((n, 1, size, size))
    return pixels.astype(np.float32), masks


def test_what_is_bright_is_seen_and_what_is_made_up_is_not():
    pixels, masks = blobs(0)
    _, others = blobs(1)
    visibility = Visibility(pixels, masks >= 0)
    assert visibility(masks) > 0.85
    assert visibility(others) < 0.05
    halves = np.where(np.arange(64) < 32, masks, others)
    assert visibility(others) < visibility(halves) < visibility(masks)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_one_answer_for_all_pixels_is_seen_nowhere(value):
    pixels, masks = blobs(0)
    assert Visibility(pixels, masks >= 0)(np.full_like(masks, value)) < 1e-6


def test_neither_contrast_nor_its_sign_matters():
    pixels, masks = blobs(0)
    seen, inverted = (Visibility(one, masks >= 0)(masks) for one in (pixels, 10 - 7 * pixels))
    assert inverted == pytest.approx(seen, abs=1e-3)


def test_only_valid_pixels_are_looked_at():
    pixels, masks = blobs(0)
    valid = np.broadcast_to(np.arange(64) < 32, masks.shape)
    spoilt = np.where(valid, masks, 0.5)
    assert Visibility(pixels, valid)(spoilt) == Visibility(pixels, valid)(masks) > 0.8


def test_a_single_crop_is_asked_stripe_by_stripe():
    pixels, masks = blobs(0, n=1)
    assert Visibility(pixels, masks >= 0)(masks) > 0.7


def test_threads_change_no_bit():
    pixels, masks = blobs(0, n=16)
    threads, seen = torch.get_num_threads(), set()
    try:
        for num in (1, 2, 3):
            torch.set_num_threads(num)
            seen.add(Visibility(pixels, masks >= 0)(masks))
            assert torch.get_num_threads() == num
    finally:
        torch.set_num_threads(threads)
    assert len(seen) == 1
