"""ClusterLoadAssignment. Written by hand where everything else uses `validate`, because endpoints come by thousands."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from meshlib.model.endpoint import (
    Address,
    ClusterLoadAssignment,
    DropOverload,
    EndpointHealthCheck,
    HealthStatus,
    LbEndpoint,
    Locality,
    LocalityLbEndpoints,
)
from meshlib.model.metadata import EMPTY_METADATA, Metadata
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import fractional_percent, metadata, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.validate import validate

_ASSIGNMENT = fields("cluster_name", "endpoints", "named_endpoints", "policy")
_LOCALITY = fields(
    "locality",
    "lb_endpoints",
    "load_balancing_weight",
    "priority",
    harmless={"metadata": "read by access logs and metrics only"},
    instead={
        "leds_cluster_locality_config": "endpoints of this locality that come by LEDS are missing",
        "load_balancer_endpoints": "endpoints of this locality that come by LEDS are missing",
    },
)
_POLICY = fields(
    "drop_overloads",
    "overprovisioning_factor",
    "weighted_priority_health",
    instead={"endpoint_stale_after": "endpoints are good until an update takes them away"},
)
_HEALTH: tuple[HealthStatus, ...] = ("UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)", re.ASCII)
_MAX_WEIGHT = 2**32 - 1
_MAX_PRIORITY = 128


class _Endpoints:
    """Decodes the endpoints of one assignment; equal metadata is decoded once."""

    def __init__(self, ctx: Context, named: Any, *, allow_names: bool) -> None:
        self._ctx = ctx
        self._named = named
        self._allow_names = allow_names
        self._metadata: dict[bytes, Metadata] = {}

    def decode(self, message: Any, path: str, index: int) -> LbEndpoint:
        """One LbEndpoint; the path of its index is only put together for a message to people."""
        if message.HasField("endpoint"):
            endpoint = message.endpoint
        elif message.endpoint_name in self._named:
            endpoint = self._named[message.endpoint_name]
        else:
            raise ResourceError(f"{path}[{index}]", "an endpoint, or an endpoint_name of named_endpoints, is required")
        if endpoint.additional_addresses:
            where = f"{path}[{index}].endpoint.additional_addresses"
            self._ctx.degraded(where, "only the first address of an endpoint is used")
        status = message.health_status
        if not 0 <= status < len(_HEALTH):
            raise ResourceError(f"{path}[{index}].health_status", f"is no known value: {status}")
        weight = message.load_balancing_weight.value if message.HasField("load_balancing_weight") else 1
        if weight < 1:
            raise ResourceError(f"{path}[{index}].load_balancing_weight", "must be at least 1, is 0")
        found = self._metadata_of(message.metadata, path, index) if message.HasField("metadata") else EMPTY_METADATA
        address = self._address(endpoint.address, path, index)
        checked = self._health_check(endpoint, path, index) if endpoint.HasField("health_check_config") else None
        return LbEndpoint(address, weight, _HEALTH[status], endpoint.hostname, found, health_check=checked)

    def _health_check(self, endpoint: Any, path: str, index: int) -> EndpointHealthCheck:
        config, where = endpoint.health_check_config, f"{path}[{index}].endpoint.health_check_config"
        validate(config, where)
        address = self._unusual_address(config.address, join(where, "address")) if config.HasField("address") else None
        return EndpointHealthCheck(
            config.port_value, config.hostname, address, bool(config.disable_active_health_check)
        )

    def _metadata_of(self, message: Any, path: str, index: int) -> Metadata:
        key = message.SerializeToString()
        found = self._metadata.get(key)
        if found is None:
            validate(message, f"{path}[{index}].metadata")
            found = self._metadata[key] = metadata(message)
        return found

    def _address(self, message: Any, path: str, index: int) -> Address:
        socket = message.socket_address
        host = socket.address
        has_port = socket.WhichOneof("port_specifier") == "port_value" and socket.port_value <= 65535
        is_usual = not (socket.protocol or socket.resolver_name or socket.network_namespace_filepath)
        if has_port and host and is_usual and (self._allow_names or _IPV4.fullmatch(host)):
            return Address(host, socket.port_value)
        return self._unusual_address(message, f"{path}[{index}].endpoint.address")

    def _unusual_address(self, message: Any, path: str) -> Address:
        validate(message, path)
        match message.WhichOneof("address"):
            case "pipe":
                return Address("", 0, message.pipe.path)
            case "socket_address":
                where = join(path, "socket_address")
                return self._socket_address(message.socket_address, where)
        raise ResourceError(path, "internal addresses are not supported; use socket_address or pipe")

    def _socket_address(self, message: Any, path: str) -> Address:
        if message.WhichOneof("port_specifier") != "port_value":
            raise ResourceError(path, "port_value is required; named ports need a resolver")
        if message.protocol:
            raise ResourceError(join(path, "protocol"), "must be TCP")
        if message.resolver_name:
            raise ResourceError(join(path, "resolver_name"), "custom resolvers are not there; leave it empty")
        if message.network_namespace_filepath:
            self._ctx.degraded(join(path, "network_namespace_filepath"), "the process's own network namespace is used")
        if not self._allow_names and not _is_ip(message.address):
            raise ResourceError(
                join(path, "address"),
                f"is no IP address: {message.address[:255]!r}; names need a cluster of type STRICT_DNS or LOGICAL_DNS",
            )
        return Address(message.address, message.port_value)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _locality(ctx: Context, message: Any, path: str, endpoints: _Endpoints) -> LocalityLbEndpoints:
    ctx.check_fields(message, path, _LOCALITY)
    weight = wrapped(message, "load_balancing_weight", None)
    if weight == 0:
        raise ResourceError(join(path, "load_balancing_weight"), "must be at least 1, is 0")
    if message.priority > _MAX_PRIORITY:
        raise ResourceError(join(path, "priority"), f"must be at most {_MAX_PRIORITY}, is {message.priority}")
    where = join(path, "lb_endpoints")
    found = [endpoints.decode(endpoint, where, index) for index, endpoint in enumerate(message.lb_endpoints)]
    if sum(endpoint.weight for endpoint in found) > _MAX_WEIGHT:
        raise ResourceError(where, f"the sum of the weights of a locality must be at most {_MAX_WEIGHT}")
    place = message.locality
    return LocalityLbEndpoints(
        tuple(found), Locality(place.region, place.zone, place.sub_zone), message.priority, weight
    )


def _without_duplicates(
    ctx: Context, localities: list[LocalityLbEndpoints], path: str
) -> tuple[LocalityLbEndpoints, ...]:
    """As Envoy: an address stands once in a priority, where it was named first."""
    seen: set[tuple[int, str, int, str]] = set()
    kept = []
    for index, locality in enumerate(localities):
        unique = []
        for endpoint in locality.endpoints:
            address = endpoint.address
            key = (locality.priority, address.host, address.port, address.path)
            if key in seen:
                ctx.degraded(f"{path}[{index}]", f"endpoint {address} is there twice in its priority; the first counts")
            else:
                seen.add(key)
                unique.append(endpoint)
        kept.append(LocalityLbEndpoints(tuple(unique), locality.locality, locality.priority, locality.weight))
    return tuple(kept)


def _check_locality_weights(localities: list[LocalityLbEndpoints], path: str) -> None:
    sums: dict[int, int] = {}
    for locality in localities:
        sums[locality.priority] = sums.get(locality.priority, 0) + (locality.weight or 0)
    for priority, total in sums.items():
        if total > _MAX_WEIGHT:
            raise ResourceError(path, f"the locality weights of priority {priority} sum up to more than {_MAX_WEIGHT}")


def _drop_overloads(message: Any) -> tuple[DropOverload, ...]:
    return tuple(
        DropOverload(drop.category, fractional_percent(drop.drop_percentage).fraction)
        for drop in message.policy.drop_overloads
    )


def cluster_load_assignment(
    ctx: Context, message: Any, path: str = "", *, allow_names: bool = False
) -> ClusterLoadAssignment:
    """A ClusterLoadAssignment message, not validated before; with `allow_names` endpoints may be DNS names."""
    ctx.check_fields(message, path, _ASSIGNMENT)
    if not message.cluster_name:
        raise ResourceError(join(path, "cluster_name"), "must not be empty")
    policy = join(path, "policy")
    validate(message.policy, policy)
    ctx.check_fields(message.policy, policy, _POLICY)
    endpoints = _Endpoints(ctx, message.named_endpoints, allow_names=allow_names)
    where = join(path, "endpoints")
    localities = [
        _locality(ctx, locality, f"{where}[{index}]", endpoints) for index, locality in enumerate(message.endpoints)
    ]
    _check_locality_weights(localities, where)
    return ClusterLoadAssignment(
        message.cluster_name,
        _without_duplicates(ctx, localities, where),
        wrapped(message.policy, "overprovisioning_factor", 140),
        _drop_overloads(message),
        bool(message.policy.weighted_priority_health),
    )
