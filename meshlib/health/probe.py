"""What a check is made against: where to connect to, under which name, and in what TLS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from meshlib.balancing.base import Host
from meshlib.engine.cluster import ClusterPlan
from meshlib.identity.upstream import PLAIN, Secured
from meshlib.model.cluster import UpstreamTls
from meshlib.model.endpoint import Address, LbEndpoint
from meshlib.model.health import GrpcHealthCheck, HealthCheck, HttpHealthCheck
from meshlib.model.metadata import Metadata
from meshlib.policy.health import FailureKind, Finding

_MATCHED = "envoy.transport_socket_match"
Secure = Callable[[UpstreamTls, tuple[str, ...], str], Secured]
"""The context for a cluster's TLS, the protocols to offer and a host (`Upstreams.secure`)."""


@dataclass(frozen=True, slots=True)
class Target:
    """`dial`: the addresses, the first that answers. `hostname`: as the check names the endpoint. `name`: what TLS asks
    for where the configuration does not say.
    """

    dial: tuple[Address, ...]
    hostname: str
    tls: UpstreamTls | None
    alpn: tuple[str, ...]
    name: str | None

    def secured(self, secure: Secure) -> Secured:
        """The TLS to connect in. Raises ConfigurationError."""
        return PLAIN if self.tls is None else secure(self.tls, self.alpn, self.hostname)

    def server_name(self, secured: Secured) -> str | None:
        """What TLS asks for; the address, if nothing else is known."""
        if secured.context is None:
            return None
        return secured.server_name or self.name or self.dial[0].host


class Probe(Protocol):
    """Makes one kind of check of one endpoint, one at a time, on the checks' own event loop."""

    async def check(self) -> Finding:
        """Make it. Cancelled when its time is over: then nothing of it may stay open."""

    async def aclose(self) -> None:
        """The last one has been made."""


Place = Callable[[], tuple[ClusterPlan, Host]]
"""An endpoint as the plan in force has it."""
MakeProbe = Callable[[Place, HealthCheck, Target], Probe]


def network_failure(reason: object) -> Finding:
    """No answer."""
    return Finding(FailureKind.NETWORK, str(reason) or type(reason).__name__)


def target_of(cluster: ClusterPlan, host: Host, check: HealthCheck) -> Target:
    """Where a check of an endpoint goes."""
    endpoint = checked_endpoint(host.endpoint)
    labels = check.transport_socket_match_criteria
    if labels is not None:
        endpoint = replace(endpoint, metadata=Metadata(((_MATCHED, labels),)))
    return Target(
        endpoint.targets,
        hostname_of(cluster, host.endpoint, check),
        cluster.config.tls_of(endpoint),
        check.alpn_protocols,
        endpoint.hostname or None if cluster.config.by_dns else None,
    )


def checked_endpoint(endpoint: LbEndpoint) -> LbEndpoint:
    """The endpoint as checks dial it (`health_check_config`)."""
    config = endpoint.health_check
    if config is None or not (config.address or config.port):
        return endpoint
    if config.address is not None:
        address = replace(config.address, port=config.port or config.address.port)
        return replace(endpoint, address=address, dial=())
    moved = tuple(replace(each, port=config.port) for each in endpoint.dial)
    return replace(endpoint, address=replace(endpoint.address, port=config.port), dial=moved)


def hostname_of(cluster: ClusterPlan, endpoint: LbEndpoint, check: HealthCheck) -> str:
    """As Envoy: what the endpoint says, else the check, else the cluster's name."""
    own = endpoint.health_check.hostname if endpoint.health_check is not None else ""
    if own:
        return own
    match check.check:
        case HttpHealthCheck(host=given) | GrpcHealthCheck(authority=given) if given:
            return given
    return cluster.name
