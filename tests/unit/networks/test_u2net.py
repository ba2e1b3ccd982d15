import pytest
import torch

from raydom.config import NetworkConfig
from raydom.networks.u2net import FULL, ResidualU, U2Net


@pytest.mark.parametrize(("name", "parameters"), [("u2net", 44_009_869), ("u2netp", 1_131_181)])
def test_the_number_of_parameters_is_that_of_the_published_networks(name, parameters):
    network = U2Net(NetworkConfig(name=name, in_channels=3))
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_training_gives_seven_outputs_and_evaluation_the_fused_one():
    network = U2Net(NetworkConfig(name="u2netp", num_classes=3)).train()
    image = torch.rand(2, 1, 40, 70)
    outputs = network(image)
    assert [tuple(one.shape) for one in outputs] == [(2, 3, 40, 70)] * 7
    fused = network.fusion(torch.cat(outputs[1:], dim=1))
    torch.testing.assert_close(outputs[0], fused)
    assert network.eval()(image).shape == (2, 3, 40, 70)


@pytest.mark.parametrize(("kind", "poolings"), [("7", 5), ("6", 4), ("5", 3), ("4", 2), ("4F", 0)])
def test_a_residual_u_pools_twice_less_than_it_has_levels(kind, poolings):
    assert kind in {stage[0] for stage in FULL[0]}
    block = ResidualU(2, 3, 4, int(kind[0]), pooled=not kind.endswith("F"))
    sides = []
    for down in block.down:
        down.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[-1]))
    assert block(torch.rand(1, 2, 64, 64)).shape == (1, 4, 64, 64)
    assert min(sides) == 64 >> poolings and len(sides) == int(kind[0])
