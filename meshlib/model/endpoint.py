"""ClusterLoadAssignment: endpoints by locality and priority (`envoy.config.endpoint.v3`)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal

from meshlib.model.metadata import EMPTY_METADATA, Metadata

__all__ = [
    "Address",
    "ClusterLoadAssignment",
    "DropOverload",
    "EndpointHealthCheck",
    "HealthStatus",
    "LbEndpoint",
    "Locality",
    "LocalityLbEndpoints",
]

HealthStatus = Literal["UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"]


@dataclass(frozen=True, slots=True)
class Address:
    """`host:port`, or a unix socket (`path`, then host is empty and port 0). `host` may be a name for DNS clusters."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_literal(self) -> bool:
        """Whether there is nothing to resolve: a unix socket, or an address in numbers."""
        if self.path:
            return True
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Locality:
    """Where endpoints are: region, zone, sub-zone; all empty when not said."""

    region: str = ""
    zone: str = ""
    sub_zone: str = ""


@dataclass(frozen=True, slots=True)
class EndpointHealthCheck:
    """`Endpoint.HealthCheckConfig`: where an endpoint is checked in place of its own address, and under which name.

    `port` 0: the endpoint's own. `disabled`: the endpoint is not checked, and counts as healthy.
    """

    port: int = 0
    hostname: str = ""
    address: Address | None = None
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class LbEndpoint:
    """One upstream host. UNHEALTHY, DRAINING and TIMEOUT are not balanced to (outside panic); weight is at least 1.

    `dial` are the addresses connections are opened to, the first that answers, where `address` is a name of many
    (LOGICAL_DNS); empty: `address` itself. `health_check` says where it is checked, unless that is there as well.
    """

    address: Address
    weight: int = 1
    health_status: HealthStatus = "UNKNOWN"
    hostname: str = ""
    metadata: Metadata = EMPTY_METADATA
    dial: tuple[Address, ...] = ()
    health_check: EndpointHealthCheck | None = None

    @property
    def targets(self) -> tuple[Address, ...]:
        """Where to connect to, in order of preference."""
        return self.dial or (self.address,)


@dataclass(frozen=True, slots=True)
class LocalityLbEndpoints:
    """Endpoints of one locality at one priority (0 is tried first). `weight=None`: no locality weight given."""

    endpoints: tuple[LbEndpoint, ...]
    locality: Locality = Locality()
    priority: int = 0
    weight: int | None = None


@dataclass(frozen=True, slots=True)
class DropOverload:
    """`drop_overloads`: a share of the requests to drop, for a category."""

    category: str
    fraction: float


@dataclass(frozen=True, slots=True)
class ClusterLoadAssignment:
    """`overprovisioning_factor` is a percentage (Envoy: 140). `weighted_priority_health`: the health of a priority is
    reckoned by the weights of its endpoints, not by their number.
    """

    cluster_name: str
    localities: tuple[LocalityLbEndpoints, ...] = ()
    overprovisioning_factor: int = 140
    drop_overloads: tuple[DropOverload, ...] = ()
    weighted_priority_health: bool = False
