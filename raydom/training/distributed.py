"""Data parallelism by explicit collectives, so that any number of networks and phases can share a step.

Without a process group, or with one process, every function here leaves its arguments as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank() -> int:
    """Number of this process, 0 when it is alone."""
    return dist.get_rank() if _initialised() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if _initialised() else 1


def average_gradients(parameters: Sequence[nn.Parameter], losses: Tensor) -> Tensor:
    """Replace every gradient by its mean over the processes, in one exchange.

    A parameter without a gradient counts as zero where another process has one, and keeps none where nobody has.

    Args:
        parameters: Those of the phase, in the same order everywhere.
        losses: Values (one-dimensional) to be averaged on the way.

    Returns:
        The mean losses. They are not finite on every process if they are not on one, so that all stop together.
    """
    if world_size() == 1:
        return losses
    with torch.no_grad():
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        present = torch.tensor([float(p.grad is not None) for p in parameters], device=losses.device)
        bucket = torch.cat([*(g.reshape(-1).float() for g in gradients), present, losses])
        dist.all_reduce(bucket)
        bucket /= world_size()
        sizes = [*(p.numel() for p in parameters), len(parameters), len(losses)]
        *averages, present, losses = bucket.split(sizes)
        for parameter, average, share in zip(parameters, averages, present.tolist(), strict=True):
            parameter.grad = average.reshape(parameter.shape).to(parameter.dtype) if share > 0 else None
    return losses


def broadcast_modules(modules: Iterable[nn.Module]) -> None:
    """Give every process the parameters and buffers of process 0."""
    if world_size() > 1:
        with torch.no_grad():
            for module in modules:
                for tensor in (*module.parameters(), *module.buffers()):
                    dist.broadcast(tensor, src=0)


def average_buffers(modules: Iterable[nn.Module]) -> None:
    """Average the floating-point buffers, such as the running statistics of batch normalisation."""
    if world_size() == 1:
        return
    buffers = [b for module in modules for b in module.buffers() if b.is_floating_point()]
    if buffers:
        with torch.no_grad():
            bucket = torch.cat([buffer.reshape(-1).float() for buffer in buffers])
            dist.all_reduce(bucket)
            bucket /= world_size()
            for buffer, average in zip(buffers, bucket.split([b.numel() for b in buffers]), strict=True):
                buffer.copy_(average.reshape(buffer.shape))


def summed(counts: Tensor) -> Tensor:
    """The sum of a tensor over the processes."""
    if world_size() > 1:
        dist.all_reduce(counts)
    return counts


def gathered(value: Any) -> list[Any]:
    """The value of every process, in the order of their ranks."""
    values = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(values, value)
    return values


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()
