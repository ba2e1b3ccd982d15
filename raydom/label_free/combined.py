"""How far a segmenter behaves as it does on the source, where it is right: the scores of a trial, and one of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from raydom.algorithms.adaptation import self_information
from raydom.label_free.morphology import NAMES, morphology
from raydom.label_free.scores import (
    agreement,
    certainty,
    frechet,
    information_maximisation,
    median_bandwidth,
    mmd,
    neighbourhood_density,
)
from raydom.label_free.seen import Seen
from raydom.label_free.visibility import Visibility

BEHAVIOUR = ("certainty", "agreement", "sureness")
DESCRIPTORS = (*BEHAVIOUR, *NAMES)
LEAST_SPREAD = np.array([0.01] * len(BEHAVIOUR) + [0.05] * len(NAMES))
"""The source's crops count as differing at least by so much."""
COMPARED = 1024
"""Points whose pairs are compared."""
LEAST_POINTS = 32
"""A class that fewer of the sampled pixels are of has no distribution."""
LEAST_VISIBILITY = 0.05
"""Where a segmenter follows nothing that simple filters see, not even at the source, this is as good as any."""
CONTENT_THRESHOLD = 0.4
"""Mean content score below which a trial is punished."""


def descriptors(seen: Seen, valid: Bool[Tensor, "n h w"], threshold: float) -> Float[np.ndarray, "n descriptors"]:
    """Of each crop, in the order of ``DESCRIPTORS``.

    Args:
        seen: What the segmenter tells.
        valid: The pixels that count.
        threshold: Foreground probability from which a pixel is labelled.
    """
    where = valid.to(seen.probabilities.device)
    foreground = seen.foreground * where
    entropy = self_information(seen.probabilities).sum(dim=1)
    sureness = 1 - (entropy * foreground).sum(dim=(1, 2)) / (foreground.sum(dim=(1, 2)) + 10.0)
    behaviour = torch.stack([certainty(seen.probabilities, where), agreement(seen.views, where), sureness], dim=1)
    return np.concatenate([behaviour.double().cpu().numpy(), shapes(_foreground(seen), valid, threshold)], axis=1)


def shapes(
    foreground: Float32[np.ndarray, "n h w"], valid: Bool[Tensor, "n h w"], threshold: float
) -> Float[np.ndarray, "n descriptors"]:
    """The morphology of what is told of each crop."""
    masks, counted = foreground >= threshold, valid.cpu().numpy()
    return np.stack([morphology(mask, where) for mask, where in zip(masks, counted, strict=True)])


class Features:
    """The features of a network at pixels of the source, in units of their deviations there.

    Args:
        seen: What it tells of the source.
        threshold: Foreground probability from which a pixel is labelled.
    """

    def __init__(self, seen: Seen, threshold: float) -> None:
        self._threshold = threshold
        points = seen.features.flatten(0, 1)
        self._mean, self._std = points.mean(dim=0), points.std(dim=0).clamp(min=1e-6)
        self._points, self._foreground = self._standard(seen)
        self._bandwidth = median_bandwidth(_some(self._points))
        classes = self._points[self._foreground], self._points[~self._foreground]
        some = min(map(len, classes)) >= LEAST_POINTS
        self.separation = frechet(*classes) if some else math.sqrt(2 * points.shape[1])
        """Distance of foreground and background (or else that of any two points): what counts as far."""

    def distances(self, seen: Seen) -> dict[str, float]:
        """How far the features of other crops are, all, and class by class; 0 is like the source."""
        points, foreground = self._standard(seen)
        return {
            "mmd": mmd(_some(points), _some(self._points), self._bandwidth),
            "frechet": frechet(points, self._points),
            "frechet_foreground": self._of_class(points[foreground], self._points[self._foreground]),
            "frechet_background": self._of_class(points[~foreground], self._points[~self._foreground]),
        }

    def density(self, seen: Seen) -> float:
        return neighbourhood_density(_some(self._standard(seen)[0]))

    def _of_class(self, points: Tensor, theirs: Tensor) -> float:
        """A class that is at one of both alone is as far as the source's classes are from each other."""
        there = [len(one) >= LEAST_POINTS for one in (points, theirs)]
        return frechet(points, theirs) if all(there) else self.separation * any(there)

    def _standard(self, seen: Seen) -> tuple[Tensor, Tensor]:
        points = (seen.features.flatten(0, 1) - self._mean) / self._std
        return points, 1 - seen.sampled.flatten(0, 1)[:, 0] >= self._threshold


@dataclass(frozen=True)
class Crops:
    """What is asked of crops whatever was made of them."""

    valid: Bool[Tensor, "n h w"]
    visibility: Visibility
    """Of the crops as they are."""


@dataclass(frozen=True)
class Standard:
    """How foreground looks at the source, in a few numbers: what ``combined`` compares with."""

    shape: tuple[float, ...]
    """Mean of each number of morphology over the source's crops."""
    spread: tuple[float, ...]
    """Their deviations, at least ``LEAST_SPREAD``."""
    visibility: float

    @classmethod
    def of(cls, foreground: Float32[np.ndarray, "n h w"], crops: Crops, threshold: float) -> Standard:
        """That of crops of the source.

        Args:
            foreground: Its probability there: 0 and 1 of labels, or what a segmenter tells.
            crops: They.
            threshold: Probability from which a pixel is foreground.
        """
        found = shapes(foreground, crops.valid, threshold)
        spread = np.maximum(found.std(axis=0), LEAST_SPREAD[len(BEHAVIOUR) :])
        return cls(tuple(found.mean(axis=0).tolist()), tuple(spread.tolist()), crops.visibility(foreground))

    def morphology(self, shape: Float[np.ndarray, " descriptors"]) -> float:
        """Minus the mean distance of the shape of what is segmented elsewhere, -1 to 0. Each number's distance d, in
        deviations of the source's crops, counts as d / (1 + d)."""
        return -_mean_distance((np.abs(shape - np.array(self.shape)) / np.array(self.spread)).tolist())

    def seen_as_well(self, visibility: float) -> float:
        """Minus what lacks of the visibility, as a share of that at the source, -1 to 0; more is no fault."""
        return -max(0.0, 1 - visibility / max(self.visibility, LEAST_VISIBILITY))

    def combined(self, morphology: float, visibility: float, agreement: float, content: float = 1.0) -> float:
        """1 as at the source, about 0 for what has collapsed.

        1 less the mean of what is missing of three things, each from 0 to 1, and less the part by which the content
        score is below ``CONTENT_THRESHOLD``. All three are needed: background alone agrees with itself, and noise may
        well be shaped like cells.

        Args:
            morphology: See there.
            visibility: How well the foreground is foretold by simple filters of the images.
            agreement: Of the segmenter with itself, on crops turned and flipped.
            content: Mean content score of what was made of the images.
        """
        missing = (-self.seen_as_well(visibility), -morphology, 1 - agreement)
        return 1 - sum(missing) / len(missing) - max(0.0, CONTENT_THRESHOLD - content)


class Reference:
    """The source's crops, as the source's segmenter sees them.

    Args:
        seen: What it tells of them.
        crops: They.
        threshold: Foreground probability from which a pixel is labelled.
    """

    def __init__(self, seen: Seen, crops: Crops, threshold: float) -> None:
        self._threshold = threshold
        found = descriptors(seen, crops.valid, threshold)
        self._mean, self._spread = found.mean(axis=0), np.maximum(found.std(axis=0), LEAST_SPREAD)
        self._standard = Standard.of(_foreground(seen), crops, threshold)
        self._confidence = _confidence(seen, crops.valid)
        self.features = Features(seen, threshold)
        self.own = self.scores(seen, crops, [1.0] * len(crops.valid))
        """The scores of these crops themselves."""

    def scores(
        self, seen: Seen, crops: Crops, contents: Sequence[float], features: Features | None = None
    ) -> dict[str, float]:
        """The label-free scores of crops by name; larger is better.

        - ``combined``: of ``visibility``, ``morphology``, ``agreement`` and ``content_mean``; see ``Standard``.
        - ``certainty``, ``agreement``, ``im``, ``snd`` (of the predictions) and ``snd_features``: see
          ``label_free.scores``; ``visibility``: see there.
        - ``mmd``, ``frechet`` and that of both classes: minus the distance of the features from those at the source.
        - ``morphology`` and ``likeness``: minus the mean distance of the shape of what is segmented, or of how sure the
          segmenter is and agrees with itself, from the source's. Each number's distance d, in deviations of the
          source's crops, counts as d / (1 + d).
        - ``content`` and ``content_mean``: the lowest content score of a crop, and their mean.
        - ``like_...`` and ``raw_...``: what these are made of.

        Args:
            seen: What a segmenter tells of what was made of them.
            crops: The crops.
            contents: The content score of each.
            features: Those of that segmenter at the source, if it is another one than the source's.
        """
        features = self.features if features is None else features
        found = descriptors(seen, crops.valid, self._threshold).mean(axis=0)
        told = dict(zip(DESCRIPTORS, found.tolist(), strict=True))
        distance = dict(zip(DESCRIPTORS, (np.abs(found - self._mean) / self._spread).tolist(), strict=True))
        sampled = seen.sampled.flatten(0, 1)
        visible = crops.visibility(_foreground(seen))
        scores = {
            "certainty": told["certainty"],
            "agreement": told["agreement"],
            "im": information_maximisation(sampled),
            "snd": neighbourhood_density(_some(sampled)),
            "snd_features": features.density(seen),
            **{name: -value for name, value in features.distances(seen).items()},
            "visibility": visible,
            "morphology": self._standard.morphology(found[len(BEHAVIOUR) :]),
            "likeness": -_mean_distance([distance[name] for name in BEHAVIOUR]),
            "content": min(contents),
            "content_mean": float(np.mean(contents)),
            "like_visibility": self._standard.seen_as_well(visible),
            "like_confidence": -float(np.abs(_confidence(seen, crops.valid) - self._confidence).mean()),
            "raw_separation": features.separation,
            **{f"like_{name}": -value for name, value in distance.items()},
            **{f"raw_{name}": value for name, value in told.items()},
        }
        scores["combined"] = self._standard.combined(
            scores["morphology"], visible, scores["agreement"], scores["content_mean"]
        )
        return scores


def _foreground(seen: Seen) -> Float32[np.ndarray, "n h w"]:
    return np.asarray(seen.foreground.float().cpu().numpy())


def _confidence(seen: Seen, valid: Bool[Tensor, "n h w"]) -> Float[np.ndarray, "101"]:
    """Quantiles of the foreground's probability: their mean distance is Wasserstein's."""
    return np.quantile(_foreground(seen)[valid.cpu().numpy()], np.linspace(0, 1, 101))


def _mean_distance(distances: Sequence[float]) -> float:
    """Mean of d / (1 + d): however far, one descriptor counts no more than 1."""
    return float(np.mean([d / (1 + d) for d in distances]))


def _some(points: Tensor) -> Tensor:
    """At most ``COMPARED`` of them, evenly."""
    return points[torch.linspace(0, len(points) - 1, min(len(points), COMPARED)).long()]
