import pytest
import torch

from raydom.errors import ConfigError
from raydom.networks.discriminators import PatchDiscriminator


def test_the_number_of_parameters_is_that_of_the_reference():
    assert sum(p.numel() for p in PatchDiscriminator(3).parameters()) == 2_764_737


def test_the_widths_are_those_of_both_papers():
    network = PatchDiscriminator(1)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 128, 256, 512, 1]
    assert [c.stride[0] for c in convolutions] == [2, 2, 2, 1, 1]


@pytest.mark.parametrize(("layers", "field"), [(1, 16), (2, 34), (3, 70)])
def test_a_score_is_of_a_patch_of_the_field(layers, field):
    network = PatchDiscriminator(1, base_channels=2, layers=layers).double()
    for parameter in network.parameters():  # positive: nothing cancels
        parameter.data.abs_().add_(0.01)
    for module in list(network.stages):
        if isinstance(module, torch.nn.InstanceNorm2d):  # it looks everywhere
            module.forward = lambda x: x
    image = torch.rand(1, 1, 3 * field, 3 * field, dtype=torch.float64, requires_grad=True)
    scores = network(image)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    seen = (image.grad[0, 0] != 0).nonzero()
    assert network.field_px == field
    assert (seen.max(dim=0).values - seen.min(dim=0).values + 1).tolist() == [field, field]


def test_images_of_odd_sizes_are_scored_and_those_below_the_field_refused():
    network = PatchDiscriminator(2, base_channels=4)
    assert network(torch.rand(3, 2, 75, 91)).shape == (3, 1, 7, 9)
    with pytest.raises(ConfigError, match=r"64 is smaller than the discriminator's field of 70 px.*--crop-px 72"):
        network(torch.rand(1, 2, 64, 128))


def test_same_seed_same_weights_and_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    first, second = PatchDiscriminator(1, 4, seed=1), PatchDiscriminator(1, 4, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
