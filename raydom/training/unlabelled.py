"""How good the network at hand is on the target, as far as that can be told without labels of the target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from raydom.algorithms.adaptation import class_probabilities, finest, self_information
from raydom.config import ModelSpec
from raydom.errors import DataError
from raydom.label_free.combined import Standard, shapes
from raydom.label_free.scores import agreement
from raydom.label_free.seen import look
from raydom.storage.collection import open_collection
from raydom.training import distributed
from raydom.training.crops import CropReader
from raydom.training.domains import DomainImages
from raydom.training.evaluation import validation_windows
from raydom.training.scored_crops import SOURCE_CROPS, asked, cut_crops, drawn, fractions, valid_pixels

CROP_PX = 256
"""Side of the crops, px of the model, or the next multiple of its stride."""
SOURCE, TARGET = 0, 2
"""Streams of what is drawn, as those of a search."""


def certainty(
    network: nn.Module, reader: CropReader, image_ids: Sequence[str], spec: ModelSpec, device: torch.device
) -> float:
    """1 - the mean entropy of the valid pixels of images: a score that needs no labels. The processes share them."""
    total = torch.zeros(2, dtype=torch.float64)
    was_training = network.training
    network.eval()
    try:
        for block in validation_windows(reader, image_ids, spec)[distributed.rank() :: distributed.world_size()]:
            sample = reader.read(block.image_id, block.write)
            with torch.inference_mode():
                logits = finest(network(torch.from_numpy(np.ascontiguousarray(sample.image))[None].to(device)))
                entropy = self_information(class_probabilities(logits)).sum(dim=1)[0].double().cpu()
            counted = entropy[torch.from_numpy(np.ascontiguousarray(sample.valid))]
            total += torch.tensor([float(counted.sum()), len(counted)], dtype=torch.float64)
    finally:
        network.train(was_training)
    entropies, pixels = distributed.summed(total.to(device)).cpu().tolist()
    return float(1.0 - entropies / max(pixels, 1.0))


def labelled_standard(source: DomainImages, spec: ModelSpec, seed: int, mask: str | None) -> Standard:
    """How foreground looks in the labels of the source: those of crops of its training and validation images.

    Labels, not what a network tells of the source, since they are the same from the first step to the last, and there
    from the start.

    Args:
        source: Its images, all of which have labels.
        spec: Of the network: the grid of pixels, the name of the labels, the threshold.
        seed: Of the crops.
        mask: Label of the source whose zero pixels are not valid.

    Raises:
        DataError: If no foreground is labelled in the crops.
    """
    crops = cut_crops(
        open_collection(source.collection),
        drawn(source.all_ids, SOURCE_CROPS, seed, SOURCE),
        SOURCE_CROPS,
        spec,
        crop_px=crop_side(spec),
        seed=seed,
        stream=SOURCE,
        label=spec.label,
        mask=mask,
    )
    foreground = np.stack([(crop.sample.label > 0) & crop.sample.valid for crop in crops]).astype(np.float32)
    if not foreground.any():
        raise DataError(
            f"{source.collection}: no pixel is labelled {spec.label!r} in {len(crops)} crops of {crop_side(spec)} px: "
            "--select combined has nothing to compare with. Correct the labels, or give --select last, source or "
            "entropy."
        )
    return Standard.of(foreground, asked(crops), spec.threshold)


class TargetScore:
    """``combined`` of a network: whether what it segments on crops of the target looks like labels of the source.

    The processes share the crops, which are asked one by one: all have the same score, whatever their number.

    Args:
        target: Its images; the crops are of those for training and for validation, since no label is asked.
        standard: How foreground looks at the source.
        spec: Of the network.
        num_crops: How many crops; of each image at least one, as far as they go.
        seed: Of the crops.
        mask: Label of the target whose zero pixels are not valid.
        device: Of the network.
    """

    def __init__(
        self,
        target: DomainImages,
        standard: Standard,
        spec: ModelSpec,
        *,
        num_crops: int,
        seed: int,
        mask: str | None,
        device: torch.device,
    ) -> None:
        crops = cut_crops(
            open_collection(target.collection),
            drawn(target.all_ids, num_crops, seed, TARGET),
            num_crops,
            spec,
            crop_px=crop_side(spec),
            seed=seed,
            stream=TARGET,
            mask=mask,
        )
        self._pixels, self._valid, self._crops = fractions(crops).to(device), valid_pixels(crops), asked(crops)
        self._standard, self._spec = standard, spec

    def __call__(self, network: nn.Module) -> float:
        """About 1 where it does as the labels of the source do, about 0 where it has collapsed. The network is left in
        the mode in which it came."""
        rank, world_size = distributed.rank(), distributed.world_size()
        count = len(self._pixels)
        shared = distributed.gathered([self._told(network, number) for number in range(rank, count, world_size)])
        told = [shared[number % world_size][number // world_size] for number in range(count)]
        foreground = np.stack([one for one, _ in told])
        shape = shapes(foreground, self._valid, self._spec.threshold).mean(axis=0)
        agreed = float(np.mean([one for _, one in told]))
        standard = self._standard
        score = standard.combined(standard.morphology(shape), self._crops.visibility(foreground), agreed)
        # Processors may differ in their last bits, and all must stop together.
        first: float = distributed.gathered(score)[0]
        return first

    def _told(self, network: nn.Module, number: int) -> tuple[np.ndarray, float]:
        """The probability of foreground in a crop, and how well the network agrees with itself there."""
        one = slice(number, number + 1)
        no_features = torch.zeros(1, 0, dtype=torch.int64)
        seen = look(network, self._spec, self._pixels[one], no_features)
        agreed = agreement(seen.views, self._valid[one].to(seen.views.device))
        return seen.foreground[0].float().cpu().numpy(), float(agreed[0])


def crop_side(spec: ModelSpec) -> int:
    """Side of the crops that are scored: a multiple of the network's total stride."""
    return -(-CROP_PX // spec.total_stride) * spec.total_stride
