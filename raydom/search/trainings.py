"""The search for a training: which losses, levels, rates and networks give the best model, or generators."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from raydom.algorithms.large import Styler
from raydom.algorithms.styles import get_method
from raydom.algorithms.trained import load_trained
from raydom.commands import AdaptationConfig, CycleGanConfig, DritConfig, SearchedTraining, SupervisedConfig
from raydom.config import (
    GeneratorSpec,
    ImageFilter,
    ModelSpec,
    SearchConfig,
    StyleConfig,
    fingerprint,
    to_dict,
)
from raydom.errors import ConfigError
from raydom.inference.job import style_of
from raydom.search.bench import Bench, BenchPlan, plan_bench
from raydom.search.objectives import VALIDATION, check_objective, check_probe, objective_of, reported
from raydom.search.problem import Problem, check_space
from raydom.search.shown import Shown, check_scored
from raydom.search.space import Range, Space, Values, read_space, replaced
from raydom.search.styles import bench_of
from raydom.search.trials import UNADAPTED, Outcome, Trial, TrialReport
from raydom.search.yaml import read_yaml
from raydom.storage import files
from raydom.storage.checkpoints import latest_checkpoint, save_checkpoint
from raydom.storage.model_run import CHECKPOINTS, open_model_run, write_model_run
from raydom.training.adaptation import plan_adaptation
from raydom.training.loop import Finished, finished, progress
from raydom.training.plan import TrainingPlan
from raydom.training.runner import as_worker
from raydom.training.supervised import plan_supervised
from raydom.training.translation import plan_translation

TrainingConfig = SupervisedConfig | AdaptationConfig | CycleGanConfig | DritConfig
FIXED = (
    "out", "run", "source", "target", "collection", "images", "target_images", "source_domain", "target_domain",
    "label", "num_classes", "mask", "model", "find_lr", "sample_every",
)  # fmt: skip
"""Fields that say what is trained on and where, which a search does not change."""
FIXED_OF_TRAIN = ("train.seed", "train.min_workers", "train.steps", "train.epochs", "train.validate_every")
RUN = "run"
"""Folder of a trial's model run, in that of the trial."""


@dataclass(frozen=True)
class TrainingProblem(Problem):
    """A search for a training, checked and fixed."""

    out: str
    search: SearchConfig
    space: Space
    base: TrainingConfig
    bench: BenchPlan | None
    images: ImageFilter
    """Which of the target's images are meant."""
    objective: str
    max_steps: int
    base_settings: dict[str, Any]
    """All that the training depends on as it was given."""
    spec: ModelSpec | GeneratorSpec
    """Of what the training as it was given makes."""
    scored_as: ModelSpec | None
    """Of the model that tells how the source looks."""
    scored: dict[str, Any] | None
    """All that scores depend on."""

    @property
    def adapts(self) -> bool:
        return self.bench is not None

    @property
    def seed(self) -> int:
        return self.base.train.seed

    def settings(self) -> dict[str, Any]:
        return {
            "search": type(self.base).__name__,
            "space": self.space.settings(),
            "searcher": self.search.searcher,
            "scheduler": self.search.scheduler,
            "objective": self.objective,
            "base": self.base_settings,
            "bench": self.scored,
        }

    def training(self, values: Values, out: str) -> TrainingConfig:
        """The training of a trial.

        Raises:
            ConfigError: If there cannot be such a training.
        """
        config: TrainingConfig = replace(replaced(self.base, values), out=out)
        return config

    def check(self, values: Values) -> tuple[Values, str]:
        with _told_before():
            plan = plan_training(self.training(values, self.base.out))
        if self.scored_as is not None and isinstance(plan.spec, ModelSpec):
            check_scored(plan.spec, self.scored_as, self.search.sample_px)
        return values, fingerprint(plan.settings())

    def key_of(self, trial: Trial) -> str:
        alone = trial.number == UNADAPTED and self.bench is not None
        return "unadapted" if alone else super().key_of(trial)

    def config_of(self, trial: Trial) -> Mapping[str, Any]:
        return to_dict(self.training(trial.values, files.join(self.ledger.folder(trial.number), RUN)))

    def runner(self) -> TrainingRunner:
        return TrainingRunner(self)


class TrainingRunner:
    """Makes trials of trainings. The model run of each is what it had made at its best report.

    Args:
        problem: The search.
    """

    def __init__(self, problem: TrainingProblem) -> None:
        self.problem = problem
        device = "cuda" if problem.base.run.gpus_per_worker > 0 else "cpu"
        self.bench: Bench | None = None if problem.bench is None else bench_of(problem.bench, device)
        self.state: bytes | None = None
        """The last checkpoint of the trial that is made."""

    def reports(self, trial: Trial, known: Outcome) -> Iterator[TrialReport]:
        """From the last checkpoint of the trial; a report at each of its validations."""
        folder = files.join(self.problem.ledger.folder(trial.number), RUN, CHECKPOINTS, "serial")
        values = known.reports[-1].values if known.reports else None
        return self.from_state(trial, trial.values if values is None else values, latest_checkpoint(folder))

    def from_state(self, trial: Trial, values: Values, state: bytes | None) -> Iterator[TrialReport]:
        """From a checkpoint, with these values from there on.

        Args:
            trial: Whose run it is.
            values: In force.
            state: A checkpoint, of this trial or of one with the same network; None: from the first step.
        """
        began = time.perf_counter()
        if trial.number == UNADAPTED and self.problem.bench is not None:
            assert self.bench is not None
            scores = reported(self.bench.scores(self.bench.content.pixels))
            score = objective_of(scores, self.problem.objective, self.problem.search.probe)
            seconds = time.perf_counter() - began
            yield TrialReport(self.problem.max_steps, score, scores, seconds, final=True, values=values)
            return
        out = files.join(self.problem.ledger.folder(trial.number), RUN)
        with _told_before():
            plan = plan_training(self.problem.training(values, out))
        device = torch.device("cuda" if plan.run.gpus_per_worker > 0 else "cpu")
        self.state = state
        best = self.problem.ledger.outcome(trial).score
        with as_worker(plan):
            training = plan.assemble(device)
            for report, made in progress(training, plan.train, plan.num_steps, device=device, checkpoint=state):
                if made is None or (saved := made()) is None:
                    continue
                save_checkpoint(files.join(out, CHECKPOINTS, "serial"), report.step, saved)
                self.state = saved
                if report.step == plan.num_steps:
                    break
                weights = {
                    name: value.detach().cpu().numpy()
                    for name, value in training.algorithm.exported().state_dict().items()
                }
                now = Finished(weights, report.step, report.score, finished(saved).rows)
                found = self._report(plan, now, report.step, began, values)
                best = self._kept(plan, now, found, best)
                yield found
        assert self.state is not None
        last = finished(self.state)
        found = self._report(plan, last, self.problem.max_steps, began, values, final=True)
        self._kept(plan, last, found, best)
        yield found

    def _kept(self, plan: TrainingPlan, made: Finished, report: TrialReport, best: float | None) -> float:
        """Keep what a training has made as the trial's model run, if it is the best so far; the best score."""
        assert report.score is not None
        if best is not None and report.score <= best:
            return best
        write_model_run(plan.out, plan.spec, made.weights, _record(plan, made), made.rows)
        return report.score

    def _scores(self, plan: TrainingPlan, made: Finished, steps: int) -> dict[str, float | None]:
        """On the sample, of a model run that is written for it and removed again."""
        if self.bench is None:
            return {}
        run = write_model_run(f"{plan.out}-{steps:08d}", plan.spec, made.weights, _record(plan, made))
        try:
            if isinstance(plan.spec, GeneratorSpec):
                style = StyleConfig(method=plan.spec.kind, generator=run.uri)
                styler = Styler(get_method(style.method), style_of(style, str(self.bench.device)), style)
                generator = torch.Generator().manual_seed(0)
                return self.bench.scores(styler.at(1.0)(self.bench.content, generator))
            network, own = load_trained(run)
            network = Shown(network, self.bench.spec, own).to(self.bench.device)
            return self.bench.scores(self.bench.content.pixels, network)
        finally:
            files.remove(run.uri)

    def _report(
        self, plan: TrainingPlan, made: Finished, steps: int, began: float, values: Values, final: bool = False
    ) -> TrialReport:
        kept = reported(self._scores(plan, made, steps)) | {VALIDATION: made.best_score}
        score = objective_of(kept, self.problem.objective, self.problem.search.probe)
        return TrialReport(steps, score, kept, time.perf_counter() - began, final, values)


def _record(plan: TrainingPlan, made: Finished) -> dict[str, Any]:
    return plan.settings() | {"best_step": made.best_step, "best_score": made.best_score}


def plan_training(config: TrainingConfig) -> TrainingPlan:
    """The plan of a training of any algorithm."""
    if isinstance(config, SupervisedConfig):
        return plan_supervised(config)
    return plan_adaptation(config) if isinstance(config, AdaptationConfig) else plan_translation(config)


def plan_training_search(config: SearchedTraining) -> TrainingProblem:
    """Check everything that can be checked before the first trial.

    Raises:
        ConfigError: For a space, objective, model or collections that do not fit.
        DataError: If a model or a collection cannot be used.
    """
    search, base = config.search, config.training
    supervised = isinstance(base, SupervisedConfig)
    usual = VALIDATION if supervised and config.score_target is None else "combined"
    objective = check_objective(search.objective or usual, search.probe, trains=supervised)
    if objective == VALIDATION and (config.score_target or config.score_model or config.score_mask):
        raise ConfigError("--score-target, --score-model and --score-mask have no effect on --objective validation.")
    if search.space is None:
        raise ConfigError("what is to be searched? Give --space FILE.yaml, with lines such as weight: [0.01, 0.1, 1].")
    space = read_space(read_yaml(search.space), type(base), "train", FIXED)
    fixed = [name for name in space.parameters if name in FIXED_OF_TRAIN]
    if fixed:
        raise ConfigError(f"space: {', '.join(fixed)} cannot be searched: trials are compared at the same steps.")
    if search.scheduler == "pbt" and search.searcher == "tpe":
        raise ConfigError("--scheduler pbt begins with all trials at once: give --searcher random or grid, not tpe.")
    if search.scheduler == "pbt":
        search = replace(search, searcher=search.searcher or "random")
    if search.scheduler == "pbt" and not any(isinstance(one, Range) for one in space.parameters.values()):
        raise ConfigError(
            "--scheduler pbt moves numbers on the way: give at least one range, such as loguniform(a, b)."
        )
    for name in ("find_lr", "sample_every"):
        if getattr(base, name, None):
            raise ConfigError(f"--{name.replace('_', '-')} has no effect on a search of trainings. Leave it out.")
    base = replace(base, run=replace(base.run, workers=None, serial=True), out=files.absolute(config.training.out))
    plan = plan_training(base)
    bench = None if objective == VALIDATION else _bench(config)
    if bench is not None:
        check_probe(objective, bench)
    problem = TrainingProblem(
        out=files.absolute(base.out),
        search=search,
        space=space,
        base=base,
        bench=bench,
        images=ImageFilter() if supervised else base.pair()[1][2],
        objective=objective,
        max_steps=plan.num_steps,
        base_settings=plan.settings(),
        spec=plan.spec,
        scored_as=None if bench is None else open_model_run(bench.model).spec,
        scored=None if bench is None else bench.settings(),
    )
    check_space(problem, {})
    return problem


def _bench(config: SearchedTraining) -> BenchPlan:
    """Of the collections of the training, unless others are named."""
    base, search = config.training, config.search
    if isinstance(base, SupervisedConfig):
        source, of_source = base.collection, base.images
        target, of_target = config.score_target, None
        if target is None:
            raise ConfigError(
                f"--objective {search.objective} scores trials on a target: give --score-target COLLECTION."
            )
    else:
        if config.score_target is not None:
            raise ConfigError(
                "--score-target has no effect: trials are scored on the target that they are trained for."
            )
        (_, source, of_source), (_, target, of_target) = base.pair()
    model = config.score_model or getattr(base, "initial", None) or getattr(base, "model", None)
    if model is None:
        other = "--initial" if isinstance(base, AdaptationConfig) else "--model"
        raise ConfigError(
            "trials are scored with a model of the source, which is trial 0 as well: give --score-model RUN"
            f"{'' if isinstance(base, SupervisedConfig) else f', or {other} RUN'}."
        )
    mask: str | None = getattr(base, "mask", None)
    return plan_bench(
        model,
        source,
        target,
        source_images=of_source,
        target_images=of_target,
        label=getattr(base, "label", None),
        probe=search.probe,
        crop_px=search.sample_px,
        num_crops=search.sample,
        seed=base.train.seed,
        mask=config.score_mask,
        source_mask=mask,
    )


@contextmanager
def _told_before() -> Iterator[None]:
    """Within it a plan does not warn again of what it warned of when the search was planned."""
    logger = logging.getLogger("raydom.training")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
