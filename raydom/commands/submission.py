"""What the commands are told that run jobs on a cluster from a machine that is no part of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from raydom.config import require
from raydom.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class JobServerConfig:
    """Which cluster, as in ``ray job``."""

    address: str | None = None
    """Job server of the cluster (http://HEAD:8265), as in ray job submit: RAY_API_SERVER_ADDRESS or RAY_ADDRESS comes
    before it. Default: the Ray of this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitConfig(JobServerConfig):
    """Run a command on a cluster: ships this folder (and raydom, if it is installed elsewhere), and returns at once, or
    with --wait shows the progress and exits as the job does."""

    job: tuple[str, ...] = field(metadata={"rest": True})
    """The command with its options, as it would be given here: segment --config x.yaml ... Its options and these may
    stand in any order."""
    wait: bool = False
    """Show the progress until the job ends. Ctrl-C leaves it running."""
    retries: int = 0
    """Submit it again, so often at most, when its driver is lost with the machine or by a kill; it goes on with what is
    not done. Implies --wait. A job that fails by itself (exit codes 1 and 2) is not repeated."""
    env: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Name of an environment variable that the job shall have, with its value here; may be given several times. Those
    that begin with RAYDOM_ it has anyway. Whoever may use the cluster can read them, so secrets are refused."""
    exclude: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Files or folders that are not shipped, by name or pattern ("*.ckpt"; with a leading / by the path from here),
    beside those that git ignores, data, results, runs, .git, .venv and what looks like a secret; may be given several
    times."""
    stop_wait_s: int = 120
    """How long the job may take to finish the blocks in flight when it is stopped, s; then it is killed."""

    def __post_init__(self) -> None:
        require(self.retries >= 0, f"retries must be >= 0; got {self.retries}.")
        require(self.stop_wait_s >= 0, f"stop_wait_s must be >= 0; got {self.stop_wait_s}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsConfig(JobServerConfig):
    """List the jobs of a cluster: those that run, and those that ended since its head was started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsConfig(JobServerConfig):
    """Show what a job has printed until now."""

    id: str = field(metadata={"positional": True})
    """The job, as raydom jobs lists it."""
    follow: bool = False
    """Go on until it ends, and exit as the job does. Ctrl-C leaves it running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopConfig(JobServerConfig):
    """Stop a job: it finishes the blocks in flight and leaves receipts. Submitted again, it goes on from there."""

    id: str = field(metadata={"positional": True})
    """The job, as raydom jobs lists it."""


BESIDE = {"evaluate": "prediction", "domains": "collection", "neurons show": "neurons"}
"""Commands that write beside what they read unless they are told otherwise, and what that is called."""


def check_submitted(name: str, job: Any) -> None:
    """Refuse a job whose result would be lost.

    Args:
        name: The command.
        job: Its configuration.

    Raises:
        ConfigError: If it writes to a relative path: on the cluster this is a copy of the folder, which goes with the
            head.
    """
    job = getattr(job, "training", job)
    out = getattr(job, "out", None)
    if out is None and name in BESIDE:
        out = getattr(job, BESIDE[name])
    if out is not None and "://" not in out and not os.path.isabs(out):  # noqa: PTH117 - no path of this machine
        raise ConfigError(
            f"raydom {name} would write to {out!r}, which on the cluster is a temporary folder of its head. Name a "
            "place that all nodes and you can see: s3://..., gs://..., az://..., or the full path of a shared folder."
        )
