"""Searches on Ray Tune: what they find, and that they survive."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hill import Hill, made

from raydom.config import RunConfig, SearchConfig
from raydom.errors import ClusterError
from raydom.search.results import best_of
from raydom.search.serial import search_here
from raydom.search.space import Choice, Space

GRID = Space({"x": Choice((0.0, 0.3, 0.9)), "y": Choice((1, 2))})
RUN = RunConfig(quiet=True, workers=1)

DRIVER = """
import sys
from hill import Hill
from test_search import GRID, RUN
from raydom.cluster.search import search_on_ray
from raydom.config import SearchConfig
search_on_ray(Hill(sys.argv[1], SearchConfig(searcher="grid"), GRID, max_steps=3, seconds=0.25), RUN)
"""


def outcomes(problem):
    return [problem.ledger.outcome(trial) for trial in problem.ledger.trials()]


def known(problem):
    return [(one.trial, one.status, one.reports, one.error) for one in outcomes(problem)]


def test_one_worker_and_a_grid_give_what_this_process_gives(ray_session, tmp_path):
    from raydom.cluster.search import search_on_ray

    here = Hill(str(tmp_path / "here" / "out"), SearchConfig(), GRID, max_steps=2, failing=(0.9,))
    search_here(here)
    there = replace(here, out=str(tmp_path / "there" / "out"))
    watched = []
    search_on_ray(there, RUN, watched.append)
    assert known(there) == known(here)
    assert [one.trial.number for one in watched] == list(range(7))
    assert made(there) == made(here)  # each report once
    assert best_of(outcomes(there), None).trial.values == {"x": 0.3, "y": 2}
    assert [one.error for one in outcomes(there) if one.error] == ["ValueError: x is 0.9"] * 2
    assert not (Path(there.out) / "tune").exists()


def test_asha_ends_the_worse_trials_early_and_a_lost_worker_is_replaced(ray_session, tmp_path):
    from raydom.cluster.search import search_on_ray

    xs = (0.3, 0.31, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5, 1.7)
    space = Space({"x": Choice(xs), "y": Choice((2,))})
    problem = Hill(
        str(tmp_path / "out"), SearchConfig(scheduler="asha", searcher="grid"), space, max_steps=9, deadly=(0.31,)
    )
    search_on_ray(problem, RUN)
    found = {one.trial.values.get("x"): one for one in outcomes(problem)}
    assert found[0.3].status == found[0.31].status == "finished"
    assert found[1.7].status == "stopped" and len(found[1.7].reports) == 1
    assert sum(one.status == "stopped" for one in found.values()) >= 5
    again = made(problem)
    search_on_ray(problem, RUN)  # which is done: nothing is computed again
    assert made(problem) == again


@pytest.fixture
def short_folder():
    """For Ray's sockets, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="rd-", ignore_cleanup_errors=True) as folder:
        yield folder


def test_a_killed_driver_repeats_no_finished_trial(tmp_path, short_folder):
    out = tmp_path / "out"
    here = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, str(Path.cwd())]), "TMPDIR": short_folder}
    command = [sys.executable, "-c", DRIVER, str(out)]
    problem = Hill(str(out), SearchConfig(searcher="grid"), GRID, max_steps=3, seconds=0.25)
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(command, env=environment, cwd=here, stdout=log, stderr=log)
        until = time.monotonic() + 120
        while not ((out / "trials").exists() and any(one.finished for one in outcomes(problem)[1:])):
            assert driver.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    finished = {one.trial.number for one in outcomes(problem) if one.finished}
    assert 0 < len(finished) < 7
    subprocess.run(command, env=environment, cwd=here, check=True, timeout=240, capture_output=True)
    assert all(one.finished for one in outcomes(problem)) and len(outcomes(problem)) == 7
    computed = made(problem)
    for number in finished:
        assert [step for trial, step in computed if trial == number] == [1, 2, 3]
    # What ran when the driver was killed goes on: at most the step that it was at is made again.
    assert len(computed) <= 3 * 7 + 1


def test_a_population_goes_on_from_its_best(ray_session, make_collection, make_model, tmp_path):
    import numpy as np

    from raydom.cluster.search import search_on_ray
    from raydom.commands import CycleGanConfig
    from raydom.commands.search import TuneCycleGanConfig
    from raydom.config import TrainConfig
    from raydom.search.trainings import plan_training_search

    draws = np.random.default_rng(0)
    source = make_collection("source", {f"s{n}": draws.integers(0, 128, (1, 64, 64), np.uint8) for n in range(2)})
    target = make_collection("target", {f"t{n}": draws.integers(128, 256, (1, 64, 64), np.uint8) for n in range(2)})
    (tmp_path / "space.yaml").write_text("cycle_weight: loguniform(0.1, 100)\n")
    config = TuneCycleGanConfig(
        training=CycleGanConfig(
            source=source.uri,
            target=target.uri,
            out=str(tmp_path / "out"),
            base_channels=2,
            blocks=1,
            critic_layers=1,
            train=TrainConfig(steps=6, validate_every=2, crop_px=32, batch_size=1, learning_rate=1e-3),
            run=RunConfig(quiet=True, workers=1),
        ),
        score_model=make_model(),
        search=SearchConfig(space=str(tmp_path / "space.yaml"), trials=4, scheduler="pbt", sample=2, sample_px=32),
    )
    problem = plan_training_search(config)
    search_on_ray(problem, config.training.run)
    found = outcomes(problem)
    assert [one.status for one in found] == ["finished"] * 5
    assert all([report.steps for report in one.reports] == [2, 4, 6] for one in found[1:])
    changed = [one for one in found if len({str(report.values) for report in one.reports}) > 1]
    assert changed  # a worse one took over the state and, moved a little, the values of a better one
    for one in changed:
        before, after = (one.reports[place].values["cycle_weight"] for place in (0, -1))
        others = [other.reports[place].values["cycle_weight"] for other in found[1:] for place in (0, 1)]
        assert before != after and any(after == pytest.approx(factor * x) for x in others for factor in (0.8, 1.2))


def test_what_cannot_be_loaded_fails_trials_and_not_workers(ray_session, tmp_path):
    from raydom.cluster.search import search_on_ray

    problem = Hill(str(tmp_path / "out"), SearchConfig(trials=3), GRID, unloadable=True)
    search_on_ray(problem, RUN)
    assert [one.error for one in outcomes(problem)] == ["OSError: no such sample"] * 4


def test_a_search_whose_workers_all_die_ends(tmp_path):
    from raydom.cluster.search import EndedTrials
    from raydom.search.problem import TrialSource

    class TuneTrial:
        def __init__(self, trial):
            self.number = trial.number

        def __str__(self):
            return f"{self.number:05d}"

    problem = Hill(str(tmp_path / "out"), SearchConfig(), GRID)
    source = TrialSource(problem)
    ended = EndedTrials(source, lambda outcome: None)
    lost = [TuneTrial(source.next()) for _ in range(3)]
    for trial in lost[:2]:
        ended.on_trial_error(0, [], trial)
    with pytest.raises(ClusterError, match="workers of the first 3 trials were lost, each 3 times"):
        ended.on_trial_error(0, [], lost[2])
    assert [one.status for one in outcomes(problem)] == ["failed"] * 3
