"""Services and policies → clusters and endpoint assignments (istiod: `cluster_builder.go`, `endpoint_builder.go`).

Everything here is in protobuf's JSON form and becomes messages in one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from meshlib.sources.istio.caller import Caller
from meshlib.sources.istio.destination_rule import Rule, Subset
from meshlib.sources.istio.labels import parts
from meshlib.sources.istio.localities import Group, groups_of, placed
from meshlib.sources.istio.names import cluster_name
from meshlib.sources.istio.policy import apply_policy
from meshlib.sources.istio.service_entry import Port, Service
from meshlib.sources.istio.upstream_tls import apply_tls
from meshlib.sources.istio.workload_entry import Workload

Json = dict[str, Any]

_TYPES = {"STATIC": "EDS", "DNS": "STRICT_DNS", "DNS_ROUND_ROBIN": "LOGICAL_DNS", "NONE": "ORIGINAL_DST"}
_DNS_TYPES = frozenset({"STRICT_DNS", "LOGICAL_DNS"})
_DNS = {
    "dns_refresh_rate": "60s",
    "dns_jitter": "0.100s",
    "respect_dns_ttl": True,
    "dns_lookup_family": "V4_ONLY",
}
DEFAULTS = frozenset(_DNS)
"""Fields of every generated cluster that no Istio object can say."""
_UNLIMITED = 2**32 - 1
PASSTHROUGH_CLUSTER = "PassthroughCluster"
BLACK_HOLE_CLUSTER = "BlackHoleCluster"


def clusters_of(service: Service, rule: Rule | None, caller: Caller) -> Iterator[tuple[Json, Json | None]]:
    """For each port the service's cluster and one for each subset, each with its assignment if that comes by EDS.

    As istiod has it, subsets are of the type that the policy made of the service's cluster, and a cluster that DNS
    would have no names for does not exist.
    """
    for port in service.ports:
        kind = _TYPES[service.resolution]
        if kind in _DNS_TYPES and not any(_members(service, port, None)):
            continue
        base = _cluster(service, port, None, rule, kind, caller)
        yield base
        for subset in rule.subsets if rule else ():
            kind = "ORIGINAL_DST" if subset.passes_through else base[0]["type"]
            if kind not in _DNS_TYPES or any(_members(service, port, subset)):
                yield _cluster(service, port, subset, rule, kind, caller)


def black_hole_cluster() -> Json:
    """Where requests for unknown hosts go under REGISTRY_ONLY: to nobody."""
    return {"name": BLACK_HOLE_CLUSTER, "type": "STATIC", "connect_timeout": "10s"}


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
    service: Service, port: Port, subset: Subset | None, rule: Rule | None, kind: str, caller: Caller
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
    mode = rule.tls_mode(port.number, subset.name if subset else "") if rule else None
    members = [(_marked(workload, mode), target) for workload, target in _members(service, port, subset)]
    apply_tls(cluster, policy.get("tls"), service, automatic=any(workload.mutual_tls for workload, _ in members))
    if cluster["type"] == "ORIGINAL_DST":
        cluster["lb_policy"] = "CLUSTER_PROVIDED"
        return cluster, None
    fails_over = policy.get("outlierDetection") is not None
    groups = placed(groups_of(members), policy.get("loadBalancer") or {}, caller, fails_over=fails_over)
    assignment = {"cluster_name": cluster["name"], "endpoints": [_locality(group) for group in groups]}
    if cluster["type"] == "EDS":
        source = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
        cluster["eds_cluster_config"] = {"service_name": cluster["name"], "eds_config": source}
        return cluster, assignment
    return cluster | {"load_assignment": assignment} | _DNS, None


def _members(service: Service, port: Port, subset: Subset | None) -> Iterator[tuple[Workload, int]]:
    """The workloads that listen for the port and carry the subset's labels, each with where it listens."""
    wanted = subset.labels.items() if subset is not None else {}.items()
    for endpoint in service.endpoints:
        target = endpoint.port(port)
        if target is not None and wanted <= dict(endpoint.workload.labels).items():
            yield endpoint.workload, target


def _marked(workload: Workload, mode: str | None) -> Workload:
    """The workload as automatic mutual TLS knows it: a rule that says another TLS takes that from it."""
    return workload if mode in {None, "ISTIO_MUTUAL"} else replace(workload, mutual_tls=False)


def _locality(group: Group) -> Json:
    entry: Json = {
        "lb_endpoints": [_endpoint(workload, port) for workload, port in group.members],
        "load_balancing_weight": group.weight,
        "locality": {},  # said though empty: grpcio refuses endpoints without one
    }
    if group.locality:
        entry["locality"] = dict(zip(("region", "zone", "sub_zone"), parts(group.locality), strict=True))
    return entry | ({"priority": group.priority} if group.priority else {})


def _endpoint(workload: Workload, port: int) -> Json:
    if workload.address.startswith("unix:"):
        address: Json = {"pipe": {"path": workload.address.removeprefix("unix://").removeprefix("unix:")}}
    else:
        address = {"socket_address": {"address": workload.address, "port_value": port}}
    found: Json = {"endpoint": {"address": address}, "load_balancing_weight": workload.weight}
    metadata: Json = {}
    if workload.mutual_tls:
        metadata["envoy.transport_socket_match"] = {"tlsMode": "istio"}
    if own := {name: value for name, value in dict(workload.labels).items() if "istio.io/" not in name}:
        metadata["meshlib.labels"] = own  # istiod keeps them to itself; lanes go by them
    return found | ({"metadata": {"filter_metadata": metadata}} if metadata else {})


def _thresholds() -> Json:
    names = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return dict.fromkeys(names, _UNLIMITED)
