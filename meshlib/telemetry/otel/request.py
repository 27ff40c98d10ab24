"""The SERVER span of one request."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context, attach, get_current
from opentelemetry.trace import Span, Status, StatusCode

from meshlib.flags import ResponseFlag
from meshlib.model.request import RequestHead
from meshlib.telemetry.grpc_names import SERVER_ERRORS, status_name
from meshlib.telemetry.methods import KNOWN

if TYPE_CHECKING:
    from meshlib.telemetry.otel.tracing import OtelTracing

log = logging.getLogger("meshlib.telemetry")


class OtelRequest:
    """A request being served. Its span is the SDK's own, because the application may add to it."""

    __slots__ = ("_before", "_context", "_grpc", "_head", "_span", "_tracing")

    def __init__(self, tracing: OtelTracing, head: RequestHead, span: Span, context: Context, grpc: bool) -> None:
        self._tracing = tracing
        self._head = head
        self._span = span
        self._context = context
        self._grpc = grpc
        self._before: Context | None = None

    def enter(self) -> None:
        """The span is the current one. No token is kept: a token can only be given back where it was taken."""
        self._before = get_current()
        attach(self._context)

    def leave(self) -> None:
        """What was current before is so again, unless something else is current by now, or this is another context."""
        before, self._before = self._before, None
        if before is not None and get_current() is self._context:
            attach(before)

    def ended(
        self, now: float, status: int | None, grpc_status: int | None, route: str, flag: ResponseFlag | None
    ) -> None:
        """The span is over."""
        try:
            if self._span.is_recording():
                self._tell(self._result(status, grpc_status, flag), route)
            self._span.end(int(now * 1e9) + self._tracing.clock.offset(now))
        except Exception:
            log.exception("the span of %s is lost", route or self._head.method)

    def _tell(self, attributes: dict[str, Any], route: str) -> None:
        span, method = self._span, self._head.method
        if route:
            span.update_name(f"{method if method in KNOWN else 'HTTP'} {route}")
            attributes["http.route"] = route
        span.set_attributes(attributes)
        if "error.type" in attributes:
            span.set_status(Status(StatusCode.ERROR))

    def _result(self, status: int | None, grpc_status: int | None, flag: ResponseFlag | None) -> dict[str, Any]:
        attributes: dict[str, Any] = {} if flag is None else {"meshlib.response_flags": str(flag)}
        if grpc_status is not None:
            attributes["rpc.grpc.status_code"] = grpc_status
            if grpc_status in SERVER_ERRORS:
                attributes["error.type"] = status_name(grpc_status)
        elif status is None:
            attributes["error.type"] = "cancelled"
        else:
            attributes["http.response.status_code"] = status
            if status >= 500:
                attributes["error.type"] = str(status)
        return attributes
