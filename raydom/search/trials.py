"""The trials of a search as they are kept: a folder each, from which an interrupted search goes on.

``trial.json`` is written when a trial is proposed; ``reports.json`` by whoever makes it, after each report;
``stopped.json`` when it was ended early. So nothing that is known is computed again, whatever is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from raydom.config import from_dict, to_dict
from raydom.errors import ConfigError
from raydom.search.space import Values
from raydom.storage import files

SEARCH, TRIALS = "search.json", "trials"
UNADAPTED = 0
"""Number of the trial that is not adapted."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A configuration to try."""

    number: int
    values: Values
    """What differs from the search's own configuration, by dotted path."""


@dataclass(frozen=True, slots=True)
class TrialReport:
    """How far a trial has come, and how good it is so far."""

    steps: int
    score: float | None
    """The objective, larger is better; None of a failed trial."""
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """All that is known of it, by name."""
    seconds: float = 0.0
    """Of computing, since the trial began."""
    final: bool = False
    """Whether it is the last."""
    values: Values | None = None
    """Of the trial by now, where they change on the way."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of a trial."""

    trial: Trial
    reports: tuple[TrialReport, ...] = ()
    finished: bool = False
    stopped: bool = False
    """Ended early, being worse than others that had come as far."""
    error: str | None = None

    @property
    def ended(self) -> bool:
        return self.finished or self.stopped or self.error is not None

    @property
    def status(self) -> str:
        if self.error is not None:
            return "failed"
        return "finished" if self.finished else "stopped" if self.stopped else "unfinished"

    @property
    def best(self) -> TrialReport | None:
        """The report with the highest score, the earliest of equal ones; None of a trial that failed."""
        scored = [report for report in self.reports if report.score is not None]
        return max(scored, key=lambda report: report.score or 0.0, default=None) if self.error is None else None

    @property
    def score(self) -> float | None:
        """The highest."""
        return None if self.best is None else self.best.score

    @property
    def values(self) -> Values:
        """Of the best report."""
        return self.trial.values if self.best is None or self.best.values is None else self.best.values


class Ledger:
    """What is kept of a search.

    Args:
        out: Its folder.
    """

    def __init__(self, out: str) -> None:
        self.out = out

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Begin a search here, or go on with this very one.

        Raises:
            ConfigError: If the folder holds another search, or something else.
        """
        path = files.join(self.out, SEARCH)
        if not files.exists(path):
            if files.list_files(self.out) or files.list_folders(self.out):
                raise ConfigError(f"{self.out} holds something else than a search. Choose another --out.")
            files.write_json(path, settings)
            return
        there, wanted = files.read_json(path), to_dict(dict(settings))
        differing = sorted(name for name in {*there, *wanted} if there.get(name) != wanted.get(name))
        if differing:
            raise ConfigError(
                f"{self.out} holds another search: it differs in {', '.join(differing)}. Give those settings again to "
                "go on with it (only --trials may change), or choose another --out."
            )

    def folder(self, number: int) -> str:
        """Of a trial."""
        return files.join(self.out, TRIALS, f"{number:05d}")

    def begin(self, trial: Trial, config: Mapping[str, Any]) -> None:
        """Keep a trial with the configuration that it is.

        Raises:
            ConfigError: If another process began one with this number meanwhile (on a disk; object stores cannot tell).
        """
        content = {"number": trial.number, "values": trial.values, "config": config}
        path = files.join(self.folder(trial.number), "trial.json")
        try:
            if not files.create_json(path, content):  # where that cannot be done, whoever is last writes it
                files.write_json(path, content)
        except FileExistsError:
            raise ConfigError(
                f"{self.out}: trial {trial.number} was begun by another command that searches here. Wait for its end "
                "and give this one again, or choose another --out."
            ) from None

    def keep(self, outcome: Outcome) -> None:
        """Keep what is known of a trial by now."""
        content = {
            "reports": [to_dict(report) for report in outcome.reports],
            "finished": outcome.finished,
            "error": outcome.error,
        }
        files.write_json(files.join(self.folder(outcome.trial.number), "reports.json"), content)

    def forgive(self, trial: Trial) -> None:
        """Forget that a trial failed, so that it goes on from its last report."""
        outcome = self.outcome(trial)
        if outcome.error is not None:
            self.keep(replace(outcome, error=None, finished=False))

    def stop(self, trial: Trial) -> None:
        """Keep that a trial was ended early."""
        files.write_json(files.join(self.folder(trial.number), "stopped.json"), {"stopped": True})

    def outcome(self, trial: Trial) -> Outcome:
        """What is known of a trial."""
        folder = self.folder(trial.number)
        try:
            kept = files.read_json(files.join(folder, "reports.json"))
        except FileNotFoundError:
            kept = {"reports": [], "finished": False, "error": None}
        reports = tuple(from_dict(TrialReport, report) for report in kept["reports"])
        stopped = files.exists(files.join(folder, "stopped.json"))
        return Outcome(trial, reports, kept["finished"], stopped and not kept["finished"], kept["error"])

    def trials(self) -> list[Trial]:
        """All that were proposed, by number."""
        found = []
        for folder in files.list_folders(files.join(self.out, TRIALS)):
            try:
                kept = files.read_json(files.join(folder, "trial.json"))
            except FileNotFoundError:  # killed before it was written
                continue
            found.append(Trial(kept["number"], kept["values"]))
        return sorted(found, key=lambda trial: trial.number)


def recorded(
    ledger: Ledger, trial: Trial, make: Callable[[Trial, Outcome], Iterator[TrialReport]], *, replay: bool = True
) -> Generator[Outcome, None, None]:
    """A trial report by report: from the ledger what it holds, then what is made anew, which it is told.

    A trial that fails ends with its error instead of raising it.

    Args:
        ledger: Of the search.
        trial: Which.
        make: Gives the reports that are not there yet, from what is known.
        replay: Whether to give those that are there.
    """
    known = ledger.outcome(trial)
    if replay:
        for number in range(1, len(known.reports)):
            yield replace(known, reports=known.reports[:number], finished=False, stopped=False, error=None)
        if known.reports or known.ended:
            yield known
    if known.ended:
        return
    before, steps = (known.reports[-1].seconds, known.reports[-1].steps) if known.reports else (0.0, -1)
    try:
        for report in make(trial, known):
            if report.steps > steps:
                report = replace(report, seconds=before + report.seconds)
                known = replace(known, reports=(*known.reports, report), finished=report.final)
            yield _kept(ledger, known)
        if known.finished:
            return
        known = replace(known, finished=True)
    except Exception as error:  # whatever it is, the others go on
        known = replace(known, error=f"{type(error).__name__}: {error}")
    yield _kept(ledger, known)


def _kept(ledger: Ledger, outcome: Outcome) -> Outcome:
    ledger.keep(outcome)
    return outcome
