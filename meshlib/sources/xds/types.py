"""The nouns of the xDS transport protocol: type URLs and the requests and responses of one stream, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_PREFIX: Final = "type.googleapis.com/"
LISTENER: Final = _PREFIX + "envoy.config.listener.v3.Listener"
ROUTE_CONFIGURATION: Final = _PREFIX + "envoy.config.route.v3.RouteConfiguration"
CLUSTER: Final = _PREFIX + "envoy.config.cluster.v3.Cluster"
CLUSTER_LOAD_ASSIGNMENT: Final = _PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
SCOPED_ROUTE_CONFIGURATION: Final = _PREFIX + "envoy.config.route.v3.ScopedRouteConfiguration"
VIRTUAL_HOST: Final = _PREFIX + "envoy.config.route.v3.VirtualHost"
RUNTIME: Final = _PREFIX + "envoy.service.runtime.v3.Runtime"
SECRET: Final = _PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"

WILDCARD: Final = "*"
"""The name that subscribes to every resource of a type."""

MAKE_BEFORE_BREAK: Final = (
    CLUSTER,
    CLUSTER_LOAD_ASSIGNMENT,
    LISTENER,
    SCOPED_ROUTE_CONFIGURATION,
    ROUTE_CONFIGURATION,
    VIRTUAL_HOST,
)
"""The order in which types are asked for and pushed: what is pointed at comes before what points at it."""

FULL_STATE_TYPES: Final = frozenset({LISTENER, CLUSTER, SCOPED_ROUTE_CONFIGURATION})
"""Types of which a state-of-the-world response holds everything asked for, so that absence means removal."""


def in_push_order(type_urls: set[str]) -> list[str]:
    """Sort type URLs make-before-break, types outside that order last and by name."""
    known = [type_url for type_url in MAKE_BEFORE_BREAK if type_url in type_urls]
    return known + sorted(type_urls.difference(MAKE_BEFORE_BREAK))


def short_type(type_url: str) -> str:
    """``Cluster`` for ``type.googleapis.com/envoy.config.cluster.v3.Cluster``: what messages to people say."""
    return type_url.rpartition(".")[2] or type_url


@dataclass(frozen=True, slots=True)
class SotwRequest:
    """A DiscoveryRequest: the whole subscription of one type, and the ACK or NACK of ``response_nonce``."""

    type_url: str
    resource_names: tuple[str, ...] = ()
    version_info: str = ""
    response_nonce: str = ""
    error_detail: str | None = None
    first: bool = False  # the first of its stream carries the node


@dataclass(frozen=True, slots=True)
class DeltaRequest:
    """A DeltaDiscoveryRequest: changes of the subscription of one type, and the ACK or NACK of ``response_nonce``."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_resource_versions: tuple[tuple[str, str], ...] = ()
    response_nonce: str = ""
    error_detail: str | None = None
    first: bool = False


@dataclass(frozen=True, slots=True)
class WireResource:
    """One resource as it came: an ``Any`` (``type_url``, ``body``), with what its ``Resource`` wrapper said, if any."""

    type_url: str
    body: bytes
    name: str = ""
    version: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def is_heartbeat(self) -> bool:
        """A named wrapper without a resource only says "still valid" (xDS resource TTL)."""
        return bool(self.name) and not self.type_url and not self.body


@dataclass(frozen=True, slots=True)
class NamedError:
    """A control plane's own error for one resource (xRFC TP3); ``code`` is a gRPC status code."""

    name: str
    code: int
    message: str


@dataclass(frozen=True, slots=True)
class SotwResponse:
    """A DiscoveryResponse."""

    type_url: str
    version_info: str
    nonce: str
    resources: tuple[WireResource, ...] = ()
    errors: tuple[NamedError, ...] = ()


@dataclass(frozen=True, slots=True)
class DeltaResponse:
    """A DeltaDiscoveryResponse."""

    type_url: str
    nonce: str
    resources: tuple[WireResource, ...] = ()
    removed: tuple[str, ...] = ()
    system_version_info: str = ""
    errors: tuple[NamedError, ...] = ()


Request = SotwRequest | DeltaRequest
Response = SotwResponse | DeltaResponse
