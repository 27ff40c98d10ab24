"""Every metric there is. The page docs/telemetry.md is written from this file, and the exporters know no other names.

Sources: OpenTelemetry's HTTP and RPC metric conventions (names, units, bucket boundaries); Envoy's cluster statistics
and the names its Prometheus endpoint gives them, so that dashboards and alerts made for Envoy carry over.
"""

from __future__ import annotations

from meshlib.telemetry.metrics.metric import Metric

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# Envoy's own buckets, milliseconds.
MILLISECONDS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000)
_CLUSTER = ("meshlib.cluster",)

CLIENT_DURATION = Metric(
    "http.client.request.duration",
    "histogram",
    "http_client_request_duration_seconds",
    "Duration of HTTP calls as the caller sees them: with retries, and with the body.",
    "s",
    ("http.request.method", "server.address", "http.response.status_code", "error.type", "meshlib.cluster"),
    SECONDS,
)
SERVER_DURATION = Metric(
    "http.server.request.duration",
    "histogram",
    "http_server_request_duration_seconds",
    "Duration of HTTP requests served behind the mesh's middleware.",
    "s",
    ("http.request.method", "http.route", "http.response.status_code", "error.type"),
    SECONDS,
)
RPC_CLIENT_DURATION = Metric(
    "rpc.client.duration",
    "histogram",
    "rpc_client_duration_milliseconds",
    "Duration of gRPC calls as the caller sees them: with retries, until the status.",
    "ms",
    ("rpc.service", "rpc.method", "rpc.grpc.status_code", "server.address", "meshlib.cluster"),
    tuple(1000 * bound for bound in SECONDS),
)
RPC_SERVER_DURATION = Metric(
    "rpc.server.duration",
    "histogram",
    "rpc_server_duration_milliseconds",
    "Duration of gRPC calls served behind the mesh's interceptor.",
    "ms",
    ("rpc.service", "rpc.method", "rpc.grpc.status_code"),
    tuple(1000 * bound for bound in SECONDS),
)
UPSTREAM_TIME = Metric(
    "meshlib.cluster.upstream_rq_time",
    "histogram",
    "envoy_cluster_upstream_rq_time",
    "Time of each attempt until its response headers, or its failure.",
    "ms",
    _CLUSTER,
    MILLISECONDS,
)
RATE_LIMITED = Metric(
    "meshlib.rate_limited",
    "counter",
    "meshlib_rate_limited_total",
    "Requests and calls a limit refused.",
    labels=("meshlib.rate_limit",),
)
LOAD_SHED = Metric(
    "meshlib.load_shed",
    "counter",
    "meshlib_load_shed_total",
    "Requests a server refused because it had enough to do; told once a second, so that the last ones come late.",
    labels=("meshlib.load_shedding",),
)
BREAKER_CHANGES = Metric(
    "meshlib.circuit_breaker.transitions",
    "counter",
    "meshlib_circuit_breaker_transitions_total",
    "Changes of a circuit breaker into a state.",
    labels=("meshlib.circuit_breaker", "meshlib.state"),
)
HEALING = Metric(
    "meshlib.self_healing.changes",
    "counter",
    "meshlib_self_healing_changes_total",
    "Endpoints, and clusters by their breakers, that became isolated, probing or healthy again.",
    labels=("meshlib.cluster", "meshlib.state", "meshlib.by"),
)
MEASURED = (
    CLIENT_DURATION,
    SERVER_DURATION,
    RPC_CLIENT_DURATION,
    RPC_SERVER_DURATION,
    UPSTREAM_TIME,
    RATE_LIMITED,
    LOAD_SHED,
    BREAKER_CHANGES,
    HEALING,
)

# ---------------------------------------------------------------------- counters of clusters, under Envoy's stat names

_OUTLIERS = {
    "consecutive_5xx": "failing by answers of 5xx in a row",
    "consecutive_gateway_failure": "failing by answers of 502, 503 or 504 in a row",
    "consecutive_local_origin_failure": "out of reach several times in a row",
    "success_rate": "to succeed far less often than the others",
    "failure_percentage": "to fail more often than the threshold",
    "local_origin_success_rate": "to be reached far less often than the others",
    "local_origin_failure_percentage": "out of reach more often than the threshold",
}
_STATS = {
    "upstream_rq_total": "Attempts sent.",
    "upstream_rq_completed": "Attempts that brought a response.",
    "upstream_rq_timeout": "Attempts that the call's own deadline ended.",
    "upstream_rq_per_try_timeout": "Attempts that the per-try timeout ended.",
    "upstream_rq_rx_reset": "Attempts that the upstream reset.",
    "upstream_rq_tx_reset": "Attempts that were cancelled, because another one won.",
    "upstream_rq_retry": "Retries.",
    "upstream_rq_retry_success": "Retries that were answered well.",
    "upstream_rq_retry_backoff_exponential": "Retries after a back-off of the policy's.",
    "upstream_rq_retry_backoff_ratelimited": "Retries after as long as the response asked for.",
    "retry_or_shadow_abandoned": "Requests whose body was longer than what is kept to be sent again.",
    "upstream_rq_retry_limit_exceeded": "Retries not made because there had been enough of them.",
    "upstream_rq_retry_overflow": "Retries not made for lack of budget (or `max_retries`).",
    "upstream_rq_active_overflow": "Attempts refused by `max_requests`.",
    "upstream_rq_pending_overflow": "Attempts refused for lack of a connection and of room to wait for one.",
    "upstream_internal_redirect_succeeded_total": "Internal redirects followed.",
    "upstream_internal_redirect_failed_total": "Internal redirects that could not be followed, and went to the caller.",
    "upstream_cx_total": "Connections opened.",
    "upstream_cx_overflow": "Connections refused by `max_connections`.",
    "upstream_cx_connect_fail": "Connections that could not be made.",
    "lb_healthy_panic": "Picks in panic mode.",
    "lb_local_cluster_not_ok": "Zones passed over: this process's own cluster does not have it, or panics.",
    "lb_recalculate_zone_structures": "Zone aware routing reckoned anew.",
    "lb_zone_cluster_too_small": "Zones passed over: too few healthy endpoints.",
    "lb_zone_no_capacity_left": "Picks of any zone, because rounding left none with capacity.",
    "lb_zone_routing_all_directly": "Picks in the caller's zone, which can carry all its requests.",
    "lb_zone_routing_cross_zone": "Picks in another zone.",
    "lb_zone_routing_sampled": "Picks in the caller's zone, which can carry a part of its requests.",
    **{
        f"outlier_detection.ejections_{what}_{detector}": text.format(found)
        for what, text in (("detected", "Endpoints found {}."), ("enforced", "Endpoints ejected that were found {}."))
        for detector, found in _OUTLIERS.items()
    },
    "outlier_detection.ejections_enforced_total": "Endpoints ejected, for whatever reason.",
    "outlier_detection.ejections_overflow": "Ejections not made because too many endpoints were out already.",
    "health_check.attempt": "Active health checks made.",
    "health_check.success": "Of these, passed.",
    "health_check.failure": "Failed, and failures that a response's `x-envoy-immediate-health-check-fail` told of.",
    "health_check.passive_failure": "Failures that a response told of.",
    "health_check.network_failure": "Failures for want of an answer.",
    "health_check.verify_cluster": "Checks that looked at the name of the service that answered.",
}
RESPONSES = Metric(
    "meshlib.cluster.upstream_rq_xx",
    "counter",
    "envoy_cluster_upstream_rq_xx",
    "Responses to attempts, by the class of their status.",
    labels=("http.response.status_class", "meshlib.cluster"),
)
CLASSES = {f"upstream_rq_{digit}xx": digit for digit in "2345"}
CLUSTER_STATS = {
    stat: Metric(
        f"meshlib.cluster.{stat}",
        "counter",
        f"envoy_cluster_{stat.replace('.', '_')}",
        text,
        labels=_CLUSTER,
    )
    for stat, text in _STATS.items()
}


FILTER_STATS = Metric(
    "meshlib.filter.stats",
    "counter",
    "meshlib_filter_stats_total",
    "What filters have done (limits, faults, quotas), by Envoy's name of the counter: `shop.http_local_rate_limit.ok`.",
    labels=("meshlib.stat",),
)
ACTIVE_FAULTS = Metric("meshlib.fault.active", "gauge", "meshlib_fault_active", "Faults in force now.")


def _cluster_gauge(name: str, text: str) -> Metric:
    return Metric(f"meshlib.cluster.{name}", "gauge", f"envoy_cluster_{name.replace('.', '_')}", text, labels=_CLUSTER)


ACTIVE = _cluster_gauge("upstream_rq_active", "Attempts in flight, until their bodies have ended.")
PENDING = _cluster_gauge("upstream_rq_pending_active", "Attempts waiting for a connection.")
CONNECTIONS = _cluster_gauge("upstream_cx_active", "Connections open.")
MEMBERS = _cluster_gauge("membership_total", "Endpoints.")
HEALTHY = _cluster_gauge("membership_healthy", "Endpoints that are healthy and not ejected.")
CHECKED_HEALTHY = _cluster_gauge("health_check.healthy", "Endpoints that active health checks have not failed.")
CHECKED_DEGRADED = _cluster_gauge("health_check.degraded", "Endpoints that active health checks call degraded.")
EJECTED = _cluster_gauge("outlier_detection.ejections_active", "Endpoints ejected now.")
_THRESHOLDS = {  # short name in a gauge of what is reached: the threshold, and its name in a gauge of what remains
    "cx": ("max_connections", "cx"),
    "rq_pending": ("max_pending_requests", "pending"),
    "rq": ("max_requests", "rq"),
    "rq_retry": ("max_retries", "retries"),
}
_PRIORITIES = ("default", "high")
THRESHOLD_OPEN = {
    (priority, short): _cluster_gauge(
        f"circuit_breakers.{priority}.{short}_open", f"1 while `{field}` is reached, by requests of this priority."
    )
    for priority in _PRIORITIES
    for short, (field, _) in _THRESHOLDS.items()
}
THRESHOLD_REMAINING = {
    (priority, short): _cluster_gauge(
        f"circuit_breakers.{priority}.remaining_{name}", f"Room that `{field}` leaves, with `track_remaining`."
    )
    for priority in _PRIORITIES
    for short, (field, name) in _THRESHOLDS.items()
}
BREAKER = Metric(
    "meshlib.circuit_breaker.state",
    "gauge",
    "meshlib_circuit_breaker_state",
    "State of a circuit breaker: 0 closed, 1 half-open, 2 open.",
    labels=_CLUSTER,
)
ENDPOINTS_OUT = Metric(
    "meshlib.circuit_breaker.endpoints_out",
    "gauge",
    "meshlib_circuit_breaker_endpoints_out",
    "Endpoints that are out of balancing by their own circuit breakers.",
    labels=_CLUSTER,
)
PLAN_AGE = Metric("meshlib.plan.age", "gauge", "meshlib_plan_age_seconds", "Since when the plan is in force.", "s")
PLAN_VERSION = Metric(
    "meshlib.plan.version",
    "gauge",
    "meshlib_plan_version",
    "CRC-32 of the version of the configuration in force: a number that changes with it, as Envoy's `version` gauges.",
)
PLAN_CLUSTERS = Metric("meshlib.plan.clusters", "gauge", "meshlib_plan_clusters", "Clusters of the plan in force.")
READY = Metric("meshlib.ready", "gauge", "meshlib_ready", "1 once any configuration has arrived.")
ISSUES = Metric(
    "meshlib.config.issues",
    "gauge",
    "meshlib_config_issues",
    "Distinct rejected resources and degraded fields the source has told of.",
    labels=("meshlib.severity",),
)
GAUGES = (
    *(ACTIVE, PENDING, CONNECTIONS, MEMBERS, HEALTHY, CHECKED_HEALTHY, CHECKED_DEGRADED, EJECTED),
    *(BREAKER, ENDPOINTS_OUT),
    *(*THRESHOLD_OPEN.values(), *THRESHOLD_REMAINING.values()),
    *(PLAN_AGE, PLAN_VERSION, PLAN_CLUSTERS, READY, ISSUES),
)

# ---------------------------------------------------------------------- the control plane

_TYPE = ("meshlib.xds.type",)
XDS_CONNECTED = Metric(
    "meshlib.xds.connected",
    "gauge",
    "envoy_control_plane_connected_state",
    "1 while a stream to this control plane carries our requests.",
    labels=("meshlib.xds.server",),
)
XDS_RECONNECTS = Metric("meshlib.xds.reconnects", "counter", "meshlib_xds_reconnects_total", "Streams opened again.")
XDS_RESOURCES = Metric("meshlib.xds.resources", "gauge", "meshlib_xds_resources", "Resources known.", labels=_TYPE)
XDS_VALID = Metric(
    "meshlib.xds.resource_updates_valid",
    "counter",
    "meshlib_xds_resource_updates_valid_total",
    "Resources taken over.",
    labels=_TYPE,
)
XDS_INVALID = Metric(
    "meshlib.xds.resource_updates_invalid",
    "counter",
    "meshlib_xds_resource_updates_invalid_total",
    "Resources refused (NACK).",
    labels=_TYPE,
)
XDS_UPDATE_AGE = Metric(
    "meshlib.xds.last_update_age",
    "gauge",
    "meshlib_xds_last_update_age_seconds",
    "Since the last response of the control plane.",
    "s",
    _TYPE,
)
CONSUL_FAILING = Metric("meshlib.consul.failing", "gauge", "meshlib_consul_failing", "Queries that fail now.")
CONSUL_STALE = Metric(
    "meshlib.consul.stale", "gauge", "meshlib_consul_stale_seconds", "Since when the oldest of them fails.", "s"
)
CONSUL_QUERIES = Metric("meshlib.consul.queries", "counter", "meshlib_consul_queries_total", "Queries sent to Consul.")
CONTROL = (
    *(XDS_CONNECTED, XDS_RECONNECTS, XDS_RESOURCES, XDS_VALID, XDS_INVALID, XDS_UPDATE_AGE),
    *(CONSUL_FAILING, CONSUL_STALE, CONSUL_QUERIES),
)

ALL: tuple[Metric, ...] = (
    *MEASURED,
    RESPONSES,
    *CLUSTER_STATS.values(),
    FILTER_STATS,
    ACTIVE_FAULTS,
    *GAUGES,
    *CONTROL,
)
