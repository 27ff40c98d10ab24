"""What goes into the wire and what comes out: plain values, no I/O.

The wire knows an address, a request, limits and deadlines. It knows nothing of clusters, routes or retries: whoever
calls it decides those, with the `FailureKind` and the two flags of `WireError` as the facts to decide by.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from meshlib.http.wire.interruption import Interruption

RequestBody = bytes | Iterable[bytes] | AsyncIterable[bytes] | None
Headers = list[tuple[bytes, bytes]]


class FailureKind(enum.Enum):
    """Why an exchange failed. The value is the word used in messages and logs."""

    INVALID_REQUEST = "invalid request"
    """The request itself cannot be put on an HTTP/1.1 wire (line breaks in a header, a body that breaks its length)."""
    CONNECT_FAILURE = "connect failure"
    CONNECT_TIMEOUT = "connect timeout"
    TLS_FAILURE = "TLS failure"
    OVERFLOW = "overflow"
    """The pending limit was reached: refused at once (Envoy's `upstream_rq_pending_overflow`)."""
    POOL_TIMEOUT = "pool timeout"
    POOL_CLOSED = "pool closed"
    """The pool was closed before a byte of the request was sent; what was under way by then ends as a RESET."""
    RESET_BEFORE_REQUEST = "reset before request"
    """The connection went away before one byte of the request was handed to the kernel: always safe to try again."""
    RESET = "reset"
    READ_TIMEOUT = "read timeout"
    WRITE_TIMEOUT = "write timeout"
    DEADLINE = "deadline exceeded"
    PROTOCOL_ERROR = "protocol error"
    REQUEST_BODY_FAILED = "request body failed"
    """The caller's own body iterator raised; its exception is the `__cause__`, for the adapter to raise again."""


class WireError(Exception):
    """The one exception of the wire (cancellation and other BaseExceptions pass through untouched).

    `request_sent`: some byte of the request was handed to the kernel, so the server may have acted on it.
    `response_started`: some byte of the response was received.
    """

    def __init__(
        self, kind: FailureKind, message: str, *, request_sent: bool = False, response_started: bool = False
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.request_sent = request_sent
        self.response_started = response_started


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect: host (name or IP literal, no brackets) and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Trace(Protocol):
    """Who is told of the steps of an exchange; what it raises ends the exchange."""

    def step(self, name: str, **info: object) -> Any:
        """A context manager around one step, an asynchronous one on asyncio. What it gives has a `return_value` to set:
        what came of the step.
        """


@dataclass(slots=True)
class WireRequest:
    """One HTTP/1.1 request, headers as httpx gives them: Host and the framing header are already there.

    `body` needs `Content-Length` (checked against what is really sent) or `Transfer-Encoding: chunked` (framed here).
    Only None and bytes can be sent a second time when a kept-alive connection turns out to be stale.
    `trace` None: nobody is told of the steps, which then cost nothing. `interruption`: how a blocking exchange may be
    given up from another thread; None: it may not.
    """

    method: bytes
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: RequestBody = None
    trace: Trace | None = None
    interruption: Interruption | None = None


class Timeouts(NamedTuple):
    """httpx's four, in seconds (None: no limit), and one absolute deadline for the exchange up to the end of its body.

    `connect`: TCP and TLS together. `read`, `write`: one wait for the peer. `pool`: the wait for a connection.
    `deadline`: on the clock of the pool, `loop.time()` for AsyncPool and `time.monotonic()` for SyncPool.
    """

    connect: float | None = None
    read: float | None = None
    write: float | None = None
    pool: float | None = None
    deadline: float | None = None


NO_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds of one endpoint's pool; the defaults are Envoy's.

    `max_pending` counts requests that have no connection yet, waiting or dialling, as Envoy's
    `max_pending_requests` does. `max_requests_per_connection` 0: no limit. `idle_timeout` (seconds, Envoy's 1 h)
    can be long because a closed idle connection is noticed before it is used again. `max_connection_duration` None:
    no limit; an exchange is never cut by it.
    """

    max_connections: int = 1024
    max_pending: int = 1024
    max_requests_per_connection: int = 0
    idle_timeout: float | None = 3600.0
    max_connection_duration: float | None = None


class Gate(Protocol):
    """A count shared by the pools of one cluster.

    Tokens are compared by identity; releasing an unknown one does nothing. Called from any thread that uses
    a pool, and from inside the pool's lock: it must not block and must not call back.
    """

    def try_acquire(self, token: object) -> bool:
        """Count the token unless the limit is reached."""
        ...

    def release(self, token: object) -> None:
        """Stop counting the token."""
        ...

    def refuse(self) -> None:
        """Count a refusal by another limit than the gate's own: that of one endpoint."""
        ...


class ConnectionEventKind(enum.Enum):
    """What happened to a connection."""

    CONNECTED = "connected"
    CONNECT_FAILED = "connect failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """One connection's opening, failure to open (with `error`) or closing, for counters; never per request."""

    kind: ConnectionEventKind
    address: Address
    error: WireError | None = None


ConnectionHook = Callable[[ConnectionEvent], None]


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Connections in use (dialling ones included), connections idle, requests without a connection."""

    active: int
    idle: int
    pending: int
