"""Weighted least squares by what it must keep and what it must remove."""

import torch

from raydom.algorithms.smoothing import STRENGTH, weighted_least_squares


def test_a_constant_stays() -> None:
    flat = torch.full((1, 2, 9, 12), 0.3)
    torch.testing.assert_close(weighted_least_squares(flat, flat[:, :1]), flat, atol=1e-4, rtol=0)
    nothing = torch.zeros(1, 3, 5, 4)
    assert torch.equal(weighted_least_squares(nothing, nothing[:, :1]), nothing)


def test_noise_is_smoothed_and_the_guides_step_is_kept() -> None:
    step = torch.zeros(1, 1, 20, 24)
    step[..., 12:] = 1.0
    noisy = step + 0.1 * torch.randn(step.shape, generator=torch.Generator().manual_seed(0))
    smooth = weighted_least_squares(noisy, step)
    assert smooth[..., :12].std() < 0.01 and smooth[..., 12:].std() < 0.01
    assert float(smooth[..., 13].mean() - smooth[..., 10].mean()) > 0.8


def test_the_result_solves_the_equations() -> None:
    image, guide = (torch.rand(1, 1, 6, 5, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    numbers = torch.arange(30).reshape(6, 5)
    matrix = torch.eye(30, dtype=torch.float64)
    for axis in (0, 1):
        size = numbers.shape[axis]
        first = numbers.narrow(axis, 0, size - 1).flatten()
        second = numbers.narrow(axis, 1, size - 1).flatten()
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            weight = STRENGTH / (abs(float(guide.flatten()[a]) - float(guide.flatten()[b])) + 1e-4)
            matrix[a, a] += weight
            matrix[b, b] += weight
            matrix[a, b] -= weight
            matrix[b, a] -= weight
    expected = torch.linalg.solve(matrix, image.double().flatten()).reshape(image.shape)
    torch.testing.assert_close(weighted_least_squares(image, guide).double(), expected, atol=1e-3, rtol=0)
