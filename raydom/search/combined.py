"""How far a segmenter behaves as it does on the source, where it is right: the scores of a trial, and one of all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from raydom.algorithms.adaptation import self_information
from raydom.search.label_free import (
    agreement,
    certainty,
    frechet,
    information_maximisation,
    median_bandwidth,
    mmd,
    neighbourhood_density,
)
from raydom.search.morphology import NAMES, morphology
from raydom.search.seen import Seen
from raydom.search.visibility import Visibility

BEHAVIOUR = ("certainty", "agreement", "sureness")
DESCRIPTORS = (*BEHAVIOUR, *NAMES)
LEAST_SPREAD = dict.fromkeys(DESCRIPTORS, 0.05) | dict.fromkeys(BEHAVIOUR, 0.01)
"""Differences below this are never many times the source's spread."""
COMPARED = 1024
"""Points whose pairs are compared."""
CONTENT_THRESHOLD = 0.4


def descriptors(seen: Seen, valid: Bool[Tensor, "n h w"], threshold: float) -> Float[np.ndarray, "n descriptors"]:
    """Of each crop, in the order of ``DESCRIPTORS``.

    Args:
        seen: What the segmenter tells.
        valid: Their pixels that count.
        threshold: Foreground probability from which a pixel is labelled.
    """
    where = valid.to(seen.probabilities.device)
    sure = certainty(seen.probabilities, where)
    agreed = agreement(seen.views, where)
    foreground = seen.foreground * where
    entropy = self_information(seen.probabilities).sum(dim=1) * where
    sureness = 1 - (entropy * foreground).sum(dim=(1, 2)) / (foreground.sum(dim=(1, 2)) + 10.0)
    maps = foreground.float().cpu().numpy()
    rows = []
    for i, (told, counted) in enumerate(zip(maps, valid.cpu().numpy(), strict=True)):
        own = [float(sure[i]), float(agreed[i]), float(sureness[i])]
        rows.append(np.concatenate([own, morphology(told >= threshold, counted)]))
    return np.stack(rows)


class Reference:
    """The source's crops, as the source's segmenter sees them.

    Args:
        seen: What it tells of them.
        pixels: The crops.
        valid: Their pixels that count.
        threshold: Foreground probability from which a pixel is labelled.
    """

    def __init__(
        self, seen: Seen, pixels: Float32[np.ndarray, "n c h w"], valid: Bool[Tensor, "n h w"], threshold: float
    ) -> None:
        self.threshold = threshold
        found = descriptors(seen, valid, threshold)
        self.mean = found.mean(axis=0)
        least = np.array([LEAST_SPREAD[name] for name in DESCRIPTORS])
        self.spread = np.maximum(found.std(axis=0), least)
        features = seen.features.flatten(0, 1)
        self.feature_mean, self.feature_std = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
        self.features = self._standard(features)
        self.foreground = 1 - seen.sampled.flatten(0, 1)[:, 0] >= threshold
        self.bandwidth = median_bandwidth(_some(self.features))
        self.separation = frechet(self.features[self.foreground], self.features[~self.foreground])
        self.confidence = _quantiles(seen, valid)
        seen_here = Visibility(pixels, valid.numpy())
        self.visibility = seen_here(_foreground(seen))
        self.own = self.scores(seen, seen_here, valid, [1.0] * len(pixels))

    def scores(
        self,
        seen: Seen,
        visibility: Visibility,
        valid: Bool[Tensor, "n h w"],
        contents: Sequence[float],
    ) -> dict[str, float]:
        """The label-free scores of n crops: see ``Bench.scores``."""
        found = descriptors(seen, valid, self.threshold).mean(axis=0)
        visible = visibility(_foreground(seen))
        distance = dict(zip(DESCRIPTORS, np.abs(found - self.mean) / self.spread, strict=True))
        features, sampled = self._standard(seen.features.flatten(0, 1)), seen.sampled.flatten(0, 1)
        foreground = 1 - sampled[:, 0] >= self.threshold
        scores = {
            "certainty": float(found[0]),
            "agreement": float(found[1]),
            "visibility": visible,
            "like_visibility": -abs(visible - self.visibility) / max(self.visibility, 0.05),
            "like_confidence": -float(np.abs(_quantiles(seen, valid) - self.confidence).mean()),
            "raw_separation": self.separation,
            "im": information_maximisation(sampled),
            "snd": neighbourhood_density(_some(sampled)),
            "snd_features": neighbourhood_density(_some(features)),
            "mmd": -mmd(_some(features), _some(self.features), self.bandwidth),
            "frechet": -frechet(features, self.features),
            "frechet_foreground": -self._frechet_of(features, foreground, True),
            "frechet_background": -self._frechet_of(features, foreground, False),
            "morphology": -_mean_distance([distance[name] for name in NAMES]),
            "likeness": -_mean_distance([distance[name] for name in BEHAVIOUR]),
            "content": min(contents),
            "content_mean": float(np.mean(contents)),
            **{f"like_{name}": -float(value) for name, value in distance.items()},
            **{f"raw_{name}": float(value) for name, value in zip(DESCRIPTORS, found, strict=True)},
        }
        penalty = max(0.0, CONTENT_THRESHOLD - scores["content_mean"])
        scores["combined"] = scores["morphology"] + scores["likeness"] + scores["frechet"] / 4 - penalty
        return scores

    def _standard(self, features: Tensor) -> Tensor:
        return (features - self.feature_mean) / self.feature_std

    def _frechet_of(self, features: Tensor, foreground: Tensor, which: bool) -> float:
        """Of one class of pixels; where hardly any is of it, the distance of the source's classes."""
        theirs = self.features[self.foreground == which]
        ours = features[foreground == which]
        if len(ours) < 32:
            ours = self.features[self.foreground != which]
        return frechet(ours, theirs) if min(len(ours), len(theirs)) >= 2 else 0.0


def _foreground(seen: Seen) -> Float32[np.ndarray, "n h w"]:
    return np.asarray(seen.foreground.float().cpu().numpy())


def _quantiles(seen: Seen, valid: Bool[Tensor, "n h w"]) -> Float[np.ndarray, "101"]:
    """Of the foreground's probability: their mean distance is Wasserstein's."""
    return np.quantile(_foreground(seen)[valid.cpu().numpy()], np.linspace(0, 1, 101))


def _mean_distance(distances: Sequence[float]) -> float:
    """Mean of d / (1 + d): however far, one descriptor counts no more than 1."""
    return float(np.mean([d / (1 + d) for d in distances]))


def _some(points: Tensor) -> Tensor:
    """At most ``COMPARED`` of them, evenly."""
    return points[torch.linspace(0, len(points) - 1, min(len(points), COMPARED)).long()]
