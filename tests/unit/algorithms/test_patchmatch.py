"""Nearest-neighbour fields on small random feature maps, of odd and unequal sides."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from raydom.algorithms.patchmatch import (
    describe,
    field_similarity,
    identity_field,
    improved,
    patch_similarity,
    upscaled,
    vote,
)
from raydom.networks.features import Grid

CPU = torch.device("cpu")


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(height: int, width: int, channels: int = 6, seed: int = 0) -> Tensor:
    """Random features of length 1."""
    return F.normalize(torch.randn(channels, height, width, generator=chance(seed)), dim=0)


def smooth_features(height: int, width: int, seed: int = 0, blur: int = 5) -> Tensor:
    """Features that neighbours share, as those of images."""
    noise = torch.randn(1, 4, height + blur - 1, width + blur - 1, generator=chance(seed))
    return F.normalize(F.avg_pool2d(noise, blur, stride=1)[0], dim=0)


def random_field(shape: tuple[int, int], other_shape: tuple[int, int]) -> Tensor:
    drawn = [torch.randint(other, shape, generator=chance(5)) for other in other_shape]
    return torch.stack(drawn)


def search(field: Tensor, first: Tensor, second: Tensor, iterations: int = 10, radius: int = 16) -> Tensor:
    patches = describe(first, second, 3, chance())
    return improved(field, *patches, radius=radius, iterations=iterations, generator=chance(1))


def by_hand(first: Tensor, second: Tensor, place: tuple[int, int], match: tuple[int, int], patch_size: int) -> float:
    """Mean product over the places that both patches have."""
    products, radius = [], patch_size // 2
    for row in range(-radius, radius + 1):
        for column in range(-radius, radius + 1):
            here, there = ((y + row, x + column) for y, x in (place, match))
            inside = all(
                0 <= at < size
                for where, one in ((here, first), (there, second))
                for at, size in zip(where, one.shape[1:], strict=True)
            )
            if inside:
                products.append(float(first[:, here[0], here[1]] @ second[:, there[0], there[1]]))
    return sum(products) / len(products)


@pytest.mark.parametrize("patch_size", [3, 5])
@pytest.mark.parametrize(("place", "match"), [((3, 4), (2, 5)), ((0, 0), (4, 7)), ((6, 1), (0, 0)), ((6, 8), (4, 7))])
def test_similarity_is_that_of_the_patches_where_both_are(
    place: tuple[int, int], match: tuple[int, int], patch_size: int
) -> None:
    first, second = features(7, 9, seed=1), features(5, 8, seed=2)
    patches = describe(first, second, patch_size, chance(), numbers=200)
    position = torch.tensor([place[0] * 9 + place[1]])
    found = patch_similarity(*patches, position, torch.tensor(match)[:, None])
    assert float(found) == pytest.approx(by_hand(first, second, place, match, patch_size), abs=1e-5)


def test_few_numbers_are_exact_for_equal_patches_and_an_upper_bound_for_others() -> None:
    mixing = torch.randn(12, 4, generator=chance(3))  # 12 channels of which a few tell nearly all
    first, second = (
        F.normalize(torch.einsum("kc,chw->khw", mixing, one) + 0.1 * features(*one.shape[1:], 12), dim=0)
        for one in (smooth_features(20, 18, seed=1), smooth_features(15, 16, seed=2))
    )
    few, every = (describe(first, second, 5, chance(), numbers=count) for count in (100, 300))
    own = field_similarity(identity_field((20, 18), (20, 18), CPU), few[0], few[0])
    torch.testing.assert_close(own, torch.ones_like(own), atol=1e-5, rtol=0)
    anywhere = random_field((20, 18), (15, 16))
    close, exact = (field_similarity(anywhere, *patches) for patches in (few, every))
    assert bool((close - exact > -1e-5).all()) and (close - exact).mean() < 0.03
    assert few[0].values.shape == (20 * 18, 5 * 25) and every[0].values.shape == (20 * 18, 12 * 25)


def test_identical_maps_match_themselves() -> None:
    one = features(13, 10)
    identity = identity_field((13, 10), (13, 10), CPU)
    assert torch.equal(search(identity, one, one), identity)
    found = search(random_field((13, 10), (13, 10)), one, one)
    assert (found == identity).all(dim=0).float().mean() > 0.95


def test_a_shifted_map_is_matched_by_the_shift() -> None:
    whole = features(30, 33)
    first, second = whole[:, 2:24, 5:28], whole[:, 0:25, 0:30]
    found = search(random_field((22, 23), (25, 30)), first, second)
    rows, columns = torch.meshgrid(torch.arange(22), torch.arange(23), indexing="ij")
    assert ((found[0] == rows + 2) & (found[1] == columns + 5)).float().mean() > 0.95


def test_no_match_ever_gets_worse() -> None:
    first, second = features(11, 14, seed=1), features(9, 16, seed=2)
    patches = describe(first, second, 3, chance())
    field = random_field((11, 14), (9, 16))
    similarity = field_similarity(field, *patches)
    for round_number in range(5):
        field = improved(field, *patches, radius=8, iterations=1, generator=chance(round_number))
        better = field_similarity(field, *patches)
        assert bool((better >= similarity).all())
        similarity = better
    assert field[0].min() >= 0 and field[0].max() < 9 and field[1].min() >= 0 and field[1].max() < 16


def test_patchmatch_comes_close_to_trying_everything() -> None:
    first, second = smooth_features(12, 9, seed=1), smooth_features(10, 13, seed=2)
    patches = describe(first, second, 3, chance())
    found = field_similarity(search(identity_field((12, 9), (10, 13), CPU), first, second, 20), *patches)
    positions = torch.arange(12 * 9)
    best = torch.full((12 * 9,), -math.inf)
    for row in range(10):
        for column in range(13):
            match = torch.tensor([[row], [column]]).expand(2, len(positions))
            best = torch.maximum(best, patch_similarity(*patches, positions, match))
    assert (best - found).mean() < 0.01
    assert (best - found).min() >= 0


def test_the_same_generator_gives_the_same_field() -> None:
    first, second = features(11, 14, seed=1), features(9, 16, seed=2)
    start = identity_field((11, 14), (9, 16), CPU)
    assert torch.equal(search(start, first, second, 2), search(start, first, second, 2))


def test_the_identity_reaches_from_end_to_end_of_another_size() -> None:
    field = identity_field((5, 7), (11, 3), CPU)
    assert field[0, :, 0].tolist() == [1, 3, 5, 7, 9]
    assert field[1, 0].tolist() == [0, 0, 1, 1, 1, 2, 2]


def test_an_upscaled_field_moves_as_far_in_the_image() -> None:
    coarse, fine = Grid(3.0, 4), Grid(1.0, 2)  # SqueezeNet's second and first
    shift = identity_field((6, 5), (8, 9), CPU) * 0 + torch.stack(
        torch.meshgrid(torch.arange(6) + 1, torch.arange(5) + 2, indexing="ij")
    )
    finer = upscaled(shift, coarse, fine, (13, 11), (16, 18))
    rows, columns = torch.meshgrid(torch.arange(13), torch.arange(11), indexing="ij")
    assert torch.equal(finer[0], (rows + 2).clamp(max=15)) and torch.equal(finer[1], (columns + 4).clamp(max=17))
    same = upscaled(identity_field((6, 5), (6, 5), CPU), coarse, Grid(0.0, 1), (27, 22), (27, 22))
    assert torch.equal(same, identity_field((27, 22), (27, 22), CPU))


def test_the_coarse_position_next_to_a_pixel_leads_it() -> None:
    coarse = torch.zeros(2, 1, 3, dtype=torch.long)
    coarse[1] = torch.tensor([0, 2, 2])  # only the one in the middle moves, by one
    finer = upscaled(coarse, Grid(0.5, 2), Grid(0.0, 1), (1, 6), (1, 6))  # VGG's second and first
    assert finer[1, 0].tolist() == [0, 1, 4, 5, 4, 5]


def test_votes_of_the_identity_are_the_features() -> None:
    one = torch.rand(2, 3, 7, 5, generator=chance())
    torch.testing.assert_close(vote(identity_field((7, 5), (7, 5), CPU), one, 5), one)


def test_a_vote_is_the_mean_of_the_patches_over_a_position() -> None:
    values = torch.tensor([[[[10.0, 20.0, 30.0, 40.0]]]])
    field = torch.tensor([[[0, 0, 0]], [[2, 0, 1]]])
    # Position 0: its own match, 30, and from the right the place before match 0: none. Position 1: 40 from the left,
    # its own 10, and 10 from the right. Position 2: its own 20, and 20 from the left.
    torch.testing.assert_close(vote(field, values, 3), torch.tensor([[[[30.0, 20.0, 20.0]]]]))
