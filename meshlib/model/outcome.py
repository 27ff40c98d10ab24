"""Outcome: how one attempt ended, as a value. Exceptions begin only at the adapters."""

from __future__ import annotations

import enum
from typing import Any


class Failure(enum.Enum):
    """Why an attempt brought no response. The adapters map what their wire says to these."""

    CONNECT = "connect-failure"
    """No connection: refused, unreachable, name not resolved, TLS handshake failed."""
    CONNECT_TIMEOUT = "connect-timeout"
    OVERFLOW = "overflow"
    """No connection allowed and the pending queue full: the request never left."""
    POOL_TIMEOUT = "pool-timeout"
    """The caller's own limit on waiting for a connection ran out: the request never left."""
    RESET_BEFORE_REQUEST = "reset-before-request"
    """The connection broke before any byte of the request was written."""
    RESET = "reset"
    """The connection broke before response headers; the request may have been processed."""
    REFUSED_STREAM = "refused-stream"
    """The peer said it has not processed the request (HTTP/2 REFUSED_STREAM)."""
    PER_TRY_TIMEOUT = "per-try-timeout"
    TIMEOUT = "timeout"
    """The route's timeout, the inherited deadline or the caller's own ran out."""
    IDLE = "idle-timeout"
    """The endpoint was silent for longer than the stream's idle timeout."""
    PROTOCOL = "protocol-error"
    LOCAL = "local"
    """The caller's side failed (its body iterator raised, it cancelled): says nothing about the endpoint."""
    NESTED = "nested"
    """A meshed call inside a guarded function failed: it was judged and retried where it was made, and is not again."""


GRPC_STATUS_PENDING = -1


class Outcome:
    """One attempt's end: a response (`status` set) or a `failure`.

    `grpc_status` is a gRPC call's: of the response, or the one its failure is to the caller; GRPC_STATUS_PENDING while
    a stream is still to come.

    `headers` are the response's byte pairs as received; `response` is the adapter's own object, passed through
    untouched; `error` the wire's exception.
    `header(name)` reads a response header (lower case), for retry and rate-limit decisions. `at` is when it ended, in
    monotonic seconds; the driver sets it, because the engine has no clock.
    """

    __slots__ = ("at", "error", "failure", "grpc_status", "headers", "request_sent", "response", "status")

    def __init__(
        self,
        status: int | None = None,
        headers: list[tuple[bytes, bytes]] | None = None,
        *,
        failure: Failure | None = None,
        grpc_status: int | None = None,
        request_sent: bool = True,
        response: Any = None,
        error: BaseException | None = None,
    ) -> None:
        self.status = status
        self.failure = failure
        self.grpc_status = grpc_status
        self.request_sent = request_sent
        self.response = response
        self.error = error
        self.at = 0.0
        self.headers = headers

    def header(self, name: str) -> str | None:
        """A response header's value (first one), None when missing or when there is no response."""
        if self.headers is None:
            return None
        wanted = name.encode("latin-1")
        size = len(wanted)  # tells nearly all names apart, for less than lower-casing them
        for raw_name, raw_value in self.headers:
            if len(raw_name) == size and raw_name.lower() == wanted:
                return raw_value.decode("latin-1")
        return None

    def __repr__(self) -> str:
        what = self.failure.value if self.failure else f"status {self.status}"
        return f"Outcome({what})"
