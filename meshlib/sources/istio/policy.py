"""A traffic policy applied to a cluster (istiod: `cluster_traffic_policy.go`). What a policy does not say stays Istio's
default, which differs from Envoy's: thresholds are unlimited, and with outlier detection panic mode is off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshlib.sources.istio.fields import envoy_duration
from meshlib.sources.istio.localities import is_weighted
from meshlib.sources.istio.service_entry import Port

Json = dict[str, Any]

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_SIMPLE = {
    "LEAST_CONN": "LEAST_REQUEST",
    "LEAST_REQUEST": "LEAST_REQUEST",
    "RANDOM": "RANDOM",
    "ROUND_ROBIN": "ROUND_ROBIN",
}
_SLOW_START = {"LEAST_REQUEST": "least_request_lb_config", "ROUND_ROBIN": "round_robin_lb_config"}


def apply_policy(cluster: Json, policy: Mapping[str, Any], port: Port) -> None:
    """Change the cluster (JSON form) as the policy says; its TLS is `upstream_tls`'s."""
    pool = policy.get("connectionPool") or {}
    _apply_connection_pool(cluster, pool, policy.get("retryBudget"))
    http = pool.get("http") or {}
    # A port whose protocol is not said speaks what the caller speaks, whatever is asked for.
    upgraded = bool(port.protocol) and http.get("h2UpgradePolicy") == "UPGRADE" and not http.get("useClientProtocol")
    _apply_http_options(cluster, pool, http2=port.is_http2 or upgraded)
    if policy.get("outlierDetection") is not None:
        _apply_outlier_detection(cluster, policy["outlierDetection"])
    _apply_localities(cluster, policy)
    _apply_load_balancer(cluster, policy.get("loadBalancer") or {})


def _apply_connection_pool(cluster: Json, pool: Json, budget: Json | None) -> None:
    tcp, http = pool.get("tcp") or {}, pool.get("http") or {}
    thresholds = cluster["circuit_breakers"]["thresholds"][0]
    limits = {
        "max_connections": tcp.get("maxConnections"),
        "max_pending_requests": http.get("http1MaxPendingRequests"),
        "max_requests": http.get("http2MaxRequests"),
        "max_retries": http.get("maxRetries"),
    }
    thresholds |= {name: limit for name, limit in limits.items() if limit}  # 0 is "not set", as in Istio
    if budget is not None:
        thresholds["retry_budget"] = {
            "budget_percent": {"value": budget.get("percent", 20)},
            "min_retry_concurrency": budget.get("minRetryConcurrency") or 3,
        }
    if tcp.get("connectTimeout"):
        cluster["connect_timeout"] = envoy_duration(tcp["connectTimeout"])


def _apply_http_options(cluster: Json, pool: Json, *, http2: bool) -> None:
    tcp, http = pool.get("tcp") or {}, pool.get("http") or {}
    common: Json = {}
    idle = http.get("idleTimeout") or tcp.get("idleTimeout")
    if idle:
        common["idle_timeout"] = envoy_duration(idle)
    if http.get("maxRequestsPerConnection"):
        common["max_requests_per_connection"] = http["maxRequestsPerConnection"]
    if tcp.get("maxConnectionDuration"):
        common["max_connection_duration"] = envoy_duration(tcp["maxConnectionDuration"])
    if common:
        http_options(cluster)["common_http_protocol_options"] = common
    if http.get("useClientProtocol"):
        options = http_options(cluster)
        del options["explicit_http_config"]
        options["use_downstream_protocol_config"] = {"http_protocol_options": {}, "http2_protocol_options": {}}
    elif http2:
        streams = http.get("maxConcurrentStreams")
        said = {"max_concurrent_streams": streams} if streams else {}
        http_options(cluster)["explicit_http_config"] = {"http2_protocol_options": said}


def http_options(cluster: Json) -> Json:
    """The cluster's HTTP options, to be changed; HTTP/1.1 unless they say something else."""
    extensions: Json = cluster.setdefault("typed_extension_protocol_options", {})
    fresh = {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", "explicit_http_config": {"http_protocol_options": {}}}
    options: Json = extensions.setdefault(_HTTP_OPTIONS, fresh)
    return options


def _apply_outlier_detection(cluster: Json, outlier: Json) -> None:
    detection: Json = {"enforcing_success_rate": 0}
    for ours, field in (
        ("consecutive5xxErrors", "consecutive_5xx"),
        ("consecutiveGatewayErrors", "consecutive_gateway_failure"),
    ):
        if outlier.get(ours) is not None:
            detection[field] = outlier[ours]
            detection[f"enforcing_{field}"] = 100 if outlier[ours] else 0
    if outlier.get("interval"):
        detection["interval"] = envoy_duration(outlier["interval"])
    if outlier.get("baseEjectionTime"):
        detection["base_ejection_time"] = envoy_duration(outlier["baseEjectionTime"])
    if outlier.get("maxEjectionPercent"):
        detection["max_ejection_percent"] = outlier["maxEjectionPercent"]
    if outlier.get("splitExternalLocalOriginErrors"):
        detection |= {"split_external_local_origin_errors": True, "enforcing_local_origin_success_rate": 0}
        if outlier.get("consecutiveLocalOriginFailures"):
            detection["consecutive_local_origin_failure"] = outlier["consecutiveLocalOriginFailures"]
            detection["enforcing_consecutive_local_origin_failure"] = 100
    cluster["outlier_detection"] = detection
    if outlier.get("outlierDetectionHttpErrorCodes"):
        http_options(cluster)["outlier_detection"] = {
            "error_matcher": _errors(outlier["outlierDetectionHttpErrorCodes"])
        }
    cluster["common_lb_config"]["healthy_panic_threshold"] = {"value": outlier.get("minHealthPercent") or 0}


def _errors(codes: list[int]) -> Json:
    """Answers of these statuses, and of no other, are errors."""
    rules: list[Json] = [
        {"http_response_headers_match": {"headers": [{"name": ":status", "string_match": {"exact": str(code)}}]}}
        for code in codes
    ]
    return rules[0] if len(rules) == 1 else {"or_match": {"rules": rules}}


def _apply_localities(cluster: Json, policy: Mapping[str, Any]) -> None:
    balancer = policy.get("loadBalancer") or {}
    common = cluster["common_lb_config"]
    if (zones := balancer.get("zoneAwareLbSetting")) is not None:
        config: Json = {} if zones.get("enabled", True) is not False else {"routing_enabled": {"value": 0}}
        common["zone_aware_lb_config"] = config
        if zones.get("minClusterSize") is not None:
            config["min_cluster_size"] = zones["minClusterSize"]
    elif is_weighted(balancer, fails_over=policy.get("outlierDetection") is not None):
        common["locality_weighted_lb_config"] = {}


def _apply_load_balancer(cluster: Json, balancer: Json) -> None:
    simple = balancer.get("simple", "UNSPECIFIED")
    if simple == "PASSTHROUGH":
        cluster["type"] = "ORIGINAL_DST"
        return
    cluster["lb_policy"] = _SIMPLE.get(simple, "LEAST_REQUEST")
    if (consistent := balancer.get("consistentHash")) is not None:
        _apply_consistent_hash(cluster, consistent)
    elif (config := _SLOW_START.get(cluster["lb_policy"])) and (start := _slow_start(balancer)):
        cluster[config] = {"slow_start_config": start}


def _slow_start(balancer: Json) -> Json:
    warmup = balancer.get("warmup")
    if warmup is None:
        window = balancer.get("warmupDurationSecs")
        return {"slow_start_window": envoy_duration(window)} if window else {}
    return {
        "slow_start_window": envoy_duration(warmup["duration"]),
        # Istio names a runtime key so that only the default counts.
        "aggression": {"default_value": warmup.get("aggression", 1.0), "runtime_key": "("},
        "min_weight_percent": {"value": warmup.get("minimumPercent", 10.0)},
    }


def _apply_consistent_hash(cluster: Json, consistent: Json) -> None:
    if consistent.get("maglev") is not None:
        cluster["lb_policy"] = "MAGLEV"
        if size := consistent["maglev"].get("tableSize"):
            cluster["maglev_lb_config"] = {"table_size": size}
        return
    cluster["lb_policy"] = "RING_HASH"
    ring = (consistent.get("ringHash") or {}).get("minimumRingSize") or consistent.get("minimumRingSize") or 1024
    cluster["ring_hash_lb_config"] = {"minimum_ring_size": ring}
