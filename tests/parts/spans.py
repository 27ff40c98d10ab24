"""Spans as tests look at them: a provider that keeps what has ended."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Spans:
    """`provider` is what to instrument with; `ended` what came of it, in order."""

    def __init__(self, *, processor: SpanProcessor | None = None, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        if processor is not None:
            self.provider.add_span_processor(processor)

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def of_kind(self, kind: str) -> list[ReadableSpan]:
        return [span for span in self.ended if span.kind.name == kind]

    def only(self, kind: str) -> ReadableSpan:
        (span,) = self.of_kind(kind)
        return span

    def clear(self) -> None:
        self._exporter.clear()


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def header(span: ReadableSpan) -> str:
    """The `traceparent` that names this span."""
    context = span.context
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def told(span: ReadableSpan) -> dict[str, Any]:
    """What a span says, but for ids and times."""
    return {
        "name": span.name,
        "kind": span.kind.name,
        "attributes": dict(span.attributes or {}),
        "status": (span.status.status_code.name, span.status.description),
        "events": [(event.name, dict(event.attributes or {})) for event in span.events],
        "scope": (span.instrumentation_scope.name, span.instrumentation_scope.schema_url),
        "links": list(span.links),
    }
