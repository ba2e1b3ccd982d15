"""What to try next: every combination, at random, or where good trials are more likely than bad ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from raydom.errors import ConfigError
from raydom.search.space import Choice, Range, Space, Values

MOST_TRIES = 200
"""Proposals in a row that were there already, or cannot be, after which a space counts as exhausted."""
ESTIMATED_TRIES = 20
"""Of these, so many by the estimator: where the best values have few combinations, it would ask for those for ever."""

Accept = Callable[[Values], "Values | None"]
"""The values of a proposal that matter, or None if it cannot be or was made before."""


class Proposer(ABC):
    """Proposes values for trials.

    Args:
        space: What is searched.
        accept: Says which proposals become trials.
        seed: Of what is random.
    """

    def __init__(self, space: Space, accept: Accept, seed: int) -> None:
        self.space, self.accept, self.seed = space, accept, seed

    @abstractmethod
    def propose(self) -> Values | None:
        """Values for the next trial; None when there are no more."""

    def tell(self, values: Values, score: float | None) -> None:  # noqa: B027 - most learn nothing
        """Learn what a trial came to; None: it failed."""


class GridProposer(Proposer):
    """Every combination."""

    def __init__(self, space: Space, accept: Accept, seed: int) -> None:
        super().__init__(space, accept, seed)
        self._left = space.grid()

    def propose(self) -> Values | None:
        return next((found for values in self._left if (found := self.accept(values)) is not None), None)


class RandomProposer(Proposer):
    """Each parameter drawn for itself: Bergstra and Bengio 2012, "Random Search for Hyper-Parameter Optimization"."""

    def __init__(self, space: Space, accept: Accept, seed: int) -> None:
        super().__init__(space, accept, seed)
        self._generator = np.random.default_rng(seed)

    def propose(self) -> Values | None:
        for _ in range(MOST_TRIES):
            found = self.accept(self.space.draw(self._generator))
            if found is not None:
                return found
        return None


class TpeProposer(Proposer):
    """Optuna's tree-structured Parzen estimator: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization".

    It learns from trials whoever proposed them, so an interrupted search tells it what it knows and goes on.
    """

    def __init__(self, space: Space, accept: Accept, seed: int) -> None:
        super().__init__(space, accept, seed)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        self._distributions = {name: self._distribution(one) for name, one in space.parameters.items()}
        self._asked: list[tuple[Values, Any]] = []
        self._at_random = RandomProposer(space, accept, seed)

    def propose(self) -> Values | None:
        fail = self._optuna.trial.TrialState.FAIL
        for _ in range(ESTIMATED_TRIES):
            asked = self._study.ask(self._distributions)
            found = self.accept({name: self._value(name, asked.params[name]) for name in self.space.parameters})
            if found is not None:
                self._asked.append((found, asked))
                return found
            self._study.tell(asked, state=fail)
        return self._at_random.propose()

    def tell(self, values: Values, score: float | None) -> None:
        state = self._optuna.trial.TrialState
        own = next((place for place, (proposed, _) in enumerate(self._asked) if proposed == values), None)
        if own is not None:
            _, asked = self._asked.pop(own)
            if score is None:
                self._study.tell(asked, state=state.FAIL)
            else:
                self._study.tell(asked, score)
        elif score is not None and values:
            told = {name: self._stored(name, value) for name, value in values.items() if name in self._distributions}
            self._study.add_trial(
                self._optuna.trial.create_trial(
                    params=told, distributions={name: self._distributions[name] for name in told}, value=score
                )
            )

    def _distribution(self, one: Choice | Range) -> Any:
        kinds = self._optuna.distributions
        if isinstance(one, Choice):  # by place: Optuna's own choices must be plain values
            return kinds.CategoricalDistribution(list(range(len(one.values))))
        if one.integer:
            return kinds.IntDistribution(int(one.low), int(one.high), log=one.log)
        return kinds.FloatDistribution(one.low, one.high, log=one.log)

    def _value(self, name: str, stored: Any) -> Any:
        one = self.space.parameters[name]
        return one.values[stored] if isinstance(one, Choice) else stored

    def _stored(self, name: str, value: Any) -> Any:
        one = self.space.parameters[name]
        return one.values.index(value) if isinstance(one, Choice) else value


PROPOSERS: dict[str, type[Proposer]] = {"grid": GridProposer, "random": RandomProposer, "tpe": TpeProposer}


def proposer(name: str | None, space: Space, num_trials: int, accept: Accept, seed: int) -> Proposer:
    """By name; by default a grid of a space that has no more combinations than there are trials, else tpe."""
    if name is None:
        name = "grid" if space.num_combinations <= num_trials else "tpe"
    made = PROPOSERS[name](space, accept, seed)
    if isinstance(made, GridProposer):
        next(space.grid())  # which refuses ranges
    return made


def accepted(check: Callable[[Values], tuple[Values, str]], seen: set[str], refusals: list[str]) -> Accept:
    """Proposals that can be and were not made before.

    Args:
        check: Gives the values of a proposal that matter, and a key that is the same for trials with the same result.
            It raises a ConfigError for one that cannot be.
        seen: Keys of earlier trials; grows.
        refusals: Why proposals could not be; grows.
    """

    def accept(values: Values) -> Values | None:
        try:
            kept, key = check(values)
        except ConfigError as error:
            refusals.append(str(error))
            return None
        if key in seen:
            return None
        seen.add(key)
        return kept

    return accept
