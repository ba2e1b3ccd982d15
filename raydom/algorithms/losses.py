"""Losses of semantic segmentation. Pixels that are not valid count for nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

SMOOTHING_PX = 1.0
"""Added to both sides of the Dice ratio, px: an empty prediction of an empty truth costs 0."""
QUADRATIC_BELOW = 0.1
"""Errors of the relative distance that cost by their square; larger ones cost by their size."""


def dice_loss(
    probabilities: Float[Tensor, "n h w"], truth: Bool[Tensor, "n h w"], valid: Bool[Tensor, "n h w"]
) -> Float[Tensor, ""]:
    """1 - soft Dice coefficient of one class, pooled over the valid pixels of the whole batch.

    Pooling, instead of a mean over images, keeps crops without foreground from dominating.

    Args:
        probabilities: Of the class, 0 to 1.
        truth: Where the class is.
        valid: Which pixels count.

    Returns:
        0 for a perfect prediction, near 1 for a disjoint one.

    Source: Milletari, Navab, Ahmadi 2016 (V-Net, arXiv:1606.04797), section 3; without the squares, with smoothing.
    """
    weight = valid.to(probabilities.dtype)
    target = truth.to(probabilities.dtype) * weight
    predicted = probabilities * weight
    overlap = (predicted * target).sum()
    return 1 - (2 * overlap + SMOOTHING_PX) / (predicted.sum() + target.sum() + SMOOTHING_PX)


def binary_cross_entropy(
    logits: Float[Tensor, "n h w"],
    truth: Bool[Tensor, "n h w"],
    valid: Bool[Tensor, "n h w"],
    weights: Float[Tensor, "n h w"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over the valid pixels, in nats; 0 when there are none. An undecided pixel costs ln 2."""
    cost = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="none")
    return masked_mean(cost, valid, weights)


def masked_mean(
    values: Float[Tensor, "n h w"], valid: Bool[Tensor, "n h w"], weights: Float[Tensor, "n h w"] | None = None
) -> Float[Tensor, ""]:
    """Mean of the valid values, each weighing the same or as told; 0 when there are none."""
    if weights is None:
        return torch.where(valid, values, 0.0).sum() / valid.sum().clamp(min=1)
    weights = torch.where(valid, weights, 0.0)
    return (weights * torch.where(valid, values, 0.0)).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def segmentation_losses(
    logits: Float[Tensor, "n k h w"],
    labels: Int64[Tensor, "n h w"],
    valid: Bool[Tensor, "n h w"],
    class_weights: Float[Tensor, " classes"] | None = None,
) -> dict[str, Tensor]:
    """Dice plus cross-entropy, equally weighted, in float32 whatever the precision of the network.

    Args:
        logits: One channel for two classes (a sigmoid), else one a class (a softmax).
        labels: Class of each pixel.
        valid: Which pixels count.
        class_weights: How much a pixel of each class weighs in the cross-entropy; None: all the same.

    Returns:
        ``dice`` and ``bce``; for more than two classes ``dice`` (mean over all classes, the background too) and
        ``cross_entropy``.
    """
    logits = logits.float()
    weights = None if class_weights is None else class_weights.to(logits)[labels]
    if logits.shape[1] == 1:
        truth = labels == 1
        return {
            "dice": dice_loss(logits[:, 0].sigmoid(), truth, valid),
            "bce": binary_cross_entropy(logits[:, 0], truth, valid, weights),
        }
    probabilities = logits.softmax(dim=1)
    classes = [dice_loss(probabilities[:, k], labels == k, valid) for k in range(logits.shape[1])]
    cost = F.cross_entropy(logits, labels, reduction="none")
    return {"dice": torch.stack(classes).mean(), "cross_entropy": masked_mean(cost, valid, weights)}


def boundary_losses(
    logits: Float[Tensor, "n 2 h w"], targets: Float[Tensor, "n 2 h w"], valid: Bool[Tensor, "n h w"]
) -> dict[str, Tensor]:
    """Dice plus cross-entropy of the objects and of their borders: ``dice``, ``bce``, ``border_dice``, ``border_bce``.

    In float32 whatever the precision of the network.
    """
    logits, truth = logits.float(), targets > 0.5
    return {
        "dice": dice_loss(logits[:, 0].sigmoid(), truth[:, 0], valid),
        "bce": binary_cross_entropy(logits[:, 0], truth[:, 0], valid),
        "border_dice": dice_loss(logits[:, 1].sigmoid(), truth[:, 1], valid),
        "border_bce": binary_cross_entropy(logits[:, 1], truth[:, 1], valid),
    }


def distance_losses(
    logits: Float[Tensor, "n 2 h w"], targets: Float[Tensor, "n 2 h w"], valid: Bool[Tensor, "n h w"]
) -> dict[str, Tensor]:
    """``dice`` and ``bce`` of the objects, and ``distance``: smooth L1 of the relative distance, over all valid pixels.

    In float32 whatever the precision of the network.
    """
    logits, truth = logits.float(), targets[:, 0] > 0.5
    error = F.smooth_l1_loss(logits[:, 1].sigmoid(), targets[:, 1], reduction="none", beta=QUADRATIC_BELOW)
    return {
        "dice": dice_loss(logits[:, 0].sigmoid(), truth, valid),
        "bce": binary_cross_entropy(logits[:, 0], truth, valid),
        "distance": masked_mean(error, valid),
    }
