"""One set of objects out of several views of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int32
from scipy import ndimage

LIKE = 0.5
"""Objects of two views are the same from this intersection over union on."""


def voted(
    views: Sequence[Int32[np.ndarray, "h w"]], scores: Sequence[Float[np.ndarray, " _"]]
) -> tuple[Int32[np.ndarray, "h w"], Float[np.ndarray, " n"]]:
    """The objects that at least half of the views have, the surest first.

    An object of one view gathers the one that is most like it in each of the others; a pixel is its own when at least
    half of those have it, and no surer object does.

    Args:
        views: Labels of the same pixels, 1 to n of each.
        scores: Of the objects of each view.

    Returns:
        Labels, 1 and up by falling score, and the mean score of the votes of each.
    """
    if len(views) == 1:
        return views[0], scores[0]
    taken = [np.zeros(len(own) + 1, bool) for own in scores]
    areas = [np.bincount(labels.ravel(), minlength=len(own) + 1) for labels, own in zip(views, scores, strict=True)]
    # All looks are within the boxes of objects: whole images, for each object, would take forever.
    boxes = [ndimage.find_objects(labels, len(own)) for labels, own in zip(views, scores, strict=True)]
    every = [(-float(s), view, i + 1) for view, own in enumerate(scores) for i, s in enumerate(own)]
    out, means = np.zeros_like(views[0]), []
    for _, view, label in sorted(every):
        if taken[view][label] or not areas[view][label]:
            continue
        box = boxes[view][label - 1]
        mask = views[view][box] == label
        members = [(view, label)]
        for other, labels in enumerate(views):
            if other == view:
                continue
            found, overlap = np.unique(labels[box][mask], return_counts=True)
            overlap[(found == 0) | taken[other][found]] = 0
            best, shared = int(found[overlap.argmax()]), int(overlap.max())
            if shared and shared / (areas[view][label] + areas[other][best] - shared) >= LIKE:
                members.append((other, best))
        for other, best in members:
            taken[other][best] = True
        if 2 * len(members) < len(views):
            continue
        box = _around([boxes[other][best - 1] for other, best in members])
        votes = sum((views[other][box] == best).astype(np.int32) for other, best in members)
        means.append(float(np.mean([scores[other][best - 1] for other, best in members])))
        out[box][(2 * votes >= len(members)) & (out[box] == 0)] = len(means)
    return out, np.array(means)


def _around(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    """The smallest box that holds all of these."""
    return tuple(slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*boxes, strict=True))
