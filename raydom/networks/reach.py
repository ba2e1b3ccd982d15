"""How far the output pixels of any network look, found by marking input pixels."""

from __future__ import annotations

import copy

import torch
from torch import nn


def measured_reach(network: nn.Module, in_channels: int, stride: int, limit_px: int) -> int | None:
    """The largest distance along an axis at which an input pixel has a say in an output pixel, px.

    Input pixels are made NaN, which every convolution, pooling and sum passes on whatever its weights: where the output
    is NaN, it looked. In float64, since faster kernels work on tiles of pixels and would mark whole tiles.

    Args:
        network: Maps (N, C, H, W) to (N, K, H, W), the same way along both axes, in evaluation mode alone.
        in_channels: Its C.
        stride: Its total stride, px; what it does repeats itself with this period.
        limit_px: Above this nobody wants to know.

    Returns:
        The reach, exactly; None if it is larger than the limit.
    """
    marked = copy.deepcopy(network).cpu().double().eval()
    first = _reach(marked, in_channels, stride, limit_px + 1, 1)
    if first > limit_px:
        return None
    room = first
    while (reach := _reach(marked, in_channels, stride, room, stride)) >= room:  # at the edge: it may go on beyond
        room += 2 * stride
    return reach if reach <= limit_px else None


def _reach(network: nn.Module, in_channels: int, stride: int, room_px: int, positions: int) -> int:
    """The reach of the first so many positions of a period, as far as an image with so much room on both sides tells.

    The image is one period high: the columns that a pixel reaches do not depend on its row.
    """
    room = -(-room_px // stride) * stride
    images = torch.zeros(positions, in_channels, stride, 2 * room + stride, dtype=torch.float64)
    for position in range(positions):
        images[position, ..., room + position] = torch.nan
    with torch.inference_mode():
        columns = torch.isnan(network(images)).flatten(1, 2).any(dim=1)
    distance = (torch.arange(columns.shape[1]) - room - torch.arange(positions)[:, None]).abs()
    return int(distance[columns].max())
