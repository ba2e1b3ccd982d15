"""Object stores: opened in one way, asked again when they fail for a moment, and their refusals explained.

botocore and s3fs retry one inside the other, each by rules of its own: up to 125 requests where a store asks for fewer,
minutes where no store answers, and few where a server fails. Here both are told to ask once, and one loop, with capped
exponential backoff, decides; it holds for all protocols. (gcsfs and adlfs keep their own retries below it.)
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import fsspec

from raydom.config.secrets import redacted
from raydom.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

ATTEMPTS = 8
"""How often a request that fails for a moment is made."""
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 20.0
"""Waits double from one to the other; each is cut by up to a half at random, so that workers do not ask in step."""
CHECK_ATTEMPTS = 3
CHECK_S = 15.0
"""The same before a command begins, which somebody waits for; and how long each of these may take."""
TOLD_FROM_S = 2.0
"""Longer waits are told of."""

T = TypeVar("T")

S3 = ("s3", "s3a")
STORES = (*S3, "gs", "gcs", "az", "abfs", "abfss")
"""Protocols of object stores, whose buckets are looked at before work."""

_BUSY_STATUS = {408, 429, 500, 502, 503, 504}
_BUSY_CODES = {
    "InternalError", "OperationAborted", "RequestTimeout", "ServerBusy", "ServiceUnavailable", "SlowDown",
    "Throttling", "ThrottlingException",
}  # fmt: skip
_BUSY_ERRNO = {errno.EBUSY, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE}
_BUSY_TYPES = {
    "ClientConnectionError", "ClientPayloadError", "ConnectionError", "HTTPClientError", "IncompleteRead",
    "ResponseParserError", "ServiceRequestError", "ServiceResponseError",
}  # fmt: skip
"""Of botocore, aiohttp, requests, http.client and Azure, by name: none of these need be installed."""
_BAD_KEYS = {
    "401", "AuthenticationFailed", "DefaultCredentialsError", "ExpiredToken", "InvalidAccessKeyId",
    "InvalidAuthenticationInfo", "InvalidToken", "NoCredentialsError", "PartialCredentialsError", "RefreshError",
    "SignatureDoesNotMatch", "TokenRefreshRequired",
}  # fmt: skip
_NO_BUCKET = {"ContainerNotFound", "InvalidBucketName", "NoSuchBucket", "ParamValidationError"}
_REMEDIES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE, or the role of the machine), for a server that "
    "is not Amazon's AWS_ENDPOINT_URL, for a public bucket FSSPEC_S3_ANON=true",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    "az": "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}


def protocol_of(uri: str) -> str:
    """``s3`` of ``s3://bucket/x``; empty for local paths, the last one for chains such as ``zip://a::s3://b``."""
    last = uri.rpartition("::")[2]
    return last.partition("://")[0] if "://" in last else ""


def options_of(uri: str, *, steadied: bool = True) -> dict[str, Any]:
    """What a file system is opened with: no listings kept (others write there too), and no retries but ours.

    Args:
        steadied: That all is asked by ``steady``; else the clients keep their own retries.
    """
    protocol = protocol_of(uri)
    if "::" in uri or protocol not in STORES:
        return {}
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in S3 and steadied:
        own = fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
        # Of several at once s3fs would ask the size of an object before each reading of it.
        options |= {"config_kwargs": {"retries": {"total_max_attempts": 1}} | own, "max_concurrency": 1}
    return options


def opened(fs: Any) -> Any:
    """A file system that was just opened, with retries of its own left out where it has that setting."""
    if "s3" in fs.protocol:
        fs.retries = 1
    elif "gs" in fs.protocol:
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs the traceback of each error that it raises
    return fs


def file_system(uri: str, *, steadied: bool = True) -> tuple[Any, str]:
    """The fsspec file system of a URI and the path in it.

    Args:
        steadied: False for use by other libraries, which do not know ``steady``.

    Raises:
        DataError: If the protocol is unknown or its package is not installed.
    """
    try:
        fs, path = fsspec.core.url_to_fs(uri, **options_of(uri, steadied=steadied))
    except (ValueError, ImportError) as error:
        needs = f" It needs {_remedy(uri)}." if protocol_of(uri) in STORES else ""
        raise DataError(
            f"{redacted(uri)}: its file system cannot be used ({redacted(str(error))}).{needs} For object stores "
            "install the package of the protocol: s3fs for s3://, gcsfs for gs://, adlfs for az://."
        ) from error
    return opened(fs) if steadied else fs, path


def steady(call: Callable[[], T], uri: str, attempts: int = ATTEMPTS) -> T:
    """What a call to a store returns; it is made again while the store fails for a moment.

    Args:
        call: Does the same when it is made twice.
        uri: What it is about, for the errors.
        attempts: How often at most.

    Raises:
        ConfigError: If the store refuses the keys, or there is no such bucket, with the remedy.
        OSError: If the last attempt failed as well.
        Exception: Whatever else the call raises, such as FileNotFoundError, at once.
    """
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except Exception as error:
            wait_s = _wait_after(error, uri, attempt, attempts)
        time.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


async def steadily(call: Callable[[], Awaitable[T]], uri: str, attempts: int = ATTEMPTS) -> T:
    """The same as ``steady`` for a coroutine."""
    for attempt in range(1, attempts + 1):
        try:
            return await call()
        except Exception as error:
            wait_s = _wait_after(error, uri, attempt, attempts)
        await asyncio.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def check(uri: str) -> None:
    """Make sure that the bucket of a URL is there and the keys are good, by one small request; seconds at most.

    A refusal to look into the bucket is not one: its files may be open all the same.

    Raises:
        ConfigError: Naming the URL and the remedy.
    """
    fs, path = file_system(uri.rpartition("::")[2])
    bucket = path.partition("/")[0]
    try:
        # The clients of other stores ask again by themselves.
        attempts = CHECK_ATTEMPTS if protocol_of(uri) in S3 else 1
        steady(lambda: fs.cat_file(f"{bucket}/.raydom-check", start=0, end=1, timeout=CHECK_S), uri, attempts)
    except (FileNotFoundError, PermissionError):
        pass
    except OSError as error:
        raise ConfigError(
            f"{redacted(uri)}: the store does not answer ({_told(error)}). Check the address and the network; what is "
            f"used: {_remedy(uri)}."
        ) from error


def is_momentary(error: BaseException) -> bool:
    """Whether the same request may succeed a little later: the store is busy or broke down, or the line did."""
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError | IsADirectoryError):
        return False
    for one in _chain(error):
        status, code = _answer(one)
        if status is not None or code is not None:
            return status in _BUSY_STATUS or code in _BUSY_CODES
        names = {kind.__name__ for kind in type(one).__mro__}
        if isinstance(one, ConnectionError | TimeoutError) or names & _BUSY_TYPES:
            return True
        if isinstance(one, OSError) and one.errno in _BUSY_ERRNO:
            return True
    return False


def explained(error: BaseException, uri: str) -> ConfigError | None:
    """What a refusal means and what to do about it; None for other errors. What the server says is left out."""
    codes = {str(told) for one in _chain(error) for told in (*_answer(one), type(one).__name__)}
    where, bucket = redacted(uri), uri.partition("://")[2].partition("/")[0]
    if codes & _NO_BUCKET:
        return ConfigError(f"{where}: there is no bucket {bucket!r}. Make it first, or correct its name.")
    if codes & _BAD_KEYS:
        reason = min(codes & _BAD_KEYS)
        return ConfigError(f"{where}: the store refuses the keys ({reason}), or none were found. Give: {_remedy(uri)}.")
    return None


def _wait_after(error: Exception, uri: str, attempt: int, attempts: int) -> float:
    """How long to wait before the next attempt; or raises what the error means."""
    told = explained(error, uri)
    if told is not None:
        raise told from error
    if isinstance(error, PermissionError) or str(error).startswith("Forbidden"):  # as gcsfs says it
        raise PermissionError(
            f"{redacted(uri)}: the store denies this ({_told(error)}). Let these keys read, write, list and remove "
            f"there, or give others: {_remedy(uri)}."
        ) from error
    if not is_momentary(error):
        raise error
    if attempt == attempts:
        raise OSError(errno.EIO, f"the store failed {attempts} times ({_told(error)})", redacted(uri)) from error
    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
    level = logging.WARNING if wait_s >= TOLD_FROM_S else logging.DEBUG
    logger.log(level, "%s: %s; asked again in %.1f s.", redacted(uri), _told(error), wait_s)
    return wait_s


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what caused it."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__


def _answer(error: BaseException) -> tuple[int | None, str | None]:
    """Status and code that a server answered with, as botocore, Azure, gcsfs and aiohttp keep them."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        code = response.get("Error", {}).get("Code")
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode"), None if code is None else str(code)
    numbers = (getattr(error, name, None) for name in ("status_code", "status", "code"))
    status = next((int(one) for one in numbers if isinstance(one, int) and 100 <= one < 600), None)
    code = getattr(error, "error_code", None)
    return status, None if code is None else str(getattr(code, "value", code))


def _told(error: BaseException) -> str:
    """An error in a few words: what the server answered with, else its kind."""
    for one in _chain(error):
        status, code = _answer(one)
        if status is not None or code is not None:
            return " ".join(str(part) for part in (status, code) if part is not None)
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def _remedy(uri: str) -> str:
    protocol = protocol_of(uri)
    kind = "s3" if protocol in S3 else "gs" if protocol in ("gs", "gcs") else "az"
    return _REMEDIES[kind]
