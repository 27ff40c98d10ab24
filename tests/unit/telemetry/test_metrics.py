"""Metrics: the catalogue is whole, label values are bounded, and both exporters say the same."""

from __future__ import annotations

import re
import threading
from typing import Any
from zlib import crc32

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from meshlib import Mesh
from meshlib.engine.call import call_flow
from meshlib.engine.commands import CallInfo
from meshlib.engine.events import (
    AttemptEnded,
    BreakerChanged,
    CallEnded,
    Event,
    LoadShed,
    RateLimited,
    RequestServed,
)
from meshlib.engine.stats import count
from meshlib.flags import ResponseFlag
from meshlib.model.outcome import Failure, Outcome
from meshlib.model.request import RequestHead
from meshlib.sources.xds.stats import ServerStats, SessionStats, TypeStats
from meshlib.state.cells import STAT_NAMES, ClusterState
from meshlib.telemetry.metrics import catalogue
from meshlib.telemetry.metrics.cells import MAX_LENGTH, MAX_SERIES, OTHER, Cells
from meshlib.telemetry.metrics.metric import Distribution, Metric
from meshlib.testing import faults


def ended(authority: str = "payments", status: int | None = 200, **fields: Any) -> CallEnded:
    info = CallInfo("payments", "payments/0", fields.pop("cluster", "payments"))
    defaults: dict[str, Any] = {"method": "GET", "path": "/x", "flag": None, "duration": 0.02}
    return CallEnded(at=0.0, info=info, authority=authority, status=status, **{**defaults, **fields})


def emit(mesh: Mesh, *events: Event) -> None:
    for event in events:
        mesh.runtime.emit(lambda made=event: made)  # type: ignore[misc]


@pytest.fixture
def mesh() -> Mesh:
    return Mesh.static({"payments": ["10.0.0.1:80", "10.0.0.2:80"]}).start().wait_ready()


class Scraped:
    """What Prometheus would see."""

    def __init__(self, mesh: Mesh) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(mesh.prometheus_collector())

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def series(self, name: str) -> int:
        return sum(sample.name == name for family in self.registry.collect() for sample in family.samples)


# ------------------------------------------------------------------ the catalogue


def test_every_counter_of_a_cluster_is_in_the_catalogue() -> None:
    assert set(STAT_NAMES) == set(catalogue.CLUSTER_STATS) | set(catalogue.CLASSES)


@pytest.mark.parametrize("metric", catalogue.ALL, ids=lambda metric: metric.name)
def test_names_are_well_formed_and_said_of(metric: Metric) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_.]*", metric.name)
    assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.prometheus)
    assert metric.text.endswith(".")
    assert bool(metric.bounds) == (metric.kind == "histogram")
    assert list(metric.bounds) == sorted(set(metric.bounds))


def test_names_are_there_once() -> None:
    for names in ([m.name for m in catalogue.ALL], [m.prometheus for m in catalogue.ALL]):
        assert len(names) == len(set(names))


def test_every_failure_counts_under_a_name_that_is_there() -> None:
    for failure in Failure:
        count(ClusterState("c").stats, Outcome(failure=failure))  # a KeyError is a name that Envoy does not have


# ------------------------------------------------------------------ what is measured


def test_calls_attempts_and_requests_are_measured(mesh: Mesh) -> None:
    seen = Scraped(mesh)
    emit(
        mesh,
        ended(),
        ended(status=503, flag=ResponseFlag.URX, duration=0.2),
        ended(status=None, flag=ResponseFlag.UH),
        AttemptEnded(0.0, "payments", "10.0.0.1:80", 1, 200, 0.003),
        RequestServed(0.0, "POST", "/items/7", "/items/{id}", 201, None, None, 0.5),
        RateLimited(0.0, "inbound", "/items/7"),
        LoadShed(0.0, "bulkhead", "/items/7", 3),
        LoadShed(1.0, "bulkhead", "/items/8", 4),
        BreakerChanged(0.0, "payments", "closed", "open", "5 failures"),
    )
    call = {"http_request_method": "GET", "server_address": "payments", "meshlib_cluster": "payments"}
    name = "http_client_request_duration_seconds"
    assert seen.value(f"{name}_count", **call, http_response_status_code="200", error_type="") == 1
    assert seen.value(f"{name}_sum", **call, http_response_status_code="503", error_type="503") == 0.2
    assert seen.value(f"{name}_count", **call, http_response_status_code="", error_type="UH") == 1
    assert seen.value("envoy_cluster_upstream_rq_time_sum", envoy_cluster_name="payments") == 3.0
    assert seen.value("envoy_cluster_upstream_rq_time_bucket", envoy_cluster_name="payments", le="1.0") == 0
    assert seen.value("envoy_cluster_upstream_rq_time_bucket", envoy_cluster_name="payments", le="5.0") == 1
    served = {"http_request_method": "POST", "http_route": "/items/{id}", "error_type": ""}
    assert seen.value("http_server_request_duration_seconds_count", **served, http_response_status_code="201") == 1
    assert seen.value("meshlib_rate_limited_total", meshlib_rate_limit="inbound") == 1
    assert seen.value("meshlib_load_shed_total", meshlib_load_shedding="bulkhead") == 7
    changes = {"meshlib_circuit_breaker": "payments", "meshlib_state": "open"}
    assert seen.value("meshlib_circuit_breaker_transitions_total", **changes) == 1


def test_a_grpc_call_is_measured_as_one(mesh: Mesh) -> None:
    seen, event = Scraped(mesh), ended(path="/pkg.Pay/Charge", method="POST")
    event.info.grpc_status = 14
    served = RequestServed(0.0, "POST", "/pkg.Pay/Charge", "", None, 0, None, 0.1)
    emit(mesh, event, served)
    named = {"rpc_service": "pkg.Pay", "rpc_method": "Charge"}
    client = {**named, "rpc_grpc_status_code": "14", "server_address": "payments", "meshlib_cluster": "payments"}
    assert seen.value("rpc_client_duration_milliseconds_sum", **client) == 20.0
    assert seen.value("rpc_server_duration_milliseconds_sum", **named, rpc_grpc_status_code="0") == 100.0


def test_clusters_are_counted_under_envoys_names(mesh: Mesh) -> None:
    seen, stats = Scraped(mesh), mesh.runtime.state.clusters["payments"].stats
    for name in ["upstream_rq_total"] * 3 + ["upstream_rq_5xx"] * 2 + ["upstream_rq_retry_overflow"]:
        stats[name].add()
    assert seen.value("envoy_cluster_upstream_rq_total", envoy_cluster_name="payments") == 3
    classed = {"envoy_cluster_name": "payments", "envoy_response_code_class": "5"}
    assert seen.value("envoy_cluster_upstream_rq_xx", **classed) == 2
    assert seen.value("envoy_cluster_upstream_rq_retry_overflow", envoy_cluster_name="payments") == 1
    assert seen.value("envoy_cluster_membership_healthy", envoy_cluster_name="payments") == 2
    assert seen.value("meshlib_ready") == 1
    assert seen.value("meshlib_plan_version") == crc32(mesh.plan.snapshot.version.encode())
    assert (seen.value("meshlib_plan_age_seconds") or 0.0) < 60


def test_what_filters_have_done_is_counted_by_name() -> None:
    limits = {"payments": ["2/hour"]}
    mesh = Mesh.static({"payments": ["10.0.0.1:80"]}, rate_limits=limits, seed=1).start().wait_ready()
    seen = Scraped(mesh)
    assert seen.value("meshlib_fault_active") is None
    for _ in range(3):
        flow = call_flow(mesh.runtime, RequestHead("GET", "http", "payments", "/", []), 0.0)
        next(flow)
        flow.close()
    stat = "2/hour.http_local_rate_limit"
    assert seen.value("meshlib_filter_stats_total", meshlib_stat=f"{stat}.ok") == 2
    assert seen.value("meshlib_filter_stats_total", meshlib_stat=f"{stat}.enforced") == 1
    with faults(mesh, "payments", abort=503):
        flow = call_flow(mesh.runtime, RequestHead("GET", "http", "payments", "/", []), 0.0)
        next(flow)
        assert seen.value("meshlib_filter_stats_total", meshlib_stat="fault.aborts_injected") == 1
        assert seen.value("meshlib_fault_active") == 0
        flow.close()


def test_what_the_control_plane_says_is_read_when_asked(mesh: Mesh) -> None:
    kind = TypeStats("7", 3, 3, updates_valid=9, updates_invalid=1)
    server = ServerStats("xds:18000", True, False, None, 2)
    stats = SessionStats(
        "xds:18000", True, None, 1, (server,), {"type.googleapis.com/envoy.config.cluster.v3.Cluster": kind}
    )
    mesh.source.stats = lambda: stats  # type: ignore[attr-defined]
    seen = Scraped(mesh)
    assert seen.value("envoy_control_plane_connected_state", meshlib_xds_server="xds:18000") == 1
    assert seen.value("meshlib_xds_resources", meshlib_xds_type="Cluster") == 3
    assert seen.value("meshlib_xds_resource_updates_invalid_total", meshlib_xds_type="Cluster") == 1


# ------------------------------------------------------------------ bounds


def test_ten_thousand_hostile_names_are_a_thousand_series(mesh: Mesh) -> None:
    seen = Scraped(mesh)
    for number in range(10_000):
        emit(mesh, ended(f"{number}.evil.example", 200 + number % 700, method=f"M{number}"))
    assert seen.series("http_client_request_duration_seconds_count") <= MAX_SERIES + 1
    other = dict.fromkeys(catalogue.CLIENT_DURATION.prometheus_labels, OTHER)
    assert seen.value("http_client_request_duration_seconds_count", **other) == 10_000 - MAX_SERIES
    text = generate_latest(seen.registry).decode()
    assert "M77" not in text  # a method of the caller's invention is no label at all


def test_paths_are_no_labels(mesh: Mesh) -> None:
    seen = Scraped(mesh)
    emit(mesh, ended(path="/user/4711"), RequestServed(0.0, "GET", "/user/4711", "", 404, None, None, 0.1))
    assert "4711" not in generate_latest(seen.registry).decode()


def test_long_label_values_are_cut() -> None:
    cells = Cells()
    for _ in range(2):
        cells.record(catalogue.RATE_LIMITED, ("x" * 10_000,), 1)
    ((_, labels, value),) = cells.samples()
    assert (len(labels[0]), value) == (MAX_LENGTH, 2)


def test_no_measurement_is_lost_between_threads() -> None:
    cells = Cells()

    def work() -> None:
        for _ in range(5_000):
            cells.record(catalogue.UPSTREAM_TIME, ("c",), 2.0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((_, _, value),) = cells.samples()
    assert isinstance(value, Distribution)
    assert (sum(value.counts), value.sum) == (40_000, 80_000.0)


# ------------------------------------------------------------------ the exporters


def test_both_text_formats_can_be_read(mesh: Mesh) -> None:
    seen = Scraped(mesh)
    emit(mesh, ended(), BreakerChanged(0.0, 'na"me\n', "closed", "open", ""))
    families = list(text_string_to_metric_families(generate_latest(seen.registry).decode()))
    assert {"envoy_cluster_upstream_rq_retry", "meshlib_ready"} <= {family.name for family in families}
    assert openmetrics(seen.registry).endswith(b"# EOF\n")


def test_a_second_collector_of_the_same_names_is_refused(mesh: Mesh) -> None:
    seen = Scraped(mesh)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        seen.registry.register(mesh.prometheus_collector())


def test_opentelemetry_says_the_same() -> None:
    reader = InMemoryMetricReader()
    mesh = Mesh.static({"payments": ["10.0.0.1:80"]}).start().wait_ready()
    mesh.instrument(meter_provider=MeterProvider([reader], shutdown_on_exit=False), spans=False)
    assert mesh.runtime.tracing is None
    emit(mesh, ended(), ended(status=503), RateLimited(0.0, "inbound", "/"))
    for _ in range(5):
        mesh.runtime.state.clusters["payments"].stats["upstream_rq_2xx"].add()
    found = _collected(reader)
    assert {metric.name for metric in catalogue.ALL} >= set(found)
    (ok, failed) = sorted(
        found["http.client.request.duration"].points, key=lambda p: p.attributes["http.response.status_code"]
    )
    assert dict(ok.attributes) == {
        "http.request.method": "GET",
        "server.address": "payments",
        "http.response.status_code": 200,
        "meshlib.cluster": "payments",
    }
    assert failed.attributes["error.type"] == "503"
    assert tuple(ok.explicit_bounds) == catalogue.SECONDS
    assert [point.value for point in found["meshlib.rate_limited"].points] == [1]
    classed = {
        point.attributes["http.response.status_class"]: point.value
        for point in found["meshlib.cluster.upstream_rq_xx"].points
    }
    assert classed == {"2": 5, "3": 0, "4": 0, "5": 0}
    mesh.uninstrument()
    assert not mesh.runtime.observers
    assert "meshlib.ready" not in _collected(reader)


def test_opentelemetrys_series_are_bounded_too() -> None:
    reader = InMemoryMetricReader()
    mesh = Mesh.static({"payments": ["10.0.0.1:80"]})
    mesh.instrument(meter_provider=MeterProvider([reader], shutdown_on_exit=False), spans=False)
    for number in range(3 * MAX_SERIES):
        emit(mesh, ended(f"{number}.evil.example"))
    assert len(_collected(reader)["http.client.request.duration"].points) == MAX_SERIES + 1


class _Found:
    def __init__(self, metric: Any) -> None:
        self.points = list(metric.data.data_points)


def _collected(reader: InMemoryMetricReader) -> dict[str, _Found]:
    data = reader.get_metrics_data()
    scopes = [scope for resource in (data.resource_metrics if data else []) for scope in resource.scope_metrics]
    return {metric.name: _Found(metric) for scope in scopes for metric in scope.metrics}
