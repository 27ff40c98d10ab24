"""A traffic policy applied to a cluster (istiod: `cluster_traffic_policy.go`). What a policy does not say stays Istio's
default, which differs from Envoy's: thresholds are unlimited, and with outlier detection panic mode is off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshlib.sources.istio.fields import envoy_duration

Json = dict[str, Any]

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS_CONTEXT = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_SIMPLE = {
    "LEAST_CONN": "LEAST_REQUEST",
    "LEAST_REQUEST": "LEAST_REQUEST",
    "RANDOM": "RANDOM",
    "ROUND_ROBIN": "ROUND_ROBIN",
}


def apply_policy(cluster: Json, policy: Mapping[str, Any], *, http2: bool, host: str) -> None:
    """Change the cluster (JSON form) as the policy says."""
    pool = policy.get("connectionPool") or {}
    _apply_connection_pool(cluster, pool, policy.get("retryBudget"))
    _apply_http_options(cluster, pool, http2=http2)
    if policy.get("outlierDetection") is not None:
        _apply_outlier_detection(cluster, policy["outlierDetection"])
    _apply_load_balancer(cluster, policy.get("loadBalancer") or {})
    _apply_tls(cluster, policy.get("tls") or {}, host)


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
    upgrade = http.get("h2UpgradePolicy")
    http2 = upgrade == "UPGRADE" or (http2 and upgrade != "DO_NOT_UPGRADE")
    if not common and not http2:
        return
    explicit: Json = {"http_protocol_options": {}}
    if http2:
        streams = http.get("maxConcurrentStreams")
        explicit = {"http2_protocol_options": {"max_concurrent_streams": streams} if streams else {}}
    options: Json = {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", "explicit_http_config": explicit}
    if common:
        options["common_http_protocol_options"] = common
    cluster["typed_extension_protocol_options"] = {_HTTP_OPTIONS: options}


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
    cluster["common_lb_config"]["healthy_panic_threshold"] = {"value": outlier.get("minHealthPercent") or 0}


def _apply_load_balancer(cluster: Json, balancer: Json) -> None:
    simple = balancer.get("simple", "UNSPECIFIED")
    if simple == "PASSTHROUGH":
        cluster["type"] = "ORIGINAL_DST"
        cluster.pop("load_assignment", None)
        cluster.pop("eds_cluster_config", None)
        return
    if simple in _SIMPLE:
        cluster["lb_policy"] = _SIMPLE[simple]
    consistent = balancer.get("consistentHash")
    if consistent is None:
        return
    if consistent.get("maglev") is not None:
        cluster["lb_policy"] = "MAGLEV"
        if size := consistent["maglev"].get("tableSize"):
            cluster["maglev_lb_config"] = {"table_size": size}
        return
    cluster["lb_policy"] = "RING_HASH"
    ring = (consistent.get("ringHash") or {}).get("minimumRingSize") or consistent.get("minimumRingSize") or 1024
    cluster["ring_hash_lb_config"] = {"minimum_ring_size": ring}


def _apply_tls(cluster: Json, tls: Json, host: str) -> None:
    mode = tls.get("mode", "DISABLE")
    if mode not in {"SIMPLE", "MUTUAL"}:
        return
    common: Json = {}
    if mode == "MUTUAL":
        common["tls_certificates"] = [
            {
                "certificate_chain": {"filename": tls.get("clientCertificate", "")},
                "private_key": {"filename": tls.get("privateKey", "")},
            }
        ]
    common["validation_context"] = _validation(tls, host)
    cluster["transport_socket"] = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": _TLS_CONTEXT, "sni": tls.get("sni") or host, "common_tls_context": common},
    }


def _validation(tls: Json, host: str) -> Json:
    """Whom to trust: the named authorities or the system's, never nobody. Where neither names nor an SNI are given the
    certificate must be for the host, as istiod's auto_san_validation has it.
    """
    roots: Json = {"trusted_ca": {"filename": tls["caCertificates"]}} if tls.get("caCertificates") else {}
    names = tls.get("subjectAltNames") or ([host] if not tls.get("sni") and not host.startswith("*") else [])
    matchers = [{"san_type": "URI" if "://" in name else "DNS", "matcher": {"exact": name}} for name in names]
    return (roots or {"system_root_certs": {}}) | ({"match_typed_subject_alt_names": matchers} if matchers else {})
