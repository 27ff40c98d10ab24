"""A mesh whose configuration changes for ever holds no more than its last configuration."""

from __future__ import annotations

import gc
import random
from dataclasses import replace

from meshlib.engine.filters import Filter
from meshlib.engine.runtime import Runtime
from meshlib.model.cluster import OutlierDetection
from meshlib.model.filters import HttpFilter, LocalRateLimit, RouterFilter, TokenBucket
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import FractionalPercent
from meshlib.model.metadata import EMPTY_STRUCT
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import static_cluster, static_snapshot
from meshlib.state.cells import Ejection, EndpointState

ALWAYS = FractionalPercent(100)


def snapshot_of(version: int, tokens: int) -> Snapshot:
    base = static_snapshot({f"v{version}": [f"10.0.{version % 250}.1:80"]}, routes={"payments": f"v{version}"})
    limit = LocalRateLimit("limit", TokenBucket(tokens), ALWAYS, ALWAYS)
    (table,) = base.routes.values()
    manager = HttpConnectionManager(table, (HttpFilter("limit", limit), HttpFilter("router", RouterFilter())))
    return replace(base, routes={}, listeners={"egress": Listener("egress", (manager,))})


def test_clusters_endpoints_and_buckets_of_old_versions_are_let_go() -> None:
    runtime = Runtime(random.Random(1))
    for version in range(50):
        runtime.install(runtime.compile(snapshot_of(version, tokens=1 + version), runtime.plan))
    gc.collect()
    assert list(runtime.state.clusters) == ["v49"]
    assert list(runtime.state.clusters["v49"].endpoints) == ["10.0.49.1:80"]
    assert len(runtime.filters) == 2, "a filter, and its buckets"


def test_a_bucket_outlives_a_plan_that_does_not_change_it() -> None:
    runtime = Runtime(random.Random(1))
    runtime.install(runtime.compile(snapshot_of(1, tokens=5), runtime.plan))
    before = the_filter(runtime)
    runtime.install(runtime.compile(snapshot_of(2, tokens=5), runtime.plan))
    gc.collect()
    assert the_filter(runtime) is before


def the_filter(runtime: Runtime) -> Filter:
    host = runtime.plan.find("http", "payments")
    assert host is not None
    (found,) = host.routes[0].shares[0].filters
    return found


def ejected_runtime() -> tuple[Runtime, EndpointState]:
    runtime = Runtime(random.Random(1))
    runtime.install(runtime.compile(with_outliers(OutlierDetection(), "10.0.0.1:80"), runtime.plan))
    cluster = runtime.state.clusters["a"]
    cell = cluster.endpoints["10.0.0.1:80"]
    cell.ejection = Ejection(0.0, 30.0, "consecutive_5xx")
    cluster.ejected[cell] = None
    cluster.availability_changed()
    return runtime, cell


def with_outliers(detection: OutlierDetection | None, *endpoints: str) -> Snapshot:
    return static_snapshot({"a": static_cluster("a", endpoints, outlier_detection=detection)})


def test_endpoints_come_back_when_outlier_detection_is_taken_away() -> None:
    runtime, cell = ejected_runtime()
    runtime.install(runtime.compile(with_outliers(None, "10.0.0.1:80"), runtime.plan))
    assert not cell.ejected
    picked = runtime.plan.clusters["a"].balancer.pick(None, EMPTY_STRUCT, runtime.rng)
    assert picked is not None
    assert picked.cell is cell


def test_a_plan_that_is_not_installed_changes_nothing() -> None:
    runtime, cell = ejected_runtime()
    cluster = runtime.state.clusters["a"]
    runtime.compile(with_outliers(None, "10.0.0.9:80"), runtime.plan)
    assert cell.ejected
    assert cluster.endpoints["10.0.0.1:80"] is cell
    assert list(cluster.ejected) == [cell]
