"""Deep Image Analogy on a small random network of two resolutions: its steps by hand, the whole by its invariants."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydom.algorithms import analogy
from raydom.algorithms.analogy import StyleFeatures, analogy_layers, blend, deconvolve, level_of, style_features
from raydom.config import AnalogyConfig
from raydom.errors import ConfigError
from raydom.networks.features import FeatureNetwork

CONFIG = AnalogyConfig(patchmatch_iterations=3, deconvolution_iterations=20, detail="style")


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_network() -> FeatureNetwork:
    """Three resolutions, as SqueezeNet halves them: without padding, and rounding up."""
    parts: list[nn.Module] = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    for _ in range(2):
        parts += [nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    stages = nn.Sequential(*parts)
    generator = chance(1)
    for parameter in stages.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    layers = {"fine": 1, "also_fine": 3, "middle": 6, "coarse": 9}
    return FeatureNetwork(
        "small", stages, layers, lambda x: x - 0.5, style_layers=("fine",), content_layers=("fine",), source="a test"
    )


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    """Blobs of a few pixels."""
    noise = torch.randn(1, channels, height + 4, width + 4, generator=chance(seed))
    return (0.5 + F.avg_pool2d(noise, 5, stride=1)).clamp(0, 1)


def prepared(style: Tensor, config: AnalogyConfig = CONFIG) -> StyleFeatures:
    return style_features(style, small_network(), config)


def transfer(content: Tensor, style: Tensor, config: AnalogyConfig = CONFIG, seed: int = 0) -> Tensor:
    return analogy.transfer(content, prepared(style, config), config, chance(seed))


def test_without_a_choice_the_first_layer_of_each_resolution_is_matched() -> None:
    network = small_network()
    assert analogy_layers(network, (), (40, 50)) == ("fine", "middle", "coarse")
    assert analogy_layers(network, ("middle", "also_fine"), (40, 50)) == ("also_fine", "middle")
    # 19 px have 9, 4 and 2 positions: too few in the deepest layer.
    assert analogy_layers(network, (), (50, 19)) == ("fine", "middle")
    with pytest.raises(ConfigError, match="too small for layer fine"):
        analogy_layers(network, (), (2, 50))
    with pytest.raises(ConfigError, match="no layer 'deep'"):
        analogy_layers(network, ("deep",), (50, 50))


@pytest.mark.parametrize(("weight_level", "weights"), [(1, [0.0, 0.5, 0.6, 0.7]), (3, [0.2, 0.7, 0.8, 0.9])])
def test_patch_sizes_and_weights_are_the_published_ones(weight_level: int, weights: list[float]) -> None:
    levels = [level_of(number) for number in range(5)]
    assert [level.patch_size for level in levels] == [5, 5, 3, 3, 3]
    assert [level.search_radius for level in levels] == [4, 4, 6, 6, 6]
    assert [level.content_weights[weight_level - 1] for level in levels[:4]] == weights


def test_strong_features_are_kept_and_weak_ones_replaced() -> None:
    own = torch.zeros(1, 2, 1, 3)
    own[0, :, 0, 1], own[0, :, 0, 2] = torch.tensor([3.0, 4.0]), torch.tensor([0.9, 0.7])
    blended = blend(own, torch.ones(1, 2, 1, 3), 0.8)
    # Squared magnitudes 0, 25 and 1.3, which is 0.052 of the largest.
    kept = 0.8 * torch.sigmoid(300 * (torch.tensor([0.0, 1.0, 0.052]) - 0.05))
    torch.testing.assert_close(blended[0, :, 0], own[0, :, 0] * kept + 1 - kept)


def test_constant_features_are_replaced() -> None:
    blended = blend(torch.full((1, 2, 2, 2), 7.0), torch.ones(1, 2, 2, 2), 0.9)
    torch.testing.assert_close(blended, torch.ones(1, 2, 2, 2), atol=1e-4, rtol=0)


def test_deconvolution_finds_features_that_lead_to_the_target() -> None:
    network = small_network()
    true = torch.rand(1, 8, 11, 9, generator=chance(2))

    def forward(x: Tensor) -> Tensor:
        return network.between(x, "also_fine", "middle")

    start = true + 0.3 * torch.randn(true.shape, generator=chance(3))
    before = start.clone()
    target = forward(true)
    few, many = (deconvolve(target, start, forward, iterations) for iterations in (3, 60))
    far, nearer, nearest = ((forward(x) - target).square().sum() for x in (start, few, many))
    assert far > nearer > nearest and nearest < 0.05 * far
    assert torch.equal(start, before)
    assert torch.equal(deconvolve(target, true, forward, 5), true)


@pytest.mark.parametrize("shape", [(41, 36), (30, 47)])
def test_an_image_in_its_own_style_stays_where_it_is(shape: tuple[int, int]) -> None:
    image = picture(*shape)
    torch.testing.assert_close(transfer(image, image), image, atol=1e-6, rtol=0)


def test_geometry_is_kept_where_the_style_is_the_image_moved() -> None:
    whole = picture(120, 130, seed=4)
    content, style = whole[..., 8:104, 16:120], whole[..., :113, :127]  # by whole positions of the coarsest layer
    wrong = (transfer(content, style) - content).abs()[..., 6:-6, 6:-6]
    # Near the borders of the coarsest layer nothing looks like it does inside.
    assert (wrong < 0.01).float().mean() > 0.7 and wrong.mean() < 0.35 * content.std()


@pytest.mark.parametrize("weight_level", [1, 2, 3])
def test_the_result_has_the_contents_size_and_the_styles_intensities(weight_level: int) -> None:
    content, style = 0.2 * picture(37, 52, seed=1), 0.6 + 0.3 * picture(45, 33, seed=2)
    result = transfer(content, style, AnalogyConfig(weight_level=weight_level, patchmatch_iterations=2, detail="style"))
    assert result.shape == content.shape
    assert result.min() >= style.min() - 1e-6 and result.max() <= style.max() + 1e-6


def test_a_seed_gives_one_result() -> None:
    content, style = picture(37, 32, seed=1), picture(35, 33, seed=2)
    assert torch.equal(transfer(content, style, seed=1), transfer(content, style, seed=1))


def test_channels_stay_registered() -> None:
    content, style = picture(33, 32, channels=1, seed=1), picture(35, 33, channels=1, seed=2)
    double = transfer(content.repeat(1, 2, 1, 1), torch.cat([style, 1 - style], dim=1))
    assert torch.allclose(double[:, 0], 1 - double[:, 1], atol=1e-5)
    assert transfer(content, style).shape == content.shape


@pytest.mark.parametrize("detail", ["style", "content"])
def test_constant_images_have_a_result(detail: str) -> None:
    config = AnalogyConfig(patchmatch_iterations=1, deconvolution_iterations=5, detail=detail)
    flat, varied = torch.zeros(1, 3, 24, 27), picture(25, 30)
    for content, style in ((flat, varied), (varied, flat), (flat, flat), (varied, 0 * varied + 0.5)):
        assert bool(torch.isfinite(transfer(content, style, config)).all())


def test_a_photo_keeps_its_own_detail() -> None:
    content, style = picture(40, 44, seed=1), 0.5 * picture(40, 44, seed=2)
    content = content + 0.02 * torch.randn(content.shape, generator=chance(7))
    plain, photo = (
        transfer(content, style, AnalogyConfig(detail=detail, patchmatch_iterations=2))
        for detail in ("style", "content")
    )

    def likeness(result: Tensor) -> float:
        detail = [x.diff(dim=3).flatten() for x in (content, result)]
        return float(torch.corrcoef(torch.stack(detail))[0, 1])

    assert likeness(photo) > 0.6 > likeness(plain)
