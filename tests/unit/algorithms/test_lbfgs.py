"""Batched L-BFGS against torch's, which knows one image at a time."""

import pytest
import torch
from torch import Tensor

from raydom.algorithms.lbfgs import minimise


def rosenbrock(x: Tensor) -> Tensor:
    """A curved valley for each image."""
    rows = x.flatten(1)
    return (4 * (rows[:, 1:] - rows[:, :-1] ** 2) ** 2 + (1 - rows[:, :-1]) ** 2).sum(dim=1)


def wavy(x: Tensor) -> Tensor:
    """Not convex: steps of negative curvature come up."""
    rows = x.flatten(1)
    return (torch.cos(3 * rows) + 0.1 * rows**2).sum(dim=1) + 0.1 * (rows[:, 1:] * rows[:, :-1]).sum(dim=1)


def quadratic(x: Tensor) -> Tensor:
    rows = x.flatten(1)
    return (torch.arange(1.0, rows.shape[1] + 1, dtype=x.dtype) * rows**2).sum(dim=1)


def alone(function, start: Tensor, **options) -> Tensor:
    """Each image by torch's optimiser."""
    results = []
    for one in start.split(1):
        x = one.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([x], lr=1.0, tolerance_grad=0.0, max_eval=10**6, **options)

        def closure(x=x, optimizer=optimizer):
            optimizer.zero_grad()
            loss = function(x).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        results.append(x.detach())
    return torch.cat(results)


def starts(n: int = 6) -> Tensor:
    """Images that begin differently far from a minimum, one of them in it."""
    start = torch.randn(n, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start *= torch.logspace(-3, 0.5, n).reshape(-1, 1, 1, 1)
    start[1] = 1.0
    return start


# Without a line search, steps on the wavy function soon jump from wave to wave, and rounding decides where to.
@pytest.mark.parametrize(("function", "steps"), [(rosenbrock, 30), (quadratic, 30), (wavy, 1), (wavy, 2), (wavy, 8)])
@pytest.mark.parametrize("history_size", [2, 4, 100])
def test_each_image_goes_the_way_it_would_go_alone(function, steps: int, history_size: int) -> None:
    start = starts()
    expected = alone(function, start, max_iter=steps, history_size=history_size, tolerance_change=0.0)
    result = minimise(function, start, max_iterations=steps, history_size=history_size)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(function(result), function(expected), rtol=1e-4, atol=1e-9)


def test_each_image_ends_when_it_would_end_alone() -> None:
    start = starts()
    expected = alone(rosenbrock, start, max_iter=100, history_size=4, tolerance_change=1e-4)
    result = minimise(rosenbrock, start, max_iterations=100, history_size=4, tolerance=1e-4)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


def test_where_the_curvature_is_negative_some_images_learn_nothing_while_others_do() -> None:
    gradients: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        x.register_hook(lambda gradient: gradients.append(torch.cat([x.detach(), gradient]).flatten(1)))
        return wavy(x)

    minimise(watched, starts(), max_iterations=8)
    steps, changes = torch.stack(gradients).diff(dim=0).chunk(2, dim=1)
    useful = (steps * changes).sum(dim=2) > 1e-10
    assert bool((useful.any(dim=1) & ~useful.all(dim=1)).any())


def test_an_image_without_a_gradient_stays_and_ends_the_search() -> None:
    calls: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        calls.append(x)
        return quadratic(x)

    assert torch.equal(minimise(watched, torch.zeros(2, 3), max_iterations=9), torch.zeros(2, 3))
    assert len(calls) == 1
