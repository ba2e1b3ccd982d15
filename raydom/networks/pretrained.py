"""Pretrained weights of encoders: the ImageNet weights of their library, or a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from raydom.errors import ConfigError

IMAGENET = "imagenet"


def load_encoder(encoder: nn.Module, weights: str, fetch: Callable[[], Mapping[str, Tensor]], source: str) -> None:
    """Put pretrained weights into an encoder, for any number of input channels.

    Where the first convolution of the weights has three channels and that of the encoder another number, its channels
    are repeated and scaled so that a grey image gives the same features (one channel: summed).

    Args:
        encoder: Keeps its names of parameters and buffers; those that the weights have beyond them are ignored.
        weights: ``imagenet``, or a state dict as .safetensors or .pth, on this machine.
        fetch: Gives the ImageNet weights, from the cache of their library or over the network.
        source: Where they come from, for the error.

    Raises:
        ConfigError: If the weights cannot be had, or are not those of this encoder.
    """
    state = _imagenet(fetch, source) if weights == IMAGENET else _read(weights)
    own = encoder.state_dict()
    fitting = {}
    for name, value in own.items():
        if name not in state:
            if name.endswith("num_batches_tracked"):
                continue
            raise _misfit(weights, f"they lack {name}")
        given = state[name]
        if given.shape != value.shape and given.dim() == 4 and given.shape[1] == 3:
            given = _for_channels(given, value.shape[1])
        if given.shape != value.shape:
            raise _misfit(weights, f"{name} has {tuple(state[name].shape)}, but needs {tuple(value.shape)}")
        fitting[name] = given
    nn.Module.load_state_dict(encoder, fitting, strict=False)  # some encoders have a load_state_dict of their own


def _for_channels(kernel: Tensor, channels: int) -> Tensor:
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    return kernel[:, torch.arange(channels) % 3] * (3 / channels)


def _imagenet(fetch: Callable[[], Mapping[str, Tensor]], source: str) -> Mapping[str, Tensor]:
    try:
        return fetch()
    except Exception as error:  # each library and each way of being offline has its own
        reason = str(error).strip(" .\n").splitlines()
        raise ConfigError(
            f"the ImageNet weights ({source}) cannot be had: {reason[0] if reason else type(error).__name__}. Connect "
            "this machine and every worker, or fill the cache of the library there; or give --weights FILE, a state "
            "dict as .safetensors or .pth; or leave out --weights to train from random ones."
        ) from error


def _read(weights: str) -> Mapping[str, Tensor]:
    path = Path(weights)
    if not path.is_file():
        raise ConfigError(
            f"there is no file of weights {weights!r}; give imagenet, or a state dict as .safetensors or .pth that "
            "lies at this path on every worker."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except Exception as error:  # pickles and safetensors fail in many ways
        raise ConfigError(
            f"{weights}: no state dict can be read ({error}); give a .safetensors or .pth file."
        ) from error


def _misfit(weights: str, what: str) -> ConfigError:
    return ConfigError(
        f"--weights {weights} are not those of this encoder: {what}. Choose the --encoder that they are of."
    )
