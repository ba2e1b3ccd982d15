"""A command on a cluster, submitted again when its driver is lost.

Everything a job knows is in its output folder, so a driver that is lost, with its machine or alone, is replaced by
submitting the same command under another id: it does what is not done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.job_submission import JobDetails, JobStatus

from raydom.cluster.job_server import AwayError, JobServer, JobUnknownError
from raydom.errors import ClusterError
from raydom.storage.lease import DEAD_AFTER_S

LOST = (
    "JOB_SUPERVISOR_ACTOR_DIED", "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE", "JOB_SUPERVISOR_ACTOR_START_FAILURE",
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT", "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE", "JOB_ENTRYPOINT_COMMAND_START_ERROR",
)  # fmt: skip
"""Failures without an exit code in which the machine or Ray failed, and not the command."""
SIGNALLED = 128
"""Exit codes above this, and negative ones, are those of a process that a signal ended."""
STOPPED = 143
PAUSE_S = 5.0
"""From the loss of a driver to the next submission; its workers live for some seconds after it."""
PAUSE_DEAD_S = DEAD_AFTER_S + PAUSE_S
"""The same when its machine is lost, too: until then nobody knows that its lease is a dead driver's."""
ACCEPT_S = 60.0
"""A job server may answer so long before it takes jobs."""


class Submission:
    """A command on a cluster, under one id after another.

    Args:
        server: Where.
        name: The first id; those that follow it have their number behind it.
        entrypoint: The command.
        runtime_env: What travels with it.
        show: Given what it prints.
        tell: Given what becomes of it.
    """

    def __init__(
        self,
        server: JobServer,
        name: str,
        entrypoint: str,
        runtime_env: dict[str, Any],
        *,
        show: Callable[[str], None],
        tell: Callable[[str], None],
    ) -> None:
        self._server, self._name, self._entrypoint, self._runtime_env = server, name, entrypoint, runtime_env
        self._show, self._tell = show, tell
        self._number = 1

    @property
    def id(self) -> str:
        """The submission id that it has now."""
        return self._name if self._number == 1 else f"{self._name}-{self._number}"

    def submit(self) -> None:
        """Submit it; waits for a server that does not take jobs yet.

        Raises:
            ClusterError: When it is not taken.
        """
        began = time.monotonic()
        while True:
            try:
                self._server.submit(self._entrypoint, self.id, self._environment(), {"attempt": str(self._number)})
                return
            except AwayError as error:
                if self._is_known():  # taken, and only the answer was lost
                    return
                if time.monotonic() - began > ACCEPT_S:
                    raise ClusterError(f"{self._server.address} does not take the job: {error}") from error
            time.sleep(1.0)

    def see_through(self, retries: int) -> int:
        """Follow it to its end, submitting it again when its driver is lost; returns its exit code.

        Raises:
            ClusterError: When its driver was lost once more than that.
        """
        for left in range(retries, -1, -1):
            info = self._server.follow(self.id, self._show, self._tell)
            lost = loss(info)
            if lost is None:
                return exit_code(self.id, info, self._tell)
            if not left:
                break
            is_alone = info is not None and info.driver_exit_code is not None
            pause_s = PAUSE_S if is_alone else PAUSE_DEAD_S
            before, self._number = self.id, self._number + 1
            again = f"submitted again in {pause_s:.0f} s as {self.id}, retry {self._number - 1} of {retries}"
            self._tell(f"{before}: {lost}; {again}. What is done is not repeated.")
            time.sleep(pause_s)
            self.submit()
        raise ClusterError(f"{self.id}: {lost}. Submitted again, by hand or by --retries N, it does what is not done.")

    def _environment(self) -> dict[str, Any]:
        """One of its own: a node that could not set it up remembers that for ten minutes."""
        variables = self._runtime_env.get("env_vars", {}) | {"RAYDOM_JOB": self.id}
        return self._runtime_env | {"env_vars": variables}

    def _is_known(self) -> bool:
        try:
            self._server.info(self.id)
        except (AwayError, JobUnknownError):
            return False
        return True


def loss(info: JobDetails | None) -> str | None:
    """How the driver of a job was lost; None if the job ended by itself or was stopped.

    Args:
        info: What the server knows of a job that has ended; None if it knows nothing any more.
    """
    if info is None:
        return "its driver was lost with the head of the cluster, which was replaced"
    if info.status != JobStatus.FAILED:
        return None
    code = info.driver_exit_code
    if code is not None and (code < 0 or code > SIGNALLED):
        return f"its driver was killed (signal {-code if code < 0 else code - SIGNALLED})"
    if code is None and info.error_type in LOST:
        return f"its driver was lost with its machine ({info.error_type})"
    return None


def exit_code(job_id: str, info: JobDetails | None, tell: Callable[[str], None]) -> int:
    """The exit code of a job that has ended: its own, 143 if it was stopped, 1 if it never had one."""
    lost = loss(info)
    if info is None or lost is not None:
        tell(f"{job_id}: {lost}. Submitted again, it does what is not done.")
        return 1
    if info.status == JobStatus.SUCCEEDED:
        tell(f"{job_id}: done.")
        return 0
    if info.status == JobStatus.STOPPED:
        tell(f"{job_id}: stopped. Submitted again, it goes on from there.")
        return STOPPED
    if info.driver_exit_code is None:  # its packages could not be brought to the cluster, for example
        tell(f"{job_id}: failed before it began: {info.message}")
        return 1
    tell(f"{job_id}: failed with exit code {info.driver_exit_code}.")
    return int(info.driver_exit_code)
