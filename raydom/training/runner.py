"""A training in this process, without Ray: the twin of ``raydom.cluster.train``, and how each run begins and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from raydom.config import TrainRunConfig, usual_values
from raydom.errors import ConfigError
from raydom.networks.memory import keep_freed_memory
from raydom.storage import files
from raydom.storage.checkpoints import latest_checkpoint, save_checkpoint
from raydom.storage.model_run import CHECKPOINTS, ModelRun, begin_model_run, withdraw_model_run, write_model_run
from raydom.training.board import Board
from raydom.training.loop import Report, finished, train
from raydom.training.plan import TrainingPlan
from raydom.training.progress import TrainingProgress

SAMPLES = "samples"
"""Folder of the pictures that a training draws of itself."""


def complete(plan: TrainingPlan, execute: Callable[[TrainingPlan], bytes]) -> ModelRun:
    """Run a training from its last checkpoint, or from the start, to a model run; one that is finished is opened.

    Args:
        plan: What to train.
        execute: Trains and returns the last checkpoint.

    Raises:
        ConfigError: If the workers cannot be, or the folder holds something else.
    """
    check_workers(plan)
    done = begin_model_run(plan.out, plan.settings(), usual_values(plan.config))
    if done is not None:
        return done
    try:
        result = finished(execute(plan))
    except ConfigError:  # it can be given again with other settings
        withdraw_model_run(plan.out)
        raise
    training = plan.settings() | {"best_step": result.best_step, "best_score": result.best_score}
    return write_model_run(plan.out, plan.spec, result.weights, training, result.rows)


def check_workers(plan: TrainingPlan) -> None:
    """Refuse workers that cannot be, before a folder is claimed for them.

    Raises:
        ConfigError: If more than one worker, or a GPU that is not there, is asked for of this process; or at least more
            workers than at most.
    """
    workers, least = plan.run.workers or 1, plan.train.min_workers or 1
    if plan.run.serial and max(workers, least) > 1:
        raise ConfigError(f"--serial trains with one worker; got workers={max(workers, least)}. Leave one of them out.")
    if least > workers:
        raise ConfigError(f"--min-workers {least} is more than --workers {workers}, which is the most that there are.")
    if plan.run.serial:
        choose_device(plan.run)


def train_here(plan: TrainingPlan) -> bytes:
    """Train in this process, with one worker; returns the last checkpoint."""
    folder = files.join(plan.out, CHECKPOINTS, "serial")
    with (
        TrainingProgress(plan.label, plan.num_steps, plan.run.quiet) as progress,
        Board(plan.out, plan.num_steps) as board,
    ):

        def watch(report: Report) -> None:
            progress.update(report)
            board.update(report)

        def save(report: Report, state: bytes | None) -> None:
            assert state is not None
            save_checkpoint(folder, report.step, state)

        execute_loop(plan, choose_device(plan.run), latest_checkpoint(folder), save, watch)
    state = latest_checkpoint(folder)
    assert state is not None
    return state


def execute_loop(
    plan: TrainingPlan,
    device: torch.device,
    checkpoint: bytes | None,
    save: Callable[[Report, bytes | None], None],
    watch: Callable[[Report], None],
) -> None:
    """The loop of one process, with as many threads as it has CPUs (their number changes the last bits of a sum)."""
    with as_worker(plan):
        training = plan.assemble(device)
        train(
            training,
            plan.train,
            plan.num_steps,
            device=device,
            checkpoint=checkpoint,
            save=save,
            watch=watch,
            show=lambda step, png: files.write_bytes_atomic(files.join(plan.out, SAMPLES, f"step-{step:08d}.png"), png),
        )


@contextmanager
def as_worker(plan: TrainingPlan) -> Iterator[None]:
    """Within it torch has as many threads as a worker of the plan has CPUs."""
    threads_before = torch.get_num_threads()
    torch.set_num_threads(max(1, int(plan.run.cpus_per_worker)))
    keep_freed_memory()
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)


def choose_device(run: TrainRunConfig) -> torch.device:
    """The CPU, or the first GPU of this process if the run asks for one."""
    if run.gpus_per_worker == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            f"gpus_per_worker is {run.gpus_per_worker}, but torch sees no GPU here. Leave out --gpus-per-worker, or "
            "install a torch build and driver for the GPU."
        )
    return torch.device("cuda", 0)
