"""The search for a style: which method, style image and settings bring the source's model back on the target."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from raydom.algorithms.large import Styler
from raydom.algorithms.style_interface import Progressing
from raydom.algorithms.styles import USES_FEATURES, get_method, weights_digest, with_features
from raydom.commands import TuneStyleConfig
from raydom.config import TRAINED, ImageFilter, SearchConfig, StyleConfig, StyleOptions, fingerprint, to_dict
from raydom.errors import ConfigError
from raydom.inference.job import style_of, style_pixels
from raydom.search.bench import Bench, BenchPlan, plan_bench
from raydom.search.objectives import check_objective, check_probe, objective_of, reported
from raydom.search.problem import Problem, check_space, rungs
from raydom.search.space import Choice, Space, Values, read_space, replaced
from raydom.search.style_images import candidates, nearest
from raydom.search.trials import Outcome, Trial, TrialReport
from raydom.search.yaml import read_yaml
from raydom.storage import files
from raydom.storage.model_run import open_model_run

DEFAULT_SPACE = {
    "method": ["meanstd", "histogram", "reinhard", "nst"],
    "nst.steps": [20, 40, 80],
    "nst.style_ratio": "loguniform(1, 100)",
}
FIXED = ("content_threshold", "on_content_loss", "seed")
OWN = ("nst", "strotss", "analogy")


@dataclass(frozen=True)
class StyleProblem(Problem):
    """A search for a style, checked and fixed."""

    out: str
    search: SearchConfig
    space: Space
    base: StyleOptions
    bench: BenchPlan
    images: ImageFilter
    """Which of the target's images are meant."""
    scored: dict[str, Any]
    """All that scores depend on."""
    objective: str
    max_steps: int
    threads: int
    device: str

    @property
    def seed(self) -> int:
        return self.base.seed

    def settings(self) -> dict[str, Any]:
        return {
            "search": "style",
            "space": self.space.settings(),
            "searcher": self.search.searcher,
            "scheduler": self.search.scheduler,
            "objective": self.objective,
            "base": to_dict(self.base),
            "bench": self.scored,
        }

    def style_config(self, values: Values) -> StyleConfig:
        """The style of a trial.

        Raises:
            ConfigError: If there cannot be such a style.
        """
        method = str(values.get("method", "none"))
        options = replaced(self.base, {path: one for path, one in values.items() if path not in ("method", "style")})
        return with_features(StyleConfig(method=method, style=values.get("style"), **options.told(method)))

    def check(self, values: Values) -> tuple[Values, str]:
        method = str(values.get("method", "none"))
        takes_style = self.base.takes_style(method)
        kept = {path: value for path, value in values.items() if _matters(path, method, takes_style)}
        config = self.style_config(kept)
        return kept, fingerprint(config.settings(), {"style": config.style})

    def config_of(self, trial: Trial) -> Mapping[str, Any]:
        config = self.style_config(trial.values)
        return {"model": self.bench.model, "collection": self.bench.target, "style": to_dict(config)}

    def runner(self) -> StyleRunner:
        torch.set_num_threads(self.threads)
        return StyleRunner(self)


GENERATORS = ("generator", "direction", "to_domain", "from_domain", "attribute")


class StyleRunner:
    """Makes trials of styles; the model, the crops and the feature network are loaded once.

    Args:
        problem: The search.
    """

    def __init__(self, problem: StyleProblem) -> None:
        self.problem = problem
        self.bench = bench_of(problem.bench, problem.device)

    def reports(self, trial: Trial, known: Outcome) -> Iterator[TrialReport]:
        """Anew from the first step: a style takes seconds."""
        began = time.perf_counter()
        config = self.problem.style_config(trial.values)
        styler = Styler(get_method(config.method), style_of(config, self.problem.device), config)
        apply, content = styler.at(1.0), self.bench.content
        generator = torch.Generator().manual_seed(config.seed)
        most = self.problem.max_steps
        pauses = rungs(most) if self.problem.search.scheduler != "none" else ()
        if isinstance(apply, Progressing) and pauses:
            total = config.nst.settings().steps
            for steps, images in apply.progress(content, generator, pauses):
                final = steps == total
                values = trial.values if final else trial.values | {"nst.steps": steps}
                yield self._report(most if final else steps, images, began, values, final)
            return
        yield self._report(most, apply(content, generator), began, trial.values, final=True)

    def _report(self, steps: int, images: torch.Tensor, began: float, values: Values, final: bool) -> TrialReport:
        scores = self.bench.scores(images)
        score = objective_of(scores, self.problem.objective, self.problem.search.probe)
        return TrialReport(steps, score, reported(scores), time.perf_counter() - began, final, values)


@functools.lru_cache(maxsize=1)
def bench_of(plan: BenchPlan, device: str) -> Bench:
    """Loaded once in a process."""
    return Bench(plan, device)


def plan_style_search(config: TuneStyleConfig) -> StyleProblem:
    """Check everything that can be checked before the first trial.

    Raises:
        ConfigError: For a space, objective, model or collections that do not fit.
        DataError: If the model or a collection cannot be used.
    """
    search = config.search
    objective = check_objective(search.objective or "combined", search.probe)
    if search.scheduler == "pbt":
        raise ConfigError("--scheduler pbt is for trainings, whose settings may change on the way; give asha or none.")
    bench = plan_bench(
        config.model,
        config.source,
        config.target,
        source_images=config.source_images,
        target_images=config.images,
        label=config.label,
        probe=search.probe,
        crop_px=search.sample_px,
        num_crops=search.sample,
        seed=config.style.seed,
        mask=config.mask,
        source_mask=config.source_mask,
    )
    check_probe(objective, bench)
    device = "cuda" if config.run.gpus_per_worker > 0 else "cpu"
    given = DEFAULT_SPACE if search.space is None else read_yaml(search.space)
    space = read_space(given, StyleConfig, "style", FIXED)
    if "method" not in space.parameters:
        raise ConfigError("the space names no style method; add method: [nst, histogram] or others.")
    space = _with_styles(space, config, bench)
    _check_generator(space, config)
    problem = StyleProblem(
        out=files.absolute(config.out),
        search=search,
        space=space,
        base=replace(
            config.style, generator=None if config.style.generator is None else files.absolute(config.style.generator)
        ),
        bench=bench,
        images=config.images,
        scored=bench.settings(),
        objective=objective,
        max_steps=_most_steps(space, config.style),
        threads=max(1, int(config.run.cpus_per_worker)),
        device=device,
    )
    _check_methods(problem)
    return problem


def _with_styles(space: Space, config: TuneStyleConfig, bench: BenchPlan) -> Space:
    """The space with the style images among which to choose, if any method takes one."""
    methods = space.parameters["method"]
    assert isinstance(methods, Choice)
    if not any(config.style.takes_style(str(method)) for method in methods.values):
        if config.styles:
            raise ConfigError(f"--styles has no effect: none of {', '.join(methods.values)} takes a style image.")
        return space
    if "style" in space.parameters:
        if config.styles:
            raise ConfigError("the space names style images, and so does --styles. Leave one of them out.")
        asked = space.parameters["style"]
        assert isinstance(asked, Choice)
        found = candidates([str(one) for one in asked.values], config.source, config.source_images)
    else:
        found = candidates(config.styles, config.source, config.source_images)
    found = nearest(found, bench_of(bench, "cpu").content, config.preselect)
    _check_channels(found, bench)
    return Space({"style": Choice(found), **{k: v for k, v in space.parameters.items() if k != "style"}})


def _check_channels(styles: Sequence[str], bench: BenchPlan) -> None:
    wanted = open_model_run(bench.model).spec.channels
    for uri in styles:
        found = len(style_pixels(uri))
        if found != len(wanted):
            raise ConfigError(
                f"--styles: {uri} has {found} channels, the images of the target have {len(wanted)} "
                f"({', '.join(wanted)}). Leave it out, or convert it first (gray to RGB, or RGB to gray)."
            )


def _check_generator(space: Space, config: TuneStyleConfig) -> None:
    methods = space.parameters["method"]
    assert isinstance(methods, Choice)
    named = [method for method in methods.values if method in TRAINED]
    there = config.style.generator is not None or "generator" in space.parameters
    if named and not there:
        raise ConfigError(f"method {', '.join(named)} needs --generator RUN, or generator: [RUN, ...] in the space.")
    if there and not named:
        raise ConfigError(f"--generator has no effect: none of the methods is {' or '.join(TRAINED)}.")


def _check_methods(problem: StyleProblem) -> None:
    """Try each value with a method that it is for, and load what each method needs."""
    methods = problem.space.parameters["method"]
    assert isinstance(methods, Choice)
    styles = problem.space.parameters.get("style")
    generators = problem.space.parameters.get("generator")
    for method in methods.values:
        context: Values = {"method": method}
        for name, choice in (("style", styles), ("generator", generators)):
            if isinstance(choice, Choice):
                context[name] = choice.values[0]
        get_method(str(method))
        problem.check(context)
        within = Space(
            {k: v for k, v in problem.space.parameters.items() if k != "method"} | {"method": Choice((method,))}
        )
        check_space(replace(problem, space=within), context)
        # What each of these computes with is loaded, so that weights that cannot be had are told of now.
        given = [(name, problem.space.parameters.get(name)) for name in ("nst.preset", "features")]
        named = [(name, choice.values) for name, choice in given if isinstance(choice, Choice)]
        for chosen in itertools.product(*(values for _, values in named)):
            own = dict(zip((name for name, _ in named), chosen, strict=True))
            weights_digest(problem.style_config(problem.check(context | own)[0]))
        for name, choice in problem.space.parameters.items():
            for layers in choice.values if isinstance(choice, Choice) and name.endswith("layers") else ():
                kept = problem.check(context | {name: layers})[0]
                if name in kept:  # a method that is prepared knows the layers of its network
                    config = problem.style_config(kept)
                    Styler(get_method(config.method), style_of(config, problem.device), config).at(1.0)


def _most_steps(space: Space, base: StyleOptions) -> int:
    """Of neural style transfer, the most of a trial; 1 where there are none."""
    methods = space.parameters["method"]
    assert isinstance(methods, Choice)
    if "nst" not in methods.values:
        return 1
    steps = space.parameters.get("nst.steps")
    presets = space.parameters.get("nst.preset")
    if steps is not None:
        return max(1, *(int(value) for value in steps.extremes))
    bases = [base.nst] if not isinstance(presets, Choice) else [replace(base.nst, preset=p) for p in presets.values]
    return max(1, *(one.settings().steps for one in bases))


def _matters(path: str, method: str, takes_style: bool) -> bool:
    """Whether a method is told a field."""
    first = path.split(".")[0]
    if ":" in method or path == "method":
        return True
    if first in OWN:
        return method == first
    if path == "style":
        return takes_style
    if path in ("features", "weights", "init"):
        return method in USES_FEATURES
    return method in TRAINED if path in GENERATORS else method != "none"


assert {*GENERATORS, *OWN, *FIXED} <= {field.name for field in fields(StyleOptions)}
