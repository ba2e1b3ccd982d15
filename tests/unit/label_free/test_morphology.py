import math

import numpy as np
import pytest

from raydom.label_free.morphology import NAMES, morphology


def told(mask, valid=None):
    valid = np.ones(mask.shape, bool) if valid is None else valid
    return dict(zip(NAMES, morphology(mask.astype(bool), valid).tolist(), strict=True))


def test_squares_are_solid_objects_of_their_size():
    mask = np.zeros((64, 128))
    for left in (10, 50, 90):
        mask[20:36, left : left + 16] = 1
    found = told(mask)
    assert found["share"] == pytest.approx(math.log(768 / (64 * 128 - 768)), abs=0.01)
    assert found["density"] == pytest.approx(math.log(3 * 8 + 1))
    assert found["size"] == pytest.approx(math.log(256))
    assert found["solidity"] == 1.0
    assert found["border"] == pytest.approx(math.log(3 * 64 / 768), abs=0.01)
    assert found["euler"] == 3 / 4


def test_a_network_of_lines_is_one_object_with_holes():
    mask = np.zeros((65, 65))
    mask[::16], mask[:, ::16] = 1, 1
    found = told(mask)
    assert found["euler"] < -0.8
    assert found["density"] == pytest.approx(math.log(256**2 / 65**2 + 1))  # one
    assert found["border"] > math.log(1.5)


def test_specks_are_no_objects():
    mask = np.zeros((64, 64))
    mask[::4, ::4] = 1
    found = told(mask)
    assert found["density"] == found["size"] == found["solidity"] == 0.0


def test_nothing_at_all_is_described_too_and_what_is_not_valid_is_nothing():
    nothing = morphology(np.zeros((32, 48), bool), np.ones((32, 48), bool))
    assert np.isfinite(nothing).all()
    assert np.isfinite(morphology(np.ones((32, 48), bool), np.ones((32, 48), bool))).all()
    outside = np.zeros((32, 48), bool)
    outside[:, :24] = True
    valid = ~outside
    assert morphology(outside, valid)[NAMES.index("share")] < -6
    assert np.isfinite(morphology(outside, np.zeros((32, 48), bool))).all()


def test_twice_the_density_is_as_far_as_half_of_it():
    def stripes(step):
        mask = np.zeros((256, 256))
        mask[:, ::step] = 1
        return told(mask)["share"]

    assert stripes(32) - stripes(64) == pytest.approx(stripes(64) - stripes(128), abs=0.06)
