"""Trained networks, ready to use."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from raydom.config import DisentangledConfig, GeneratorConfig, GeneratorSpec, ModelSpec
from raydom.errors import ConfigError, DataError
from raydom.networks.build import build_network
from raydom.networks.disentangled import Translator
from raydom.networks.generators import Generator
from raydom.storage.model_run import ModelRun, open_generator_run, open_model_run

DIRECTIONS = ("source_to_target", "target_to_source")
"""The generators of a run of CycleGAN, by name."""
N = TypeVar("N", bound=nn.Module)


def load_trained(run: str | ModelRun[ModelSpec]) -> tuple[nn.Module, ModelSpec]:
    """The network of a model run, in evaluation mode, float32, on the CPU, without gradients; and its spec.

    Raises:
        ConfigError: If it is no run of a segmentation model.
        DataError: If there is no finished run, or its weights do not fit its network.
    """
    run = open_model_run(run) if isinstance(run, str) else run
    return with_weights(build_network(run.spec.network), run, run.spec.network.name), run.spec


def load_generators(run: str | ModelRun[GeneratorSpec]) -> tuple[nn.ModuleDict, GeneratorSpec]:
    """The generators of a run of CycleGAN, by direction, as ``load_trained`` gives a network; and their spec.

    Raises:
        ConfigError: If it is no such run.
        DataError: If there is no finished run, or its weights do not fit.
    """
    run = open_generator_run(run) if isinstance(run, str) else run
    if not isinstance(run.spec.generator, GeneratorConfig):
        raise ConfigError(
            f"{run.uri} is a run of {run.spec.kind}, not of cyclegan. Give --method {run.spec.kind} with it."
        )
    generators = nn.ModuleDict({direction: Generator(run.spec.generator) for direction in DIRECTIONS})
    return with_weights(generators, run, run.spec.generator.name), run.spec


def load_translator(run: str | ModelRun[GeneratorSpec]) -> tuple[Translator, GeneratorSpec]:
    """The encoders and the generator of a run of DRIT, as ``load_trained`` gives a network; and their spec.

    Raises:
        ConfigError: If it is no such run.
        DataError: If there is no finished run, or its weights do not fit.
    """
    run = open_generator_run(run) if isinstance(run, str) else run
    if not isinstance(run.spec.generator, DisentangledConfig):
        raise ConfigError(f"{run.uri} is a run of {run.spec.kind}, not of drit. Give --method {run.spec.kind} with it.")
    return with_weights(Translator(run.spec.generator), run, run.spec.kind), run.spec


def with_weights(network: N, run: ModelRun[Any], name: str) -> N:
    """A network of that name with the weights of its run, in evaluation mode, without gradients.

    Raises:
        DataError: If the weights are those of another network.
    """
    weights = run.weights()
    expected = network.state_dict()
    for key in sorted(expected.keys() | weights.keys()):
        has = tuple(weights[key].shape) if key in weights else "nothing"
        needs = tuple(expected[key].shape) if key in expected else "nothing"
        if has != needs:
            raise DataError(
                f"{run.uri}: the weights are not those of the network {name!r}: {key} has {has} in the file, but "
                f"{needs} in the network. Restore the run's files, or the version of the network."
            )
    network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    return network.eval().requires_grad_(False)
