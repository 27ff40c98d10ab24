"""Services and policies → clusters and endpoint assignments (istiod: `cluster_builder.go`, `endpoint_builder.go`).

Everything here is in protobuf's JSON form and becomes messages in one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.sources.istio.destination_rule import Rule, Subset
from meshlib.sources.istio.names import cluster_name
from meshlib.sources.istio.policy import apply_policy
from meshlib.sources.istio.service_entry import Endpoint, Port, Service

Json = dict[str, Any]

_TYPES = {"STATIC": "EDS", "DNS": "STRICT_DNS", "DNS_ROUND_ROBIN": "LOGICAL_DNS", "NONE": "ORIGINAL_DST"}
_DNS_TYPES = frozenset({"STRICT_DNS", "LOGICAL_DNS"})
_DNS = {"dns_refresh_rate": "60s", "respect_dns_ttl": True, "dns_lookup_family": "V4_ONLY"}
DEFAULTS = frozenset(_DNS)
"""Fields of every generated cluster that no Istio object can say."""
_UNLIMITED = 2**32 - 1
PASSTHROUGH_CLUSTER = "PassthroughCluster"


def clusters_of(service: Service, rule: Rule | None) -> Iterator[tuple[Json, Json | None]]:
    """For each port the service's cluster and one for each subset, each with its assignment if that comes by EDS.

    As istiod has it, subsets are of the type that the policy made of the service's cluster, and a subset that DNS would
    have no names for does not exist.
    """
    for port in service.ports:
        base = _cluster(service, port, None, rule, _TYPES[service.resolution])
        yield base
        for subset in rule.subsets if rule else ():
            kind = "ORIGINAL_DST" if subset.passes_through else base[0]["type"]
            if kind not in _DNS_TYPES or _endpoints(service, subset):
                yield _cluster(service, port, subset, rule, kind)


def passthrough_cluster() -> Json:
    """Where requests for unknown hosts go: to the address they were made for."""
    return {
        "name": PASSTHROUGH_CLUSTER,
        "type": "ORIGINAL_DST",
        "connect_timeout": "10s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": {"thresholds": [_thresholds()]},
    }


def _cluster(
    service: Service, port: Port, subset: Subset | None, rule: Rule | None, kind: str
) -> tuple[Json, Json | None]:
    policy = rule.policy(port.number, subset.name if subset else "") if rule else {}
    cluster: Json = {
        "name": cluster_name(port.number, subset.name if subset else "", service.host),
        "type": kind,
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},  # panic mode is off, as istiod has it
        "circuit_breakers": {"thresholds": [_thresholds()]},
    }
    apply_policy(cluster, policy, port)
    if cluster["type"] == "ORIGINAL_DST":
        cluster["lb_policy"] = "CLUSTER_PROVIDED"
        return cluster, None
    assignment = _assignment(service, port, subset, by_locality=policy.get("outlierDetection") is not None)
    if cluster["type"] == "EDS":
        source = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
        cluster["eds_cluster_config"] = {"service_name": cluster["name"], "eds_config": source}
        return cluster, assignment
    return cluster | {"load_assignment": assignment} | _DNS, None


def _assignment(service: Service, port: Port, subset: Subset | None, *, by_locality: bool) -> Json:
    localities: dict[str, list[Endpoint]] = {}
    for endpoint in _endpoints(service, subset):
        localities.setdefault(endpoint.locality, []).append(endpoint)
    entries = [_locality(name, members, port) for name, members in sorted(localities.items())]
    if by_locality and "" in localities:
        # With outlier detection Istio prefers the caller's locality, and callers here are in none.
        entries = [entry | {"priority": 1} if entry["locality"] else entry for entry in entries]
    return {
        "cluster_name": cluster_name(port.number, subset.name if subset else "", service.host),
        "endpoints": entries,
    }


def _endpoints(service: Service, subset: Subset | None) -> tuple[Endpoint, ...]:
    endpoints = service.endpoints
    if not endpoints and _TYPES[service.resolution] in _DNS_TYPES:
        endpoints = (Endpoint(service.host, {}, {}, "", 1),)
    wanted = subset.labels.items() if subset is not None else {}.items()
    return tuple(endpoint for endpoint in endpoints if wanted <= endpoint.labels.items())


def _locality(name: str, members: list[Endpoint], port: Port) -> Json:
    entry: Json = {
        "lb_endpoints": [_endpoint(member, port) for member in members],
        "load_balancing_weight": sum(member.weight for member in members),
        "locality": {},  # said though empty: grpcio refuses endpoints without one
    }
    if name:
        parts = (*name.split("/"), "", "")[:3]
        entry["locality"] = dict(zip(("region", "zone", "sub_zone"), parts, strict=True))
    return entry


def _endpoint(endpoint: Endpoint, port: Port) -> Json:
    if endpoint.address.startswith("unix:"):
        address: Json = {"pipe": {"path": endpoint.address.removeprefix("unix://").removeprefix("unix:")}}
    else:
        address = {"socket_address": {"address": endpoint.address, "port_value": endpoint.port(port)}}
    return {"endpoint": {"address": address}, "load_balancing_weight": endpoint.weight}


def _thresholds() -> Json:
    names = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return dict.fromkeys(names, _UNLIMITED)
