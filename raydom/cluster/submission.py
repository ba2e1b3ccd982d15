"""The commands that run jobs on a cluster far away: submit, jobs, logs, stop; each returns its exit code."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from raydom.cluster.environment import passed_environment
from raydom.cluster.job_server import AwayError, JobServer, JobUnknownError
from raydom.cluster.package import pack_folder
from raydom.cluster.retries import Submission, exit_code
from raydom.commands import JobsConfig, LogsConfig, StopConfig, SubmitConfig
from raydom.config.secrets import redacted
from raydom.errors import ClusterError, ConfigError
from raydom.report.tables import show_table

RUN = ("python", "-m", "raydom.cli")
DETACHED = 130
"""Exit code after leaving a job to itself, that of Ctrl-C."""
T = TypeVar("T")


def submit(config: SubmitConfig) -> int:
    """Submit a job; with ``wait`` or ``retries`` follow it to its end, and return its exit code."""
    variables = passed_environment(config.env, os.environ)
    here, installed = Path.cwd(), Path(__file__).parents[1]
    words, configurations = _shipped_configurations(config.job, here)
    with tempfile.TemporaryDirectory() as folder:
        package = pack_folder(here, Path(folder) / "folder.zip", config.exclude, configurations)
        runtime_env: dict[str, Any] = {
            "env_vars": variables | {"RAY_JOB_STOP_WAIT_TIME_S": str(config.stop_wait_s)},
            "excludes": ["__pycache__"],  # of py_modules
        }
        if package.num_files:
            runtime_env["working_dir"] = str(package.path)
        if not (here / "raydom" / "__init__.py").is_file():
            runtime_env["py_modules"] = [str(installed)]
        server = JobServer(config.address)
        say(
            f"to {server.address}: {package.num_files} files of {here}, {package.num_bytes / 2**20:.1f} MiB"
            + (f"; raydom of {installed}" if "py_modules" in runtime_env else "")
            + (f"; {', '.join(variables)}" if variables else "")
        )
        name = f"raydom-{words[0]}-{uuid.uuid4().hex[:8]}"
        job = Submission(server, name, shlex.join([*RUN, *words]), runtime_env, show=show, tell=say)
        job.submit()
        say(f"{job.id} is submitted.\n{_come_back(job.id, server)}")
        if not (config.wait or config.retries):
            return 0
        try:
            return job.see_through(config.retries)
        except KeyboardInterrupt:
            unwatched = " It is not submitted again if its driver is lost now." if config.retries else ""
            say(f"\n{job.id} goes on without this terminal.{unwatched}\n{_come_back(job.id, server)}")
            return DETACHED


def jobs(config: JobsConfig) -> int:
    """List the jobs of a cluster, the last first."""
    found = sorted(_answered(JobServer(config.address).jobs), key=lambda job: job.start_time or 0, reverse=True)
    rows = []
    for job in found:
        began = (job.start_time or time.time() * 1000) / 1000
        rows.append(
            {
                "job": job.submission_id,
                "status": str(job.status),
                "exit code": job.driver_exit_code,
                "began (UTC)": f"{datetime.fromtimestamp(began, UTC):%Y-%m-%d %H:%M}",
                "minutes": (job.end_time / 1000 if job.end_time else time.time()) / 60 - began / 60,
                "command": redacted(job.entrypoint).replace(" ".join(RUN), "raydom", 1),
            }
        )
    if rows:
        show_table(pa.Table.from_pylist(rows), digits=1)
    else:
        say("There are no jobs.")
    return 0


def logs(config: LogsConfig) -> int:
    """Show what a job has printed; following it, return its exit code."""
    server = JobServer(config.address)
    _answered(lambda: server.info(config.id))
    if not config.follow:
        show(_answered(lambda: server.log(config.id)))
        return 0
    try:
        return exit_code(config.id, server.follow(config.id, show, say), say)
    except KeyboardInterrupt:
        say(f"\n{config.id} goes on without this terminal.\n{_come_back(config.id, server)}")
        return DETACHED


def stop(config: StopConfig) -> int:
    """Stop a job and wait until it has ended."""
    server = JobServer(config.address)
    info = _answered(lambda: server.info(config.id))
    if info.status.is_terminal() or not _answered(lambda: server.stop(config.id)):
        say(f"{config.id} does not run: {info.status}.")
        return 0
    say(f"{config.id} is told to stop; it finishes the blocks in flight.")
    try:
        ended = server.follow(config.id, lambda text: None, say)
    except KeyboardInterrupt:
        say(f"\n{config.id} ends without this terminal.")
        return DETACHED
    status = "gone with its head" if ended is None else str(ended.status)
    say(f"{config.id}: {status}. The same command, submitted again, goes on from there.")
    return 0


def _shipped_configurations(words: Sequence[str], here: Path) -> tuple[list[str], dict[str, Path]]:
    """The words of a job with the places that its configuration files have in the package, and those files.

    They are shipped wherever they lie, also where the rest of the folder is left out.
    """
    found: dict[str, Path] = {}
    changed: list[str] = []
    is_next = False
    for word in words:
        option, equals, value = ("--config", "", word) if is_next else word.partition("=")
        is_file = option == "--config" and (is_next or bool(equals))
        is_next = word == "--config"
        if not is_file:
            changed.append(word)
            continue
        path = (here / value).resolve()
        inside = path.is_relative_to(here.resolve())
        name = path.relative_to(here.resolve()).as_posix() if inside else f"raydom-config/{path.name}"
        found[name] = path
        changed.append(f"{option}={name}" if equals else name)
    return changed, found


def _come_back(job_id: str, server: JobServer) -> str:
    return "\n".join(
        f"  raydom {words} --address {server.address}"
        for words in (f"logs {job_id} --follow", f"stop {job_id}", "jobs")
    )


def _answered(ask: Callable[[], T]) -> T:
    """What the server answers.

    Raises:
        ConfigError: If it knows no such job.
        ClusterError: If it does not answer.
    """
    try:
        return ask()
    except JobUnknownError as error:
        raise ConfigError("the cluster knows no such job (any more); raydom jobs lists those that it knows.") from error
    except AwayError as error:
        raise ClusterError(f"the cluster does not answer: {error}") from error


def show(text: str) -> None:
    """What a job prints."""
    sys.stdout.write(text)
    sys.stdout.flush()


def say(text: str) -> None:
    """What these commands say themselves."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
