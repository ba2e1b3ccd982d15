"""STROTSS on small random networks: losses by hand, the optimisation by its invariants."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from raydom.algorithms.strotss import (
    GRID_LOCATIONS,
    Sight,
    StyleSamples,
    collapsed,
    content_weights,
    directions,
    drawn,
    grid_locations,
    hypercolumns,
    laplacian_pyramid,
    moment_loss,
    moments,
    palette_loss,
    relaxed_emd,
    scales,
    self_similarity_loss,
    style_samples,
    total_loss,
    transfer,
)
from raydom.config import StrotssConfig
from raydom.errors import ConfigError, DataError
from raydom.networks.features import PAPER_HYPERCOLUMN_LAYERS, FeatureNetwork, _architecture

CONFIG = StrotssConfig(steps=6, smallest_px=16, samples=64, style_samples=100)


def small_network() -> FeatureNetwork:
    """Two smooth convolutions with seeded weights."""
    generator = torch.Generator().manual_seed(1)
    stages = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Softplus(), nn.Conv2d(4, 5, 3, stride=2), nn.Softplus())
    for parameter in stages.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    layers = {"fine": 1, "coarse": 3}
    return FeatureNetwork(
        "small", stages, layers, lambda x: x, style_layers=("fine",), content_layers=("fine",), source="a test"
    )


SIGHT = Sight(small_network(), ("fine", "coarse"))


def images(n: int, seed: int = 0, shape: tuple[int, int] = (40, 27), channels: int = 3) -> Tensor:
    return torch.rand(n, channels, *shape, generator=torch.Generator().manual_seed(seed))


def cloud(n: int, seed: int, d: int = 6) -> Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stylised(
    content: Tensor,
    style: Tensor,
    config: StrotssConfig = CONFIG,
    start: Tensor | None = None,
    regions: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Tensor:
    """Through all scales, with the paper's start unless another is given."""

    def samples(longest_px: int) -> list[dict[int, StyleSamples]]:
        generator = torch.Generator().manual_seed(1)
        return style_samples(style, longest_px, SIGHT, config.style_samples, generator, regions[1])

    start = style.mean(dim=(2, 3), keepdim=True) if start is None else start
    generator = torch.Generator().manual_seed(0)
    return transfer(content, start, samples, SIGHT, config, generator, regions[0])


# ---------------------------------------------------------------------------------------------------------- losses


def test_a_cloud_is_at_no_distance_from_itself_in_any_order_and_at_any_scale() -> None:
    x = cloud(9, 0)
    again = directions(3 * x[torch.randperm(9)])
    assert float(relaxed_emd(directions(x), again)) == pytest.approx(0, abs=1e-12)
    assert float(palette_loss(x[:, :3], x[:, :3])) == pytest.approx((1e-5 / 3) ** 0.5)  # the root's own limit


def test_the_relaxed_distance_is_the_larger_way_and_symmetric() -> None:
    east, north, diagonal = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5**0.5] * 2])
    both = torch.cat([east, north])
    # Each of east and north is 1 - cos 45 degrees from the diagonal; east is 0 from both, but north is 1 from east.
    assert float(relaxed_emd(both, diagonal)) == pytest.approx(1 - 0.5**0.5)
    assert float(relaxed_emd(both, east)) == pytest.approx(0.5)
    for x, y in ((both, east), (directions(cloud(7, 1)), directions(cloud(4, 2)))):
        torch.testing.assert_close(relaxed_emd(x, y), relaxed_emd(y, x))


def test_self_similarity_is_0_for_identical_images_and_features_of_other_strength() -> None:
    x, other = cloud(8, 0), cloud(8, 1)
    for kind in ("normalized", "plain"):
        assert float(self_similarity_loss(directions(x), directions(x), kind)) == 0
        strength = torch.linspace(0.1, 7, 8, dtype=torch.float64)[:, None]
        assert float(self_similarity_loss(directions(strength * x), directions(x), kind)) == pytest.approx(0, abs=1e-12)
        assert float(self_similarity_loss(directions(other), directions(x), kind)) > 0.01


def test_self_similarity_of_two_against_three_alike() -> None:
    axes = torch.eye(3)
    apart, paired = axes, axes[[0, 0, 1]]
    # plain: the pair (0, 1) is at distance 1 and 0, twice of 9. normalized: columns (0, 1/2, 1/2) against (0, 0, 1).
    assert float(self_similarity_loss(apart, paired, "plain")) == pytest.approx(2 / 9)
    assert float(self_similarity_loss(apart, paired)) == pytest.approx(3 * (2 * (0.5 + 0.5) + 0) / 9)


def test_moments_of_a_hand_made_cloud() -> None:
    mean, covariance = moments(torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, -2.0]]))
    torch.testing.assert_close(mean, torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(covariance, torch.tensor([[8.0, -4.0], [-4.0, 8.0]]) / 3)
    loss = moment_loss(torch.zeros(4, 2), mean, covariance)
    assert float(loss) == pytest.approx(3 / 2 + (8 + 4 + 4 + 8) / 3 / 4)


def test_the_palette_counts_hue_and_brightness_and_not_the_rotation_of_the_colour_space() -> None:
    gray = torch.tensor([[0.2, 0.2, 0.2]])
    assert float(palette_loss(gray, 3 * gray)) == pytest.approx(0.4)  # no angle, and 0.4 in each of three channels
    decorrelated = torch.tensor([[0.57735, 0.57735, 0.57735], [-0.57735, 0.788675, -0.211325]])
    rotation = torch.cat([decorrelated, decorrelated[1:, [0, 2, 1]]]).double()
    x, y = cloud(9, 0, 3), cloud(5, 1, 3)
    torch.testing.assert_close(palette_loss(x @ rotation.T, y @ rotation.T), palette_loss(x, y), rtol=1e-5, atol=0)


def test_the_total_is_the_sum_of_its_parts() -> None:
    x, c, s = cloud(7, 0), cloud(7, 1), cloud(9, 2)
    style = StyleSamples.of(s, 3)
    turned, turned_style = directions(x), directions(s)
    style_loss = relaxed_emd(turned, turned_style) + moment_loss(x, *moments(s))
    content_loss, palette = self_similarity_loss(turned, directions(c)), palette_loss(x[:, :3], s[:, :3])
    torch.testing.assert_close(
        total_loss(x, c, style, 4.0, "normalized"), (4 * content_loss + style_loss + palette / 4) / 6
    )
    torch.testing.assert_close(total_loss(x, c, style, 0.0, "normalized"), (style_loss + palette) / 2)


@pytest.mark.parametrize("similarity", ["normalized", "plain"])
def test_the_gradients_are_those_of_finite_differences(similarity: str) -> None:
    c, style = cloud(7, 1), StyleSamples.of(cloud(9, 2), 3)
    x = cloud(7, 0).requires_grad_()
    for loss in (
        lambda x: self_similarity_loss(directions(x), directions(c), similarity),
        lambda x: relaxed_emd(directions(x), style.directions),
        lambda x: moment_loss(x, style.mean, style.covariance),
        lambda x: palette_loss(x[:, :3], style.colours),
        lambda x: total_loss(x, c, style, 2.0, similarity),
    ):
        assert torch.autograd.gradcheck(loss, (x,))


# ------------------------------------------------------------------------------------------------- hypercolumns


def test_hypercolumns_have_2179_channels_on_vgg16() -> None:
    stages, layer_index = _architecture("vgg16")  # without memory for weights: only shapes are computed
    assert [layer_index[layer] for layer in PAPER_HYPERCOLUMN_LAYERS] == [1, 3, 6, 8, 11, 13, 15, 22, 29]
    network = FeatureNetwork(
        "vgg16", stages, layer_index, lambda x: x, style_layers=(), content_layers=(), source="a test"
    )
    maps = Sight(network, PAPER_HYPERCOLUMN_LAYERS).maps(torch.empty(1, 3, 48, 64, device="meta"))
    assert sum(part.shape[1] for part in maps) == 2179


def test_hypercolumns_are_read_bilinearly_between_positions() -> None:
    fine = torch.arange(12.0).reshape(1, 1, 3, 4)
    coarse = torch.tensor([[[[10.0, 20.0]]]])
    middles = torch.tensor([[0.5 / 3, 0.5 / 4], [2.5 / 3, 1.5 / 4]])
    columns = hypercolumns([fine, coarse], 0, middles)
    torch.testing.assert_close(columns, torch.tensor([[0.0, 10.0], [9.0, 12.5]]))


def test_candidates_are_a_regular_grid_of_at_most_128_squared_with_a_random_offset() -> None:
    generator = torch.Generator().manual_seed(0)
    small = grid_locations((3, 5), generator)
    assert torch.equal(small, torch.cartesian_prod((torch.arange(3) + 0.5) / 3, (torch.arange(5) + 0.5) / 5))
    seen = set()
    for _ in range(20):
        rows, columns = (grid_locations((300, 410), generator) * torch.tensor([300, 410]) - 0.5).unbind(1)
        assert len(rows) <= GRID_LOCATIONS
        assert torch.allclose(rows.unique().diff(), torch.tensor(3.0), atol=1e-3)
        seen.add((round(float(rows[0])), round(float(columns[0]))))
    assert len(seen) > 4
    assert len(grid_locations((1, 10 * GRID_LOCATIONS), generator)) > 1000


def test_locations_are_drawn_without_repetition_within_regions() -> None:
    generator = torch.Generator().manual_seed(0)
    grid = grid_locations((8, 10), generator)
    everywhere = drawn(grid, 50, generator, None)[0]
    assert len(everywhere.unique(dim=0)) == 50
    regions = torch.tensor([[3, 3, 7]])  # left two thirds, right third
    found = drawn(grid, 20, generator, regions)
    assert {label: len(where) for label, where in found.items()} == {3: 20, 7: 20}
    assert float(found[3][:, 1].max()) < 2 / 3 < float(found[7][:, 1].min())


# ------------------------------------------------------------------------------------------------------- scales


def test_scales_double_up_to_the_image_and_the_content_weight_halves() -> None:
    assert scales((512, 384), 64) == [(64, 48), (128, 96), (256, 192), (512, 384)]
    assert content_weights(4, 1.0) == [16, 8, 4, 2]
    assert content_weights(5, 0.5) == [8, 4, 2, 1, 0.5]
    assert scales((584, 565), 64) == [(73, 71), (146, 141), (292, 282), (584, 565)]
    assert scales((63, 20), 64) == [(63, 20)]
    assert scales((512, 64), 64, needed_px=17) == [(256, 32), (512, 64)]


@pytest.mark.parametrize("shape", [(64, 64), (41, 27), (5, 3), (1, 1)])
def test_a_laplacian_pyramid_is_its_image(shape: tuple[int, int]) -> None:
    image = images(2, shape=shape).double()
    pyramid = laplacian_pyramid(image)
    assert len(pyramid) == 6
    torch.testing.assert_close(collapsed(pyramid), image)
    flat = laplacian_pyramid(torch.full_like(image, 0.3))
    assert all(float(part.abs().max()) < 1e-12 for part in flat[:-1])


# ----------------------------------------------------------------------------------------------------- transfer


def test_without_steps_the_result_is_the_start() -> None:
    content, start, style = images(1), images(1, 5), images(1, 1)
    still = replace(CONFIG, steps=0)
    torch.testing.assert_close(stylised(content, style, still, start), start)
    small = content[..., :15, :15]  # one scale, the first and the last
    expected = style.mean(dim=(2, 3), keepdim=True) + laplacian_pyramid(small, 1)[0]
    torch.testing.assert_close(stylised(small, style, still), expected)


def test_the_loss_falls_and_the_colours_become_the_styles() -> None:
    content, style = images(1), images(1, 1, (30, 44)) * torch.tensor([0.2, 0.5, 0.9]).reshape(1, 3, 1, 1)
    config = replace(CONFIG, steps=40, learning_rate=1e-2, content_weight=0.0)
    seen: list[tuple[int, int, float]] = []
    generator = torch.Generator().manual_seed(0)
    samples = style_samples(style, 40, SIGHT, 100, generator)
    result = transfer(
        content,
        content,
        lambda px: samples,
        SIGHT,
        config,
        generator,
        on_step=lambda *at: seen.append((*at[:2], float(at[2]))),
    )
    assert [(px, step) for px, step, _ in seen] == [(px, step) for px in (20, 40) for step in range(40)]
    assert seen[39][2] < 0.7 * seen[0][2]
    torch.testing.assert_close(result.mean(dim=(2, 3)), style.mean(dim=(2, 3)), atol=0.06, rtol=0)


def test_the_first_step_moves_no_part_of_the_pyramid_farther_than_the_rate() -> None:
    content, style = images(1), images(1, 1) ** 3
    once = replace(CONFIG, steps=1, smallest_px=40, learning_rate=1e-3)  # one scale, the last: half the rate
    moved = [
        float((stylised(content, style, replace(once, optimizer=optimizer), content) - content).abs().max())
        for optimizer in ("corrected", "rmsprop")
    ]
    assert moved[0] <= 6 * 0.5e-3 + 1e-6 < moved[1]


def test_the_same_generator_gives_the_same_image_and_another_a_different_one() -> None:
    content, style = images(1), images(1, 1)
    first, again = stylised(content, style), stylised(content, style)
    assert torch.equal(first, again)
    assert not torch.equal(first, stylised(content, style, replace(CONFIG, samples=63)))


def test_images_in_a_batch_do_not_see_each_other() -> None:
    content = torch.stack([images(1)[0], images(1, 3)[0] * 0.1])
    style = images(1, 1, (30, 44)) ** 2
    together = stylised(content, style)
    alone = torch.cat([stylised(one, style) for one in content.split(1)])
    assert torch.equal(together, alone)


def test_channels_that_are_no_colours_are_stylised_each_on_its_own() -> None:
    content, style = images(2, channels=2), images(1, 1, (30, 44), channels=2) ** 2
    both = stylised(content, style)
    for channel in (slice(0, 1), slice(1, 2)):
        alone = stylised(content[:, channel], style[:, channel])
        assert float((both[:, channel] - alone).abs().mean()) < 1e-4 < float((both[:, channel] - content).abs().mean())


def test_regions_take_their_colours_from_regions_of_the_same_label() -> None:
    content = images(1, shape=(32, 32)) * 0.2 + 0.4
    style = images(1, 1, (24, 36)) * 0.2
    style[..., :12] += 0.8  # a bright left third
    config = replace(CONFIG, steps=60, learning_rate=1e-2, content_weight=0.0)
    top = torch.zeros(32, 32, dtype=torch.int64)
    top[:16] = 5
    left = torch.zeros(24, 36, dtype=torch.int64)
    left[:, :12] = 5
    result = stylised(content, style, config, regions=(top, left))
    assert float(result[..., :14, :].mean()) > 0.75 and float(result[..., 18:, :].mean()) < 0.25
    with pytest.raises(ConfigError, match=r"no region of the content .* labels \[0, 5\] against \[1\]"):
        stylised(content, style, config, regions=(top, torch.ones(24, 36, dtype=torch.int64)))


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_constant_images_never_become_nan(value: float) -> None:
    flat = torch.full((1, 3, 40, 27), value)
    for content, style in ((flat, images(1)), (images(1), flat), (flat, flat)):
        for similarity in ("normalized", "plain"):
            assert bool(torch.isfinite(stylised(content, style, replace(CONFIG, similarity=similarity))).all())


def test_images_smaller_than_the_layers_need_are_refused() -> None:
    tiny = images(1, shape=(2, 40))
    with pytest.raises(ConfigError, match="at least 3 px"):
        stylised(images(1), tiny)
    with pytest.raises(ConfigError, match="too small for layer coarse"):
        stylised(tiny, images(1))
    assert stylised(images(1, shape=(3, 40)), images(1, shape=(40, 3))).shape == (1, 3, 3, 40)


def test_divergence_is_an_error_and_not_a_picture() -> None:
    with pytest.raises(DataError, match=r"diverged to NaN or infinity with strotss\.learning_rate 1e\+38"):
        stylised(images(1), images(1, 1), replace(CONFIG, learning_rate=1e38))
