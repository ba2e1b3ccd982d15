import pytest
import torch
from torch import nn

from raydom.algorithms.phases import Algorithm, Phase
from raydom.config import TrainConfig
from raydom.training.loop import Training
from raydom.training.range_test import HIGHEST, LOWEST, swept


class Nothing:
    def to(self, device):
        return self


class Parabola(Algorithm):
    """Gradient descent by Adam on x ** 2: each step moves by about the rate, so that large ones overshoot."""

    def __init__(self, loss=lambda x: (x**2).sum()):
        self.modules = {"network": nn.Linear(1, 1, bias=False)}
        nn.init.constant_(self.modules["network"].weight, 0.005)
        self.loss = loss

    def phases(self, step, num_steps):
        return (Phase("fit", ("network",), lambda batch: {"loss": self.loss(self.modules["network"].weight)}),)


def sweep(algorithm, num_steps=60):
    return swept(Training(algorithm, lambda step: Nothing()), TrainConfig(), num_steps, torch.device("cpu"))


def test_rates_rise_exponentially_until_the_loss_explodes():
    found = sweep(Parabola())
    assert found.rates[0] == LOWEST and found.rates[-1] < HIGHEST
    ratios = [b / a for a, b in zip(found.rates, found.rates[1:], strict=False)]
    assert ratios == pytest.approx([(HIGHEST / LOWEST) ** (1 / 59)] * len(ratios))
    assert found.losses[0] == pytest.approx(0.005**2)  # the smoothed loss begins at the first
    assert found.losses[-1] > min(found.losses)
    assert found.suggestion == found.rates[found.losses.index(min(found.losses))] / 10
    assert 1e-5 < found.suggestion < 1e-3


def test_a_loss_that_is_no_number_ends_the_test_without_an_error():
    calls = []

    def broken(x):
        calls.append(1)
        return (x**2).sum() * (float("nan") if len(calls) > 7 else 1.0)

    assert len(sweep(Parabola(broken)).rates) == 7
