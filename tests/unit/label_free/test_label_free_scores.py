import math

import pytest
import torch

from raydom.label_free.scores import (
    agreement,
    certainty,
    frechet,
    information_maximisation,
    median_bandwidth,
    mmd,
    neighbourhood_density,
)


def two_classes(foreground):
    return torch.stack([1 - foreground, foreground], dim=-3)


def normal(n, channels, seed, mean=0.0):
    return torch.randn(n, channels, generator=torch.Generator().manual_seed(seed)) + mean


def test_a_sure_prediction_has_certainty_1_and_an_undecided_one_0():
    valid = torch.ones(3, 5, 7, dtype=torch.bool)
    foreground = torch.stack([torch.ones(5, 7), torch.full((5, 7), 0.5), torch.zeros(5, 7)])
    torch.testing.assert_close(certainty(two_classes(foreground), valid), torch.tensor([1.0, 0.0, 1.0]))


def test_only_valid_pixels_count():
    foreground = torch.full((1, 4, 4), 0.5)
    foreground[:, :, :2] = 1.0
    valid = torch.zeros(1, 4, 4, dtype=torch.bool)
    valid[:, :, :2] = True
    assert float(certainty(two_classes(foreground), valid)) == 1.0
    views = two_classes(torch.stack([foreground, foreground.flip(-1) * 0 + 1]))
    assert float(agreement(views, valid)) == pytest.approx(1.0)
    assert float(agreement(views, ~valid)) == pytest.approx(2 * 0.5 / 1.5, abs=1e-5)


def test_views_that_share_half_of_their_foreground_agree_by_one_half():
    first, other = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    first[:, :2], other[:, 1:3] = 1.0, 1.0
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    assert float(agreement(two_classes(torch.stack([first, other])), valid)) == pytest.approx(0.5, abs=1e-5)
    assert float(agreement(two_classes(torch.stack([first, first])), valid)) == 1.0
    assert float(agreement(two_classes(torch.zeros(2, 1, 4, 4)), valid)) == 1.0


def test_information_is_1_for_sure_halves_and_0_for_one_class_or_for_no_opinion():
    halves = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(8, 1)
    assert information_maximisation(halves) == pytest.approx(1.0)
    assert information_maximisation(halves[::2]) == pytest.approx(0.0, abs=1e-6)
    assert information_maximisation(torch.full((6, 2), 0.5)) == pytest.approx(0.0, abs=1e-6)


def test_neighbourhoods_are_as_dense_as_their_cluster_is_large():
    # Two clusters of 5 equal points, at right angles: all 4 others of the cluster are neighbours, the rest are none.
    clusters = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat_interleave(5, dim=0)
    assert neighbourhood_density(clusters) == pytest.approx(math.log(4), abs=1e-4)
    assert neighbourhood_density(clusters[:5]) == pytest.approx(math.log(4), abs=1e-4)


def test_a_sample_has_no_distance_from_itself():
    points = normal(300, 3, 0)
    assert frechet(points, points) == pytest.approx(0.0, abs=1e-3)
    assert mmd(points, points, median_bandwidth(points)) == pytest.approx(0.0, abs=1e-3)
    assert mmd(points, normal(300, 3, 1), median_bandwidth(points)) < 0.1


def test_frechet_of_gaussians_is_that_of_the_closed_form():
    points = normal(500, 4, 0)
    shift = torch.tensor([3.0, 0.0, 4.0, 0.0])
    assert frechet(points, points + shift) == pytest.approx(5.0, rel=1e-4)
    # Twice as wide about the same mean: tr(A + 4 A - 2 * 2 A) = tr A.
    centred = points - points.mean(dim=0)
    assert frechet(centred, 2 * centred) == pytest.approx(math.sqrt(float(torch.cov(centred.T).trace())), rel=1e-4)


def test_mmd_grows_to_the_root_of_2_with_the_distance():
    points = normal(200, 2, 0)
    far = [mmd(points, points + shift, 1.0) for shift in (0.5, 2.0, 100.0)]
    assert far == sorted(far)
    # Far apart nothing is left but what is alike within each: 2 E[k(x, x')], which is 1 for points that are all alike.
    assert mmd(torch.zeros(50, 2), torch.full((50, 2), 100.0), 1.0) == pytest.approx(math.sqrt(2))
