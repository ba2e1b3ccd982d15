import math

import pytest
import torch

from raydom.algorithms.losses import binary_cross_entropy, dice_loss, masked_mean, segmentation_losses


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
