"""Readings: the values a runtime has at any moment, read when somebody asks: nothing is kept for them."""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.runtime import Runtime
from meshlib.model.cluster import Thresholds
from meshlib.policy.budget import retry_limit
from meshlib.state.cells import ClusterState, PriorityState
from meshlib.telemetry.metrics import catalogue
from meshlib.telemetry.metrics.metric import Sample

ACTIVE_FAULTS = "fault.active_faults"
BREAKER_STATES = {"closed": 0, "half-open": 1, "open": 2}


def read(runtime: Runtime) -> Iterator[Sample]:
    """Counters and gauges of every cluster of the plan in force. Names come from configuration only."""
    plan = runtime.plan
    states = runtime.state.clusters
    for name, cluster in list(plan.clusters.items()):
        state = states.get(name)
        if state is not None:
            yield from _counters(state)
            yield from _gauges(cluster, state)
    yield from _filters(runtime)
    yield Sample(catalogue.PLAN_VERSION, (), crc32(plan.snapshot.version.encode()))
    yield Sample(catalogue.PLAN_CLUSTERS, (), len(plan.clusters))


def _filters(runtime: Runtime) -> Iterator[Sample]:
    for name, value in runtime.filters.counts():
        yield Sample(catalogue.FILTER_STATS, (name,), value)
    faults = runtime.faults.stats()
    active = faults.pop(ACTIVE_FAULTS, None)
    for name, value in faults.items():
        yield Sample(catalogue.FILTER_STATS, (name,), value)
    if active is not None:
        yield Sample(catalogue.ACTIVE_FAULTS, (), active)


def _counters(state: ClusterState) -> Iterator[Sample]:
    labels = (state.name,)
    for stat, counter in state.stats.items():
        if stat in catalogue.CLASSES:
            yield Sample(catalogue.RESPONSES, (catalogue.CLASSES[stat], state.name), counter.value)
        else:
            yield Sample(catalogue.CLUSTER_STATS[stat], labels, counter.value)


def _gauges(cluster: ClusterPlan, state: ClusterState) -> Iterator[Sample]:
    labels = (cluster.name,)
    both = (state.default, state.high)
    hosts = cluster.balancer.hosts
    well = sum(host.endpoint.health_status in _WELL and host.cell.usable for host in hosts)
    yield Sample(catalogue.ACTIVE, labels, sum(len(load.requests) for load in both))
    yield Sample(catalogue.PENDING, labels, sum(len(load.pending) for load in both))
    yield Sample(catalogue.CONNECTIONS, labels, sum(len(load.connections) for load in both))
    yield Sample(catalogue.MEMBERS, labels, len(hosts))
    yield Sample(catalogue.HEALTHY, labels, well)
    if cluster.config.health_checks:
        probed = [host.cell.probed for host in hosts]
        failed, degraded = (sum(each is not None and each[flag] for each in probed) for flag in (0, 1))
        yield Sample(catalogue.CHECKED_HEALTHY, labels, len(hosts) - failed)
        yield Sample(catalogue.CHECKED_DEGRADED, labels, degraded)
    yield Sample(catalogue.EJECTED, labels, len(state.ejected))
    limits = cluster.config.circuit_breakers
    yield from _thresholds("default", labels, state.default, limits.default)
    yield from _thresholds("high", labels, state.high, limits.high)
    if cluster.circuits is not None:
        yield Sample(catalogue.ENDPOINTS_OUT, labels, len(state.tripped))
    current = getattr(cluster.breaker, "current_state", None)
    if current in BREAKER_STATES:
        yield Sample(catalogue.BREAKER, labels, BREAKER_STATES[current])


def _thresholds(priority: str, labels: tuple[str, ...], load: PriorityState, limits: Thresholds) -> Iterator[Sample]:
    """Which thresholds are reached, and with `track_remaining` how much room they leave. Of a retry budget no room is
    told, as in Envoy: it changes with the requests.
    """
    for short, count, limit in (
        ("cx", len(load.connections), limits.max_connections),
        ("rq_pending", len(load.pending), limits.max_pending_requests),
        ("rq", len(load.requests), limits.max_requests),
        ("rq_retry", len(load.retries), retry_limit(load, limits)),
    ):
        yield Sample(catalogue.THRESHOLD_OPEN[priority, short], labels, int(count >= limit))
        if limits.track_remaining:
            told = 0 if short == "rq_retry" and limits.retry_budget is not None else limit
            yield Sample(catalogue.THRESHOLD_REMAINING[priority, short], labels, max(0, told - count))


_WELL = frozenset(("HEALTHY", "UNKNOWN", "DEGRADED"))
