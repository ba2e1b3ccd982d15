"""The rows of a table of scores: of images and of sets of them, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raydom.training.bootstrap import bootstrap_interval
from raydom.training.tallies import PIXELS, Tally, names_in, tally_scores

GROUPINGS = ("domain", "split", "group")


class ScoreRows:
    """Makes the rows from the tallies of images.

    Args:
        tallies: By image.
        unit_of: By image, what the bootstrap draws: images of one unit are drawn together.
        kind: Of the labels; says which scores there are.
        bootstrap: Resamples for each interval; 0 for none.
        seed: Of the resamples.
    """

    def __init__(
        self, tallies: dict[str, Tally], unit_of: dict[str, tuple[str, str]], kind: str, bootstrap: int, seed: int
    ) -> None:
        self.kind, self.bootstrap, self.seed = kind, bootstrap, seed
        self.unit_of = unit_of
        self.counts = names_in(tallies.values())
        self.whole = {
            name for name in self.counts if all(isinstance(one.get(name, 0), int) for one in tallies.values())
        }
        self.tally_of = {i: np.array([one.get(name, 0) for name in self.counts], float) for i, one in tallies.items()}
        self.score_of = {image_id: self._scored(counted) for image_id, counted in self.tally_of.items()}
        self.names = list(tally_scores(dict.fromkeys(self.counts, 0), kind))

    def pooled(self, scope: str, members: Sequence[str], num_missing: int, **where: str | None) -> dict[str, Any]:
        """Scores of the summed counts of some images, and the counts."""
        total = np.sum([self.tally_of[i] for i in members], axis=0)
        interval = bootstrap_interval(self._units(members, self.tally_of), self._scored, self.bootstrap, self.seed)
        counts = {
            name: int(count) if name in self.whole else count
            for name, count in zip(self.counts, total.tolist(), strict=True)
        }
        return self._row(scope, len(members), num_missing, where, self._scored(total), interval) | counts

    def mean(self, scope: str, members: Sequence[str], num_missing: int, **where: str | None) -> dict[str, Any]:
        """The means of the scores of some images. A mask may leave nothing of an image to score: it is left out."""
        pixels = [self.counts.index(name) for name in PIXELS]
        members = [i for i in members if self.tally_of[i][pixels].any()] or members
        terms = {i: np.concatenate([np.nan_to_num(self.score_of[i]), ~np.isnan(self.score_of[i])]) for i in members}
        units = self._units(members, terms)
        interval = bootstrap_interval(units, _quotients, self.bootstrap, self.seed)
        return self._row(scope, len(members), num_missing, where, _quotients(units.sum(axis=0)), interval)

    def schema(self, by: str | None) -> pa.Schema:
        texts = ["scope", "label_kind", "image_id", *GROUPINGS, *([by] if by not in (None, *GROUPINGS) else [])]
        ends = ("", "_low", "_high") if self.bootstrap else ("",)
        return pa.schema(
            [
                *((name, pa.string()) for name in texts),
                *((name, pa.int64()) for name in ("num_images", "num_missing")),
                *((f"{name}{end}", pa.float64()) for name in self.names for end in ends),
                *((name, pa.int64() if name in self.whole else pa.float64()) for name in self.counts),
            ]
        )

    def _scored(self, counted: np.ndarray) -> np.ndarray:
        """Scores, in the order of ``names``, of counts in the order of ``counts``."""
        return np.array(
            list(tally_scores(dict(zip(self.counts, counted.tolist(), strict=True)), self.kind).values()), float
        )

    def _units(self, members: Sequence[str], terms: dict[str, np.ndarray]) -> np.ndarray:
        """The sum of the terms of each independent unit: a group of images, or an image that has none."""
        sums: dict[tuple[str, str], np.ndarray] = {}
        for image_id in members:
            unit = self.unit_of[image_id]
            sums[unit] = sums[unit] + terms[image_id] if unit in sums else terms[image_id]
        return np.stack(list(sums.values()))

    def _row(
        self,
        scope: str,
        num_images: int,
        num_missing: int,
        where: dict[str, str | None],
        scores: np.ndarray,
        interval: tuple[np.ndarray, np.ndarray] | None,
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"scope": scope, "label_kind": self.kind, **where}
        row |= {"num_images": num_images, "num_missing": num_missing}
        low, high = interval if interval is not None else (np.full(len(scores), math.nan),) * 2
        for end, values in (("", scores), ("_low", low), ("_high", high)):
            found = zip(self.names, values.tolist(), strict=True)
            row |= {f"{name}{end}": None if math.isnan(value) else value for name, value in found}
        return row


def _quotients(sums: np.ndarray) -> np.ndarray:
    """Means, from sums followed by the numbers of what was summed; NaN of nothing."""
    totals, numbers = np.split(sums, 2)
    return np.divide(totals, numbers, out=np.full(len(totals), math.nan), where=numbers > 0)
