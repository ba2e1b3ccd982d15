import math

import pytest
import torch

from raydom.algorithms.losses import (
    binary_cross_entropy,
    boundary_losses,
    dice_loss,
    distance_losses,
    masked_mean,
    segmentation_losses,
)
from raydom.algorithms.phases import Batch
from raydom.algorithms.supervised import Supervised


def test_dice_by_hand():
    probability = torch.tensor([[[1.0, 0.5, 0.0]]])
    truth = torch.tensor([[[True, False, True]]])
    # overlap 1, sums 1.5 and 2, smoothed by 1: 1 - 3 / 4.5
    torch.testing.assert_close(dice_loss(probability, truth, torch.ones_like(truth)), torch.tensor(1 / 3))


def test_perfect_and_empty_predictions_have_no_dice_loss():
    truth = torch.tensor([[[True, False, True]]])
    everywhere = torch.ones_like(truth)
    assert dice_loss(truth.float(), truth, everywhere) == 0
    assert dice_loss(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3, dtype=torch.bool), everywhere) == 0


def test_undecided_pixels_cost_ln_2():
    truth = torch.tensor([[[True, False]]])
    cost = binary_cross_entropy(torch.zeros(1, 1, 2), truth, torch.ones_like(truth))
    torch.testing.assert_close(cost, torch.tensor(math.log(2)))


def test_undecided_pixels_of_four_classes_cost_ln_4():
    losses = segmentation_losses(torch.zeros(1, 4, 2, 3), torch.zeros(1, 2, 3).long(), torch.ones(1, 2, 3).bool())
    torch.testing.assert_close(losses["cross_entropy"], torch.tensor(math.log(4)))


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_pixels_that_are_not_valid_change_neither_loss_nor_gradient(num_outputs):
    torch.manual_seed(0)
    labels = torch.randint(0, 2, (2, 3, 5))
    valid = torch.rand(2, 3, 5) < 0.6
    logits = torch.randn(2, num_outputs, 3, 5, requires_grad=True)
    losses = segmentation_losses(logits, labels, valid)
    sum(losses.values()).backward()
    assert torch.all(logits.grad.movedim(1, -1)[~valid] == 0) and torch.any(logits.grad != 0)
    disturbed = torch.where(valid[:, None], logits.detach(), 1e4)
    for name, value in segmentation_losses(disturbed, torch.where(valid, labels, 1 - labels), valid).items():
        torch.testing.assert_close(value, losses[name].detach())


def test_no_valid_pixel_costs_nothing_but_is_finite():
    nothing = torch.zeros(1, 2, 2, dtype=torch.bool)
    assert masked_mean(torch.full((1, 2, 2), math.inf), nothing) == 0
    assert segmentation_losses(torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2).long(), nothing)["dice"] == 0


def test_good_logits_cost_little():
    labels = torch.tensor([[[0, 1, 2], [2, 1, 0]]])
    logits = 50 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    losses = segmentation_losses(logits, labels, torch.ones_like(labels).bool())
    assert max(float(value) for value in losses.values()) < 1e-4


def test_class_weights_by_hand():
    labels = torch.tensor([[[0, 1, 1]]])
    valid = torch.tensor([[[True, True, False]]])
    weights = torch.tensor([1.0, 3.0])
    logits = torch.tensor([[[[0.0, math.log(3), 9.0]]]])
    bce = (1 * math.log(2) + 3 * math.log(4 / 3)) / 4
    torch.testing.assert_close(segmentation_losses(logits, labels, valid, weights)["bce"], torch.tensor(bce))
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)  # a softmax over 0 and x is the sigmoid of x
    torch.testing.assert_close(segmentation_losses(both, labels, valid, weights)["cross_entropy"], torch.tensor(bce))


def test_borders_and_distances_have_losses_of_their_own():
    targets = torch.tensor([[[[0.0, 1.0, 1.0]], [[0.0, 1.0, 0.25]]]])
    valid = torch.ones(1, 1, 3, dtype=torch.bool)
    undecided = torch.zeros(1, 2, 1, 3)
    assert boundary_losses(undecided, targets, valid)["border_bce"].item() == pytest.approx(math.log(2))
    told = distance_losses(undecided, targets, valid)["distance"]  # errors of .5, .5 and .25, each less half of .1
    assert told.item() == pytest.approx((0.45 + 0.45 + 0.2) / 3)
    valid[..., 0] = False
    perfect = 40 * (targets - 0.5)
    assert max(value.item() for value in boundary_losses(perfect, (targets > 0.5).float(), valid).values()) < 0.01
    assert distance_losses(torch.logit(targets, 1e-7), targets, valid)["distance"].item() < 1e-9


def test_the_losses_of_all_outputs_of_a_network_are_added():
    class Seven(torch.nn.Module):
        def forward(self, x):
            return tuple(x * factor for factor in range(7))

    images = torch.randn(2, 1, 3, 4)
    labels = torch.randint(0, 2, (2, 3, 4))
    batch = Batch(images, labels, torch.ones_like(labels, dtype=torch.bool))
    losses = Supervised(Seven()).segmentation(batch)
    each = [segmentation_losses(images * factor, labels, batch.valid) for factor in range(7)]
    assert losses.keys() == each[0].keys()
    for name, value in losses.items():
        torch.testing.assert_close(value, torch.stack([one[name] for one in each]).sum())
