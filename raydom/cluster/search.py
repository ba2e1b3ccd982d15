"""Searches on Ray Tune: the cluster twin of ``raydom.search.serial``, with several trials side by side.

Workers stay: a worker takes trial after trial, and loads the models and the sample once. What is known of trials lies
in the ledger and not in Tune's own snapshots, which are periodic: so an interrupted search proposes again the trials
that it had, their reports come from the ledger, and Tune's scheduler sees what it had seen.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raydom.cluster.session import (  # first: it sets what Ray reads when it is imported
    num_workers,
    ray_session,
    ray_storage,
)

# isort: split
import numpy as np
import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search import Searcher

from raydom.cluster.capacity import needs_of
from raydom.cluster.waiting import waiting_told
from raydom.config import TrainRunConfig
from raydom.errors import ClusterError
from raydom.search.problem import REDUCTION, Problem, Runner, TrialSource, rungs
from raydom.search.space import Range, Space
from raydom.search.trainings import TrainingProblem, TrainingRunner
from raydom.search.trials import Outcome, Trial, recorded
from raydom.storage import files

WORST = -1e30
"""What Tune is told of a trial that failed."""
MAX_FAILURES = 2
"""Lost workers that a trial outlives."""
MOST_LOST = 3
"""If so many trials lose their workers and none comes to its end, none will."""
RUN, STATE = "tune", "state.pt"
QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def search_on_ray(
    problem: Problem, run: TrainRunConfig, watch: Callable[[Outcome], None] = lambda outcome: None
) -> None:
    """Make all trials on Ray.

    Args:
        problem: The search.
        run: Where; ``workers`` trials run side by side.
        watch: Called with each trial that has ended.

    Raises:
        ConfigError: If the folder holds another search, or nothing of the space can be.
        ClusterError: If worker after worker is lost.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    source = TrialSource(problem)
    with ray_session(run), _storage(problem) as storage:
        trainable = tune.with_parameters(SearchedTrial, problem=ray.cloudpickle.dumps(problem))
        cpus = run.cpus_per_worker
        asked: dict[str, Any]
        if problem.search.scheduler == "pbt":
            # All are known beforehand, and take turns: those that wait are not limited in number, but by CPUs.
            population = list(iter(source.next, None))
            asked, space = {}, {"trial": tune.grid_search([asdict(trial) for trial in population])}
            cpus = max(cpus, ray.cluster_resources().get("CPU", 1.0) / num_workers(run))
        else:
            # The source says when there are no more.
            asked = {"search_alg": ProposedTrials(source), "num_samples": -1}
            asked["max_concurrent_trials"] = num_workers(run)
            space = None
        resources = {"cpu": cpus, **({"gpu": run.gpus_per_worker} if run.gpus_per_worker else {})}
        ended = EndedTrials(source, watch)
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                scheduler=scheduler_of(problem),
                reuse_actors=True,
                # Of a trial that goes on from a better one, Tune forgets the configuration, but not the name.
                trial_name_creator=lambda trial: f"{trial.config['trial']['number']:05d}",
                **asked,
            ),
            run_config=tune.RunConfig(
                name=RUN,
                **ray_storage(storage),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                callbacks=[ended],
            ),
        )
        try:
            with waiting_told(needs_of(run), run.quiet), _without_output():
                tuner.fit()
        except Exception as error:  # Tune wraps what its callbacks raise
            if ended.hopeless is not None:
                raise ended.hopeless from error
            raise


@contextlib.contextmanager
def _storage(problem: Problem) -> Iterator[str]:
    """Where Tune keeps what is its own, for the time of the search: with pbt the states that trials hand each other,
    which all workers must see; else nothing that matters."""
    if problem.search.scheduler != "pbt":
        with tempfile.TemporaryDirectory(prefix="raydom-", ignore_cleanup_errors=True) as folder:
            yield folder
        return
    folder = files.join(problem.out, RUN)
    files.remove(folder)
    yield problem.out
    files.remove(folder)


class SearchedTrial(tune.Trainable):
    """Trials in a worker, one after the other."""

    def setup(self, config: dict[str, Any], problem: bytes) -> None:
        self.problem = _opened(problem)
        self.outcomes: Generator[Outcome, None, None] | None = None
        self.state: bytes | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._end()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self.outcomes is None:
            self.outcomes = self._begun()
        outcome = next(self.outcomes)
        steps = outcome.reports[-1].steps if outcome.reports else self.problem.max_steps
        score = outcome.reports[-1].score if outcome.reports and outcome.error is None else None
        return {"score": WORST if score is None else score, "steps": steps, "done": outcome.ended}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        runner = _runners.get(self.problem.out)
        state = runner.state if isinstance(runner, TrainingRunner) else None
        Path(checkpoint_dir, STATE).write_bytes(state or b"")

    def load_checkpoint(self, checkpoint: str) -> None:
        self._end()
        self.state = Path(checkpoint, STATE).read_bytes() or None

    def cleanup(self) -> None:
        self._end()

    def _begin(self, config: dict[str, Any]) -> None:
        self.trial = Trial(int(self.trial_name), config["trial"]["values"])
        self.state = None

    def _end(self) -> None:
        if self.outcomes is not None:
            self.outcomes.close()
        self.outcomes = None

    def _begun(self) -> Generator[Outcome, None, None]:
        ledger, trial, state = self.problem.ledger, self.trial, self.state
        if state is None:
            return recorded(ledger, trial, lambda one, known: _runner(self.problem).reports(one, known))
        # Paused by the scheduler, or sent on from the state of a better trial.
        runner = _runner(self.problem)
        assert isinstance(runner, TrainingRunner)
        return recorded(ledger, trial, lambda one, _: runner.from_state(one, one.values, state), replay=False)


@functools.lru_cache(maxsize=1)
def _opened(problem: bytes) -> Problem:
    opened: Problem = ray.cloudpickle.loads(problem)
    return opened


_runners: dict[str, Runner] = {}
"""Of this worker, by the folder of the search: that of the search at hand."""


def _runner(problem: Problem) -> Runner:
    """Loaded once in a worker, when a trial needs it: what cannot be loaded fails trials, and not the worker."""
    if problem.out not in _runners:
        _runners.clear()
        _runners[problem.out] = problem.runner()
    return _runners[problem.out]


class ProposedTrials(Searcher):
    """The trials of a source, as Tune asks for them."""

    def __init__(self, source: TrialSource) -> None:
        super().__init__(metric="score", mode="max")
        self.source = source

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        trial = self.source.next()
        return Searcher.FINISHED if trial is None else {"trial": asdict(trial)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: see ``EndedTrials``."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, in Tune's snapshots: the ledger has it all."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing."""


class EndedTrials(tune.Callback):
    """Tells the source, and who watches, what became of trials."""

    def __init__(self, source: TrialSource, watch: Callable[[Outcome], None]) -> None:
        self.source, self.watch = source, watch
        self.num_ended = self.num_lost = 0
        self.hopeless: ClusterError | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, in Tune's snapshots."""
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        made, ledger = self.source.trials[int(str(trial))], self.source.ledger
        if not ledger.outcome(made).ended:
            ledger.stop(made)
        self._tell(made)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        made, ledger = self.source.trials[int(str(trial))], self.source.ledger
        if ledger.outcome(made).ended:  # by another driver, or just before its worker was lost
            self._tell(made)
            return
        lost = f"its worker was lost {MAX_FAILURES + 1} times, for want of memory perhaps"
        ledger.keep(Outcome(made, ledger.outcome(made).reports, error=lost))
        self._tell(made)
        self.num_lost += 1
        if self.num_lost == self.num_ended == MOST_LOST:
            self.hopeless = ClusterError(
                f"the workers of the first {MOST_LOST} trials were lost, each {MAX_FAILURES + 1} times, and no trial "
                f"came to its end. Look at Ray's logs for why, or try one trial with --serial. {ledger.out} keeps "
                "what there is: remove it, or give another --out."
            )
            raise self.hopeless

    def _tell(self, trial: Trial) -> None:
        self.num_ended += 1
        outcome = self.source.ledger.outcome(trial)
        self.source.tell(outcome)
        self.watch(outcome)


def scheduler_of(problem: Problem) -> TrialScheduler:
    """What ends trials early, or sends them on from others."""
    if problem.search.scheduler == "asha":
        first, *_ = (*rungs(problem.max_steps), problem.max_steps)
        return AsyncHyperBandScheduler(
            time_attr="steps", max_t=problem.max_steps, grace_period=first, reduction_factor=REDUCTION
        )
    if problem.search.scheduler == "pbt":
        assert isinstance(problem, TrainingProblem)
        return PopulationBasedTraining(
            time_attr="steps",
            perturbation_interval=problem.base.train.validate_every,
            custom_explore_fn=functools.partial(_explored, space=problem.space, seed=problem.seed),
        )
    return FIFOScheduler()


def _explored(config: dict[str, Any], space: Space, seed: int) -> dict[str, Any]:
    """The values of a better trial, its numbers moved a little: a function of the values and the seed alone."""
    values: Mapping[str, Any] = config["trial"]["values"]
    digest = hashlib.sha256(f"{seed}{sorted(values.items())}".encode()).digest()
    moved = {name: value for name, value in values.items() if isinstance(space.parameters[name], Range)}
    drawn = space.neighbour(moved, np.random.default_rng(int.from_bytes(digest[:8], "big")))
    return {"trial": {"values": dict(values) | drawn}}


@contextlib.contextmanager
def _without_output() -> Iterator[None]:
    """Tune writes where its own results are, which is not where ours are."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        yield
