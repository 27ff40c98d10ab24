"""Making spans past the SDK's `Span`, straight as the finished record its processors export.

The SDK's own span takes a lock for each change, copies and checks each attribute, and is copied once more when it ends:
13 to 18 microseconds, twice a call. A call's span is known whole at its end, so only the record is made. This is used
where nobody can tell the difference: the SDK's own provider, samplers and processors that only look at ended spans, no
limits that would cut what the mesh writes. Everywhere else `meshlib.telemetry.otel.spans` is used.

What it touches of the SDK is partly private; where it is not as known, `direct_spans` says None.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event as SdkEvent
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, SynchronousMultiSpanProcessor, Tracer
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, TraceFlags, TraceState

from meshlib.telemetry.otel.spans import NO_STATE, Attributes, Events

log = logging.getLogger("meshlib.telemetry")
MOST_ATTRIBUTES = 32  # no span of ours has more
_FLAGS = {number: TraceFlags(number) for number in range(4)}
_LOOK_AT_THE_END_ONLY = (BatchSpanProcessor, SimpleSpanProcessor)
_NO_EVENTS: tuple[SdkEvent, ...] = ()
_NO_LINKS: tuple[Link, ...] = ()


class DirectSpan:
    """A span of which only its context exists before its end."""

    __slots__ = ("_kind", "_parent", "_spans", "_start", "context", "recording")

    def __init__(
        self,
        spans: DirectSpans,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        start: int,
        recording: bool,
    ) -> None:
        self._spans = spans
        self.context = context
        self._parent = parent
        self._kind = kind
        self._start = start
        self.recording = recording

    def child(self, name: str, kind: SpanKind, attributes: Attributes, start: int) -> DirectSpan:
        """A span below this one. The samplers that are known here decide the same for a child."""
        spans, mine = self._spans, self.context
        context = _context(mine[0], spans.ids.generate_span_id(), mine[3], mine[4])
        return DirectSpan(spans, context, mine, kind, start, self.recording)

    def close(self, name: str, attributes: Attributes, events: Events, status: Status, end: int) -> None:
        """Hand the finished record to the processors."""
        if not self.recording:
            return
        spans = self._spans
        tracer = spans.tracer
        record = ReadableSpan(
            name,
            self.context,
            self._parent,
            tracer.resource,
            attributes,
            [SdkEvent(*event) for event in events] if events else _NO_EVENTS,
            _NO_LINKS,
            self._kind,
            tracer.instrumentation_info,
            status,
            self._start,
            end,
            tracer._instrumentation_scope,
        )
        try:
            for sink in spans.sinks:
                sink(record)
        except Exception:
            log.exception("the span of %s is lost", name)


class DirectSpans:
    """Opens direct spans by the SDK's tracer, whose ended spans go to `sinks`."""

    decides_blindly = True
    __slots__ = ("_follows", "_random", "_root", "_sampler", "ids", "sinks", "tracer")

    def __init__(self, tracer: Any) -> None:
        self.tracer = tracer
        self.ids = tracer.id_generator
        self.sinks: tuple[Callable[[ReadableSpan], None], ...] = ()
        self._sampler = tracer.sampler
        self._random = 2 if self.ids.is_trace_id_random() else 0
        self._follows = type(self._sampler) in {ParentBased, ParentBasedTraceIdRatio}
        root = self._sampler._root if self._follows else self._sampler
        always = root._decision if type(root) is StaticSampler else None
        self._root = None if always is None else _FLAGS[self._random | (always is Decision.RECORD_AND_SAMPLE)]
        """The flags of a span that begins a trace, where they are the same for each."""

    def open(
        self,
        name: str,
        parent: SpanContext | None,
        context: Context,
        kind: SpanKind,
        attributes: Attributes,
        start: int,
    ) -> DirectSpan:
        """As the SDK's `Tracer.start_span` up to the point where the span would be made."""
        ids = self.ids
        if parent is None:
            if self._root is not None:
                made = _context(ids.generate_trace_id(), ids.generate_span_id(), self._root, NO_STATE)
                return DirectSpan(self, made, None, kind, start, self._root & 1 == 1)
        elif self._follows and not parent[2]:  # a local parent has decided already
            made = _context(parent[0], ids.generate_span_id(), parent[3], parent[4])
            return DirectSpan(self, made, parent, kind, start, parent[3] & 1 == 1)
        trace_id = ids.generate_trace_id() if parent is None else parent[0]
        result = self._sampler.should_sample(context, trace_id, name, kind, attributes, ())
        decision = result.decision
        flags = (self._random if parent is None else parent[3] & 2) | decision.is_sampled()
        made = _context(trace_id, ids.generate_span_id(), _FLAGS[flags], result.trace_state)
        return DirectSpan(self, made, parent, kind, start, decision.is_recording())


def _context(trace_id: int, span_id: int, flags: TraceFlags, state: TraceState | None) -> SpanContext:
    """`SpanContext(...)` of ids that are valid as they are: it is a tuple, whose last item says so."""
    return tuple.__new__(SpanContext, (trace_id, span_id, False, flags, NO_STATE if state is None else state, True))


class DirectGate:
    """Whether spans of one tracer may be direct; asked for each call, because processors may be added at any time."""

    __slots__ = ("_passes", "_seen", "_spans", "_tracer")

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self._spans = DirectSpans(tracer)
        self._seen: Any = None
        self._passes = False

    def spans(self) -> DirectSpans | None:
        """The maker of direct spans, None while they would be noticed."""
        tracer = self._tracer
        processors = tracer.span_processor._span_processors
        if processors is not self._seen:
            self._spans.sinks = tuple(map(_sink, processors))
            self._seen, self._passes = processors, all(map(_looks_at_the_end_only, processors))
        return self._spans if self._passes and tracer._tracer_config.is_enabled else None


def _sink(processor: Any) -> Callable[[ReadableSpan], None]:
    """Where a processor takes ended spans. The batching one only asks whether a span is sampled, which here it is."""
    emit: Callable[[ReadableSpan], None]
    emit = processor._batch_processor.emit if type(processor) is BatchSpanProcessor else processor.on_end
    return emit


def direct_gate(tracer: object) -> DirectGate | None:
    """A gate for the SDK's tracer; None for another one, or an SDK that is not as known here."""
    if type(tracer) is not Tracer:
        return None
    try:
        if not _suits(tracer):
            return None
        gate = DirectGate(tracer)
        gate.spans()
    except AttributeError:
        return None
    return gate


def _suits(tracer: Any) -> bool:
    """Whether provider, sampler and limits are of the kinds for which the direct record is the same as the SDK's."""
    return (
        type(tracer.span_processor) is SynchronousMultiSpanProcessor
        and tuple(SpanContext(1, 2, False, _FLAGS[1], NO_STATE)) == (1, 2, False, _FLAGS[1], NO_STATE, True)
        and type(tracer._tracer_metrics).__name__ == "NoOpTracerMetrics"
        and _decides_children_alike(tracer.sampler)
        and _wide_enough(tracer._span_limits)
    )


def _decides_children_alike(sampler: Any) -> bool:
    """Whether a child is sampled exactly if its parent in the same process is, and gets no attributes for it."""
    if _plain(sampler):
        return True
    return (
        type(sampler) in {ParentBased, ParentBasedTraceIdRatio}
        and _plain(sampler._root, sampler._remote_parent_sampled, sampler._remote_parent_not_sampled)
        and (sampler._local_parent_sampled, sampler._local_parent_not_sampled) == (ALWAYS_ON, ALWAYS_OFF)
    )


def _plain(*samplers: Any) -> bool:
    """Whether they only look at the trace id, and nothing is recorded without being sampled."""
    return all(
        type(sampler) is TraceIdRatioBased
        or (type(sampler) is StaticSampler and sampler._decision is not Decision.RECORD_ONLY)
        for sampler in samplers
    )


def _wide_enough(limits: SpanLimits) -> bool:
    most = limits.max_span_attributes
    events = limits.max_events
    return (
        (most is None or most >= MOST_ATTRIBUTES)
        and limits.max_span_attribute_length is None
        and limits.max_attribute_length is None
        and (events is None or events >= MOST_ATTRIBUTES)
    )


def _looks_at_the_end_only(processor: SpanProcessor) -> bool:
    kind = type(processor)
    if kind in _LOOK_AT_THE_END_ONLY:
        return True
    return kind.on_start is SpanProcessor.on_start and kind._on_ending is SpanProcessor._on_ending
