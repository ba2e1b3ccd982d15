"""Requests that fail for a moment are made again, refusals are explained, and nobody's keys are told."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest

from raydom.errors import ConfigError
from raydom.storage import files, stores

URI = "s3://bucket/a/b"


class ClientError(Exception):
    """As botocore raises it."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"An error occurred ({code}): the key AKIASECRET is not liked")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def named(name: str, **fields: object) -> Exception:
    return type(name, (Exception,), fields)()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that were made, which take no time; none is cut at random."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(stores, "time", SimpleNamespace(sleep=made.append))
    monkeypatch.setattr(stores, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(stores, "random", SimpleNamespace(uniform=lambda low, high: high))
    return made


def failing(times: int, error: Exception):
    """A call that fails so often before it returns 7."""
    left = [times]

    def call() -> int:
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return 7

    return call


SLOW = caused(OSError(16, "Please reduce your request rate."), ClientError(503, "SlowDown"))


def test_waits_double_up_to_a_limit_and_long_ones_are_told(
    waits: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stores, "LONGEST_WAIT_S", 5.0)
    with caplog.at_level(logging.WARNING):
        assert stores.steady(failing(7, SLOW), URI) == 7
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert len(caplog.messages) == 3 and f"{URI}: 503 SlowDown; asked again in 3.2 s" in caplog.messages[0]


def test_a_store_that_goes_on_failing_is_told_with_the_url(waits: list[float]) -> None:
    with pytest.raises(OSError, match=r"failed 8 times \(503 SlowDown\): 's3://bucket/a/b'"):
        stores.steady(failing(8, SLOW), URI)
    assert len(waits) == stores.ATTEMPTS - 1


def test_coroutines_are_awaited_again(waits: list[float]) -> None:
    call = failing(2, SLOW)

    async def ask() -> int:
        return call()

    assert asyncio.run(stores.steadily(ask, URI)) == 7
    assert len(waits) == 2


@pytest.mark.parametrize(
    "error",
    [
        SLOW,
        caused(OSError(121, "We encountered an internal error."), ClientError(500, "InternalError")),
        named("HttpError", code=503),  # of gcsfs
        named("HttpResponseError", status_code=429, error_code="ServerBusy"),  # of Azure
        named("ClientResponseError", status=502),  # of aiohttp
        named("HTTPClientError"),
        ConnectionResetError(),
        TimeoutError(),
        OSError(16, "busy"),
    ],
)
def test_what_may_pass_is_asked_again(error: Exception) -> None:
    assert stores.is_momentary(error)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("x"),
        caused(FileNotFoundError("x"), ClientError(404, "NoSuchKey")),
        FileExistsError("x"),
        OSError(28, "No space left on device"),
        caused(OSError(22, "bad"), ClientError(400, "InvalidArgument")),
        ValueError("x"),
    ],
)
def test_what_will_not_pass_is_raised_at_once(error: Exception, waits: list[float]) -> None:
    with pytest.raises(type(error)) as raised:
        stores.steady(failing(1, error), URI)
    assert raised.value is error and waits == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            caused(PermissionError("no"), ClientError(403, "InvalidAccessKeyId")),
            "InvalidAccessKeyId.*AWS_ACCESS_KEY_ID",
        ),
        (named("HttpError", code=401), r"refuses the keys \(401\)"),  # of gcsfs
        (named("NoCredentialsError"), "none were found. Give: AWS_ACCESS_KEY_ID"),
        (caused(FileNotFoundError("no"), ClientError(404, "NoSuchBucket")), "there is no bucket 'bucket'"),
    ],
)
def test_refusals_name_the_url_and_the_remedy_and_no_key(error: Exception, told: str, waits: list[float]) -> None:
    with pytest.raises(ConfigError, match=f"^{URI}: .*{told}") as raised:
        stores.steady(failing(1, error), URI)
    assert "AKIASECRET" not in str(raised.value) and waits == []


def test_what_keys_may_not_do_is_told_with_the_url(waits: list[float]) -> None:
    denied = caused(PermissionError("Access Denied"), ClientError(403, "AccessDenied"))
    with pytest.raises(PermissionError, match=rf"^{URI}: the store denies this \(403 AccessDenied\)"):
        stores.steady(failing(1, denied), URI)


def test_passwords_in_urls_are_not_told(waits: list[float]) -> None:
    with pytest.raises(OSError, match="failed 8 times") as raised:
        stores.steady(failing(8, SLOW), "s3://me:secret@bucket/x")
    assert "secret" not in str(raised.value) and "bucket/x" in str(raised.value)


def test_disks_are_asked_once_and_stores_until_they_answer(tmp_path, waits: list[float]) -> None:
    assert files.steady(failing(1, TimeoutError()), "memory://x") == 7
    with pytest.raises(TimeoutError):
        files.steady(failing(1, TimeoutError()), str(tmp_path))
