"""What trials are scored on: crops of the target and of the source, and the source's segmenter; loaded once a process.

Crops stand for the images: a method stylises each as if it were an image of its own (with the statistics of its whole
image), and objects end where crops end.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from raydom.algorithms.style_interface import StyleInput
from raydom.algorithms.trained import load_trained
from raydom.config import ImageFilter, InstanceConfig, ModelSpec, fingerprint, to_dict
from raydom.errors import ConfigError, DataError
from raydom.images.content import content_score
from raydom.images.instances import instances
from raydom.images.overlaps import count_overlaps
from raydom.label_free.combined import Features, Reference
from raydom.label_free.seen import VIEWS, Seen, look, sample_pixels
from raydom.storage import files
from raydom.storage.collection import Collection, open_collection
from raydom.storage.model_run import open_model_run
from raydom.storage.planes import open_planes
from raydom.training.data import check_alike
from raydom.training.scored_crops import SOURCE_CROPS, ScoredCrop, asked, cut_crops, drawn, fractions, valid_pixels
from raydom.training.scoring import label_kinds
from raydom.training.tallies import Tally, tally, tally_scores
from raydom.types import ImageRecord

logger = logging.getLogger(__name__)

SAMPLES = 256
"""Pixels of each crop whose features are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What all trials of a search are scored on: fixed by the driver, the same in every worker."""

    model: str
    """Model run of the source's segmenter."""
    source: str
    source_ids: tuple[str, ...]
    """Images of the source collection that tell how the segmenter behaves there."""
    target: str
    target_ids: tuple[str, ...]
    """Images of the sample; none of them is of the probe."""
    probe_ids: tuple[str, ...] = ()
    """Images of the target whose labels the objective may look at."""
    crop_px: int = 256
    num_crops: int = 8
    """Of the sample, and at most so many of the probe: at least one of each of its images."""
    seed: int = 0
    label: str | None = None
    """Name of the target's labels, if they are known."""
    mask: str | None = None
    """Label of the target whose zero pixels are not valid."""
    source_mask: str | None = None

    def settings(self) -> dict[str, Any]:
        """All that scores depend on, as plain values, wherever it lies: of the model and the images, their content."""
        source, target = open_collection(self.source), open_collection(self.target)
        images = [source[image_id] for image_id in self.source_ids]
        images += [target[image_id] for image_id in (*self.target_ids, *self.probe_ids)]
        own = {name: value for name, value in to_dict(self).items() if name not in ("model", "source", "target")}
        return own | {
            "model": open_model_run(self.model).content_hash,
            "images": fingerprint(
                [[one.record.sha256, to_dict(one.record.statistics), list(one.record.shape)] for one in images]
            ),
        }


def plan_bench(
    model: str,
    source: str,
    target: str,
    *,
    source_images: ImageFilter | None = None,
    target_images: ImageFilter | None = None,
    label: str | None = None,
    needs_labels: bool = False,
    probe: int = 0,
    crop_px: int = 256,
    num_crops: int = 8,
    seed: int = 0,
    mask: str | None = None,
    source_mask: str | None = None,
) -> BenchPlan:
    """Check all that can be checked before the first trial, and draw the images.

    Args:
        model: Folder of a model run.
        source: Collection that it was trained on, or one like it.
        target: Collection that it is to work on.
        source_images: Which images of the source are meant; default: all.
        target_images: Which of the target.
        label: Name of the target's labels; default: that of the model.
        needs_labels: Whether the sample must be labelled, for an objective that compares it with the truth.
        probe: How many labelled images of the target are set aside for an objective.
        crop_px: Side of the crops, model px.
        num_crops: Of the sample.
        seed: Of what is drawn.
        mask: Label of the target that marks its valid pixels.
        source_mask: The same of the source.

    Raises:
        ConfigError: For a model, settings or collections that do not fit each other.
        DataError: For a model or collection that is not complete, and images without the labels that are needed.
    """
    run = open_model_run(model)
    spec = run.spec
    if spec.network.output == "objects":
        raise ConfigError(
            f"{model} tells objects as a list ({spec.network.name}), of which label-free scores know nothing. Search "
            "with a model that tells classes, boundary or distance, such as a unet."
        )
    _check_crops(spec, crop_px, num_crops, probe)
    of_source, of_target = _chosen(source, source_images), _chosen(target, target_images)
    for where, collection in (("source", of_source), ("target", of_target)):
        _check_images(where, collection, spec, model)
    label = spec.label if label is None else label
    labelled = [record.image_id for record in of_target.records if label in record.labels]
    if (needs_labels or probe) and not labelled:
        what = f"a probe of {probe} images" if probe else "this objective"
        raise DataError(
            f"{of_target.uri}: no image has labels {label!r}, which {what} needs. Name them with --label, ingest them "
            "with --labels, or choose an objective that needs none, such as combined."
        )
    if len(labelled) < probe + needs_labels:
        raise DataError(
            f"{of_target.uri}: {len(labelled)} images have labels {label!r}; a probe of {probe} images"
            f"{' and a labelled sample' if needs_labels else ''} needs {probe + needs_labels}."
        )
    for name, collection in ((mask, of_target), (source_mask, of_source)):
        _check_mask(name, collection)
    probe_ids = drawn(labelled, probe, seed, 1)
    rest = [record.image_id for record in of_target.records if record.image_id not in probe_ids]
    rest = [image_id for image_id in rest if not needs_labels or image_id in labelled]
    if not rest:
        raise DataError(
            f"{of_target.uri}: a probe of {probe} images leaves none of {len(of_target)} for the sample. Give a "
            "smaller --probe."
        )
    return BenchPlan(
        model=files.absolute(model),
        source=of_source.uri,
        source_ids=drawn([record.image_id for record in of_source.records], SOURCE_CROPS, seed, 0),
        target=of_target.uri,
        target_ids=drawn(rest, num_crops, seed, 2),
        probe_ids=probe_ids,
        crop_px=crop_px,
        num_crops=num_crops,
        seed=seed,
        label=label if labelled else None,
        mask=mask,
        source_mask=source_mask,
    )


class Bench:
    """Scores stylised crops, or another segmenter on them.

    Args:
        plan: What is scored on.
        device: Where to compute.
    """

    def __init__(self, plan: BenchPlan, device: str = "cpu") -> None:
        self.plan, self.device = plan, torch.device(device)
        network, self.spec = load_trained(plan.model)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        target, source = open_collection(plan.target), open_collection(plan.source)
        probed = max(plan.num_crops, len(plan.probe_ids)) if plan.probe_ids else 0
        cut = partial(cut_crops, spec=self.spec, crop_px=plan.crop_px, seed=plan.seed)
        of_target = partial(cut, target, label=plan.label, mask=plan.mask)
        self._sample = of_target(plan.target_ids, plan.num_crops, stream=2)
        self._probe = of_target(plan.probe_ids, probed, stream=1)
        of_source = cut(source, plan.source_ids, SOURCE_CROPS, stream=0, mask=plan.source_mask)
        self.content = self._inputs([*self._sample, *self._probe])
        self._kind = (
            None
            if plan.label is None
            else kind_of(self.spec, [crop.record for crop in (*self._sample, *self._probe)], plan.label)
        )
        self._crops = asked(self._sample)
        self._places = sample_pixels(valid_pixels([*self._sample, *self._probe]), SAMPLES, self._generator(0))
        self._source = self._inputs(of_source).pixels
        self._source_places = sample_pixels(valid_pixels(of_source), SAMPLES, self._generator(1))
        told = look(self.network, self.spec, self._source, self._source_places)
        self._reference = Reference(told, asked(of_source), self.spec.threshold)
        self.reference: dict[str, float] = self._reference.own
        """The scores of the source's own crops."""

    def scores(self, styled: Float[Tensor, "n c h w"], network: nn.Module | None = None) -> dict[str, float | None]:
        """All scores of a trial by name; larger is better.

        Args:
            styled: What was made of ``content.pixels``, fractions too.
            network: Another segmenter with the spec of the model, in place of the source's. Its features are compared
                with its own at the source, its behaviour with that of the source's segmenter.

        Returns:
            The label-free scores of the sample: see ``Reference.scores``. Where labels are known, ``true_<metric>`` of
            the sample and ``probe_<metric>`` of the probe, the counts of all crops pooled; a metric that is not defined
            is None.

        Raises:
            DataError: If pixels are not finite, or what the network tells of them.
            ConfigError: If they are not shaped like the content.
        """
        if styled.shape != self.content.pixels.shape:
            raise ConfigError(
                f"the stylised crops are shaped {tuple(styled.shape)}, the content {tuple(self.content.pixels.shape)}."
            )
        if not bool(torch.isfinite(styled).all()):
            raise DataError("the stylised crops are not finite.")
        features = None
        if network is not None and network is not self.network:
            alone = look(network, self.spec, self._source, self._source_places, views=VIEWS[:1])
            features = Features(alone, self.spec.threshold)
        told = look(network or self.network, self.spec, styled.to(self.device), self._places)
        if not bool(torch.isfinite(told.logits).all()):
            raise DataError("what the network tells of the crops is not finite; its training has diverged.")
        n = len(self._sample)
        contents = self._contents(styled[:n])
        found: dict[str, float | None] = dict(self._reference.scores(told.first(n), self._crops, contents, features))
        for prefix, crops, part in (("true", self._sample, slice(0, n)), ("probe", self._probe, slice(n, None))):
            if self._kind is not None and crops and all(crop.labelled for crop in crops):
                found |= {f"{prefix}_{name}": value for name, value in self._truth(told, crops, part).items()}
        return found

    def _truth(self, told: Seen, crops: Sequence[ScoredCrop], part: slice) -> dict[str, float | None]:
        assert self._kind is not None
        pooled: dict[str, float] = {}
        for logits, crop in zip(told.logits[part].float().cpu(), crops, strict=True):
            overlaps = count_overlaps(_labels(logits, self.spec), crop.sample.label, crop.sample.valid)
            pooled = _summed(pooled, tally(overlaps, self._kind))
        return {
            name: None if np.isnan(value) else float(value) for name, value in tally_scores(pooled, self._kind).items()
        }

    def _contents(self, styled: Tensor) -> list[float]:
        """Content score of each crop of the sample. The result's deviations are those of all its crops together."""
        result = styled.float().cpu().numpy()
        std = result.std(axis=(0, 2, 3)).tolist()
        before = self.content.pixels.cpu().numpy()
        return [content_score(before[i], result[i], crop.statistics.std, std) for i, crop in enumerate(self._sample)]

    def _inputs(self, crops: Sequence[ScoredCrop]) -> StyleInput:
        return StyleInput(fractions(crops).to(self.device), tuple(crop.statistics for crop in crops))

    def _generator(self, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(2 * self.plan.seed + stream)


def _labels(logits: Tensor, spec: ModelSpec) -> np.ndarray:
    """What inference would label: classes of pixels, or objects."""
    if spec.network.output == "classes":
        if len(logits) == 1:
            return (logits[0].sigmoid() >= spec.threshold).numpy().astype(np.int32)
        return logits.argmax(dim=0).numpy().astype(np.int32)
    maps = np.rint(logits.sigmoid().numpy() * 255).astype(np.uint8)
    return instances(maps, spec.network.output, spec.threshold, InstanceConfig())


def kind_of(spec: ModelSpec, records: Sequence[ImageRecord], label: str) -> str:
    """What is scored: as ``evaluate`` would, of the labels that the model writes."""
    kinds = label_kinds([record for record in records if label in record.labels], label)
    if spec.num_classes > 2 or "semantic" in kinds:
        return "semantic"
    return "instance" if spec.network.output != "classes" and "instance" in kinds else "binary"


def _summed(a: Mapping[str, float], b: Tally) -> dict[str, float]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in (*a, *(name for name in b if name not in a))}


def _chosen(uri: str, images: ImageFilter | None) -> Collection:
    chosen = open_planes(uri, images)
    if not len(chosen):
        raise DataError(f"{uri}: no image is chosen. See raydom info {uri}.")
    return chosen


def _check_images(where: str, collection: Collection, spec: ModelSpec, model: str) -> None:
    records = list(collection.records)
    check_alike(records)
    if records[0].num_channels != len(spec.channels):
        raise ConfigError(
            f"{records[0].image_id} of the {where} has {records[0].num_channels} channels "
            f"({', '.join(records[0].channels)}), the model {model} takes {len(spec.channels)} "
            f"({', '.join(spec.channels)}). Choose a model trained on such images, or ingest the images with those "
            "channels."
        )
    unknown = [record.image_id for record in records if record.pixel_size_um is None]
    if spec.pixel_size_um is not None and unknown:
        logger.warning(
            "%d images of the %s do not state their pixel size: they are taken to have that of the model, %g um.",
            len(unknown), where, spec.pixel_size_um,
        )  # fmt: skip


def _check_crops(spec: ModelSpec, crop_px: int, num_crops: int, probe: int) -> None:
    stride = spec.total_stride
    if crop_px < stride or crop_px % stride:
        above = -(-max(crop_px, 1) // stride) * stride
        raise ConfigError(
            f"crop_px must be a multiple of the network's total stride of {stride} px; got {crop_px}. Choose {above}."
        )
    if num_crops < 1 or probe < 0:
        raise ConfigError(f"num_crops must be >= 1 and probe >= 0; got {num_crops} and {probe}.")


def _check_mask(mask: str | None, collection: Collection) -> None:
    lacking = [record.image_id for record in collection.records if mask is not None and mask not in record.labels]
    if lacking:
        raise DataError(
            f"{collection.uri}: {len(lacking)} images have no mask {mask!r}, such as {lacking[0]}. Ingest it with "
            "--labels, or leave out the mask."
        )
