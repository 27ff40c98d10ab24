"""What balancing is made of: hosts, a source of randomness, and the balancer over one set of hosts."""

from __future__ import annotations

from typing import Literal, Protocol

from meshlib.model.endpoint import HealthStatus, LbEndpoint, Locality
from meshlib.model.metadata import Value
from meshlib.state.cells import EndpointState

Availability = Literal["healthy", "degraded", "unhealthy"]

NOT_SERVING = frozenset(("UNHEALTHY", "DRAINING", "TIMEOUT"))


class Host:
    """One endpoint of one cluster with its state. Never changed; compared by identity, and the same object as long as
    updates say the same about the endpoint.
    """

    __slots__ = ("address", "cell", "endpoint", "locality", "priority")

    def __init__(self, endpoint: LbEndpoint, cell: EndpointState, address: str, locality: Locality, priority: int):
        self.endpoint = endpoint
        self.cell = cell
        self.address = address
        self.locality = locality
        self.priority = priority

    @property
    def weight(self) -> int:
        """`load_balancing_weight`, at least 1."""
        return self.endpoint.weight

    @property
    def health(self) -> HealthStatus:
        """What the control plane says about the endpoint."""
        return self.endpoint.health_status

    @property
    def metadata(self) -> tuple[tuple[str, Value], ...]:
        """The endpoint's metadata for balancing (`envoy.lb`)."""
        return self.endpoint.metadata.namespace("envoy.lb").items

    @property
    def availability(self) -> Availability:
        """Health as balancing uses it: the worst of what the control plane says and what was learnt of the endpoint."""
        if not self.cell.usable:
            return "unhealthy"
        status = self.endpoint.health_status
        if status in NOT_SERVING:
            return "unhealthy"
        return "degraded" if status == "DEGRADED" or self.cell.degraded else "healthy"

    @property
    def leaving(self) -> bool:
        """Whether it is not missed when the health of its priority is reckoned: it is draining, or as good as gone."""
        return self.endpoint.health_status == "DRAINING" or self.cell.leaving

    def __repr__(self) -> str:
        return f"Host({self.address})"


class Rng(Protocol):
    """The one thing asked of a random number generator."""

    def random(self) -> float:
        """A float in [0, 1)."""


class Balancer(Protocol):
    """One policy over one set of hosts that are all eligible. Safe under threads without a lock."""

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """A host, or None of an empty set. `attempt` counts the picks turned down before for the same request:
        policies whose choice depends on the hash alone use it to move on.
        """


class NoHosts:
    """The balancer of an empty set."""

    __slots__ = ()

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """Always None."""
        return None


class OneHost:
    """The balancer of one host, whatever the policy."""

    __slots__ = ("_host",)

    def __init__(self, host: Host) -> None:
        self._host = host

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """Always the host."""
        return self._host


NO_HOSTS = NoHosts()
