"""A span processor, sampler or exporter of the application's that raises: calls and requests go on without it."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler

from meshlib.engine.commands import Start
from meshlib.engine.watch import watch
from meshlib.telemetry.otel.tracing import OtelTracing
from meshlib.telemetry.propagators import Propagation
from parts.flow import ENDED, Player, get, runtime_of


class FailsAtTheEnd(SpanProcessor):
    def on_end(self, span: Any) -> None:
        raise RuntimeError("no room for spans")


class FailsAtTheStart(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("no room for spans")


class FailsBelow(SpanProcessor):
    """Takes the call's span, and not those of its attempts."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if span.parent is not None:
            raise RuntimeError("no room for spans")


class FailingSampler(Sampler):
    def should_sample(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no room for spans")

    def get_description(self) -> str:
        return "fails"


def provider_of(part: Any) -> TracerProvider:
    if isinstance(part, Sampler):
        return TracerProvider(sampler=part)
    provider = TracerProvider()
    provider.add_span_processor(part)
    return provider


PARTS = [FailsAtTheEnd, FailsAtTheStart, FailsBelow, FailingSampler]


@pytest.mark.parametrize("part", PARTS)
def test_a_call_goes_on(part: Any, caplog: pytest.LogCaptureFixture) -> None:
    runtime = runtime_of(retries=1)
    runtime.tracing = OtelTracing(Propagation(), provider_of(part()))
    player = Player(runtime)
    player.responds(503, at=0.1)
    player.send(0.1)
    player.send(0.2)
    assert isinstance(player.last, Start)
    player.responds(200, at=0.3)
    assert player.body_ends(0.4) is ENDED
    assert "no room for spans" in caplog.text
    cluster = runtime.plan.clusters["payments"]
    assert not cluster.state.default.requests, "what the call held has been given back"


@pytest.mark.parametrize("part", PARTS)
def test_a_request_is_served(part: Any) -> None:
    runtime = runtime_of()
    runtime.tracing = OtelTracing(Propagation(), provider_of(part()))
    trace = (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    watched = watch(runtime, get("payments", "/", trace), 0.0)
    if watched is not None:
        watched.enter()
        watched.leave()
        watched.ended(0.1, 200, route="/charge")
