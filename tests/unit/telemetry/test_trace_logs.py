"""Log records carry the trace they belong to, and a failed call's cluster, route and endpoint."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider

from meshlib import Mesh, MeshError
from meshlib.context import CallContext, serving
from meshlib.engine.commands import abandon
from meshlib.telemetry.logs import FIELDS, TraceFields, install
from meshlib.telemetry.otel.tracing import OtelTracing
from meshlib.telemetry.propagators import Propagation
from parts.flow import ADDRESSES, Player, get, runtime_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
log = logging.getLogger("an.application")


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []
        self.addFilter(TraceFields())

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Any:
    handler = Kept()
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


def test_a_record_outside_of_everything_has_empty_fields(kept: Kept) -> None:
    log.error("alone")
    assert {name: kept.records[0].__dict__[name] for name in FIELDS} == dict.fromkeys(FIELDS, "")


def test_a_record_within_a_span_has_its_ids(kept: Kept) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("app")
    with tracer.start_as_current_span("work") as span:
        log.error("within")
    context = span.get_span_context()
    (record,) = kept.records
    assert (record.trace_id, record.span_id) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")
    assert record.trace_flags == "01"


def test_without_spans_the_callers_trace_is_said(kept: Kept) -> None:
    headers = ((b"traceparent", f"00-{TRACE}-{SPAN}-00".encode()),)
    with serving(CallContext(headers=headers)):
        log.error("served")
    (record,) = kept.records
    assert (record.trace_id, record.span_id, record.trace_flags) == (TRACE, SPAN, "00")


def test_an_exception_of_a_call_says_where_it_went(kept: Kept) -> None:
    with Mesh.static({"payments": ["127.0.0.1:1"]}) as mesh, mesh.http.client("payments") as client:
        try:
            client.get("/")
        except (MeshError, httpx.HTTPError):
            log.exception("no payment")
    (record,) = kept.records
    assert (record.mesh_cluster, record.mesh_route, record.mesh_endpoint, record.mesh_flag) == (
        *("payments", "payments/0", "127.0.0.1:1"),
        "UF",
    )


def test_the_record_factory_does_it_for_every_record() -> None:
    before = logging.getLogRecordFactory()
    uninstall = install()
    try:
        record = log.makeRecord("n", logging.INFO, "f", 1, "m", (), None)
        assert record.__dict__["trace_id"] == ""
    finally:
        uninstall()
    assert logging.getLogRecordFactory() is before


def test_a_record_after_a_call_within_an_attempt_is_the_attempts(kept: Kept) -> None:
    """A guarded function that calls somebody: what it logs afterwards is still of its own attempt."""
    runtime = runtime_of({"outer": ADDRESSES, "inner": ADDRESSES})
    runtime.tracing = OtelTracing(Propagation(), TracerProvider())
    outer = Player(runtime, get("outer"))
    inner = Player(runtime, get("inner"))
    log.error("calling")
    inner.responds(200, at=0.1)
    log.error("called")
    outer.responds(200, at=0.2)
    log.error("done")
    assert [record.mesh_cluster for record in kept.records] == ["inner", "outer", ""]
    inner.body_ends(0.3)
    outer.body_ends(0.3)


def test_attempts_that_overlap_leave_none_behind(kept: Kept) -> None:
    runtime = runtime_of({"one": ADDRESSES, "two": ADDRESSES})
    runtime.tracing = OtelTracing(Propagation(), TracerProvider())
    one, two = Player(runtime, get("one")), Player(runtime, get("two"))
    one.responds(200, at=0.1)
    log.error("two goes on")
    abandon(two.flow, 0.2)
    log.error("done")
    assert [record.mesh_cluster for record in kept.records] == ["two", ""]
    one.body_ends(0.3)
