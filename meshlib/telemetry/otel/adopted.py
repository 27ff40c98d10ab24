"""A span of somebody else's that stands for a call already: no second one is made for the same thing."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, set_span_in_context

from meshlib.telemetry.otel.spans import Attributes, Events, OpenSpan, SpanMaker
from meshlib.telemetry.trace_parent import TraceParent

# Instrumentations that put their span round the client's transport, so that a call of ours runs inside it.
_OF_CLIENTS = frozenset(f"opentelemetry.instrumentation.{name}" for name in ("httpx", "httpx2", "grpc"))


class AdoptedSpan:
    """It gets what the mesh knows, and is ended by whoever began it."""

    __slots__ = ("_maker", "_span", "context", "recording")

    def __init__(self, span: Span, maker: SpanMaker) -> None:
        self._span = span
        self._maker = maker
        self.context: SpanContext = span.get_span_context()
        self.recording = True

    def child(self, name: str, kind: SpanKind, attributes: Attributes, start: int) -> OpenSpan:
        """A span below it."""
        context = set_span_in_context(self._span, Context())
        return self._maker.open(name, self.context, context, kind, attributes, start)

    def close(self, name: str, attributes: Attributes, events: Events, status: Status, end: int) -> None:
        """Add what the mesh knows; the rest the other has said."""
        self._span.set_attributes({key: value for key, value in attributes.items() if key.startswith("meshlib.")})
        for what, details, at in events or ():
            self._span.add_event(what, details, at)


def stands_for_the_call(current: Span) -> bool:
    """Whether the current span was made by an instrumentation for the very call that begins now."""
    if not current.is_recording() or getattr(current, "kind", None) is not SpanKind.CLIENT:
        return False
    scope = getattr(current, "instrumentation_scope", None)
    return scope is not None and scope.name in _OF_CLIENTS


def serves_the_request(current: Span, told: TraceParent | None) -> bool:
    """Whether the current span is a server's for the very request that arrived: a SERVER span below the same caller.
    (A request that an application sends to another in its own process has another caller.)
    """
    if not current.get_span_context().is_valid or getattr(current, "kind", None) is not SpanKind.SERVER:
        return False
    parent = getattr(current, "parent", None)
    return (None if parent is None else parent.span_id) == (None if told is None else told.span_id)
