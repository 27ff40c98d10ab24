"""Direct spans are the SDK's own, but for their price: the same calls by both ways, told apart by nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)

from meshlib.model.outcome import Failure
from meshlib.telemetry.otel.direct import DirectSpans, direct_gate
from meshlib.telemetry.otel.tracing import OtelTracing
from meshlib.telemetry.propagators import Propagation
from parts.flow import Player, get, runtime_of
from parts.spans import Spans, told

PARENTS = {
    "none": (),
    "sampled": ((b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"), (b"tracestate", b"a=b")),
    "unsampled": ((b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),),
}


class Seeded(RandomIdGenerator):
    """The same ids in every run."""

    def __init__(self) -> None:
        self._rng = random.Random(3)

    def generate_span_id(self) -> int:
        return self._rng.getrandbits(64)

    def generate_trace_id(self) -> int:
        return self._rng.getrandbits(128)


class Watches(SpanProcessor):
    """A processor that wants to know of spans when they start."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        span.set_attribute("seen", True)


class Custom(Sampler):
    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        return SamplingResult(Decision.RECORD_AND_SAMPLE, {"sampled.by": "custom"})

    def get_description(self) -> str:
        return "custom"


def play(spans: Spans, headers: Any, local: bool, *, direct: bool) -> None:
    """Two calls: one retried and well in the end, one that fails."""
    runtime = runtime_of(rng=random.Random(1), retries=1)
    tracing = runtime.tracing = OtelTracing(Propagation(), spans.provider)
    assert isinstance(tracing.spans(), DirectSpans)
    if not direct:
        tracing._gate = None
    tracer = spans.provider.get_tracer("app")
    with tracer.start_as_current_span("app") if local else _nothing():
        for last in (None, Failure.RESET):
            player = Player(runtime, get("payments", "/a?b=c", *headers), now=5.0)
            player.responds(503, at=5.1)
            player.send(5.1)
            player.send(5.2)
            if last is None:
                player.responds(200, at=5.3)
                player.body_ends(5.4)
            else:
                player.fails(last, at=5.3)
                player.close()


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize(
    "sampler",
    [ALWAYS_ON, ALWAYS_OFF, ParentBased(ALWAYS_ON), TraceIdRatioBased(0.5), ParentBasedTraceIdRatio(0.5)],
    ids=lambda sampler: type(sampler).__name__,
)
def test_both_ways_tell_the_same(sampler: Sampler, parent: str, local: bool) -> None:
    ways = []
    for direct in (True, False):
        spans = Spans(sampler=sampler, id_generator=Seeded(), resource=Resource({"service.name": "shop"}))
        play(spans, PARENTS[parent], local, direct=direct)
        ways.append([span for span in spans.ended if span.name != "app"])
    direct_way, api_way = ways
    assert [told(span) for span in direct_way] == [told(span) for span in api_way]
    for one, other in zip(direct_way, api_way, strict=True):
        assert one.context == other.context
        assert one.parent == other.parent
        assert one.resource == other.resource
        assert one.end_time - one.start_time == other.end_time - other.start_time
        assert one.dropped_attributes == one.dropped_events == one.dropped_links == 0
        one.to_json()
    encode_spans(direct_way)


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": Custom()},
        {"sampler": StaticSampler(Decision.RECORD_ONLY)},
        {"sampler": ParentBased(Custom())},
        {"sampler": ParentBased(ALWAYS_ON, local_parent_not_sampled=ALWAYS_ON)},
        {"processor": Watches()},
        {"span_limits": SpanLimits(max_span_attributes=5)},
        {"span_limits": SpanLimits(max_span_attribute_length=5)},
    ],
    ids=[
        "own-sampler",
        "record-only",
        "own-root",
        "own-local-parent",
        "own-processor",
        "count-limit",
        "length-limit",
    ],
)
def test_where_somebody_could_tell_the_sdk_makes_the_spans(options: dict[str, Any]) -> None:
    spans = Spans(**options)
    tracing = OtelTracing(Propagation(), spans.provider)
    assert not isinstance(tracing.spans(), DirectSpans)


def test_a_processor_that_comes_later_is_noticed() -> None:
    spans = Spans()
    runtime = runtime_of()
    tracing = runtime.tracing = OtelTracing(Propagation(), spans.provider)
    assert isinstance(tracing.spans(), DirectSpans)
    spans.provider.add_span_processor(Watches())
    assert not isinstance(tracing.spans(), DirectSpans)
    player = Player(runtime)
    player.responds(200, at=0.1)
    player.body_ends(0.1)
    assert [span.attributes["seen"] for span in spans.ended] == [True, True]


def test_another_tracer_is_none_of_the_sdks() -> None:
    class Tracer:
        pass

    assert direct_gate(Tracer()) is None
