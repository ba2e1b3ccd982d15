"""Proposals find what is known; the ledger repeats nothing."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "ray"))
from hill import Hill, made

from raydom.config import SearchConfig
from raydom.errors import ConfigError
from raydom.search.problem import TrialSource, rungs
from raydom.search.proposals import accepted, proposer
from raydom.search.results import best_of, trial_table
from raydom.search.serial import search_here
from raydom.search.space import Choice, Range, Space
from raydom.search.trials import Outcome, Trial, TrialReport, recorded

GRID = Space({"x": Choice((0.0, 0.3, 0.9)), "y": Choice((1, 2))})


def hill(tmp_path, space=GRID, **fields):
    search = SearchConfig(**{name: fields.pop(name) for name in ("searcher", "trials") if name in fields})
    return Hill(str(tmp_path / "out"), search, space, **fields)


def outcomes(problem):
    return [problem.ledger.outcome(trial) for trial in problem.ledger.trials()]


def test_tpe_finds_the_top_with_fewer_trials_than_chance(tmp_path):
    space = Space({"x": Range(-5, 5), "y": Choice((0, 1, 2, 3))})
    heights = {}
    for searcher in ("random", "tpe"):
        problem = hill(tmp_path / searcher, space, searcher=searcher, trials=40)
        Path(problem.out).parent.mkdir()
        search_here(problem)
        heights[searcher] = best_of(outcomes(problem), None).score
    assert heights["tpe"] > 0.98 and heights["tpe"] > heights["random"]


def test_tpe_goes_on_when_the_best_values_are_used_up(tmp_path):
    """A method without settings has few combinations: when all were tried, the others still are."""
    space = Space({"method": Choice(("plain", "rich")), "image": Choice((0, 1, 2, 3)), "rate": Range(0, 1)})
    seen: set[str] = set()

    def check(values):
        kept = {name: value for name, value in values.items() if name != "rate" or values["method"] == "rich"}
        return kept, str(kept)

    made = proposer("tpe", space, 20, accepted(check, seen, []), 0)
    for _ in range(20):
        values = made.propose()
        assert values is not None
        made.tell(values, float(values["method"] == "plain"))
    assert len(seen) == 20


@pytest.mark.parametrize("searcher", ["grid", "random", "tpe"])
def test_an_interrupted_search_goes_on(tmp_path, searcher):
    whole = hill(tmp_path, searcher=searcher, trials=6, max_steps=2)

    class Interrupted(Exception):
        pass

    def watch(outcome):
        if outcome.trial.number == 3 and len(outcome.reports) == 1:
            raise Interrupted

    with pytest.raises(Interrupted):
        search_here(whole, watch)
    search_here(whole)
    assert made(whole) == sorted((trial, step) for trial in range(7) for step in (1, 2))  # each once
    assert len({str(one.trial.values) for one in outcomes(whole)}) == 7  # the whole grid, in any order
    search_here(replace(whole, search=replace(whole.search, trials=3)))  # fewer: nothing more is made
    assert len(made(whole)) == 14
    with pytest.raises(ConfigError, match="another search: it differs in max_steps"):
        search_here(replace(whole, max_steps=3))


def test_failed_and_impossible_trials_do_not_end_a_search(tmp_path):
    problem = hill(tmp_path, failing=(0.9,), forbidden=(0.0,))
    search_here(problem)
    found = outcomes(problem)
    assert [one.status for one in found] == ["finished", "finished", "finished", "failed", "failed"]
    assert found[-1].error == "ValueError: x is 0.9" and found[-1].score is None
    table = trial_table(problem, found)
    assert table["error"].to_pylist()[-1] == "ValueError: x is 0.9"
    assert table["x"].to_pylist() == [None, 0.3, 0.3, 0.9, 0.9]
    mended = replace(problem, failing=())
    search_here(mended)
    assert [one.status for one in outcomes(mended)].count("failed") == 2  # as they were
    search_here(replace(mended, search=replace(mended.search, retry_failed=True)))
    assert [one.status for one in outcomes(mended)] == ["finished"] * 5
    with pytest.raises(ConfigError, match=r"no trial of this space can be: x must not be 0.9"):
        search_here(replace(problem, out=str(tmp_path / "none"), forbidden=(0.0, 0.3, 0.9)))


def test_a_folder_of_something_else_is_refused(tmp_path):
    problem = hill(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds something else than a search"):
        search_here(problem)


def test_two_commands_in_one_folder_do_not_mix_their_trials(tmp_path):
    first, second = (TrialSource(hill(tmp_path)) for _ in range(2))
    assert first.next().number == 0
    with pytest.raises(ConfigError, match="trial 0 was begun by another command that searches here"):
        second.next()


def test_the_answer_may_be_not_to_adapt():
    def of(number, score, finished=True):
        return Outcome(Trial(number, {}), (TrialReport(1, score),), finished, not finished)

    found = [of(0, 0.50), of(1, 0.52), of(2, 0.49), of(3, 0.51, finished=False)]
    assert best_of(found, None).trial.number == 1
    assert best_of(found, 0.01).trial.number == 1
    assert best_of(found, 0.05).trial.number == 0
    assert best_of([*found, of(4, 0.9, finished=False)], 0.05).trial.number == 4  # good, as far as it came
    assert best_of([], 0.05) is None
    failed = Outcome(Trial(0, {}), error="RuntimeError: out of memory")
    assert best_of([failed, *found[1:]], 0.01) is None  # nobody knows what is gained
    assert best_of([failed, *found[1:]], None).trial.number == 1


def test_a_trial_is_worth_its_best_report():
    reports = [
        TrialReport(step, score, values={"steps": step}) for step, score in ((1, 0.2), (2, 0.6), (3, 0.6), (4, 0.5))
    ]
    outcome = Outcome(Trial(1, {"steps": 4}), tuple(reports), finished=True)
    assert (outcome.best.steps, outcome.score, outcome.values) == (2, 0.6, {"steps": 2})
    failed = replace(outcome, error="it diverged")
    assert (failed.best, failed.score, failed.values) == (None, None, {"steps": 4})


def test_what_is_kept_of_a_trial_is_given_again(tmp_path):
    ledger = hill(tmp_path).ledger
    trial = Trial(4, {"x": 0.1})

    def make(one, known):
        for step in range(len(known.reports) + 1, 4):
            if step == 3 and len(known.reports) == 0:
                raise KeyboardInterrupt
            yield TrialReport(step, step / 10, {}, 1.0, final=step == 3)

    with pytest.raises(KeyboardInterrupt):
        list(recorded(ledger, trial, make))
    steps = [[report.steps for report in one.reports] for one in recorded(ledger, trial, make)]
    assert steps == [[1], [1, 2], [1, 2, 3]]
    last = ledger.outcome(trial)
    assert last.finished and last.reports[-1].seconds == 2.0  # of both times
    assert [one.ended for one in recorded(ledger, trial, make)] == [False, False, True]


def test_rungs():
    assert rungs(9) == (1, 3) and rungs(80) == (8, 24) and rungs(1) == ()
