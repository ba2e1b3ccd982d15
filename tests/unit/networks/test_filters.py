"""Feature network without weights: what its filters answer to, at each level."""

import numpy as np
import pytest
import torch

from raydom.errors import ConfigError
from raydom.networks.features import FeatureNetwork, load_features
from raydom.networks.filters import cosine_filters

EDGE, LINE = 1, 2  # filters of one and of two half periods along x; the first of the lightness


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    return load_features("raydom")


def level1(network: FeatureNetwork, rows: torch.Tensor) -> torch.Tensor:
    """Features (channel, h, w) of a gray image."""
    return network(rows.expand(1, 3, *rows.shape), ["level1"])["level1"][0]


def test_the_filters_are_orthogonal_and_all_but_the_first_sum_to_0() -> None:
    filters = cosine_filters().reshape(9, 9)
    products = filters @ filters.T
    np.testing.assert_allclose(products - np.diag(np.diag(products)), 0, atol=1e-12)
    np.testing.assert_allclose(filters.sum(axis=1), [3, *[0] * 8], atol=1e-12)


def test_an_even_filter_answers_a_line_and_no_ramp_and_an_odd_one_the_reverse(network: FeatureNetwork) -> None:
    ramp = level1(network, torch.linspace(0.3, 0.7, 9).expand(7, 9))
    line = level1(network, (torch.arange(9) == 4).float().expand(7, 9))  # in the middle of position 2's window
    both = torch.stack([ramp, line])
    inside = (both[:, :27] + both[:, 27:])[:, :9, 2, 2]  # both signs; lightness; a position off the border
    torch.testing.assert_close(inside[0, LINE], torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(inside[1, EDGE], torch.tensor(0.0), atol=1e-5, rtol=0)
    # Steps of 0.05 shown as 0.2, in three colours of weight 1 / sqrt 3; three rows of (1, 0, -1) / sqrt 6; gain 2.
    assert float(inside[0, EDGE]) == pytest.approx(3**0.5 * 2 * 3 * 0.2 * 2 / 6**0.5, rel=1e-4)
    # A height of 4; three rows of (1, -2, 1) / sqrt 18; gain 3.
    assert float(inside[1, LINE]) == pytest.approx(3**0.5 * 3 * 3 * 4 * 2 / 18**0.5, rel=1e-4)


def test_a_constant_image_has_no_edges_and_no_texture_at_any_level_up_to_the_border(network: FeatureNetwork) -> None:
    colour = torch.tensor([0.9, 0.2, 0.4]).reshape(1, 3, 1, 1)
    for features in network(colour.expand(1, 3, 40, 33), network.layers).values():
        answers = features[0].flatten(1)
        torch.testing.assert_close(answers.amax(1), answers.amin(1), atol=2e-5, rtol=0)
        means = [0, 9, 18, 27, 36, 45]
        silent = [channel for channel in range(len(answers)) if channel not in means]
        assert float(answers[silent].abs().max()) < 2e-5
        # The image's three opponent colours, times 3 for the window's mean, are found again at every level.
        opponent = answers[means[:3], 0] - answers[means[3:], 0]
        shown = (colour.flatten() - 0.5) / 0.25
        lightness = shown.sum() / 3**0.5
        torch.testing.assert_close(opponent[0], 3 * lightness, atol=1e-4, rtol=0)
        assert float(opponent.square().sum()) == pytest.approx(9 * float(shown.square().sum()), rel=1e-4)


def test_a_turned_image_has_the_turned_features_in_another_order(network: FeatureNetwork) -> None:
    images = torch.rand(1, 3, 65, 33, generator=torch.Generator().manual_seed(0))
    upright, turned = (network(view, network.layers) for view in (images, images.rot90(1, (2, 3))))
    for layer in network.layers:
        expected = upright[layer][0].rot90(1, (1, 2)).flatten(1)
        distances = torch.cdist(turned[layer][0].flatten(1), expected, compute_mode="donot_use_mm_for_euclid_dist")
        assert float(distances.amin(1).max()) < 1e-4
        assert len(set(distances.argmin(1).tolist())) == len(expected)


def test_each_level_halves_the_resolution_and_begins_at_the_first_pixel(network: FeatureNetwork) -> None:
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    whole = network(images, network.layers)
    assert {layer: tuple(f.shape[1:]) for layer, f in whole.items()} == {
        "level1": (54, 32, 48), "level2": (94, 16, 24), "level3": (102, 8, 12), "level4": (110, 4, 6),
        "level5": (118, 2, 3),
    }  # fmt: skip
    assert network.geometry(["level3"]) == (8, 15)
    part = network(images[..., 8:, 32:], ["level3"])["level3"]
    torch.testing.assert_close(part[..., 1:, 1:], whole["level3"][..., 2:, 5:])


def test_gradients_are_those_of_finite_differences_and_finite_for_a_constant_image(network: FeatureNetwork) -> None:
    double = load_features("raydom").double()
    images = torch.rand(1, 3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: double(x, ["level2"])["level2"], images)
    flat = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    sum(f.square().sum() for f in network(flat, network.layers).values()).backward()  # type: ignore[union-attr]
    assert flat.grad is not None and bool(torch.isfinite(flat.grad).all())


def test_the_network_is_the_same_everywhere_and_has_no_weights_to_load(network: FeatureNetwork) -> None:
    assert network.digest() == "a528aa2291b13ce9b1bd"
    assert sum(value.numel() for value in network.state_dict().values()) < 2**19
    with pytest.raises(ConfigError, match=r"--weights /w\.pt: the feature network raydom is made by a formula"):
        load_features("raydom", "/w.pt")
