"""Making spans by OpenTelemetry's API: what works with every provider, sampler and span processor.

A span here is opened with its start and closed with everything else, because a call's flow knows times as numbers and
never has a span as the current one.

Samplers and processors are the application's. What they raise is logged, and no call fails for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    Tracer,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

log = logging.getLogger("meshlib.telemetry")
NO_STATE = TraceState()
"""The empty trace state, known by its identity."""

Attributes = Mapping[str, AttributeValue]
Event = tuple[str, Attributes, int]
"""Name, attributes, epoch nanoseconds."""
Events = Sequence[Event] | None


class OpenSpan(Protocol):
    """A span that has started."""

    context: SpanContext
    recording: bool

    def child(self, name: str, kind: SpanKind, attributes: Attributes, start: int) -> OpenSpan:
        """A span below this one. Times are epoch nanoseconds."""

    def close(self, name: str, attributes: Attributes, events: Events, status: Status, end: int) -> None:
        """End it, under its final name and with all its attributes."""


class SpanMaker(Protocol):
    """Opens spans. `decides_blindly`: whether a span is recorded depends on no attribute."""

    decides_blindly: bool

    def open(
        self,
        name: str,
        parent: SpanContext | None,
        context: Context,
        kind: SpanKind,
        attributes: Attributes,
        start: int,
    ) -> OpenSpan:
        """A span in `context`, whose current span is `parent` (None: there is none)."""


class ApiSpan:
    """A span of any provider."""

    __slots__ = ("_span", "_tracer", "context", "recording")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self.context = span.get_span_context()
        self.recording = span.is_recording()

    def child(self, name: str, kind: SpanKind, attributes: Attributes, start: int) -> ApiSpan:
        """A span below this one."""
        context = set_span_in_context(self._span, Context())
        return ApiSpan(self._tracer, started(self._tracer, name, context, kind, attributes, start))

    def close(self, name: str, attributes: Attributes, events: Events, status: Status, end: int) -> None:
        """End it."""
        span = self._span
        try:
            if self.recording:
                span.update_name(name)
                span.set_attributes(attributes)
                for what, details, at in events or ():
                    span.add_event(what, details, at)
                if not status.is_unset:
                    span.set_status(status)
            span.end(end)
        except Exception:
            log.exception("the span of %s is lost", name)


class ApiSpans:
    """Opens spans by a tracer of any provider."""

    decides_blindly = False

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def open(
        self,
        name: str,
        parent: SpanContext | None,
        context: Context,
        kind: SpanKind,
        attributes: Attributes,
        start: int,
    ) -> ApiSpan:
        """A span in `context`."""
        return ApiSpan(self._tracer, started(self._tracer, name, context, kind, attributes, start))


def started(tracer: Tracer, name: str, context: Context, kind: SpanKind, attributes: Attributes, start: int) -> Span:
    """A span of the tracer's; where that fails one that records nothing, and stands for its parent."""
    try:
        return tracer.start_span(name, context, kind, attributes, start_time=start)
    except Exception:
        log.exception("no span for %s", name)
        return NonRecordingSpan(get_current_span(context).get_span_context())
