import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from raydom.config import NetworkConfig
from raydom.errors import ConfigError
from raydom.networks.build import build_network


def linear(in_channels: int, num_outputs: int) -> nn.Module:
    network = nn.Conv2d(in_channels, num_outputs, 1)
    network.total_stride, network.receptive_field_px = 1, 0
    return network


@pytest.fixture
def mine(monkeypatch):
    module = ModuleType("my_networks")
    module.linear = linear
    module.bare = lambda in_channels, num_outputs: nn.Identity()
    monkeypatch.setitem(sys.modules, "my_networks", module)


def test_own_networks_are_imported_and_reproducible(mine):
    first = build_network(NetworkConfig(name="my_networks:linear", in_channels=3), seed=1)
    second = build_network(NetworkConfig(name="my_networks:linear", in_channels=3), seed=1)
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "unknown network 'resnet'; there is unet"),
        ("no_such_package:f", "cannot be imported"),
        ("my_networks:missing", "cannot be imported"),
        ("my_networks:bare", "no integer attribute total_stride"),
    ],
)
def test_other_names_are_refused(mine, name, message):
    with pytest.raises(ConfigError, match=message):
        build_network(NetworkConfig(name=name))
