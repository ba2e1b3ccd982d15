"""The job server of a cluster, as a client sees it that may lose it for a while."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from raydom.config.secrets import redacted
from raydom.errors import ClusterError, ConfigError

REQUEST_S = 60.0
"""A request that is not answered within this time was lost."""
AWAY_S = 900.0
"""A cluster that does not answer for so long is given up: a head takes minutes to be replaced."""
LOOK_EVERY_S = 1.0
LOG_BYTES_PER_S = 256 * 1024
"""The whole log is fetched at each look; a long one so seldom that it stays below this."""
LOOK_AT_MOST_EVERY_S = 60.0
OF_SYSTEM = re.compile(r"(?:\[Errno -?\d+\] |Error\(\d+, ')([\w ]+)")
"""Why a connection was not made, or broke, as the operating system has it."""


class JobUnknownError(Exception):
    """The server knows no such job; when it knew it before, it is another head."""


class AwayError(Exception):
    """The server does not answer now, or cannot."""


class _Client(JobSubmissionClient):
    """Ray's client, whose requests would wait for ever on a network that swallows them."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        return super()._do_request(method, endpoint, **{"timeout": REQUEST_S, **options})


class JobServer:
    """The job server at an address.

    Args:
        address: As in ``ray job``; the environment (RAY_API_SERVER_ADDRESS, RAY_ADDRESS) comes before it.

    Raises:
        ConfigError: When nobody answers there, or asks for a token that this machine has not.
    """

    def __init__(self, address: str | None) -> None:
        for chatty in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        asked = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or address
        try:
            self._client = _Client(address)
        except AuthenticationError as error:
            raise ConfigError(_no_token(asked)) from error
        except (ConnectionError, requests.RequestException, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"no job server answers at {redacted(asked or 'this machine')}: {redacted(str(error))} Give --address "
                "http://HEAD:8265 or set RAY_API_SERVER_ADDRESS; `ray dashboard cluster.yaml` opens a tunnel to a "
                "cluster that listens only at home."
            ) from error

    @property
    def address(self) -> str:
        """Where it is, without a password."""
        return redacted(self._client.get_address())

    def submit(
        self, entrypoint: str, submission_id: str, runtime_env: dict[str, Any], metadata: dict[str, str]
    ) -> None:
        """Submit a job; the folders that it names are sent first.

        Raises:
            AwayError: When the server cannot take it now.
            ConfigError: When it does not want it.
        """
        with _told():
            self._client.submit_job(
                entrypoint=entrypoint, submission_id=submission_id, runtime_env=runtime_env, metadata=metadata
            )

    def info(self, job_id: str) -> JobDetails:
        """What the server knows of a job.

        Raises:
            JobUnknownError: If nothing.
            AwayError: If it does not answer now.
        """
        with _told():
            return self._client.get_job_info(job_id)

    def jobs(self) -> list[JobDetails]:
        """All jobs that were submitted."""
        with _told():
            return [job for job in self._client.list_jobs() if job.submission_id]

    def log(self, job_id: str) -> str:
        """All that a job has printed until now."""
        with _told():
            text: str = self._client.get_job_logs(job_id)
            return text

    def stop(self, job_id: str) -> bool:
        """Tell a job to stop; False if it does not run."""
        with _told():
            is_told: bool = self._client.stop_job(job_id)
            return is_told

    def follow(
        self, job_id: str, show: Callable[[str], None], tell: Callable[[str], None] = lambda text: None
    ) -> JobDetails | None:
        """Wait for the end of a job.

        Args:
            job_id: The job.
            show: Given what it prints, piece by piece.
            tell: Given what is to be said of the wait itself.

        Returns:
            What is known of it at its end; None when the server has forgotten it, being another one by now.

        Raises:
            ClusterError: When the server does not answer for ``AWAY_S``.
        """
        shown = 0
        answered = time.monotonic()
        is_away = False
        while True:
            try:
                info = self.info(job_id)  # before its log, which is whole then if the job has ended
                with contextlib.suppress(AwayError, JobUnknownError):  # the log goes with the driver's machine
                    text = self.log(job_id)
                    show(text[shown:])
                    shown = max(shown, len(text))
                if info.status.is_terminal():
                    return info
                if is_away:
                    tell(f"{self.address} answers again, after {time.monotonic() - answered:.0f} s.")
                answered, is_away = time.monotonic(), False
            except JobUnknownError:
                return None
            except AwayError as error:
                if time.monotonic() - answered > AWAY_S:
                    raise ClusterError(f"{self.address} has not answered for {AWAY_S / 60:.0f} min: {error}") from error
                if not is_away:
                    tell(f"{self.address} does not answer ({error}); waiting for it for up to {AWAY_S / 60:.0f} min.")
                is_away = True
            time.sleep(min(LOOK_AT_MOST_EVERY_S, LOOK_EVERY_S + shown / LOG_BYTES_PER_S))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Ray's errors as what they mean."""
    try:
        yield
    except AuthenticationError as error:
        raise ConfigError(_no_token(None)) from error
    except (ConnectionError, requests.RequestException) as error:
        raise AwayError(_reason(error)) from error
    except RuntimeError as error:
        if "status code 404" in str(error):
            raise JobUnknownError(_reason(error)) from error
        raise AwayError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """In a few words: the system's own, where an account of pools and retries surrounds them."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    text = redacted(" ".join(str(error).split()))
    of_system = OF_SYSTEM.search(text)
    return of_system[1] if of_system else text[:200]


def _no_token(address: str | None) -> str:
    where = f"the job server at {redacted(address)}" if address else "the job server"
    return (
        f"{where} wants its token. Set RAY_AUTH_MODE=token and put the cluster's token into ~/.ray/auth_token (or set "
        "RAY_AUTH_TOKEN_PATH); see `ray get-auth-token`."
    )
