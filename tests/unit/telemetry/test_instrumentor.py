"""MeshlibInstrumentor: every mesh, those there are and those to come, and back."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib import Mesh
from meshlib.telemetry.instrumentor import MeshlibInstrumentor
from parts.spans import Spans


@pytest.fixture
def instrumentor() -> Any:
    made = MeshlibInstrumentor()
    yield made
    if made.is_instrumented_by_opentelemetry:
        made.uninstrument()


def test_every_mesh_is_instrumented_and_back(instrumentor: Any) -> None:
    before = Mesh.static({"payments": ["10.0.0.1:80"]})
    spans = Spans()
    instrumentor.instrument(tracer_provider=spans.provider, somebody_elses_option=1)
    after = Mesh.static({"payments": ["10.0.0.1:80"]})
    for mesh in (before, after):
        assert mesh.runtime.tracing is not None
        assert len(mesh.runtime.observers) == 1
    instrumentor.uninstrument()
    later = Mesh.static({"payments": ["10.0.0.1:80"]})
    for mesh in (before, after, later):
        assert mesh.runtime.tracing is None
        assert not mesh.runtime.observers


def test_instrumenting_twice_counts_once() -> None:
    mesh = Mesh.static({"payments": ["10.0.0.1:80"]})
    mesh.instrument()
    mesh.instrument()
    assert len(mesh.runtime.observers) == 1
    mesh.uninstrument()
    mesh.uninstrument()
    assert mesh.runtime.tracing is None


def test_parts_can_be_left_out() -> None:
    mesh = Mesh.static({"payments": ["10.0.0.1:80"]})
    mesh.instrument(spans=False)
    assert mesh.runtime.tracing is None
    mesh.instrument(metrics=False)
    assert not mesh.runtime.observers
    assert mesh.runtime.tracing is not None


def test_a_forked_child_goes_on_and_counts_anew() -> None:
    mesh = Mesh.static({"payments": ["10.0.0.1:80"]})
    mesh.instrument(metrics=False)
    collector = mesh.prometheus_collector()
    from meshlib.engine.events import RateLimited

    mesh.runtime.emit(lambda: RateLimited(0.0, "x", "/"))
    assert "meshlib_rate_limited" in {family.name for family in collector.collect()}
    mesh._after_fork()
    assert "meshlib_rate_limited" not in {family.name for family in collector.collect()}
    mesh.runtime.emit(lambda: RateLimited(0.0, "x", "/"))
    assert "meshlib_rate_limited" in {family.name for family in collector.collect()}
    assert mesh.runtime.tracing is not None
    mesh.uninstrument()
    assert mesh.runtime.tracing is None
