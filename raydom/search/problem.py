"""What a search is about, whoever runs its trials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from raydom.config import SearchConfig, to_dict
from raydom.errors import ConfigError
from raydom.search.proposals import accepted, proposer
from raydom.search.space import Space, Values
from raydom.search.trials import UNADAPTED, Ledger, Outcome, Trial, TrialReport

REDUCTION = 3
"""With asha, one trial in so many goes on from each rung to the next."""
NUM_RUNGS = 2
"""Before the end."""


@runtime_checkable
class Runner(Protocol):
    """Makes trials, one after the other; what they share is loaded once."""

    def reports(self, trial: Trial, known: Outcome) -> Iterator[TrialReport]:
        """How good a trial is, after more and more steps; from where its last report was, if it can."""
        ...


class Problem(ABC):
    """A search, checked and fixed. It is pickled and sent to every worker, so it is small."""

    out: str
    search: SearchConfig
    space: Space
    objective: str
    max_steps: int
    """Of a trial, at most."""

    @property
    def adapts(self) -> bool:
        """Whether trials are scored on a target, where trial 0 is the model that was not adapted to it."""
        return True

    @property
    @abstractmethod
    def seed(self) -> int:
        """Of what is drawn."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that the result depends on, as plain values."""

    @abstractmethod
    def check(self, values: Values) -> tuple[Values, str]:
        """Those of the values that matter, and a key that is the same for trials with the same result.

        Raises:
            ConfigError: If there cannot be such a trial.
        """

    def key_of(self, trial: Trial) -> str:
        """The same for trials with the same result."""
        return self.check(trial.values)[1]

    @abstractmethod
    def config_of(self, trial: Trial) -> Mapping[str, Any]:
        """The whole configuration of a trial, as plain values."""

    @abstractmethod
    def runner(self) -> Runner:
        """What makes trials, in the process that does."""

    @property
    def most_trials(self) -> int:
        """Trial 0 included."""
        return int(min(self.search.trials, self.space.num_combinations)) + 1

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.out)


def rungs(max_steps: int) -> tuple[int, ...]:
    """After how many steps trials are compared before their end: Li et al. 2020, "A System for Massively Parallel
    Hyperparameter Tuning" (asynchronous successive halving)."""
    least = max(1, max_steps // REDUCTION**NUM_RUNGS)
    return tuple(least * REDUCTION**k for k in range(NUM_RUNGS) if least * REDUCTION**k < max_steps)


def check_space(problem: Problem, context: Values) -> None:
    """Try the extreme values of each parameter, before anything is computed.

    Args:
        problem: With the space.
        context: Values of other parameters without which one may have no meaning.

    Raises:
        ConfigError: For a value that cannot be.
    """
    for name, parameter in problem.space.parameters.items():
        for value in parameter.extremes:
            try:
                problem.check(context | {name: value})
            except ConfigError as error:
                raise ConfigError(f"space: {name} = {value!r} cannot be: {error}") from error


class TrialSource:
    """Gives the trials of a search in their order: those that were begun before, trial 0, and new ones.

    Args:
        problem: The search.

    Raises:
        ConfigError: If its folder holds another search.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.ledger = problem, problem.ledger
        self.ledger.claim(problem.settings())
        begun = self.ledger.trials()
        if problem.search.retry_failed:
            for trial in begun:
                self.ledger.forgive(trial)
        self._waiting = begun
        self.trials: dict[int, Trial] = {}
        """All that were given, by number."""
        self._next = max((trial.number for trial in begun), default=-1) + 1
        keys = {problem.key_of(trial) for trial in (Trial(UNADAPTED, {}), *begun)}
        self.refusals: list[str] = []
        accept = accepted(problem.check, keys, self.refusals)
        search = problem.search
        # Another seed after an interruption, so that what is drawn is not what was drawn before.
        self._proposer = proposer(search.searcher, problem.space, search.trials, accept, problem.seed + len(begun))

    def next(self) -> Trial | None:
        """The next trial; None when there are no more.

        Raises:
            ConfigError: If the space has nothing that can be.
        """
        trial = self._waiting.pop(0) if self._waiting else self._proposed()
        if trial is not None:
            self.trials[trial.number] = trial
        return trial

    def _proposed(self) -> Trial | None:
        if self._next >= self.problem.most_trials:
            return None
        values = {} if self._next == UNADAPTED else self._proposer.propose()
        if values is None:
            if self._next == UNADAPTED + 1 and self.refusals:
                raise ConfigError(f"no trial of this space can be: {self.refusals[-1]}")
            return None
        trial = Trial(self._next, values)
        self.ledger.begin(trial, to_dict(dict(self.problem.config_of(trial))))
        self._next += 1
        return trial

    def tell(self, outcome: Outcome) -> None:
        """Learn what a trial came to."""
        if outcome.trial.number != UNADAPTED:
            self._proposer.tell(outcome.trial.values, outcome.score)
