import pytest
import torch
from torch import nn

from raydom.config import DisentangledConfig
from raydom.errors import ConfigError
from raydom.networks.disentangled import AttributeEncoder, Branches, Translator, build_generators
from raydom.networks.disentangled_discriminators import (
    MIN_CROP_PX,
    ContentDiscriminator,
    build_discriminators,
    field_px,
)
from raydom.networks.normalisation import normalised_by, recorded_statistics

FORMS = [
    DisentangledConfig(in_channels=2, num_domains=3, base_channels=4, attribute_size=5),
    DisentangledConfig(in_channels=3, num_domains=2, base_channels=4, separate=True),
]


@pytest.mark.parametrize("config", FORMS, ids=["shared", "separate"])
def test_an_image_of_any_size_is_translated_to_its_own_size(config: DisentangledConfig) -> None:
    translator = Translator(config).eval()
    domains = torch.tensor([1, 0])
    images = 2 * torch.rand(2, config.in_channels, 37, 50) - 1
    attributes = translator.encode_attributes(images, domains)
    made = translator(images, 1 - domains, domains, attributes)
    assert attributes.shape == (2, config.attribute_size)
    assert made.shape == images.shape
    assert -1 <= made.min() < 0 < made.max() <= 1
    assert translator(images[..., :2, :3], domains, domains, attributes).shape[-2:] == (2, 3)


@pytest.mark.parametrize("config", FORMS, ids=["shared", "separate"])
def test_parts_with_the_statistics_and_the_reach_of_the_whole_come_out_as_within_it(config: DisentangledConfig) -> None:
    translator = Translator(config).eval()
    reach, side = translator.reach_px, 240
    images, zero = 2 * torch.rand(1, config.in_channels, side, side) - 1, torch.tensor([0])
    attributes = torch.randn(1, config.attribute_size)

    def translate(x: torch.Tensor) -> torch.Tensor:
        return translator(x, zero, zero + 1, attributes)

    statistics = recorded_statistics(translator, images, zero, zero + 1, attributes)
    whole = translate(images)
    first = side - 4 - -(-reach // 4) * 4  # a multiple of the stride, less than the reach before the part
    with normalised_by(translator, statistics):
        part = translate(images[..., first:, first:])
    torch.testing.assert_close(part[..., -4:, -4:], whole[..., -4:, -4:], atol=1e-5, rtol=0)
    assert not torch.allclose(translate(images[..., first:, first:])[..., -4:, -4:], part[..., -4:, -4:], atol=1e-4)


@pytest.mark.parametrize("config", FORMS, ids=["shared", "separate"])
def test_content_is_a_quarter_as_large_and_noisy_only_in_training(config: DisentangledConfig) -> None:
    encoder = build_generators(config)["content_encoder"]
    images, domains = torch.rand(1, config.in_channels, 24, 32), torch.tensor([1])
    assert encoder(images, domains).shape == (1, 16, 6, 8)
    assert not torch.equal(encoder(images, domains), encoder(images, domains))
    assert torch.equal(encoder.eval()(images, domains), encoder(images, domains))


def test_the_paper_has_content_of_256_channels_and_the_authors_widths() -> None:
    generator = build_generators(DisentangledConfig(in_channels=3, num_domains=2, separate=True))["generator"]
    widths = [m.out_channels for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert widths == [136, 72, 3] * 2


def test_networks_of_their_own_get_the_items_of_their_domain_in_order() -> None:
    branches = Branches(lambda more: nn.Conv2d(1, 1, 1), FORMS[1])
    for domain, network in enumerate(branches.networks):
        nn.init.zeros_(network.weight)
        nn.init.constant_(network.bias, 10 + domain)
    domains = torch.tensor([1, 0, 0, 1, 1])
    assert branches(torch.zeros(5, 1, 2, 2), domains)[0][:, 0, 0, 0].tolist() == [11, 10, 10, 11, 11]
    assert branches(torch.zeros(2, 1, 2, 2), domains[:1].repeat(2))[0].shape == (2, 1, 2, 2)


def test_moments_of_attributes_are_those_of_all_draws_in_each_domain() -> None:
    encoder = AttributeEncoder(FORMS[0])
    mean = torch.tensor([[1.003] * 5, [3.003] * 5, [7.003] * 5])
    variance = torch.tensor([[0.5] * 5, [1.5] * 5, [2.0] * 5])
    with torch.autocast("cpu", torch.bfloat16):  # which rounds nothing here
        encoder.observe(mean, variance.log(), torch.tensor([0, 0, 2]))
    means, deviations = encoder.moments()
    torch.testing.assert_close(means[:, 0], torch.tensor([2.003, 0.0, 7.003]))
    torch.testing.assert_close(deviations[:, 0].square(), torch.tensor([2.0, 1.0, 2.0]))  # 1 within, 1 between


def test_initial_weights_are_seeded_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, same, other = (build_generators(FORMS[0], seed)["generator"].state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("crop_px", [64, 100, 128, 216, 256])
@pytest.mark.parametrize("config", FORMS, ids=["shared", "separate"])
def test_discriminators_take_crops_of_many_sizes(config: DisentangledConfig, crop_px: int) -> None:
    networks = build_discriminators(config, crop_px)
    domains = torch.tensor([0, 1])
    maps, classes = networks["random_discriminator"](torch.rand(2, config.in_channels, crop_px, crop_px), domains)
    assert len(maps) == (3 if config.separate else 1)
    assert classes is None if config.separate else classes.shape == (2, 3)
    content = torch.rand(2, 16, crop_px // 4, crop_px // 4)
    assert networks["content_discriminator"](content).shape == (2, 1 if config.separate else 3)


def test_the_content_discriminator_is_the_authors_at_216_px() -> None:
    network = ContentDiscriminator(FORMS[0], 216)
    kernels = [m.kernel_size[0] for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [7, 7, 7, 4, 1]
    assert network.layers(torch.rand(1, 16, 54, 54)).shape == (1, 3, 1, 1)


@pytest.mark.parametrize(("config", "field"), [(FORMS[0], 127), (FORMS[1], 187)], ids=["shared", "separate"])
def test_a_logit_is_of_a_patch_of_the_field_and_the_least_crop_is_one_pixel(config, field) -> None:
    side, zero = 512, torch.tensor([0])
    network = build_discriminators(config, side)["random_discriminator"].double()
    for parameter in network.parameters():  # positive: nothing cancels
        parameter.data.abs_().add_(0.01)
    image = torch.rand(1, config.in_channels, side, side, dtype=torch.float64, requires_grad=True)
    coarsest = network(image, zero)[0][-1]
    coarsest[0, 0, coarsest.shape[2] // 2, coarsest.shape[3] // 2].backward()
    seen = (image.grad[0, 0] != 0).nonzero()
    assert (seen.max(dim=0).values - seen.min(dim=0).values + 1).tolist() == [field, field]
    assert field_px(separate=config.separate) == field
    least = build_discriminators(config, MIN_CROP_PX)["random_discriminator"]
    assert least(torch.rand(1, config.in_channels, 64, 64), zero)[0][-1].shape == (1, 1, 1, 1)


@pytest.mark.parametrize(("crop_px", "choice"), [(60, 64), (102, 100)])
def test_crops_that_do_not_fit_are_refused(crop_px: int, choice: int) -> None:
    with pytest.raises(ConfigError, match=rf"field of 127 px halves it six times; got {crop_px}. Choose {choice}"):
        build_discriminators(FORMS[0], crop_px)


@pytest.mark.parametrize(("base_channels", "deviation"), [(64, 0.02), (16, 0.04)])
def test_narrow_networks_begin_with_larger_weights(base_channels: int, deviation: float) -> None:
    encoder = build_generators(DisentangledConfig(base_channels=base_channels))["content_encoder"]
    weights = torch.cat([m.weight.flatten() for m in encoder.modules() if isinstance(m, nn.Conv2d)])
    assert float(weights.std().detach()) == pytest.approx(deviation, rel=0.01)
