"""A search whose answer is known: the top of a hill, found by trials that count how often they are made."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydom.config import SearchConfig, fingerprint, to_dict
from raydom.errors import ConfigError
from raydom.search.problem import Problem
from raydom.search.space import Space
from raydom.search.trials import Trial, TrialReport

TOP = {"x": 0.3, "y": 2}


@dataclass(frozen=True)
class Hill(Problem):
    """Trials report ``max_steps`` times, and leave a file for each report that they compute."""

    out: str
    search: SearchConfig
    space: Space
    max_steps: int = 1
    failing: tuple[float, ...] = ()
    """Values of x whose trials fail."""
    forbidden: tuple[float, ...] = ()
    """Values of x that cannot be."""
    deadly: tuple[float, ...] = ()
    """Values of x whose worker dies, the first time."""
    unloadable: bool = False
    seconds: float = 0.0
    objective: str = "height"
    seed: int = 0

    def settings(self) -> dict[str, Any]:
        return {"space": self.space.settings(), "max_steps": self.max_steps}

    def check(self, values):
        if values.get("x") in self.forbidden:
            raise ConfigError(f"x must not be {values['x']}.")
        return values, fingerprint(values)

    def config_of(self, trial: Trial) -> Mapping[str, Any]:
        return to_dict(trial.values)

    def runner(self):
        if self.unloadable:
            raise OSError("no such sample")
        return Climber(self)


class Climber:
    def __init__(self, problem: Hill) -> None:
        self.problem = problem

    def reports(self, trial, known) -> Iterator[TrialReport]:
        x, y = trial.values.get("x", -1.0), trial.values.get("y", 0)
        problem = self.problem
        begun = len(known.reports)
        for step in range(begun + 1, problem.max_steps + 1):
            time.sleep(problem.seconds)
            made = Path(problem.out).parent / "made"
            made.mkdir(exist_ok=True)
            if x in problem.deadly and not (made / f"died-{x}").exists():
                (made / f"died-{x}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if x in problem.failing:
                raise ValueError(f"x is {x}")
            (made / f"{trial.number}-{step}-{time.monotonic_ns()}").touch()
            height = 1 - (x - TOP["x"]) ** 2 - (y - TOP["y"]) ** 2
            final = step == problem.max_steps
            yield TrialReport(step, height * step / problem.max_steps, {"height": height}, problem.seconds, final)


def made(problem: Hill) -> list[tuple[int, int]]:
    """Trial and step of every report that was computed."""
    found = (path.name.split("-") for path in (Path(problem.out).parent / "made").iterdir())
    return sorted((int(trial), int(step)) for trial, step, *_ in found if trial != "died")
