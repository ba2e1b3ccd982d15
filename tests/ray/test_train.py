"""Training on Ray Train gives what plain processes give, also when a worker is killed on the way."""

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raydom.commands import DritConfig, SupervisedConfig
from raydom.config import RunConfig, TrainConfig
from raydom.errors import ConfigError, DivergedError
from raydom.training.loop import Training, finished
from raydom.training.plan import TrainingPlan
from raydom.training.supervised import SupervisedPlan, plan_supervised
from raydom.training.translation import plan_translation

STEPS, KILL_AT = 8, 4

PLAIN_PROCESS = """
import hashlib, pathlib, pickle, sys
import torch, torch.distributed as dist
from raydom.training.runner import execute_loop
folder, rank = pathlib.Path(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
plan = pickle.loads((folder / "plan").read_bytes())
def save(report, state):
    if state is not None:
        (folder / "state").write_bytes(state)
modules = []
def watch(report):
    pass
assembled = type(plan).assemble
def assemble(self, device):
    training = assembled(self, device)
    modules.extend(training.algorithm.modules.values())
    return training
type(plan).assemble = assemble
execute_loop(plan, torch.device("cpu"), None, save, watch)
print(hashlib.sha256(b"".join(v.numpy().tobytes() for m in modules for v in m.state_dict().values())).hexdigest())
"""


@pytest.fixture
def collection(make_collection):
    generator = np.random.default_rng(0)
    images = {name: generator.integers(0, 256, (1, 36, 40), np.uint8) for name in "abcd"}
    return make_collection("noise", images, {name: (image[0] > 90).astype(np.uint8) for name, image in images.items()})


def plan(collection, out: Path, **run) -> SupervisedPlan:
    return plan_supervised(
        SupervisedConfig(
            collection=collection.uri,
            out=str(out),
            base_channels=4,
            depth=2,
            train=TrainConfig(steps=STEPS, batch_size=2, crop_px=32, validate_every=3),
            run=RunConfig(quiet=True, **run),
        )
    )


def generators(collection, out: Path, **run) -> TrainingPlan:
    """A training of DRIT, which has the most state."""
    return plan_translation(
        DritConfig(
            source=collection.uri,
            target=collection.uri,
            out=str(out),
            base_channels=2,
            attribute_size=3,
            train=TrainConfig(steps=STEPS, batch_size=2, crop_px=64, validate_every=3),
            run=RunConfig(quiet=True, **run),
        )
    )


def with_change(plan: TrainingPlan, change):
    """The plan, with its training changed in every worker (a local class, so that it is pickled with its code)."""

    class Changed(type(plan)):
        def assemble(self, device: torch.device) -> Training:
            return change(super().assemble(device))

    return Changed(**{name: getattr(plan, name) for name in plan.__dataclass_fields__})


def killing(marker: Path, rank: int):
    """Kills the worker of this rank, once, between the collectives of a step."""

    def change(training: Training) -> Training:
        from raydom.training import distributed

        phases = training.algorithm.phases

        def phases_or_death(step, num_steps):
            if step == KILL_AT and distributed.rank() == rank and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return phases(step, num_steps)

        training.algorithm.phases = phases_or_death
        return training

    return change


def test_one_worker_killed_on_the_way_gives_what_this_process_gives(ray_session, collection, tmp_path):
    from raydom.cluster.train import run_training

    here = run_training(plan(collection, tmp_path / "here", serial=True))
    marker = tmp_path / "killed"
    there = run_training(with_change(plan(collection, tmp_path / "there"), killing(marker, 0)))
    assert marker.exists()
    assert there.content_hash == here.content_hash
    columns = [name for name in here.metrics.column_names if name != "seconds"]
    assert there.metrics.select(columns).equals(here.metrics.select(columns))


def test_two_workers_one_killed_give_what_two_plain_processes_give(ray_session, collection, tmp_path):
    from raydom.cluster.train import run_training

    (tmp_path / "plan").write_bytes(pickle.dumps(generators(collection, tmp_path / "unused", workers=2)))
    command = [sys.executable, "-c", PLAIN_PROCESS, str(tmp_path)]
    plain = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(2)]
    hashes = [process.communicate(timeout=300)[0] for process in plain]
    assert hashes[0] == hashes[1] != ""  # the ranks agree on all parameters and buffers
    marker = tmp_path / "killed"
    run = run_training(with_change(generators(collection, tmp_path / "run", workers=2), killing(marker, 1)))
    assert marker.exists()
    expected = finished((tmp_path / "state").read_bytes())
    weights = run.weights()
    assert weights.keys() == expected.weights.keys()
    assert all(np.array_equal(weights[name], expected.weights[name]) for name in weights)
    assert run.training["best_score"] == expected.best_score


def test_a_hopeless_training_stops_at_once_and_tells_why(ray_session, collection, tmp_path):
    from raydom.cluster.train import run_training

    def change(training: Training) -> Training:
        def batch_at(step):
            batch = training.batch_at(step)
            return replace(batch, images=batch.images * float("nan")) if step == KILL_AT else batch

        return replace(training, batch_at=batch_at)

    with pytest.raises(DivergedError, match=r"phase 'segment' is nan at step 5 of 8; the checkpoint of step 3"):
        run_training(with_change(plan(collection, tmp_path / "run"), change))


def test_more_workers_than_ray_has_cpus_are_refused(ray_session, collection, tmp_path):
    from raydom.cluster.train import run_training

    with pytest.raises(ConfigError, match=r"3 workers of 1 CPU asked for, room for 2 at most: .*fewer --workers"):
        run_training(plan(collection, tmp_path / "run", workers=3))
