import pytest
import torch

from raydom.config import NetworkConfig
from raydom.errors import ConfigError
from raydom.images.tiles import reflected
from raydom.networks.unet import UNet, pad_to_multiple, receptive_radius


def small(**options) -> UNet:
    return UNet(NetworkConfig(**{"base_channels": 4, "depth": 2, "norm": "none"} | options), seed=3)


@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (3, 17), (16, 32)])
def test_any_size_goes_through_and_comes_back(shape):
    assert small(num_classes=3)(torch.rand(2, 1, *shape)).shape == (2, 3, *shape)


def test_two_classes_have_one_logit():
    assert small(in_channels=3)(torch.rand(1, 3, 8, 8)).shape == (1, 1, 8, 8)


def test_the_number_of_parameters_is_that_of_the_paper():
    # Two 3x3 convolutions of each of 9 stages, 4 up-convolutions, the head: with biases, counted by hand.
    c = (64, 128, 256, 512, 1024)
    encoder = sum(9 * a * b + b + 9 * b * b + b for a, b in zip((1, *c[:-1]), c, strict=True))
    decoder = sum(9 * 2 * a * a + a + 9 * a * a + a + 4 * 2 * a * a + a for a in c[:-1])
    network = UNet(NetworkConfig(norm="none"))
    assert sum(p.numel() for p in network.parameters()) == encoder + decoder + 65


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_output_pixel_sees_exactly_the_receptive_field(depth):
    network = small(depth=depth).double()
    for parameter in network.parameters():  # positive weights: no gradient cancels or dies
        parameter.data.abs_().add_(0.01)
    radius, stride = receptive_radius(depth), 2**depth
    side = 2 * stride + 2 * -(-radius // stride) * stride
    farthest = 0
    for offset in range(stride):
        centre = side // 2 // stride * stride + offset
        image = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
        network(image)[0, 0, centre, centre].backward()
        seen = (image.grad[0, 0] != 0).nonzero()
        farthest = max(farthest, int((seen - centre).abs().max()))
    assert farthest == radius == network.receptive_field_px


def test_a_block_with_halo_and_aligned_start_gives_what_the_whole_image_gives():
    network = small().double().eval()
    image = torch.rand(1, 1, 96, 80, dtype=torch.float64)
    halo = -(-network.receptive_field_px // network.total_stride) * network.total_stride
    whole = network(image)[..., 32:48, 32:48]
    block = network(image[..., 32 - halo : 48 + halo, 32 - halo : 48 + halo])[..., halo : halo + 16, halo : halo + 16]
    torch.testing.assert_close(block, whole, rtol=0, atol=1e-12)


def test_padding_is_that_of_the_block_engine_and_leaves_multiples_alone():
    image = torch.rand(1, 2, 5, 12)
    rows = torch.from_numpy(reflected(0, 16, 5))
    columns = torch.from_numpy(reflected(0, 16, 12))
    assert torch.equal(pad_to_multiple(image, 16), image[:, :, rows][..., columns])
    assert pad_to_multiple(image[..., :4, :], 4).data_ptr() == image.data_ptr()


def test_levels_are_reachable_finest_first():
    network = small()
    features = network.encode(torch.rand(1, 1, 8, 12))
    decoded = network.decode(features)
    assert [tuple(f.shape[1:]) for f in features] == [(4, 8, 12), (8, 4, 6), (16, 2, 3)]
    assert [tuple(d.shape[1:]) for d in decoded] == [(4, 8, 12), (8, 4, 6)]
    assert network.channels == (4, 8, 16)


def test_encode_refuses_sides_that_are_no_multiples():
    with pytest.raises(ConfigError, match=r"multiples of 4 px; got \(8, 10\)"):
        small().encode(torch.rand(1, 1, 8, 10))


def test_same_seed_same_weights_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    first, second = small(), small()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = UNet(first.config, seed=4)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_fresh_weights_keep_the_scale_of_activations():
    torch.manual_seed(0)
    features = UNet(NetworkConfig(base_channels=16, depth=3, norm="none")).encode(torch.randn(4, 1, 32, 32))
    assert all(0.3 < float((f.detach() ** 2).mean().sqrt()) < 5 for f in features)
