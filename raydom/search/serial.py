"""A search in this process, without Ray: the twin of ``raydom.cluster.search``."""

from __future__ import annotations

from collections.abc import Callable

from raydom.errors import ConfigError
from raydom.search.problem import Problem, TrialSource
from raydom.search.trials import Outcome, recorded


def search_here(problem: Problem, watch: Callable[[Outcome], None] = lambda outcome: None) -> None:
    """Make all trials, one after the other.

    Args:
        problem: The search.
        watch: Called after each report of a trial.

    Raises:
        ConfigError: For a scheduler, which compares trials that run side by side.
    """
    if problem.search.scheduler != "none":
        raise ConfigError(
            f"--scheduler {problem.search.scheduler} compares trials side by side and needs Ray; leave out --serial."
        )
    source = TrialSource(problem)
    runner = problem.runner()
    while (trial := source.next()) is not None:
        for outcome in recorded(problem.ledger, trial, runner.reports):
            watch(outcome)
        source.tell(outcome)
