"""A traffic policy applied to a cluster (istiod: `cluster_traffic_policy.go`). What a policy does not say stays Istio's
default, which differs from Envoy's: thresholds are unlimited, and with outlier detection panic mode is off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshlib.sources.istio.fields import envoy_duration
from meshlib.sources.istio.service_entry import Port

Json = dict[str, Any]

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS_CONTEXT = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_IDENTITY = {"instance_name": "default"}
_SIMPLE = {
    "LEAST_CONN": "LEAST_REQUEST",
    "LEAST_REQUEST": "LEAST_REQUEST",
    "RANDOM": "RANDOM",
    "ROUND_ROBIN": "ROUND_ROBIN",
}


def apply_policy(cluster: Json, policy: Mapping[str, Any], port: Port) -> None:
    """Change the cluster (JSON form) as the policy says."""
    pool = policy.get("connectionPool") or {}
    _apply_connection_pool(cluster, pool, policy.get("retryBudget"))
    # A port whose protocol is not said speaks what the caller speaks, whatever is asked for.
    upgraded = bool(port.protocol) and (pool.get("http") or {}).get("h2UpgradePolicy") == "UPGRADE"
    _apply_http_options(cluster, pool, http2=port.is_http2 or upgraded)
    if policy.get("outlierDetection") is not None:
        _apply_outlier_detection(cluster, policy["outlierDetection"])
    _apply_load_balancer(cluster, policy.get("loadBalancer") or {})
    _apply_tls(cluster, policy.get("tls") or {})


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
    if not common and not http2:
        return
    explicit: Json = {"http_protocol_options": {}}
    if http2:
        streams = http.get("maxConcurrentStreams")
        explicit = {"http2_protocol_options": {"max_concurrent_streams": streams} if streams else {}}
    options = _http_options(explicit)
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


def _apply_tls(cluster: Json, tls: Json) -> None:
    mode = tls.get("mode", "DISABLE")
    if mode == "ISTIO_MUTUAL":
        cluster["transport_socket"] = _socket(_istio_mutual(tls), tls.get("sni") or _own_sni(cluster["name"]))
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
    common["validation_context"] = _validation(tls)
    if not tls.get("sni"):
        _apply_names_by_host(cluster, tls)
    cluster["transport_socket"] = _socket(common, tls.get("sni", ""))


def _socket(common: Json, sni: str) -> Json:
    context: Json = {"@type": _TLS_CONTEXT, "common_tls_context": common} | ({"sni": sni} if sni else {})
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _istio_mutual(tls: Json) -> Json:
    """The workload's own identity, which the certificate provider `default` stands for (gRFC A29)."""
    return {
        "alpn_protocols": ["istio"],
        "tls_certificate_provider_instance": _IDENTITY,
        "validation_context": {"ca_certificate_provider_instance": _IDENTITY} | _names(tls),
    }


def _own_sni(cluster: str) -> str:
    """`outbound_.9080_.v1_.reviews...`: by it a sidecar of the other side knows the cluster."""
    direction, port, subset, host = cluster.split("|")
    return f"{direction}_.{port}_.{subset}_.{host}"


def _apply_names_by_host(cluster: Json, tls: Json) -> None:
    """Without an SNI the request's host is sent, and without names the certificate must be for that host."""
    extensions = cluster.setdefault("typed_extension_protocol_options", {})
    options = extensions.setdefault(_HTTP_OPTIONS, _http_options({"http_protocol_options": {}}))
    options["upstream_http_protocol_options"] = {"auto_sni": True}
    if not tls.get("subjectAltNames"):
        options["upstream_http_protocol_options"]["auto_san_validation"] = True


def _validation(tls: Json) -> Json:
    """Whom to trust: the named authorities or the system's, never nobody."""
    roots: Json = {"trusted_ca": {"filename": tls["caCertificates"]}} if tls.get("caCertificates") else {}
    return (roots or {"system_root_certs": {}}) | _names(tls)


def _names(tls: Json) -> Json:
    names = [{"exact": name} for name in tls.get("subjectAltNames") or ()]
    return {"match_subject_alt_names": names} if names else {}


def _http_options(explicit: Json) -> Json:
    return {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", "explicit_http_config": explicit}
