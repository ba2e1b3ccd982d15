"""Training on Ray Train: the cluster twin of ``raydom.training.runner``, the same loop in one to many workers."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raydom.cluster.session import ray_session, ray_storage  # first: it sets what Ray reads when it is imported

# isort: split
import ray
import ray.train
from ray.train import TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from raydom import errors
from raydom.cluster.autoscaler import read_capacity
from raydom.cluster.capacity import check_capacity, needs_of
from raydom.cluster.mailbox import Mailbox
from raydom.cluster.waiting import waiting_told
from raydom.commands import SupervisedConfig
from raydom.errors import ClusterError
from raydom.storage import files
from raydom.storage.model_run import CHECKPOINTS, ModelRun
from raydom.training.board import Board
from raydom.training.loop import Report
from raydom.training.plan import TrainingPlan
from raydom.training.progress import TrainingProgress
from raydom.training.runner import choose_device, complete, execute_loop, train_here
from raydom.training.supervised import plan_supervised

logger = logging.getLogger(__name__)

MAX_FAILURES = 3
"""Lost workers that a training outlives; lost spot nodes are not counted."""
STATE = "state.pt"
FAILURE = "failure.json"
HOPELESS = ("ConfigError", "DataError", "DivergedError")
"""Errors that would come again: they end a training at once."""


def train_supervised(config: SupervisedConfig) -> ModelRun:
    """Train a segmentation network on a labelled collection, with one worker or more.

    Running it again with the same settings continues at the last checkpoint, with the same result as without the
    interruption (with the same number of workers); a finished run is opened. With ``run.serial`` the training takes
    place in this process, and gives the same weights as one worker.

    Raises:
        ConfigError: If the settings cannot work, or the folder holds another training.
        DataError: If the collection cannot be trained on.
        DivergedError: If a loss stops being a number; the checkpoints before it are kept.
    """
    return run_training(plan_supervised(config))


def run_training(plan: TrainingPlan) -> ModelRun:
    """Run a training of any algorithm, on Ray or in this process, to its model run."""
    return complete(plan, train_here if plan.run.serial else train_on_ray)


def train_on_ray(plan: TrainingPlan) -> bytes:
    """Train with the workers of ``plan.run``; returns the last checkpoint."""
    with ray_session(plan.run):
        needs, at_once = needs_of(plan.run), plan.train.min_workers or plan.run.workers or 1
        check_capacity(read_capacity(), needs, at_once)
        _set_environment(plan)
        failure = files.join(plan.out, FAILURE)
        files.remove(failure)
        mailbox = ray.remote(Mailbox).options(num_cpus=0).remote()
        trainer = TorchTrainer(
            _train_worker,
            # As bytes, so that Ray's controller need not import torch and all of raydom to look at it.
            train_loop_config={"plan": ray.cloudpickle.dumps(plan), "mailbox": mailbox},
            torch_config=TorchConfig(backend="nccl" if plan.run.gpus_per_worker >= 1 else "gloo"),
            scaling_config=_scaling(plan),
            run_config=ray.train.RunConfig(
                name="ray",
                **ray_storage(files.join(plan.out, CHECKPOINTS)),
                failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            ),
        )
        with (
            TrainingProgress(plan.label, plan.num_steps, plan.run.quiet) as progress,
            Board(plan.out, plan.num_steps) as board,
            _watching(mailbox, (progress.update, board.update)),
            waiting_told(needs, plan.run.quiet, at_once),
        ):
            result = _fit(trainer)
        if files.exists(failure):
            told = files.read_json(failure)
            raise getattr(errors, told["kind"])(told["message"])
        assert result.checkpoint is not None
        return _read_state(result.checkpoint)


def _train_worker(config: dict[str, Any]) -> None:
    """What each worker does: the loop, from Ray's last checkpoint, reporting to Ray."""
    plan: TrainingPlan = ray.cloudpickle.loads(config["plan"])
    failure = files.join(plan.out, FAILURE)
    if files.exists(failure):  # a worker told why this training cannot work; this is the restart that Ray tries
        return
    rank = ray.train.get_context().get_world_rank()
    last = ray.train.get_checkpoint()

    def save(report: Report, state: bytes | None) -> None:
        metrics = {"step": report.step, "score": report.score}
        if state is None:
            ray.train.report(metrics, checkpoint=None)
            return
        with tempfile.TemporaryDirectory(prefix="raydom-") as folder:
            (Path(folder) / STATE).write_bytes(state)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def watch(report: Report) -> None:
        if rank == 0:
            config["mailbox"].put.remote(asdict(report))

    try:
        execute_loop(plan, _device(plan), None if last is None else _read_state(last), save, watch)
    except (errors.ConfigError, errors.DataError, errors.DivergedError) as error:
        kind = next(name for name in HOPELESS if isinstance(error, getattr(errors, name)))
        files.write_json(failure, {"kind": kind, "message": str(error)})
        if not isinstance(error, errors.DivergedError):  # that one is seen by all workers, which return together
            raise


@contextmanager
def _watching(mailbox: Any, watchers: Sequence[Callable[[Report], None]]) -> Iterator[None]:
    """Show what is in the mailbox while the block runs."""
    over = threading.Event()

    def show() -> None:
        try:
            for report in ray.get(mailbox.take.remote(), timeout=30):
                for watch in watchers:
                    watch(Report(**report))
        except ray.exceptions.RayError as error:
            logger.debug("no progress to show: %s", error)

    def poll() -> None:
        while not over.wait(0.5):
            show()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        show()


def _fit(trainer: TorchTrainer) -> ray.train.Result:
    """Run to the end, and give back the handling of Ctrl-C that Ray takes."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    try:
        return trainer.fit()
    except TrainingFailedError as error:
        raise ClusterError(
            f"the workers failed {MAX_FAILURES + 1} times: {str(error).strip().splitlines()[-1]} Checkpoints are kept: "
            "the same command goes on from the last."
        ) from error
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def _scaling(plan: TrainingPlan) -> ray.train.ScalingConfig:
    run = plan.run
    workers = run.workers or 1
    resources = {"CPU": run.cpus_per_worker}
    if run.gpus_per_worker > 0:
        resources["GPU"] = run.gpus_per_worker
    return ray.train.ScalingConfig(
        num_workers=workers if plan.train.min_workers is None else (plan.train.min_workers, workers),
        use_gpu=run.gpus_per_worker > 0,
        resources_per_worker=resources,
    )


def _set_environment(plan: TrainingPlan) -> None:
    """Defaults of Ray Train, which it passes on to its controller and workers."""
    # Every report waits for the next look of the controller.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    if _is_embedded(plan):  # nobody reclaims this machine: one process less
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")


def _is_embedded(plan: TrainingPlan) -> bool:
    return not (plan.run.address or os.environ.get("RAY_ADDRESS"))


def _device(plan: TrainingPlan) -> Any:
    return ray.train.torch.get_device() if plan.run.gpus_per_worker > 0 else choose_device(plan.run)


def _read_state(checkpoint: ray.train.Checkpoint) -> bytes:
    with checkpoint.as_directory() as folder:
        return (Path(folder) / STATE).read_bytes()
