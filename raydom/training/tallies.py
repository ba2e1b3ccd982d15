"""What is counted of an image's labels by their kind, and the scores that follow.

A tally is numbers by name. Tallies of disjoint images add up; scores are taken of one image's, or of a sum.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

import numpy as np

from raydom.errors import ConfigError
from raydom.images.instance_metrics import object_counts, object_scores
from raydom.images.metrics import Confusion, scores
from raydom.images.overlaps import Overlaps, class_confusion, foreground
from raydom.images.partition_metrics import partition_scores, partition_sums

KINDS = ("binary", "instance", "semantic")
ZEROS = ("boundary", "background")
MOST_CLASSES = 256
PIXELS = tuple(field.name for field in dataclasses.fields(Confusion))

Tally = dict[str, float]


def tally(overlaps: Overlaps, kind: str, zero: str = "boundary") -> Tally:
    """What is counted of one image.

    Args:
        overlaps: Of its predicted and true labels.
        kind: ``binary``: pixels of foreground (any label but 0). ``instance``: objects and partitions as well.
            ``semantic``: pixels of each class as well.
        zero: What the truth's 0 is to scores of partitions: ``boundary``, left out, or ``background``, an object. To
            scores of objects it is what is no object.

    Raises:
        ConfigError: For labels with too many values to be classes.
    """
    counted: Tally = dict(dataclasses.asdict(foreground(overlaps)))
    if kind == "instance":
        partitions = partition_sums(overlaps, ignore_background=zero == "boundary")
        return counted | object_counts(overlaps) | partitions
    if kind == "semantic":
        classes = np.union1d(overlaps.truth, overlaps.predicted)
        classes = classes[classes != 0]
        if len(classes) > MOST_CLASSES:
            raise ConfigError(
                f"there are {len(classes)} values up to {classes[-1]}, which is too many for classes (at most "
                f"{MOST_CLASSES}). Labels that number objects are scored with --kind instance."
            )
        for label in classes.tolist():
            of_class = dataclasses.asdict(class_confusion(overlaps, label))
            counted |= {f"class_{label}_{name}": of_class[name] for name in ("tp", "fp", "fn")}
    return counted


def names_in(tallies: Iterable[Tally]) -> list[str]:
    """The names that any of them has, classes in the order of their numbers; a tally without one counts 0 there."""
    names = dict.fromkeys(name for one in tallies for name in one)
    classes = sorted((name for name in names if name.startswith("class_")), key=lambda name: int(name.split("_")[1]))
    return [name for name in names if not name.startswith("class_")] + classes


def tally_scores(counted: Mapping[str, float], kind: str) -> dict[str, float]:
    """Scores by name.

    Of every kind those of the foreground's pixels; of instances those of objects and partitions too. Of classes
    ``mean_dice`` and ``mean_iou`` over those that occur in the prediction or the truth (1 if none does; the background
    is no class), and each one's ``dice_class_1``, ``iou_class_1`` and so on, NaN where it does not occur.
    """
    found = scores(Confusion(**{name: int(counted[name]) for name in PIXELS}))
    if kind == "instance":
        return found | object_scores(counted) | partition_scores(counted)
    if kind != "semantic":
        return found
    classes = [name.removesuffix("_tp") for name in counted if name.startswith("class_") and name.endswith("_tp")]
    by_class: dict[str, float] = {}
    for name in classes:
        pixels = Confusion(*(int(counted[f"{name}_{count}"]) for count in ("tp", "fp", "fn")))
        occurs = pixels != Confusion()
        for score in ("dice", "iou"):
            by_class[f"{score}_{name}"] = scores(pixels)[score] if occurs else math.nan
    means = {}
    for score in ("dice", "iou"):
        there = [value for name, value in by_class.items() if name.startswith(score) and not math.isnan(value)]
        means[f"mean_{score}"] = sum(there) / len(there) if there else 1.0
    return found | means | by_class
