"""Losses of semantic segmentation. Pixels that are not valid count for nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

SMOOTHING_PX = 1.0
"""Added to both sides of the Dice ratio, px: an empty prediction of an empty truth costs 0."""


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
    logits: Float[Tensor, "n h w"], truth: Bool[Tensor, "n h w"], valid: Bool[Tensor, "n h w"]
) -> Float[Tensor, ""]:
    """Mean over the valid pixels, in nats; 0 when there are none. An undecided pixel costs ln 2."""
    cost = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype), reduction="none")
    return masked_mean(cost, valid)


def masked_mean(values: Float[Tensor, "n h w"], valid: Bool[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """Mean of the valid values; 0 when there are none."""
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp(min=1)


def segmentation_losses(
    logits: Float[Tensor, "n k h w"], labels: Int64[Tensor, "n h w"], valid: Bool[Tensor, "n h w"]
) -> dict[str, Tensor]:
    """Dice plus cross-entropy, equally weighted, in float32 whatever the precision of the network.

    Args:
        logits: One channel for two classes (a sigmoid), else one a class (a softmax).
        labels: Class of each pixel.
        valid: Which pixels count.

    Returns:
        ``dice`` and ``bce``; for more than two classes ``dice`` (mean over all classes, the background too) and
        ``cross_entropy``.
    """
    logits = logits.float()
    if logits.shape[1] == 1:
        truth = labels == 1
        return {
            "dice": dice_loss(logits[:, 0].sigmoid(), truth, valid),
            "bce": binary_cross_entropy(logits[:, 0], truth, valid),
        }
    probabilities = logits.softmax(dim=1)
    classes = [dice_loss(probabilities[:, k], labels == k, valid) for k in range(logits.shape[1])]
    cost = F.cross_entropy(logits, labels, reduction="none")
    return {"dice": torch.stack(classes).mean(), "cross_entropy": masked_mean(cost, valid)}
