"""From a failed call to an exception that is both ours and gRPC's.

`except grpc.RpcError` (and `grpc.aio.AioRpcError`) and `except meshlib.UpstreamConnectError` catch the same thing.
"""

from __future__ import annotations

from functools import lru_cache
from types import TracebackType
from typing import Any, Literal

import grpc
from grpc import aio

from meshlib import errors
from meshlib.engine import grpc_status
from meshlib.engine.commands import CallInfo, Fail, Reply
from meshlib.flags import ResponseFlag
from meshlib.grpc.outcome import AttemptError, debug_string, early_metadata
from meshlib.model.outcome import Failure, Outcome
from meshlib.policy.classify import classify
from meshlib.policy.pybreaker_bridge import circuit_open_error_type

Library = Literal["grpc", "aio"]
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

_BY_FLAG = {flag: _CODES[number] for flag, number in grpc_status.BY_FLAG.items()}
BY_HTTP = {status: _CODES[number] for status, number in grpc_status.BY_HTTP.items()}


def status_code(number: int) -> grpc.StatusCode:
    """The status of a number; UNKNOWN for one gRPC does not have."""
    return _CODES.get(number, grpc.StatusCode.UNKNOWN)


def exception_for(fail: Fail, library: Library) -> Any:
    """The exception to raise for a failed call; what grpcio raised for the last attempt becomes its cause.

    The status is the last attempt's where there was one, so that a broken connection is the same code as without a
    mesh; a failure of the caller's own side (metadata, serialization) is grpcio's error as it is.
    """
    failure = fail.failure
    cause = fail.outcome.error if fail.outcome is not None else None
    rpc_error = cause.rpc_error if isinstance(cause, AttemptError) else None
    if failure.flag is ResponseFlag.DC and rpc_error is not None:
        return rpc_error
    code = _BY_FLAG.get(failure.flag, _UNAVAILABLE)
    if failure.flag is ResponseFlag.NC and failure.status:
        code = BY_HTTP.get(failure.status, grpc.StatusCode.UNKNOWN)
    if fail.outcome is not None and fail.outcome.grpc_status is not None:
        code = status_code(fail.outcome.grpc_status)
    debug = debug_string(rpc_error) if rpc_error is not None else None
    early = early_metadata(rpc_error) if rpc_error is not None else None
    trailing = rpc_error.trailing_metadata() if rpc_error is not None else failure.headers
    made = _combined(errors.error_type(failure).__name__, library)(failure, code, str(failure), early, trailing, debug)
    made.__cause__ = rpc_error or cause
    return made


def reply_exception(reply: Reply, library: Library) -> Any:
    """The exception for an answer of the mesh's own: gRPC has no other word for one. Its headers are the metadata, its
    body the details.
    """
    code = BY_HTTP.get(reply.status, grpc.StatusCode.UNKNOWN)
    if reply.grpc_status is not None:
        code = status_code(reply.grpc_status)
    details = reply.body.decode("utf-8", "replace")
    headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in reply.headers)
    flag, info = reply.info.flag, reply.info
    if flag is None:
        reason = f"the route answers itself with HTTP status {reply.status}"
        return _combined("", library)(None, code, details or reason, headers, None, reason)
    reason = f"answered with HTTP status {reply.status}: {details}"
    failure = errors.CallFailure(flag, reason, info.route, info.cluster, info.endpoint, info.attempts)
    ours = errors.error_type(failure).__name__
    return _combined(ours, library)(failure, code, details, headers, None, str(failure))


def stream_exception(outcome: Outcome, info: CallInfo | None, library: Library) -> Any:
    """The exception for a stream that did not end well after it had begun: the server's own status as grpcio raises it,
    or what broke the stream.
    """
    cause = outcome.error
    rpc_error = cause.rpc_error if isinstance(cause, AttemptError) else None
    if outcome.failure in (None, Failure.LOCAL) and rpc_error is not None:
        rpc_error.meshlib = info
        return rpc_error
    flag, known = classify(outcome).flag or ResponseFlag.UC, info or CallInfo()
    failure = errors.CallFailure(flag, str(cause), known.route, known.cluster, known.endpoint, known.attempts)
    return exception_for(Fail(failure, outcome), library)


def cancelled_error(library: Library) -> Any:
    """What a call that its own caller cancelled has for a status."""
    details = "Locally cancelled by application!"
    return _combined("", library)(None, grpc.StatusCode.CANCELLED, details, None, None, details)


@lru_cache(maxsize=64)
def _combined(our_name: str, library: Library) -> type[Exception]:
    """A class that is ours (unless `our_name` is empty) and gRPC's; an open circuit is pybreaker's too when that is
    installed.
    """
    bases: tuple[type, ...] = (_Settled,) if library == "grpc" else (_AioSettled,)
    module, name = "grpc", "MeshAnswer"
    if our_name:
        ours: type[errors.CallError] = getattr(errors, our_name)
        bases, module, name = (ours, *bases), ours.__module__, our_name
        if ours is errors.CircuitOpenError and (breaker_error := circuit_open_error_type()) is not None:
            bases = (*bases, breaker_error)
    return type(name, bases, {"__module__": module, "__init__": _initialise, "__reduce__": _reduce})


def _initialise(
    self: Any,
    failure: errors.CallFailure | None,
    code: grpc.StatusCode,
    details: str,
    initial: Any,
    trailing: Any,
    debug: str | None,
) -> None:
    Exception.__init__(self, details)
    if failure is not None:
        self.failure = failure
    plain = isinstance(self, _Settled)
    self._code = code
    self._details = details
    self._initial_metadata = tuple(initial or ()) if plain else _aio_metadata(initial)
    self._trailing_metadata = tuple(trailing or ()) if plain else _aio_metadata(trailing)
    self._debug_error_string = debug or f"{code.name}:{details}"


def _aio_metadata(pairs: Any) -> Any:
    return pairs if isinstance(pairs, aio.Metadata) else aio.Metadata(*(pairs or ()))


def _reduce(self: Any) -> Any:
    library: Library = "grpc" if isinstance(self, _Settled) else "aio"
    name = type(self).__name__ if isinstance(self, errors.CallError) else ""
    said = (getattr(self, "failure", None), self._code, self._details)
    metadata = (tuple(self._initial_metadata), tuple(self._trailing_metadata))
    return _restored, (name, library, *said, *metadata, self._debug_error_string)


def _restored(name: str, library: Library, *said: Any) -> Exception:
    """Unpickle: the class is made at run time, so it is asked for by its name."""
    return _combined(name, library)(*said)


class _AioSettled(aio.AioRpcError):  # type: ignore[misc]  # grpcio ships no types
    """grpc.aio's error has all it takes."""


class _Settled(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[misc]  # grpcio ships no types
    """An error that is a finished call and a finished future too, as those of grpcio are: interceptors rely on it."""

    _code: grpc.StatusCode
    _details: str
    _initial_metadata: tuple[Any, ...]
    _trailing_metadata: tuple[Any, ...]
    _debug_error_string: str

    def code(self) -> grpc.StatusCode:
        """The status."""
        return self._code

    def details(self) -> str:
        """What happened, in words."""
        return self._details

    def initial_metadata(self) -> tuple[Any, ...]:
        """The last attempt's, as far as they had come; or the headers of an answer of the mesh's own."""
        return self._initial_metadata

    def trailing_metadata(self) -> tuple[Any, ...]:
        """The last attempt's."""
        return self._trailing_metadata

    def debug_error_string(self) -> str:
        """Grpcio's own words about the last attempt, where there was one."""
        return self._debug_error_string

    def is_active(self) -> bool:
        """It is over."""
        return False

    def time_remaining(self) -> float | None:
        """It is over."""
        return None

    def add_callback(self, callback: Any) -> bool:
        """Not called: it is over."""
        return False

    def cancel(self) -> bool:
        """Too late."""
        return False

    def cancelled(self) -> bool:
        """It failed."""
        return False

    def running(self) -> bool:
        """It is over."""
        return False

    def done(self) -> bool:
        """It is over."""
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Raises itself."""
        raise self

    def exception(self, timeout: float | None = None) -> Exception:
        """Itself."""
        return self

    def traceback(self, timeout: float | None = None) -> TracebackType | None:
        """Where it was raised."""
        trace: TracebackType | None = self.__traceback__
        return trace

    def add_done_callback(self, fn: Any) -> None:
        """Called at once."""
        fn(self)
