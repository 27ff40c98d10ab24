"""The record of self-healing: one state for each subject, whoever holds it out."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meshlib import Mesh
from meshlib.admin.pages import pages
from meshlib.engine.events import (
    BreakerChanged,
    EndpointEjected,
    EndpointHealthChanged,
    EndpointReachable,
    EndpointReturned,
    EndpointUnreachable,
    Event,
    HealingChanged,
    RateLimited,
)
from meshlib.engine.healing import SIZE, HealingRecord
from meshlib.model.cluster import CircuitBreaker, OutlierDetection
from meshlib.sources.static import static_cluster
from parts.flow import ADDRESSES, Player, get, runtime_of

ONE = ("up", "10.0.0.1:80")


def ejected(at: float = 1.0) -> EndpointEjected:
    return EndpointEjected(at, *ONE, "consecutive_5xx", 30.0)


def returned(at: float = 31.0) -> EndpointReturned:
    return EndpointReturned(at, *ONE)


def breaker(old: str, new: str) -> BreakerChanged:
    return BreakerChanged(2.0, "up", old, new, "5 failures in a row")


def test_health_checks_hold_out_whom_they_find_unhealthy() -> None:
    record = HealingRecord()
    sick = EndpointHealthChanged(1.0, *ONE, "degraded", "unhealthy", "status 503")
    assert record.take(sick) == HealingChanged(1.0, *ONE, "healthy", "isolated", "health checks", "status 503")
    assert record.take(ejected()) is None
    assert record.take(EndpointHealthChanged(2.0, *ONE, "unhealthy", "degraded", "degraded")) is None
    change = record.take(EndpointReturned(3.0, *ONE, "a health check succeeded"))
    assert change is not None
    assert (change.new, change.reason) == ("healthy", "a health check succeeded")


def test_an_endpoint_goes_out_and_comes_back() -> None:
    record = HealingRecord()
    assert record.take(ejected()) == HealingChanged(
        1.0, *ONE, "healthy", "isolated", "outlier detection", "consecutive_5xx, for 30 s"
    )
    assert record.out() == {ONE: "isolated"}
    change = record.take(returned())
    assert change is not None
    assert (change.old, change.new, change.reason) == ("isolated", "healthy", "its time is over")
    assert record.out() == {}
    assert [change.new for change in record.changes] == ["isolated", "healthy"]


def test_a_breaker_is_probed_in_between() -> None:
    record = HealingRecord()
    states = [("closed", "open"), ("open", "half-open"), ("half-open", "open"), ("open", "half-open")]
    for old, new in (*states, ("half-open", "closed")):
        record.take(breaker(old, new))
    seen = [change.new for change in record.changes]
    assert seen == ["isolated", "probing", "isolated", "probing", "healthy"]
    assert {(change.cluster, change.endpoint, change.by) for change in record.changes} == {
        ("up", "", "circuit breaker")
    }


def test_who_is_held_out_twice_is_back_when_both_let_go() -> None:
    record = HealingRecord()
    record.take(ejected())
    assert record.take(EndpointUnreachable(2.0, *ONE)) is None
    assert record.take(returned()) is None
    assert record.out() == {ONE: "isolated"}
    change = record.take(EndpointReachable(40.0, *ONE))
    assert change is not None
    assert (change.new, change.by) == ("healthy", "connections")


def test_other_events_are_nothing_to_it_and_the_record_is_bounded() -> None:
    record = HealingRecord()
    assert record.take(RateLimited(0.0, "inbound", "/")) is None
    for number in range(SIZE):
        record.take(ejected(number))
        record.take(returned(number))
    assert len(record.changes) == SIZE


@given(st.lists(st.sampled_from(["eject", "return", "lose", "reach"]), max_size=30))
def test_the_changes_are_a_chain_that_ends_where_the_subject_is(script: list[str]) -> None:
    record = HealingRecord()
    make: dict[str, Event] = {
        "eject": ejected(),
        "return": returned(),
        "lose": EndpointUnreachable(1.0, *ONE),
        "reach": EndpointReachable(1.0, *ONE),
    }
    for word in script:
        record.take(make[word])
    state = "healthy"
    for change in record.changes:
        assert change.old == state
        assert change.new != change.old
        state = change.new
    assert record.out() == ({} if state == "healthy" else {ONE: state})


# ---------------------------------------------------------------------------------------------- where it is seen


def failing(**fields: Any) -> Any:
    """A runtime after a call whose endpoint was ejected for it."""
    detection = OutlierDetection(consecutive_5xx=1, max_ejection_percent=100)
    runtime = runtime_of({"payments": static_cluster("payments", ADDRESSES, outlier_detection=detection, **fields)})
    Player(runtime, get()).responds(503, 1.0)
    return runtime


def test_it_is_logged_once_with_what_and_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "meshlib"):
        failing()
    (message,) = [record.message for record in caplog.records]
    assert "of payments: healthy -> isolated by outlier detection (consecutive_5xx: 1 in a row, for 30 s)" in message


def test_observers_hear_of_it_after_its_cause() -> None:
    seen: list[Event] = []
    runtime = runtime_of()
    runtime.observers = (seen.append,)
    runtime.turn(ejected())
    assert [type(event) for event in seen] == [EndpointEjected, HealingChanged]


def test_endpoints_that_leave_are_forgotten() -> None:
    runtime = failing()
    assert len(runtime.healing.out()) == 1
    runtime.install(runtime.compile(runtime_of({"payments": ["10.9.9.9:1"]}).plan.snapshot, runtime.plan))
    assert runtime.healing.out() == {}


def test_it_is_an_event_of_the_current_span() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    mesh = Mesh.static({"payments": ["10.0.0.1:1"]})
    mesh.instrument(tracer_provider=provider, metrics=False)
    with provider.get_tracer("shop").start_as_current_span("order"):
        mesh.runtime.turn(ejected())
    (span,) = exporter.get_finished_spans()
    (event,) = span.events
    assert event.name == "meshlib.isolated"
    assert dict(event.attributes or {}) == {
        "meshlib.cluster": "up",
        "meshlib.endpoint": "10.0.0.1:80",
        "meshlib.old": "healthy",
        "meshlib.new": "isolated",
        "meshlib.by": "outlier detection",
        "meshlib.reason": "consecutive_5xx, for 30 s",
    }


def test_the_admin_page() -> None:
    runtime = failing(circuit_breaker=CircuitBreaker(fail_max=1))
    said = json.loads(pages(lambda: runtime, lambda: True)["/healing"]((), ""))
    endpoint = said["out"][0]["endpoint"]
    assert said["out"][0] == {"cluster": "payments", "endpoint": endpoint, "state": "isolated"}
    (change,) = said["changes"]
    assert change.pop("seconds_ago") > 0
    assert change == {
        "cluster": "payments",
        "endpoint": endpoint,
        "old": "healthy",
        "new": "isolated",
        "by": "outlier detection",
        "reason": "consecutive_5xx: 1 in a row, for 30 s",
    }


def test_the_breaker_of_an_endpoint_is_about_the_endpoint_and_tells_its_figures() -> None:
    record = HealingRecord()
    figures = {"calls": 20.0, "failure_rate": 55.0}
    opened = BreakerChanged(
        1.0, "payments@10.0.0.1:80", "closed", "open", "failure rate", figures, "payments", "10.0.0.1:80"
    )
    change = record.take(opened)
    assert change is not None
    assert (change.cluster, change.endpoint, change.new) == ("payments", "10.0.0.1:80", "isolated")
    assert change.reason == "failure rate: calls=20, failure_rate=55"
