"""From a failed call to an exception that is both ours and the HTTP library's.

`except httpx.ConnectError` and `except meshlib.UpstreamConnectError` catch the same thing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from meshlib import errors
from meshlib.engine.commands import Fail
from meshlib.flags import ResponseFlag
from meshlib.http.library import Library, LibraryName, library
from meshlib.http.wire.types import FailureKind, WireError
from meshlib.model.outcome import Failure
from meshlib.policy.pybreaker_bridge import circuit_open_error_type

_THEIRS = {
    ResponseFlag.NR: "TransportError",
    ResponseFlag.NFCF: "TransportError",
    ResponseFlag.NC: "TransportError",
    ResponseFlag.UH: "ConnectError",
    ResponseFlag.UO: "PoolTimeout",
    ResponseFlag.UF: "ConnectError",
    ResponseFlag.UC: "ReadError",
    ResponseFlag.UR: "ReadError",
    ResponseFlag.UT: "ReadTimeout",
    ResponseFlag.SI: "ReadTimeout",
    ResponseFlag.UPE: "RemoteProtocolError",
    ResponseFlag.RL: "TransportError",
    ResponseFlag.RLSE: "TransportError",
}
_OTHER = "TransportError"
_BY_KIND = {
    FailureKind.CONNECT_TIMEOUT: "ConnectTimeout",
    FailureKind.WRITE_TIMEOUT: "WriteTimeout",
    FailureKind.POOL_TIMEOUT: "PoolTimeout",
    FailureKind.INVALID_REQUEST: "LocalProtocolError",
}


def exception_for(lib: Library, fail: Fail, request: object) -> Exception:
    """The exception to raise for a failed call; the wire's own error, when there is one, becomes its cause."""
    failure = fail.failure
    theirs = _THEIRS.get(failure.flag, _OTHER)
    cause = fail.outcome.error if fail.outcome else None
    if isinstance(cause, WireError):
        theirs = _BY_KIND.get(cause.kind, theirs)
    if failure.circuit_open:
        theirs = "ConnectError"
    return _make(lib, errors.error_type(failure), theirs, failure, request, cause)


def body_exception(lib: Library, error: WireError, failure: errors.CallFailure, request: object) -> Exception:
    """The exception for a body that broke after the headers were fine."""
    ours, theirs = _BODY.get(error.kind, (errors.UpstreamResetError, "ReadError"))
    return _make(lib, ours, theirs, failure, request, error)


_BODY: dict[FailureKind, tuple[type[errors.CallError], str]] = {
    FailureKind.DEADLINE: (errors.UpstreamTimeoutError, "ReadTimeout"),
    FailureKind.READ_TIMEOUT: (errors.UpstreamTimeoutError, "ReadTimeout"),
    FailureKind.PROTOCOL_ERROR: (errors.UpstreamProtocolError, "RemoteProtocolError"),
}


def _make(
    lib: Library,
    ours: type[errors.CallError],
    theirs: str,
    failure: errors.CallFailure,
    request: object,
    cause: BaseException | None,
) -> Exception:
    exception = _combined(lib.name, ours.__name__, theirs)(failure, request)
    exception.__cause__ = cause
    return exception


@lru_cache(maxsize=128)
def _combined(library_name: LibraryName, our_name: str, theirs: str) -> type[Exception]:
    """A class that is ours and the library's; an open circuit is pybreaker's too when pybreaker is installed."""
    ours: type[errors.CallError] = getattr(errors, our_name)
    bases: tuple[type, ...] = (ours, getattr(library(library_name).module, theirs))
    if ours is errors.CircuitOpenError and (breaker_error := circuit_open_error_type()) is not None:
        bases = (*bases, breaker_error)

    def initialise(self: Any, failure: errors.CallFailure, request: object = None) -> None:
        Exception.__init__(self, str(failure))
        self.failure = failure
        self._request = request  # what httpx.RequestError.request reads

    return type(our_name, bases, {"__init__": initialise, "__module__": ours.__module__})


def check_host(lib: Library, url: Any) -> None:
    """Raise the library's `InvalidURL` for a host that cannot be (a label of 64 letters). For whoever has caught a
    UnicodeError: it may come of the host, but also of a body.
    """
    try:
        _ = url.host  # decoded
        url.raw_host.decode("ascii").encode("idna")
    except UnicodeError as error:
        raise lib.module.InvalidURL(f"Invalid host in {str(url)!r}: {error}") from error


def failure_of(kind: FailureKind, on_deadline: Failure, on_silence: Failure) -> Failure:
    """What a wire failure is to the engine; a deadline or a read timeout is whichever limit the attempt ran under."""
    if kind is FailureKind.DEADLINE:
        return on_deadline
    return on_silence if kind is FailureKind.READ_TIMEOUT else _FAILURES[kind]


_FAILURES = {
    FailureKind.INVALID_REQUEST: Failure.LOCAL,
    FailureKind.CONNECT_FAILURE: Failure.CONNECT,
    FailureKind.TLS_FAILURE: Failure.CONNECT,
    FailureKind.CONNECT_TIMEOUT: Failure.CONNECT_TIMEOUT,
    FailureKind.OVERFLOW: Failure.OVERFLOW,
    FailureKind.POOL_TIMEOUT: Failure.POOL_TIMEOUT,
    FailureKind.POOL_CLOSED: Failure.RESET_BEFORE_REQUEST,
    FailureKind.RESET_BEFORE_REQUEST: Failure.RESET_BEFORE_REQUEST,
    FailureKind.RESET: Failure.RESET,
    FailureKind.WRITE_TIMEOUT: Failure.TIMEOUT,
    FailureKind.PROTOCOL_ERROR: Failure.PROTOCOL,
    FailureKind.REQUEST_BODY_FAILED: Failure.LOCAL,
}
