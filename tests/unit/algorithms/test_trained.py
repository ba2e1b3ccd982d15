import numpy as np
import pytest
import torch

from raydom.algorithms.phases import Batch
from raydom.algorithms.supervised import Supervised
from raydom.algorithms.trained import load_trained
from raydom.config import ModelSpec, NetworkConfig
from raydom.errors import DataError
from raydom.networks.unet import UNet
from raydom.storage.model_run import write_model_run

UNET = NetworkConfig(base_channels=4, depth=2)
SPEC = ModelSpec(
    network=UNET, channels=("c0",), low=0.0, high=1.0, pixel_size_um=None, total_stride=4,
    receptive_field_px=23,
)  # fmt: skip


def stored(network) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in network.state_dict().items()}


def test_a_stored_network_predicts_as_before(tmp_path):
    network = UNet(UNET, seed=5)
    network(torch.rand(4, 1, 16, 16))  # moves the running statistics
    write_model_run(str(tmp_path), SPEC, stored(network), {})
    loaded, spec = load_trained(str(tmp_path))
    image = torch.rand(1, 1, 9, 14)
    assert torch.equal(loaded(image), network.eval()(image))
    assert spec == SPEC and not loaded.training and not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("head.bias"), r"head.bias has nothing in the file, but \(1,\)"),
        (lambda w: w.update({"a": np.zeros(3)}), r"a has \(3,\) in the file, but nothing"),
        (lambda w: w.update({"head.weight": np.zeros((2, 4, 1, 1))}), r"head.weight has \(2, 4, 1, 1\)"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(tmp_path, change, message):
    weights = stored(UNet(UNET))
    change(weights)
    write_model_run(str(tmp_path), SPEC, weights, {})
    with pytest.raises(DataError, match=message):
        load_trained(str(tmp_path))


def test_supervised_training_has_one_phase_whose_losses_reach_every_parameter():
    algorithm = Supervised(UNet(UNET))
    (phase,) = algorithm.phases(0, 1)
    batch = Batch(torch.rand(2, 1, 8, 8), torch.randint(0, 2, (2, 8, 8)), torch.ones(2, 8, 8, dtype=torch.bool))
    losses = phase.losses(batch)
    sum(losses.values()).backward()
    assert set(losses) == {"dice", "bce"} and phase.trains == ("network",)
    assert all(p.grad is not None for p in algorithm.modules["network"].parameters())
