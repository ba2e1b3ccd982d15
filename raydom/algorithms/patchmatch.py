"""Nearest-neighbour fields: for each position of a feature map, the position of another whose surroundings look alike.

PatchMatch, with all positions moving at once: a position tries the matches of its neighbours (8, 4, 2 and 1 away) and
random ones near its own, and keeps what is better. A field is a long tensor (2, h, w): row and column of the match.

Source: Barnes et al. 2009, "PatchMatch"; the parallel form is that of Liao et al. 2017 (arXiv:1705.01088) and of their
published code. There a position reads what its neighbours hold at that moment; here all read what they held before the
step, so that a field does not depend on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from raydom.networks.features import Grid

JUMPS = (8, 4, 2, 1)
NUMBERS = 512
"""About how many numbers describe a patch: channels are told by as few as fit."""
_CHUNK = 1 << 12
"""Patches compared at a time: few enough for the processor's cache."""


# --------------------------------------------------------------------------------------------------------- patches


@dataclass(frozen=True, eq=False)
class Patches:
    """The patch around each position of a feature map, as numbers whose products are those of the patches."""

    values: Float[Tensor, "p k"]
    """Row by row of the map."""
    shape: tuple[int, int]
    patch_size: int


def describe(
    first: Float[Tensor, "c h1 w1"],
    second: Float[Tensor, "c h2 w2"],
    patch_size: int,
    generator: torch.Generator,
    numbers: int = NUMBERS,
) -> tuple[Patches, Patches]:
    """The patches of two feature maps that are to be compared with each other.

    Positions outside a map are zeros. Where channels times places are more than ``numbers``, the channels are told by
    their principal directions in both maps and, as one number more, by the length of the rest: the product of two
    patches is then exact for equal ones, and for others at most as much too large as their rests are long and unlike.
    (Principal directions of whole patches are fewer for the same loss, but lose what tells neighbouring patches apart.)
    """
    rank = max(1, numbers // patch_size**2)
    basis = _basis([first.flatten(1).mT, second.flatten(1).mT], rank, generator)
    return _describe(first, basis, patch_size), _describe(second, basis, patch_size)


def _describe(features: Float[Tensor, "c h w"], basis: Float[Tensor, "k c"] | None, patch_size: int) -> Patches:
    height, width = features.shape[1:]
    rows = features.permute(1, 2, 0)
    if basis is not None:
        known = rows @ basis.mT
        squared = rows.square().sum(dim=2) - known.square().sum(dim=2)
        rows = torch.cat([known, squared.clamp(min=0).sqrt()[:, :, None]], dim=2)
    radius = patch_size // 2
    padded = F.pad(rows, (0, 0, radius, radius, radius, radius))
    places = [(y, x) for y in range(patch_size) for x in range(patch_size)]
    values = torch.cat([padded[y : y + height, x : x + width] for y, x in places], dim=2).flatten(0, 1)
    return Patches(values, (height, width), patch_size)


def _basis(
    samples: list[Float[Tensor, "_ d"]], rank: int, generator: torch.Generator
) -> Float[Tensor, "rank d"] | None:
    """The directions in which the samples extend most, orthonormal; None if there are no more than ``rank``.

    By subspace iteration, from a random start that is the generator's.
    """
    size = samples[0].shape[1]
    if size <= rank:
        return None
    every = torch.cat([one[:: max(1, len(one) // 4096)] for one in samples])
    basis = torch.randn(size, rank, generator=generator).to(every)
    for _ in range(3):
        basis = torch.linalg.qr(every.mT @ (every @ basis)).Q
    return basis.mT


def patch_similarity(
    patches: Patches,
    others: Patches,
    positions: Int[Tensor, " n"],
    matches: Int[Tensor, "2 n"],
) -> Float[Tensor, " n"]:
    """Mean product of features over the patch around each position and that around its match, at most 1.

    The mean is over the places that both patches have within their maps. Features are of length 1.

    Args:
        positions: Numbers of positions in ``patches``, row by row.
        matches: Row and column of the match of each.
    """
    found = torch.empty(len(positions), device=positions.device, dtype=patches.values.dtype)
    own_rows, own_columns = positions // patches.shape[1], positions % patches.shape[1]
    flat = matches[0] * others.shape[1] + matches[1]
    for start in range(0, len(positions), _CHUNK):
        part = slice(start, start + _CHUNK)
        found[part] = torch.linalg.vecdot(patches.values[positions[part]], others.values[flat[part]])
    rows, columns = (
        _overlap(own, match, one, other, patches.patch_size // 2)
        for own, match, one, other in zip((own_rows, own_columns), matches, patches.shape, others.shape, strict=True)
    )
    return (found / (rows * columns)).clamp(max=1.0)


def _overlap(own: Tensor, match: Tensor, size: int, other_size: int, radius: int) -> Int[Tensor, " n"]:
    """How many of the ``2 radius + 1`` places of a patch lie in both maps, along one axis."""
    before = torch.minimum(own, match).clamp(max=radius)
    after = torch.minimum(size - 1 - own, other_size - 1 - match).clamp(max=radius)
    return before + after + 1


# ---------------------------------------------------------------------------------------------------------- fields


def identity_field(shape: Sequence[int], other_shape: Sequence[int], device: torch.device) -> Int[Tensor, "2 h w"]:
    """Each position's match is the one at the same place of a map of another size."""
    rows, columns = (
        ((torch.arange(size, device=device) + 0.5) * (other / size)).long().clamp(max=other - 1)
        for size, other in zip(shape, other_shape, strict=True)
    )
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))


def upscaled(
    field: Int[Tensor, "2 h w"],
    coarse: Grid,
    fine: Grid,
    shape: Sequence[int],
    other_shape: Sequence[int],
) -> Int[Tensor, "2 fine_h fine_w"]:
    """The field on a finer grid: each position moves as the coarse one nearest to it does, in px of the image.

    Args:
        shape: Of the finer grid.
        other_shape: Of the finer grid of the map in which matches lie.
    """
    matches = []
    places = [torch.arange(size, device=field.device) for size in shape]
    px = [fine.offset_px + fine.stride_px * place for place in places]
    nearest = [
        ((one - coarse.offset_px) / coarse.stride_px + 0.5).floor().long().clamp(0, size - 1)
        for one, size in zip(px, field.shape[1:], strict=True)
    ]
    moved = field[:, nearest[0][:, None], nearest[1][None, :]]
    own = torch.meshgrid(*nearest, indexing="ij")
    for axis, positions in enumerate(torch.meshgrid(*places, indexing="ij")):
        moves_px = (moved[axis] - own[axis]) * coarse.stride_px
        match = (positions + moves_px / fine.stride_px + 0.5).floor().long()
        matches.append(match.clamp(0, other_shape[axis] - 1))
    return torch.stack(matches)


def field_similarity(field: Int[Tensor, "2 h w"], patches: Patches, others: Patches) -> Float[Tensor, " p"]:
    """``patch_similarity`` of each position and its match in a field."""
    return patch_similarity(patches, others, torch.arange(len(patches.values), device=field.device), field.flatten(1))


def improved(
    field: Int[Tensor, "2 h w"],
    patches: Patches,
    others: Patches,
    *,
    radius: int,
    iterations: int,
    generator: torch.Generator,
) -> Int[Tensor, "2 h w"]:
    """The field after some iterations of PatchMatch; no position's match gets worse.

    Args:
        radius: Of the random search around each match; halved until it is 1.
        generator: On the CPU, so that a field does not depend on the device.
    """
    search = _Search(field, patches, others)
    for _ in range(iterations):
        for jump in JUMPS:
            for axis in (0, 1):
                for step in (jump, -jump):
                    search.propagate(axis, step)
        reach = min(radius, max(others.shape))
        while reach >= 1:
            search.wander(reach, generator)
            reach //= 2
    return search.field.reshape(field.shape)


class _Search:
    """A field while it is improved."""

    def __init__(self, field: Tensor, patches: Patches, others: Patches) -> None:
        self.patches, self.others = patches, others
        self.field = field.flatten(1).clone()
        self.similarity = field_similarity(field, patches, others)
        self.bounds = torch.tensor(others.shape, device=field.device)[:, None]

    def propagate(self, axis: int, step: int) -> None:
        """Every position tries the match of its neighbour ``step`` before it, moved on by as much."""
        height, width = self.patches.shape
        size = (height, width)[axis]
        if abs(step) >= size:
            return
        numbers = torch.arange(height * width, device=self.field.device).reshape(height, width)
        positions = numbers.narrow(axis, max(step, 0), size - abs(step)).flatten()
        neighbours = numbers.narrow(axis, max(-step, 0), size - abs(step)).flatten()
        candidates = self.field[:, neighbours]
        candidates[axis] += step
        inside = (candidates[axis] >= 0) & (candidates[axis] < self.others.shape[axis])
        # Where a neighbour moves alike there is nothing to try; that soon is nearly everywhere.
        new = inside & (candidates != self.field[:, positions]).any(dim=0)
        self._take_better(positions[new], candidates[:, new])

    def wander(self, reach: int, generator: torch.Generator) -> None:
        """Every position tries a random one, at most ``reach`` rows and columns from its match."""
        low = (self.field - reach).clamp(min=0)
        high = torch.minimum(self.field + reach + 1, self.bounds)
        fractions = torch.rand(self.field.shape, generator=generator).to(self.field.device)
        candidates = torch.minimum(low + (fractions * (high - low)).long(), high - 1)
        self._take_better(torch.arange(candidates.shape[1], device=candidates.device), candidates)

    def _take_better(self, positions: Tensor, candidates: Tensor) -> None:
        similarity = patch_similarity(self.patches, self.others, positions, candidates)
        better = similarity > self.similarity[positions]
        chosen = positions[better]
        self.field[:, chosen] = candidates[:, better]
        self.similarity[chosen] = similarity[better]


def vote(
    field: Int[Tensor, "2 h w"], features: Float[Tensor, "n c other_h other_w"], patch_size: int
) -> Float[Tensor, "n c h w"]:
    """Features put where the field says: each position is the mean of what the patches over it lay there."""
    shape, other_shape = field.shape[1:], features.shape[2:]
    laid = features.permute(2, 3, 0, 1).flatten(0, 1).flatten(1)  # a row a position: it is fetched as a whole
    total = laid.new_zeros(shape.numel(), laid.shape[1])
    count = laid.new_zeros(shape.numel(), 1)
    radius = patch_size // 2
    rows, columns = torch.meshgrid(*(torch.arange(size, device=field.device) for size in shape), indexing="ij")
    for row_step in range(-radius, radius + 1):
        for column_step in range(-radius, radius + 1):
            own = (rows + row_step, columns + column_step)
            inside = _within(own, shape)
            centre = field[:, own[0].clamp(0, shape[0] - 1), own[1].clamp(0, shape[1] - 1)]
            source = (centre[0] - row_step, centre[1] - column_step)
            inside &= _within(source, other_shape)
            where = (source[0] * other_shape[1] + source[1]).where(inside, 0).flatten()
            weight = inside.flatten()[:, None].to(laid.dtype)
            total.addcmul_(laid.index_select(0, where), weight)
            count.add_(weight)
    return (total / count).unflatten(0, shape).unflatten(2, features.shape[:2]).permute(2, 3, 0, 1)


def _within(places: tuple[Tensor, Tensor], shape: torch.Size) -> Tensor:
    rows, columns = places
    return (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
