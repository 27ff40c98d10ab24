"""`/v1/health/service/:name` as endpoints: address, weight, health, locality, metadata.

The rules are those of Consul's own Envoy configuration (`agent/xds/endpoints.go`): an instance with a critical check is
UNHEALTHY; one with a warning counts with its warning weight; a weight of 0 takes an instance out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshlib.model.endpoint import Address, HealthStatus, LbEndpoint, Locality
from meshlib.model.metadata import Metadata
from meshlib.model.report import Report, ResourceError
from meshlib.sources.consul.fields import Fields

_NOWHERE = Locality()
_RANK = {"passing": 0, "warning": 1, "critical": 2, "maintenance": 2}


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a service. `key` (node and service ID) is what it is known by in the catalog."""

    key: tuple[str, str]
    endpoint: LbEndpoint
    locality: Locality = _NOWHERE

    @property
    def is_usable(self) -> bool:
        """Whether it is balanced to."""
        return self.endpoint.health_status == "HEALTHY"


def decode_instances(rows: Any, service: str, report: Report, *, is_remote: bool = False) -> tuple[Instance, ...]:
    """The instances in Consul's order. A row that cannot be used is rejected and reported, the others stay. `is_remote`
    takes WAN addresses, for another datacenter. Raises `ResourceError` when it is no list of rows at all.
    """
    resource = f"Consul service {service}"
    if not isinstance(rows, list):
        raise ResourceError("", f"{type(rows).__name__} where a list of instances is expected", resource)
    found: dict[tuple[str, str], Instance] = {}
    for index, row in enumerate(rows):
        try:
            instance = _instance(Fields(row, f"[{index}]", resource, report), is_remote)
        except ResourceError as error:
            report.rejected(error)
        else:
            found.setdefault(instance.key, instance)
    return tuple(found.values())


def _instance(row: Fields, is_remote: bool) -> Instance:
    node, service = row.object("Node"), row.object("Service")
    if node is None or service is None:
        raise ResourceError(row.path, "an instance has a Node and a Service", row.resource)
    health, weight = _health_and_weight(row, service)
    tags, meta = service.texts("Tags"), service.mapping("Meta")
    about = {"node": node.text("Node"), "id": service.text("ID"), "datacenter": node.text("Datacenter"), "tags": tags}
    endpoint = LbEndpoint(
        _address(service, node, is_remote),
        weight,
        health,
        metadata=Metadata.of({"envoy.lb": meta, "consul": about}),
    )
    return Instance((node.text("Node"), service.text("ID")), endpoint, _locality(service, node))


def _health_and_weight(row: Fields, service: Fields) -> tuple[HealthStatus, int]:
    worst = max((_RANK.get(check.text("Status"), 2) for check in row.objects("Checks")), default=0)
    weights = service.object("Weights")
    name = "Warning" if worst == _RANK["warning"] else "Passing"
    weight = weights.integer(name, 1 if weights.value else 0) if weights else 1
    usable = worst < _RANK["critical"] and weight >= 1
    return ("HEALTHY" if usable else "UNHEALTHY"), max(1, weight)


def _address(service: Fields, node: Fields, is_remote: bool) -> Address:
    """Consul's order (`CheckServiceNode.BestAddress`): the service's tagged address, its own, then its node's."""
    if path := service.text("SocketPath"):
        return Address("", 0, path)
    kind = "wan" if is_remote else "lan"
    port = service.integer("Port")
    tagged = dict(service.entries("TaggedAddresses")).get(kind)
    if tagged is not None and tagged.text("Address"):
        host, port = tagged.text("Address"), tagged.integer("Port") or port
    else:
        host = service.text("Address") or node.mapping("TaggedAddresses").get(kind, "") or node.text("Address")
    if not host or not 0 < port < 65536:
        raise ResourceError(service.path, f"address {host!r} and port {port} are no place to send requests to")
    return Address(host, port)


def _locality(service: Fields, node: Fields) -> Locality:
    """Region and zone, of the service (Consul 1.17 and later) or else of its node."""
    said = service.object("Locality") or node.object("Locality")
    return Locality(said.text("Region"), said.text("Zone")) if said else _NOWHERE
