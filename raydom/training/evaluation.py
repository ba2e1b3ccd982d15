"""The validation score: how well what the network tells agrees with the labels, pooled over the validation images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Integer
from torch import Tensor, nn

from raydom.config import ModelSpec
from raydom.images.tiles import cut_blocks
from raydom.networks.maskrcnn import Detections, label_image
from raydom.training import distributed
from raydom.training.crops import CropReader, Sample
from raydom.types import Block

WINDOW_PX = 2048
"""Images with a longer side are scored in windows of this size, without a halo, so that memory stays bounded; those of
networks that are not exact in the windows of their spec."""
OBJECTS_WINDOW_PX = 512
"""The same where objects are told as a list, whose length is limited."""


def validation_score(
    network: nn.Module, reader: CropReader, image_ids: Sequence[str], spec: ModelSpec, device: torch.device
) -> float:
    """A score from 0 to 1 of whole images, in float32; which, follows from the output of the network:

    - ``classes``: F1 of the foreground, or its mean over the classes but the background.
    - ``boundary``: the mean of the F1 of the objects and that of their borders.
    - ``distance``: the mean of the F1 of the objects and 1 - the mean absolute error of the relative distance in them.
    - ``objects``: F1 of the objects, one being found where a predicted one covers it with an IoU above 0.5.

    The processes share the images and add up their counts: all return the same score, which does not depend on their
    number. The network is left in the mode in which it came.
    """
    output = spec.network.output
    windows = validation_windows(reader, image_ids, spec)
    counts = torch.zeros(spec.num_classes if output == "classes" else 3, 3, dtype=torch.float64)
    was_training = network.training
    network.eval()
    try:
        for block in windows[distributed.rank() :: distributed.world_size()]:
            sample = reader.read(block.image_id, block.write)
            with torch.inference_mode():
                told = network(torch.from_numpy(np.ascontiguousarray(sample.image))[None].to(device))[0]
            counts += _object_counts(told, sample, spec) if output == "objects" else _counts(told, sample, spec)
    finally:
        network.train(was_training)
    counts = distributed.summed(counts.to(device)).cpu()
    if output == "distance":
        _, error, pixels = counts[2].tolist()
        return (mean_f1(counts[:2]) + 1 - error / max(pixels, 1.0)) / 2
    return mean_f1(counts)


def validation_windows(reader: CropReader, image_ids: Sequence[str], spec: ModelSpec) -> list[Block]:
    """Whole images, in parts where they are large."""
    objects = spec.network.output == "objects"
    side = OBJECTS_WINDOW_PX if objects else WINDOW_PX if spec.exact else spec.window_px
    return [block for image_id in image_ids for block in cut_blocks(image_id, reader.shape(image_id), side)]


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


def matched_objects(predicted: Integer[np.ndarray, "h w"], truth: Integer[np.ndarray, "h w"]) -> tuple[int, int, int]:
    """Objects found, made up and missed: one is found where the IoU of a predicted and a true one is above 0.5.

    Above one half, no object can have two partners.
    """
    wide = int(predicted.max(initial=0)) + 1
    pairs, overlaps = np.unique(truth.astype(np.int64) * wide + predicted, return_counts=True)
    true, told = np.divmod(pairs, wide)
    areas_true, areas_told = (dict[int, int](), dict[int, int]())
    for areas, numbers in ((areas_true, true), (areas_told, told)):
        for number, pixels in zip(numbers.tolist(), overlaps.tolist(), strict=True):
            areas[number] = areas.get(number, 0) + pixels
    found = sum(
        overlap > 0.5 * (areas_true[one] + areas_told[other] - overlap)
        for one, other, overlap in zip(true.tolist(), told.tolist(), overlaps.tolist(), strict=True)
        if one and other
    )
    return found, len(areas_told.keys() - {0}) - found, len(areas_true.keys() - {0}) - found


def mean_f1(counts: Integer[Tensor, "k 3"] | Float64[Tensor, "k 3"]) -> float:
    """Mean F1 = 2 TP / (2 TP + FP + FN) of the classes 1 and up that are predicted or true anywhere; 1 if none is."""
    hits, false_positives, false_negatives = counts[1:].double().unbind(dim=1)
    total = 2 * hits + false_positives + false_negatives
    present = total > 0
    return float((2 * hits[present] / total[present]).mean()) if bool(present.any()) else 1.0


def _counts(logits: Tensor, sample: Sample, spec: ModelSpec) -> Float64[Tensor, "k 3"]:
    """Confusion of each class; of the object channel in row 1 and in row 2 what the other channel is scored by."""
    logits = logits.float().cpu()
    valid = torch.from_numpy(sample.valid)
    if sample.targets is None:
        truth = torch.from_numpy(sample.label)
        return confusion(predicted_classes(logits, spec.threshold), truth, valid, spec.num_classes).double()
    targets = torch.from_numpy(np.ascontiguousarray(sample.targets))
    rows = [
        confusion(predicted_classes(told[None], spec.threshold), (wanted > 0.5).long(), valid, 2)[1].double()
        for told, wanted in zip(logits, targets, strict=True)
    ]
    if spec.network.output == "distance":
        inside = valid & (targets[0] > 0.5)
        error = (logits[1].sigmoid() - targets[1]).abs()[inside].double().sum()
        rows[1] = torch.stack([torch.zeros_like(error), error, inside.sum().double()])
    return torch.stack([torch.zeros(3, dtype=torch.float64), *rows])


def _object_counts(found: Detections, sample: Sample, spec: ModelSpec) -> Float64[Tensor, "3 3"]:
    shape = (sample.label.shape[0], sample.label.shape[1])
    predicted = label_image(found.cpu(), shape, spec.network.maskrcnn.mask_threshold).numpy()
    matched = matched_objects(np.where(sample.valid, predicted, 0), np.where(sample.valid, sample.label, 0))
    counts = torch.zeros(3, 3, dtype=torch.float64)
    counts[1] = torch.tensor(matched)
    return counts
