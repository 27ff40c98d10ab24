"""Services and policies → clusters and endpoint assignments (istiod: `cluster_builder.go`, `endpoint_builder.go`).

Everything here is in protobuf's JSON form and becomes messages in one place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from meshlib.sources.istio.destination_rule import Rule, Subset
from meshlib.sources.istio.names import cluster_name
from meshlib.sources.istio.policy import apply_policy
from meshlib.sources.istio.service_entry import Endpoint, Port, Service

Json = dict[str, Any]

_TYPES = {"STATIC": "EDS", "DNS": "STRICT_DNS", "DNS_ROUND_ROBIN": "LOGICAL_DNS", "NONE": "ORIGINAL_DST"}
_DNS = {"dns_refresh_rate": "60s", "respect_dns_ttl": True, "dns_lookup_family": "V4_ONLY"}
DEFAULTS = frozenset(_DNS)
"""Fields of every generated cluster that no Istio object can say."""
_UNLIMITED = 2**32 - 1
PASSTHROUGH_CLUSTER = "PassthroughCluster"


def clusters_of(service: Service, rule: Rule | None) -> Iterator[Json]:
    """For each port the service's cluster and one for each subset."""
    for port in service.ports:
        for subset in (None, *(rule.subsets if rule else ())):
            policy = rule.policy(port.number, subset.name if subset else "") if rule else {}
            yield _cluster(service, port, subset, policy)


def assignments_of(service: Service, rule: Rule | None) -> Iterator[Json]:
    """The endpoint assignments of the EDS clusters among them."""
    if _TYPES[service.resolution] != "EDS":
        return
    for port in service.ports:
        for subset in (None, *(rule.subsets if rule else ())):
            yield _assignment(service, port, subset)


def passthrough_cluster() -> Json:
    """Where requests for unknown hosts go: to the address they were made for."""
    return {
        "name": PASSTHROUGH_CLUSTER,
        "type": "ORIGINAL_DST",
        "connect_timeout": "10s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": {"thresholds": [_thresholds()]},
    }


def _cluster(service: Service, port: Port, subset: Subset | None, policy: Json) -> Json:
    cluster: Json = {
        "name": cluster_name(port.number, subset.name if subset else "", service.host),
        "type": _TYPES[service.resolution],
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {},
        "circuit_breakers": {"thresholds": [_thresholds()]},
    }
    if cluster["type"] == "EDS":
        source = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
        cluster["eds_cluster_config"] = {"service_name": cluster["name"], "eds_config": source}
    elif cluster["type"] == "ORIGINAL_DST":
        cluster["lb_policy"] = "CLUSTER_PROVIDED"
    else:
        cluster["load_assignment"] = _assignment(service, port, subset)
        cluster |= _DNS
    apply_policy(cluster, policy, http2=port.is_http2, host=service.host)
    if cluster["type"] == "ORIGINAL_DST":
        cluster["lb_policy"] = "CLUSTER_PROVIDED"
    return cluster


def _assignment(service: Service, port: Port, subset: Subset | None) -> Json:
    endpoints: Iterable[Endpoint] = service.endpoints
    if not service.endpoints and service.resolution in {"DNS", "DNS_ROUND_ROBIN"}:
        endpoints = (Endpoint(service.host, {}, {}, "", 1),)
    if subset is not None:
        wanted = subset.labels.items()
        endpoints = (endpoint for endpoint in endpoints if wanted <= endpoint.labels.items())
    localities: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        localities.setdefault(endpoint.locality, []).append(endpoint)
    return {
        "cluster_name": cluster_name(port.number, subset.name if subset else "", service.host),
        "endpoints": [_locality(name, members, port) for name, members in sorted(localities.items())],
    }


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
