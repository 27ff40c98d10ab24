"""Cluster (`envoy.config.cluster.v3`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshlib.model.cluster import Cluster, ClusterType
from meshlib.model.dns import DEFAULT_DNS, Dns
from meshlib.model.endpoint import ClusterLoadAssignment
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.circuit_breaker import circuit_breaker
from meshlib.sources.xds.decode.common import duration, enum_name, metadata, unpack
from meshlib.sources.xds.decode.config_source import check_config_source
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.dns import CLUSTER_FIELDS, dns_of_cluster, dns_of_extension
from meshlib.sources.xds.decode.endpoint import cluster_load_assignment
from meshlib.sources.xds.decode.health import health_checks, health_checks_when
from meshlib.sources.xds.decode.lanes import lane_group, nearby
from meshlib.sources.xds.decode.lb_extension import Balancing, load_balancing_policy
from meshlib.sources.xds.decode.lb_legacy import legacy_balancing
from meshlib.sources.xds.decode.outlier import outlier_detection
from meshlib.sources.xds.decode.protection import circuit_breakers
from meshlib.sources.xds.decode.tls import transport_socket, transport_socket_matches
from meshlib.sources.xds.decode.upstream_http import upstream_http

_AGGREGATE = "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
_DNS = "envoy.extensions.clusters.dns.v3.DnsCluster"
_FORWARD_PROXY = "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"
_TYPES = {
    _AGGREGATE: "envoy.extensions.clusters.aggregate.v3.cluster_pb2",
    _DNS: "envoy.extensions.clusters.dns.v3.dns_cluster_pb2",
}
_PROVIDERS = ("ORIGINAL_DST", "AGGREGATE")
"""Types with a balancer of their own. An AGGREGATE may have another, as gRPC asks of it where Envoy forbids it."""
_PEER_METADATA = frozenset({"envoy.tcp.metadataexchange.config.MetadataExchange"})
"""Upstream network filters that only tell another proxy whom its metrics are about."""
_CLUSTER = fields(
    "name",
    "type",
    "cluster_type",
    "eds_cluster_config",
    "connect_timeout",
    "lb_policy",
    "load_assignment",
    "max_requests_per_connection",
    "circuit_breakers",
    "common_http_protocol_options",
    "http2_protocol_options",
    "typed_extension_protocol_options",
    "outlier_detection",
    "lb_subset_config",
    "ring_hash_lb_config",
    "least_request_lb_config",
    "round_robin_lb_config",
    "maglev_lb_config",
    "original_dst_lb_config",
    "common_lb_config",
    "transport_socket",
    "transport_socket_matches",
    "metadata",
    "load_balancing_policy",
    "filters",
    "health_checks",
    "ignore_health_on_host_removal",
    *CLUSTER_FIELDS,
    harmless={
        "alt_stat_name": "a name for metrics only",
        "protocol_selection": "every door speaks its own protocol",
        "wait_for_warm_on_init": "endpoints are always waited for before a cluster is used",
        "cleanup_interval": "hosts of an original destination are not kept",
    },
    instead={
        "upstream_bind_config": "connections leave from the address the system chooses",
        "upstream_connection_options": "TCP keepalive is the system's",
    },
)
_COMMON_LB = fields(
    "healthy_panic_threshold",
    "locality_weighted_lb_config",
    "consistent_hashing_lb_config",
    "zone_aware_lb_config",
    "override_host_status",
    "ignore_new_hosts_until_first_hc",
    harmless={"update_merge_window": "updates are applied at once"},
    instead={"close_connections_on_host_set_change": "only connections to endpoints that leave are closed"},
)
_EDS = fields("eds_config", "service_name")
_ORIGINAL_DST = fields(
    instead={
        "use_http_header": "calls pass through to the host they are made for",
        "http_header_name": "calls pass through to the host they are made for",
        "upstream_port_override": "calls pass through to the port they are made for",
        "metadata_key": "calls pass through to the host they are made for",
    }
)
_Type = tuple[ClusterType, tuple[str, ...], Dns]


def _custom_type(ctx: Context, message: Any) -> _Type:
    path = "cluster_type.typed_config"
    name, found = unpack(message.cluster_type.typed_config, _TYPES, path)
    if name == _AGGREGATE and found is not None:
        return "AGGREGATE", tuple(found.clusters), DEFAULT_DNS
    if name == _DNS and found is not None:
        kind: ClusterType = "LOGICAL_DNS" if found.all_addresses_in_single_endpoint else "STRICT_DNS"
        return kind, (), dns_of_extension(ctx, found, path)
    if name == _FORWARD_PROXY:
        return "ORIGINAL_DST", (), DEFAULT_DNS  # the host that is called is the one resolved, as without a cluster
    what = name or message.cluster_type.name
    ctx.degraded("cluster_type", f"{what} is not supported; the cluster has only the endpoints of its load_assignment")
    return "STATIC", (), DEFAULT_DNS


def _type(ctx: Context, message: Any) -> _Type:
    """The type, the children of an aggregate, and how names are resolved."""
    if message.HasField("cluster_type"):
        return _custom_type(ctx, message)
    found: Any = enum_name(message, "type", "")
    return found, (), dns_of_cluster(ctx, message) if found in {"STRICT_DNS", "LOGICAL_DNS"} else DEFAULT_DNS


def _eds_service_name(ctx: Context, message: Any, kind: ClusterType) -> str:
    if kind != "EDS":
        if message.HasField("eds_cluster_config"):
            raise ResourceError("eds_cluster_config", f"is only valid with type EDS, the type is {kind}")
        return ""
    if not message.HasField("eds_cluster_config"):
        raise ResourceError("eds_cluster_config", "is required by type EDS")
    config = message.eds_cluster_config
    ctx.check_fields(config, "eds_cluster_config", _EDS)
    check_config_source(ctx, config.eds_config, "eds_cluster_config.eds_config")
    return str(config.service_name)


def _load_assignment(ctx: Context, message: Any, kind: ClusterType) -> ClusterLoadAssignment | None:
    path = "load_assignment"
    _check_assignment(message, kind)
    if kind == "EDS" or not message.HasField(path):
        if message.HasField(path):
            ctx.degraded(path, "endpoints come by EDS; left out")
        return None
    by_dns = kind in {"STRICT_DNS", "LOGICAL_DNS"}
    return cluster_load_assignment(ctx, message.load_assignment, path, allow_names=by_dns)


def _check_assignment(message: Any, kind: ClusterType) -> None:
    """What Envoy refuses about a type's `load_assignment` as it is written, two equal endpoints included."""
    path = "load_assignment"
    if kind == "LOGICAL_DNS":
        if not message.HasField(path):
            raise ResourceError(path, "is required by type LOGICAL_DNS")
        localities = message.load_assignment.endpoints
        if len(localities) != 1 or len(localities[0].lb_endpoints) != 1:
            raise ResourceError(path, "LOGICAL_DNS needs exactly one locality with one endpoint")
    elif message.type == message.ORIGINAL_DST and message.HasField(path):
        raise ResourceError(path, "ORIGINAL_DST has no endpoints of its own: calls go where they are made for")


def _balancing(ctx: Context, message: Any, kind: ClusterType) -> Balancing:
    found = _chosen_balancing(ctx, message)
    path = "load_balancing_policy" if message.HasField("load_balancing_policy") else "lb_policy"
    unknown = kind == "STATIC" and message.HasField("cluster_type")  # reported; it may well provide a balancer
    if found.by_cluster and kind not in _PROVIDERS and not unknown:
        reason = f"CLUSTER_PROVIDED is for clusters that say where a request goes ({', '.join(_PROVIDERS)}), not {kind}"
        raise ResourceError(path, reason)
    passes = message.type == message.ORIGINAL_DST and message.lb_policy != message.CLUSTER_PROVIDED
    if passes or (kind == "ORIGINAL_DST" and not found.by_cluster):
        raise ResourceError(
            "lb_policy" if passes else path,
            "must be CLUSTER_PROVIDED: the type ORIGINAL_DST says itself where a request goes",
        )
    return found


def _chosen_balancing(ctx: Context, message: Any) -> Balancing:
    if not message.HasField("load_balancing_policy"):
        return legacy_balancing(ctx, message)
    for name in ("zone_aware_lb_config", "locality_weighted_lb_config", "consistent_hashing_lb_config"):
        if message.common_lb_config.HasField(name):
            raise ResourceError(f"common_lb_config.{name}", "cannot be combined with load_balancing_policy")
    if message.HasField("lb_subset_config"):
        raise ResourceError("lb_subset_config", "cannot be combined with load_balancing_policy")
    return load_balancing_policy(ctx, message.load_balancing_policy, "load_balancing_policy")


def _check_network_filters(ctx: Context, message: Any) -> None:
    for index, item in enumerate(message.filters):
        path = f"filters[{index}]"
        name, _ = unpack(item.typed_config, {}, join(path, "typed_config"))
        if name not in _PEER_METADATA:
            ctx.degraded(path, f"network filter {name or item.name} is not run on connections")


def _panic_threshold(message: Any) -> float:
    common = message.common_lb_config
    return float(common.healthy_panic_threshold.value) if common.HasField("healthy_panic_threshold") else 50.0


def _override_host_statuses(message: Any) -> frozenset[Any]:
    """Of endpoints that a session asks for: Envoy's default where the field is not set, none where it is empty."""
    common = message.common_lb_config
    if not common.HasField("override_host_status"):
        return frozenset(("UNKNOWN", "HEALTHY", "DEGRADED"))
    names = type(common.override_host_status).DESCRIPTOR.fields_by_name["statuses"].enum_type.values_by_number
    return frozenset(names[number].name for number in common.override_host_status.statuses if number in names)


def _connect_timeout(message: Any) -> float:
    found = duration(message, "connect_timeout")
    return 5.0 if found is None else found


def cluster(ctx: Context, message: Any) -> Cluster:
    """A validated Cluster message."""
    ctx.check_fields(message, "", _CLUSTER)
    ctx.check_fields(message.common_lb_config, "common_lb_config", _COMMON_LB)
    ctx.check_fields(message.original_dst_lb_config, "original_dst_lb_config", _ORIGINAL_DST)
    kind, children, dns = _type(ctx, message)
    balancing = _balancing(ctx, message, kind)
    http = upstream_http(ctx, message)
    found = metadata(message.metadata)
    has = message.HasField
    _check_network_filters(ctx, message)
    if kind == "ORIGINAL_DST" and has("transport_socket"):
        ctx.degraded("transport_socket", "calls that pass through are the caller's own, in plain text if it says http")
    return Cluster(
        name=message.name,
        type=kind,
        eds_service_name=_eds_service_name(ctx, message, kind),
        load_assignment=_load_assignment(ctx, message, kind),
        lb_policy=balancing.policy,
        subsets=balancing.subsets,
        override_host=balancing.override_host,
        subsetting=balancing.subsetting,
        clusters=children,
        dns=dns,
        connect_timeout=_connect_timeout(message),
        healthy_panic_threshold=_panic_threshold(message),
        locality_weighted=balancing.locality_weighted,
        zone_aware=balancing.zone_aware,
        load_aware=balancing.load_aware,
        circuit_breakers=circuit_breakers(ctx, message.circuit_breakers, "circuit_breakers"),
        circuit_breaker=circuit_breaker(found),
        outlier_detection=(
            outlier_detection(ctx, message.outlier_detection, "outlier_detection", http.error_matcher)
            if has("outlier_detection")
            else None
        ),
        tls=http.apply(transport_socket(ctx, message.transport_socket, "transport_socket"))
        if has("transport_socket")
        else None,
        tls_matches=tuple(
            replace(match, tls=http.apply(match.tls))
            for match in transport_socket_matches(ctx, message.transport_socket_matches, "transport_socket_matches")
        ),
        http2=http.http2,
        idle_timeout=http.idle_timeout,
        max_requests_per_connection=http.max_requests_per_connection,
        max_connection_duration=http.max_connection_duration,
        max_stream_duration=http.max_stream_duration,
        metadata=found,
        health_checks=health_checks(ctx, message.health_checks, "health_checks"),
        health_checks_when=health_checks_when(ctx, found),
        ignore_new_hosts_until_first_hc=message.common_lb_config.ignore_new_hosts_until_first_hc,
        ignore_health_on_host_removal=message.ignore_health_on_host_removal,
        lanes=lane_group(ctx, found),
        nearby=nearby(found),
        override_host_statuses=_override_host_statuses(message),
    )
