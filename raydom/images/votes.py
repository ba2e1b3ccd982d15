"""One set of objects out of several views of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int32

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
    every = [(-float(s), view, i + 1) for view, own in enumerate(scores) for i, s in enumerate(own)]
    out, means = np.zeros_like(views[0]), []
    for _, view, label in sorted(every):
        if taken[view][label] or not areas[view][label]:
            continue
        mask = views[view] == label
        members = [(view, label)]
        for other, labels in enumerate(views):
            if other == view:
                continue
            overlap = np.bincount(labels[mask], minlength=len(taken[other]))
            overlap[0] = 0
            overlap[taken[other]] = 0
            best = int(overlap.argmax())
            union = areas[view][label] + areas[other][best] - overlap[best]
            if overlap[best] and overlap[best] / union >= LIKE:
                members.append((other, best))
        for other, best in members:
            taken[other][best] = True
        if 2 * len(members) < len(views):
            continue
        votes = sum((views[other] == best).astype(np.int32) for other, best in members)
        means.append(float(np.mean([scores[other][best - 1] for other, best in members])))
        out[(2 * votes >= len(members)) & (out == 0)] = len(means)
    return out, np.array(means)
