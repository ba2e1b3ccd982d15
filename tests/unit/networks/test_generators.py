import pytest
import torch

from raydom.config import GeneratorConfig
from raydom.errors import ConfigError
from raydom.networks.generators import Generator
from raydom.networks.normalisation import InstanceNorm, normalised_by, recorded_statistics


def small(**options) -> Generator:
    return Generator(GeneratorConfig(**{"channels": 2, "base_channels": 4, "blocks": 2} | options), seed=3).eval()


def test_the_number_of_parameters_is_that_of_the_reference():
    assert sum(p.numel() for p in Generator(GeneratorConfig()).parameters()) == 11_378_179
    # Each block less: two 3x3 convolutions of 256 channels, with biases.
    six = Generator(GeneratorConfig(blocks=6))
    assert sum(p.numel() for p in six.parameters()) == 11_378_179 - 3 * 2 * (9 * 256**2 + 256)


def test_the_pixel_shuffle_variant_has_the_layers_of_its_paper():
    network = Generator(GeneratorConfig(name="pixel-shuffle", channels=1, blocks=3))
    widths = [(c.out_channels, c.kernel_size[0]) for c in network.modules() if isinstance(c, torch.nn.Conv2d)]
    assert widths == [(64, 7), (128, 3), (256, 3), *[(256, 3)] * 6, (512, 3), (256, 3), (1, 7)]


@pytest.mark.parametrize("name", ["resnet", "pixel-shuffle"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (7, 5), (16, 12)])
def test_any_size_goes_through_and_comes_back(name, shape):
    made = small(name=name)(torch.rand(2, 2, *shape))
    assert made.shape == (2, 2, *shape) and made.abs().max() <= 1


@pytest.mark.parametrize("name", ["resnet", "pixel-shuffle"])
@pytest.mark.parametrize("blocks", [0, 1, 3])
@torch.no_grad()
def test_an_output_pixel_sees_exactly_its_reach(name, blocks):
    network = small(name=name, blocks=blocks, channels=1).double()
    side = 4 * (2 * -(-network.reach_px // 4) + 4)
    centre = side // 8 * 4
    statistics = recorded_statistics(network, torch.rand(1, 1, side, side, dtype=torch.float64))
    farthest = 0
    for offset in range(4):
        image = torch.zeros(1, 1, side, side, dtype=torch.float64)
        image[..., centre + offset, centre] = torch.nan  # which marks whatever looks at it
        with normalised_by(network, statistics):
            rows = network(image)[0, 0].isnan().any(dim=1).nonzero()
        farthest = max(farthest, int((rows - centre - offset).abs().max()))
    assert farthest == network.reach_px


@pytest.mark.parametrize("name", ["resnet", "pixel-shuffle"])
@torch.no_grad()
def test_a_block_with_its_reach_gives_what_the_whole_image_gives(name):
    network = small(name=name).double()
    image = torch.rand(1, 2, 157, 131, dtype=torch.float64)
    whole = network(image)
    statistics = recorded_statistics(network, image)
    halo = -(-network.reach_px // 4) * 4
    for top, left in ((0, 0), (0, 64), (80, 64), (112, 100)):
        bottom, right = min(top + 48, 157), min(left + 64, 131)
        y, x = max(0, top - halo), max(0, left - halo)
        seen = image[..., y : bottom + halo, x : right + halo]
        seen = seen[..., : min(-(-(bottom + halo) // 4) * 4, 157) - y, : min(-(-(right + halo) // 4) * 4, 131) - x]
        with normalised_by(network, statistics):
            block = network(seen)[..., top - y : bottom - y, left - x : right - x]
        torch.testing.assert_close(block, whole[..., top:bottom, left:right], rtol=0, atol=1e-10)


def test_statistics_are_those_of_all_images_as_one_and_are_forgotten_afterwards():
    norm = torch.nn.Sequential(InstanceNorm())
    images = torch.cat([torch.zeros(1, 1, 3, 5), torch.full((1, 1, 3, 5), 2.0)])
    statistics = recorded_statistics(norm, images)
    torch.testing.assert_close(statistics, {"0": torch.tensor([[1.0], [1.0]])})
    with normalised_by(norm, statistics):
        torch.testing.assert_close(norm(images), images - 1, rtol=0, atol=1e-5)
    assert not norm(images).any()  # each constant by itself


def test_the_normalisation_is_that_of_torch():
    images = 3 + 2 * torch.randn(2, 3, 9, 7)
    torch.testing.assert_close(InstanceNorm()(images), torch.nn.InstanceNorm2d(3)(images))


def test_same_seed_same_weights_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    first, second, other = small(), small(), Generator(small().config, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.encoder[0].weight, other.encoder[0].weight)
    weights = torch.cat([p.detach().flatten() for n, p in small(base_channels=32).named_parameters() if "weight" in n])
    assert abs(float(weights.std()) - 0.02) < 2e-4 and abs(float(weights.mean())) < 2e-4


def test_an_unknown_generator_is_refused():
    with pytest.raises(ConfigError, match="resnet or pixel-shuffle; got 'unet'"):
        GeneratorConfig(name="unet")
