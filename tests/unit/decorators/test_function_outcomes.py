"""What an exception counts as."""

from __future__ import annotations

import errno
import socket
import urllib.error
from typing import Any

import grpc
import httpx
import httpx2
import pytest

from meshlib.decorators.outcome import judged, of_error, status_of
from meshlib.errors import CallFailure, UpstreamConnectError
from meshlib.flags import ResponseFlag
from meshlib.model.outcome import Failure, Outcome
from meshlib.policy.classify import classify

REQUEST = httpx.Request("GET", "http://payments/")


def http_error(status: int, **extensions: Any) -> httpx.HTTPStatusError:
    response = httpx.Response(status, request=REQUEST, extensions=extensions)
    return httpx.HTTPStatusError("no", request=REQUEST, response=response)


class StatusError(Exception):
    def __init__(self, **attributes: Any) -> None:
        super().__init__("no")
        self.__dict__.update(attributes)


class Unavailable(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE


class RequestsTimeoutError(OSError):
    """As requests' `Timeout` is made: by name only."""


RequestsTimeoutError.__name__ = "Timeout"


@pytest.mark.parametrize(
    "error, failure",
    [
        (ConnectionRefusedError("no"), Failure.CONNECT),
        (socket.gaierror("no"), Failure.CONNECT),
        (OSError(errno.ENETUNREACH, "no"), Failure.CONNECT),
        (httpx.ConnectError("no"), Failure.CONNECT),
        (httpx2.ConnectError("no"), Failure.CONNECT),
        (httpx.ConnectTimeout("no"), Failure.CONNECT_TIMEOUT),
        (httpx.PoolTimeout("no"), Failure.POOL_TIMEOUT),
        (httpx.ReadTimeout("no"), Failure.PER_TRY_TIMEOUT),
        (TimeoutError(), Failure.PER_TRY_TIMEOUT),
        (RequestsTimeoutError(), Failure.PER_TRY_TIMEOUT),
        (ConnectionResetError("no"), Failure.RESET),
        (BrokenPipeError("no"), Failure.RESET),
        (httpx.ReadError("no"), Failure.RESET),
        (httpx.RemoteProtocolError("no"), Failure.PROTOCOL),
    ],
)
def test_failures_of_the_network(error: Exception, failure: Failure) -> None:
    outcome = of_error(error)
    assert (outcome.failure, outcome.status, outcome.error) == (failure, None, error)


@pytest.mark.parametrize(
    "error, status",
    [
        (http_error(503), 503),
        (http_error(404), 404),
        (urllib.error.HTTPError("http://payments/", 502, "no", {}, None), 502),  # type: ignore[arg-type]
        (StatusError(status_code=429), 429),
        (StatusError(status=504), 504),
        (StatusError(status_code="503"), 500),
        (StatusError(status=7), 500),
        (StatusError(status_code=True), 500),
        (ValueError("no"), 500),
        (FileNotFoundError("no"), 500),
    ],
)
def test_statuses_and_what_says_nothing(error: Exception, status: int) -> None:
    outcome = of_error(error)
    assert (outcome.failure, outcome.status, outcome.error) == (None, status, error)


def test_a_grpc_error_is_its_code() -> None:
    outcome = of_error(Unavailable())
    assert outcome.grpc_status == 14
    assert classify(outcome).satisfies("unavailable")
    assert of_error(grpc.RpcError()).status == 500, "one that has no code"


def answer_of_a_meshed_channel() -> Unavailable:
    error = Unavailable()
    error.meshlib = object()  # type: ignore[attr-defined]
    return error


def failure_of_a_client() -> UpstreamConnectError:
    return UpstreamConnectError(CallFailure(ResponseFlag.UF, "refused"))


def wrapped(cause: BaseException, *, explicit: bool) -> Exception:
    """What a function raises when a call inside it has failed."""
    try:
        try:
            raise cause
        except BaseException as error:
            if explicit:
                raise ValueError("payment failed") from error
            raise ValueError("payment failed")  # noqa: B904  that is the other way
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        failure_of_a_client(),
        answer_of_a_meshed_channel(),
        wrapped(failure_of_a_client(), explicit=True),
        wrapped(failure_of_a_client(), explicit=False),
        http_error(503, meshlib=object()),
        wrapped(http_error(503, meshlib=object()), explicit=True),
    ],
)
def test_what_was_judged_in_a_call_inside_is_not_judged_again(error: Exception) -> None:
    outcome = of_error(error)
    assert outcome.failure is Failure.NESTED
    verdict = classify(outcome)
    assert (verdict.neutral, verdict.conditions) == (True, 0)


def test_what_a_guarded_function_inside_has_raised_is_not_judged_again_however_it_is_wrapped() -> None:
    inside, same_words = ValueError("no"), ValueError("no")
    for error in (inside, wrapped(inside, explicit=True), wrapped(inside, explicit=False)):
        assert of_error(error, [inside]).failure is Failure.NESTED
    assert of_error(same_words, [inside]).status == 500


def test_a_failure_that_was_dealt_with_is_not_in_the_chain() -> None:
    error = wrapped(failure_of_a_client(), explicit=False)
    error.__suppress_context__ = True
    assert not judged(error)


def test_a_chain_that_goes_in_a_circle_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not judged(first)


def test_statuses_are_read_of_responses_too() -> None:
    assert status_of(httpx.Response(201)) == 201
    assert status_of(None) is None
    assert isinstance(of_error(RuntimeError()), Outcome)
