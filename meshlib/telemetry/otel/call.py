"""The spans of one client call: an INTERNAL one for the call as the caller sees it, a CLIENT one for each attempt.

OpenTelemetry's HTTP conventions want a CLIENT span for each request on the wire, numbered by
`http.request.resend_count` from the second, and an INTERNAL span around them: a CLIENT span is one edge in a service
graph, and a call that was retried twice is three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode

from meshlib.flags import ResponseFlag
from meshlib.model.outcome import Outcome
from meshlib.model.request import RequestHead
from meshlib.telemetry import in_progress
from meshlib.telemetry.grpc_names import rpc_name, status_name
from meshlib.telemetry.methods import KNOWN
from meshlib.telemetry.otel.spans import NO_STATE, Event, OpenSpan
from meshlib.telemetry.tracing import CallFacts, Target

if TYPE_CHECKING:
    from meshlib.telemetry.otel.tracing import OtelTracing

_UNSET = Status()
_ERROR = Status(StatusCode.ERROR)
_CANCELLED = "cancelled"
_INTERNAL, _CLIENT = SpanKind.INTERNAL, SpanKind.CLIENT  # looking up a member of an enum costs as much as a call


class _Beside(NamedTuple):
    """One of several attempts that overlap."""

    number: int
    target: Target
    sent: RequestHead
    span: OpenSpan


class OtelCall:
    """A call that is recorded. `attributes` are those of the request, of the call as of each attempt. Attempts that are
    not `on_wire` are INTERNAL too: a guarded function's own requests have spans of their own.
    """

    __slots__ = (
        "_attributes",
        "_events",
        "_forgotten",
        "_grpc",
        "_head",
        "_kind",
        "_last",
        "_method",
        "_number",
        "_offset",
        "_open",
        "_outer",
        "_reason",
        "_sent",
        "_span",
        "_target",
        "_tracing",
        "cluster",
    )

    def __init__(
        self,
        tracing: OtelTracing,
        head: RequestHead,
        span: OpenSpan,
        offset: int,
        attributes: dict[str, Any],
        grpc: bool,
        on_wire: bool,
    ) -> None:
        self._tracing = tracing
        self._kind = _CLIENT if on_wire else _INTERNAL
        self._head = head
        self._span = span
        self._offset = offset
        self._attributes = attributes
        self._grpc = grpc
        self._method = rpc_name(head) if grpc else head.method if head.method in KNOWN else "HTTP"
        self._open: OpenSpan | None = None
        self._last: Outcome | None = None
        self._reason = ""
        self._events: list[Event] | None = None
        self._forgotten = False
        self._outer: in_progress.Attempt | None = None

    def attempt(self, number: int, cluster: str, target: Target, head: RequestHead, now: float) -> RequestHead:
        """A span begins."""
        if self._open is not None and self._last is not None:
            self._close_attempt(self._open, self._last.at, self._last.grpc_status, None)
        self._number, self.cluster, self._target, self._sent = number, cluster, target, head
        span = self._span.child(self._method, self._kind, self._attributes, int(now * 1e9) + self._offset)
        self._open, self._last = span, None
        if in_progress.Marks.wanted:
            self._outer = in_progress.begun(self)
        context = span.context
        return self._tracing.with_headers(head, (context[0], context[1], True, state_of(context), context[3]))

    def attempted(self, outcome: Outcome) -> None:
        """The span goes on with the response's body, or is over."""
        self._last = outcome
        if in_progress.Marks.wanted:
            in_progress.over(self, self._outer)
            self._outer = None
        if outcome.failure is not None and self._open is not None:
            self._close_attempt(self._open, outcome.at, outcome.grpc_status, None)

    def beside(
        self, number: int, cluster: str, target: Target, head: RequestHead, now: float
    ) -> tuple[RequestHead, object]:
        """A span begins, and other attempts go on."""
        self.cluster = cluster
        span = self._span.child(self._method, self._kind, self._attributes, int(now * 1e9) + self._offset)
        context = span.context
        sent = self._tracing.with_headers(head, (context[0], context[1], True, state_of(context), context[3]))
        return sent, _Beside(number, target, head, span)

    def beside_ended(self, attempt: object, outcome: Outcome | None, now: float) -> None:
        """Of those that have a response the last one's span goes on with its body: it is the call's."""
        if not isinstance(attempt, _Beside):
            raise TypeError(attempt)
        if outcome is not None and outcome.failure is None:
            if self._open is not None and self._last is not None:
                self._close_attempt(self._open, self._last.at, self._last.grpc_status, None)
            self._turn_to(attempt, outcome)
            return
        waiting = (
            None if self._open is None else (_Beside(self._number, self._target, self._sent, self._open), self._last)
        )
        self._turn_to(attempt, outcome)
        self._close_attempt(attempt.span, now, None if outcome is None else outcome.grpc_status, None)
        if waiting is not None:
            self._turn_to(*waiting)

    def _turn_to(self, attempt: _Beside, outcome: Outcome | None) -> None:
        self._number, self._target, self._sent, self._open = attempt
        self._last = outcome

    def retrying(self, delay: float, now: float) -> None:
        """An event of the call."""
        event = ("meshlib.retry", {"meshlib.backoff_seconds": delay}, int(now * 1e9) + self._offset)
        self._events = [*(self._events or ()), event]

    def refused(self, reason: str) -> None:
        """The description of the call's status."""
        self._reason = reason

    def forget(self) -> None:
        """Nothing is told."""
        self._forgotten = True

    def ended(self, now: float, facts: CallFacts | None, status: int | None) -> None:
        """All spans are over."""
        if self._forgotten:
            return
        flag = grpc_status = None
        if facts is not None:
            flag, grpc_status = facts.flag, facts.grpc_status
        if self._open is not None:
            left = self._last is None  # by its caller
            self._close_attempt(self._open, now, grpc_status, flag)
            if left and in_progress.Marks.wanted:
                in_progress.over(self, self._outer)
            self._outer = None
        attributes = self._attributes  # no attempt needs them any more
        if facts is not None:
            _tell(attributes, facts)
        error = self._result(attributes, status, grpc_status, flag)
        described = _UNSET if not error else Status(StatusCode.ERROR, self._reason) if self._reason else _ERROR
        route = "" if facts is None or self._grpc else facts.route
        name = f"{self._method} {route}" if route else self._method
        self._span.close(name, attributes, self._events, described, int(now * 1e9) + self._offset)

    # ------------------------------------------------------------------ meshlib.telemetry.in_progress.Attempt

    def ids(self) -> tuple[int, int, bool]:
        """Those of the attempt in progress."""
        context = (self._open or self._span).context
        return context.trace_id, context.span_id, True

    @property
    def in_flight(self) -> bool:
        """Whether an attempt has begun, and has no response headers yet."""
        return self._open is not None and self._last is None

    @property
    def endpoint(self) -> str:
        """Where it goes."""
        return self._target.address

    # ------------------------------------------------------------------ inside

    def _close_attempt(self, span: OpenSpan, at: float, grpc_status: int | None, flag: ResponseFlag | None) -> None:
        self._open = None
        outcome, target, head, sent = self._last, self._target, self._head, self._sent
        same = head.path is sent.path and head.authority is sent.authority
        attributes = dict(self._attributes) if same else self._tracing.attributes(sent, self._grpc)
        attributes["meshlib.cluster"] = self.cluster
        if target.address and self._kind is _CLIENT:
            address = target.endpoint.address
            attributes["network.peer.address"] = address.host
            if address.port:
                attributes["network.peer.port"] = address.port
            attributes["meshlib.endpoint"] = target.address
        if self._number > 1:
            attributes["http.request.resend_count"] = self._number - 1
        if flag is not None:
            attributes["meshlib.response_flags"] = str(flag)
        if outcome is None:
            error = attributes["error.type"] = _CANCELLED
        elif outcome.failure is not None:
            error = attributes["error.type"] = outcome.failure.value
        else:
            error = self._result(attributes, outcome.status, grpc_status, flag)
        span.close(self._method, attributes, None, _ERROR if error else _UNSET, int(at * 1e9) + self._offset)

    def _result(
        self, attributes: dict[str, Any], status: int | None, grpc_status: int | None, flag: ResponseFlag | None
    ) -> str:
        """Add the status; the error that it is to a client, empty when it is none."""
        error = ""
        if grpc_status is not None and grpc_status >= 0:
            attributes["rpc.grpc.status_code"] = grpc_status
            error = status_name(grpc_status) if grpc_status else ""
        elif status is not None and not self._grpc:
            attributes["http.response.status_code"] = status
            error = str(status) if status >= 400 else ""
        if not error and flag is not None:
            error = str(flag)
        if error:
            attributes["error.type"] = error
        return error


def _tell(attributes: dict[str, Any], facts: CallFacts) -> None:
    """Add what the mesh decided about a call."""
    attributes["meshlib.route"] = facts.route
    attributes["meshlib.cluster"] = facts.cluster
    attributes["meshlib.attempts"] = facts.attempts
    if facts.endpoint:
        attributes["meshlib.endpoint"] = facts.endpoint
    if facts.flag is not None or facts.delayed:
        attributes["meshlib.response_flags"] = ",".join(facts.flags)
    if facts.why_not_retried:
        attributes["meshlib.why_not_retried"] = facts.why_not_retried


def state_of(context: SpanContext) -> str:
    """The `tracestate` of a span."""
    state = context[4]
    return "" if state is NO_STATE else state.to_header()
