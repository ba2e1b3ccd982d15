"""A trained network, ready to predict."""

from __future__ import annotations

import torch
from torch import nn

from raydom.config import ModelSpec
from raydom.errors import DataError
from raydom.networks.build import build_network
from raydom.storage.model_run import ModelRun, open_model_run


def load_trained(run: str | ModelRun) -> tuple[nn.Module, ModelSpec]:
    """The network of a model run, in evaluation mode, float32, on the CPU, without gradients; and its spec.

    Raises:
        DataError: If there is no finished run, or its weights do not fit its network.
    """
    run = open_model_run(run) if isinstance(run, str) else run
    network = build_network(run.spec.network)
    weights = run.weights()
    expected = network.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        has = tuple(weights[name].shape) if name in weights else "nothing"
        needs = tuple(expected[name].shape) if name in expected else "nothing"
        if has != needs:
            raise DataError(
                f"{run.uri}: the weights are not those of the network {run.spec.network.name!r}: {name} has {has} in "
                f"the file, but {needs} in the network. Restore the run's files, or the version of the network."
            )
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    return network.eval().requires_grad_(False), run.spec
