"""What a function did, as an outcome the policies understand.

An exception counts as what it says of itself: a failure of the network (by the name its class or a base of it has in
the standard library, httpx, requests, aiohttp or redis: none of them is imported), an HTTP status (`status_code`,
`status`, or its response's), a gRPC code. What says nothing counts as a 500.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from meshlib.errors import CallError
from meshlib.model.outcome import Failure, Outcome

OK = 200
EXCLUDED = 400
UNKNOWN = 500
_DEEPEST = 32  # exceptions in a chain that are looked at

_BY_NAME = {
    "ConnectTimeout": Failure.CONNECT_TIMEOUT,
    "ConnectError": Failure.CONNECT,
    "ConnectionRefusedError": Failure.CONNECT,
    "ClientConnectorError": Failure.CONNECT,
    "NewConnectionError": Failure.CONNECT,
    "gaierror": Failure.CONNECT,
    "PoolTimeout": Failure.POOL_TIMEOUT,
    "TimeoutError": Failure.PER_TRY_TIMEOUT,
    "TimeoutException": Failure.PER_TRY_TIMEOUT,
    "Timeout": Failure.PER_TRY_TIMEOUT,
    "ConnectionError": Failure.RESET,
    "ClientConnectionError": Failure.RESET,
    "NetworkError": Failure.RESET,
    "ProtocolError": Failure.PROTOCOL,
}
_NEVER_SENT = frozenset({Failure.CONNECT, Failure.CONNECT_TIMEOUT, Failure.POOL_TIMEOUT})
_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


def of_error(error: Exception, judged_before: Collection[BaseException] = ()) -> Outcome:
    """The outcome of an attempt that raised. `judged_before`: what guarded functions inside it have raised."""
    if judged(error, judged_before):
        return Outcome(failure=Failure.NESTED, error=error)
    status = status_of(error)
    if status is None:
        status = status_of(getattr(error, "response", None))
    if status is not None:
        return Outcome(status, error=error)
    code = _grpc_code(error)
    if code is not None:
        return Outcome(OK, grpc_status=code, error=error)
    failure = _failure(error)
    if failure is None:
        return Outcome(UNKNOWN, error=error)
    return Outcome(failure=failure, request_sent=failure not in _NEVER_SENT, error=error)


def status_of(thing: object) -> int | None:
    """The HTTP status an exception or a response carries, None when it carries none."""
    for name in ("status_code", "status"):
        value = getattr(thing, name, None)
        if isinstance(value, int) and 100 <= value <= 599:
            return value
    return None


def judged(error: BaseException, before: Collection[BaseException] = ()) -> bool:
    """Whether the failure comes out of a meshed call inside the function: it has been counted, and retried as its own
    route says, where it was made. Retrying it here as well would multiply the attempts.
    """
    return any(
        isinstance(link, CallError) or _came_by_mesh(link) or any(link is other for other in before)
        for link in _chain(error)
    )


def _came_by_mesh(error: BaseException) -> bool:
    """An answer that a meshed call brought: a gRPC error of a mesh's channel carries what the mesh did, and so does the
    response that `raise_for_status` raises for.
    """
    if getattr(error, "meshlib", None) is not None:
        return True
    extensions = getattr(getattr(error, "response", None), "extensions", None)
    return isinstance(extensions, Mapping) and "meshlib" in extensions


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, what it was raised from, and so on."""
    link: BaseException | None = error
    for _ in range(_DEEPEST):
        if link is None:
            return
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _failure(error: Exception) -> Failure | None:
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return Failure.CONNECT
    names = (kind.__name__ for kind in type(error).__mro__)
    return next((_BY_NAME[name] for name in names if name in _BY_NAME), None)


def _grpc_code(error: Exception) -> int | None:
    """The status code of a `grpc.RpcError`; grpc is not imported for it, because who raises one has imported it."""
    grpc: Any = sys.modules.get("grpc")
    if grpc is None or not isinstance(error, grpc.RpcError):
        return None
    code = getattr(error, "code", None)
    status = code() if callable(code) else None
    return None if status is None else int(status.value[0])
