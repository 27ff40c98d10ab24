"""Sticky sessions: the endpoint that a request asks for, and the one that its caller is told of."""

from __future__ import annotations

from collections.abc import Collection

from meshlib.balancing.base import Host
from meshlib.engine.cluster import ClusterPlan
from meshlib.model.endpoint import HealthStatus
from meshlib.model.filters import FilterConfig
from meshlib.model.request import RequestHead
from meshlib.model.session import SessionCookie, SessionHeader, StatefulSession
from meshlib.policy.rng import Rng
from meshlib.routing.session import CookieSession, Header, HeaderSession


class SessionFilter:
    """`envoy.filters.http.stateful_session` on one route. It refuses nothing: what it wants is asked for by whoever
    picks the endpoint.
    """

    def __init__(self, config: StatefulSession, state: SessionCookie | SessionHeader) -> None:
        self.config: FilterConfig = config
        self.strict = config.strict
        self.state = CookieSession(state) if isinstance(state, SessionCookie) else HeaderSession(state)

    def on_request(self, head: RequestHead, now: float, rng: Rng) -> None:
        """Nothing to refuse."""


class Session:
    """The sessions of one call. `wall` is now in seconds of the epoch."""

    __slots__ = ("_parts", "strict", "wall", "wanted")

    def __init__(self, filters: Collection[SessionFilter], head: RequestHead, wall: float) -> None:
        self.wall = wall
        self.wanted, self.strict = "", False
        self._parts: list[tuple[CookieSession | HeaderSession, str]] = []
        for item in filters:
            if item.state.applies(head):
                address = item.state.address(head, wall)
                self._parts.append((item.state, address))
                if address:  # the last one has the last word
                    self.wanted, self.strict = address, item.strict

    def headers(self, address: str) -> list[Header]:
        """What tells the caller that it was at `address`, unless it has said so itself; the last filter comes first, as
        responses pass the chain the other way round.
        """
        return [state.header(address, self.wall) for state, asked in reversed(self._parts) if asked != address]


def choose(cluster: ClusterPlan, address: str) -> Host | None:
    """The endpoint of a cluster that a session wants, if its health permits."""
    host = cluster.balancer.host_at(address)
    if host is None or _health(host) not in cluster.config.override_host_statuses:
        return None
    return host


def _health(host: Host) -> HealthStatus:
    return host.health if host.cell.usable else "UNHEALTHY"
