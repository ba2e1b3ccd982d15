"""The validation score: F1 of the classes, pooled over all pixels of the validation images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from raydom.config import ModelSpec
from raydom.images.tiles import cut_blocks
from raydom.training import distributed
from raydom.training.data import CropReader, flat_shape

WINDOW_PX = 2048
"""Images with a longer side are scored in windows of this size, without a halo, so that memory stays bounded."""


def validation_score(
    network: nn.Module, reader: CropReader, image_ids: Sequence[str], spec: ModelSpec, device: torch.device
) -> float:
    """F1 of the foreground, or its mean over the classes but the background, over whole images, in float32.

    The processes share the images and add up their counts: all return the same score, which does not depend on their
    number. The network is left in the mode in which it came.
    """
    windows = [
        block
        for image_id in image_ids
        for block in cut_blocks(image_id, flat_shape(reader.records[image_id]), WINDOW_PX)
    ]
    counts = torch.zeros(spec.num_classes, 3, dtype=torch.int64)
    was_training = network.training
    network.eval()
    try:
        for block in windows[distributed.rank() :: distributed.world_size()]:
            image, label, valid = reader.read(block.image_id, block.write)
            with torch.inference_mode():
                logits = network(torch.from_numpy(np.ascontiguousarray(image))[None].to(device))[0].float().cpu()
            counts += confusion(
                predicted_classes(logits, spec.threshold),
                torch.from_numpy(label),
                torch.from_numpy(valid),
                spec.num_classes,
            )
    finally:
        network.train(was_training)
    return mean_f1(distributed.summed(counts.to(device)).cpu())


def predicted_classes(logits: Tensor, threshold: float) -> Int64[Tensor, "h w"]:
    """Class of each pixel from logits (K, H, W); ``threshold`` is the probability from which one is foreground."""
    if logits.shape[0] == 1:
        return (logits[0].sigmoid() >= threshold).long()
    return logits.argmax(dim=0)


def confusion(
    predicted: Int64[Tensor, "h w"], truth: Int64[Tensor, "h w"], valid: Bool[Tensor, "h w"], num_classes: int
) -> Int64[Tensor, "k 3"]:
    """True positives, false positives and false negatives of each class among the valid pixels."""
    pairs = torch.bincount(truth[valid] * num_classes + predicted[valid], minlength=num_classes**2)
    table = pairs.reshape(num_classes, num_classes)  # truth by prediction
    hits = table.diagonal()
    return torch.stack([hits, table.sum(dim=0) - hits, table.sum(dim=1) - hits], dim=1)


def mean_f1(counts: Int64[Tensor, "k 3"]) -> float:
    """Mean F1 = 2 TP / (2 TP + FP + FN) of the classes 1 and up that are predicted or true anywhere; 1 if none is."""
    hits, false_positives, false_negatives = counts[1:].double().unbind(dim=1)
    total = 2 * hits + false_positives + false_negatives
    present = total > 0
    return float((2 * hits[present] / total[present]).mean()) if bool(present.any()) else 1.0
