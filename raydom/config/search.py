"""How a search is made: which trials, how many, and by what they are compared."""

from __future__ import annotations

from dataclasses import dataclass

from raydom.config.base import require

SEARCHERS = ("grid", "random", "tpe")
SCHEDULERS = ("none", "asha", "pbt")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """How a search is made."""

    space: str | None = None
    """YAML file of what is searched: a field of the configuration, and a list of values, uniform(a, b), loguniform(a,
    b), int(a, b), logint(a, b), or one value. Default, of styles: method, style image, steps and style ratio."""
    trials: int = 50
    """Trials at most, beside trial 0, which is not adapted (of a search without a target: the settings as given)."""
    searcher: str | None = None
    """grid (every combination of lists), random, or tpe (Optuna's tree-structured Parzen estimator). Default: grid
    where all are lists and have no more combinations than there are trials; else tpe."""
    scheduler: str = "none"
    """none (each trial to its end), asha (the worse ones of those that have come as far end early), or pbt (the worse
    ones go on from the better ones, with other values; for trainings)."""
    objective: str | None = None
    """By what trials are compared: a score without labels (combined, certainty, agreement, ...), validation (of a
    supervised training: its own score), or, with --probe, any score of `raydom evaluate`, such as f1. Default:
    combined; of a supervised training without a target, validation."""
    probe: int = 0
    """Labelled images of the target that the objective may look at. They are left out of the reported scores."""
    require_gain: float | None = None
    """By how much the best trial must be better than trial 0; if it is not, the answer is not to adapt."""
    retry_failed: bool = False
    """Make the failed trials of an earlier run again."""
    sample: int = 8
    """Crops of the target on which a trial is scored."""
    sample_px: int = 256
    """Side of these crops, px."""

    def __post_init__(self) -> None:
        for name in ("trials", "sample"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1; got {getattr(self, name)}.")
        require(self.sample_px >= 32, f"sample_px must be >= 32; got {self.sample_px}.")
        require(self.probe >= 0, f"probe is a number of images, 0 or more; got {self.probe}.")
        require(
            self.searcher is None or self.searcher in SEARCHERS,
            f"unknown searcher {self.searcher!r}; choose one of {', '.join(SEARCHERS)}.",
        )
        require(
            self.scheduler in SCHEDULERS,
            f"unknown scheduler {self.scheduler!r}; choose one of {', '.join(SCHEDULERS)}.",
        )
        require(
            self.require_gain is None or self.require_gain >= 0,
            f"require_gain must be >= 0; got {self.require_gain}.",
        )
