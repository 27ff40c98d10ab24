"""One connection pool per endpoint of a cluster, kept as long as the plan names the endpoint.

A registry belongs to one transport and, for asyncio, to one event loop. It notices a new plan when it is next used, on
the thread or loop that owns its pools, so that no pool is ever touched from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.commands import Start
from meshlib.engine.plan import Plan
from meshlib.engine.table import split_port
from meshlib.errors import ConfigurationError
from meshlib.http.tls import default_context
from meshlib.http.wire.types import (
    Address,
    ConnectionEvent,
    ConnectionEventKind,
    FailureKind,
    PoolLimits,
    WireError,
)
from meshlib.identity.upstream import PLAIN, Secured, Upstreams
from meshlib.model.cluster import UpstreamTls
from meshlib.model.route import RoutingPriority
from meshlib.policy.thresholds import connection_gate, pending_gate, per_endpoint


class Drainable(Protocol):
    """What the registry itself does with a pool."""

    dial: tuple[Address, ...]

    def drain(self) -> None:
        """No new requests; idle connections close, busy ones when they are done."""


P = TypeVar("P", bound=Drainable)
Key = tuple[str, str, str | None, RoutingPriority]
"""Cluster, endpoint, the host where TLS goes by it (of an `https` URL to an endpoint that has no TLS of its own, or
where the endpoint's TLS says so; else None), and the route's priority, which has thresholds of its own.
"""
MAX_URL_HOSTS = 64
"""Pools of one endpoint that differ by the host of the URL only: callers choose that host, so it must have an end."""


class PoolRegistry(Generic[P]):
    """Pools by (cluster, endpoint). `make(address, **settings)` is `AsyncPool` or `SyncPool`.

    A pool lasts as long as what its TLS was made of: when certificates or authorities rotate, calls go on by a new pool
    at once, and the old one's connections close as they finish. So a connection never outlives the trust it was made
    in by more than the response it carries, and one made with a certificate about to expire does not stay.
    """

    def __init__(self, make: Callable[..., P], upstreams: Upstreams) -> None:
        self._make = make
        self._upstreams = upstreams
        self._pools: dict[Key, tuple[ClusterPlan, P, Secured, UpstreamTls | None]] = {}
        self._plan: Plan | None = None

    def get(self, plan: Plan, start: Start, server_name: str | None = None) -> P:
        """The pool for an attempt; `plan` is the one in force, `start` may stem from the one before. `server_name` is
        asked for in TLS in place of an `https` URL's host; where the cluster has TLS of its own, that holds.

        Raises WireError when the cluster's TLS cannot be used.
        """
        if plan is not self._plan:
            self._follow(plan)
        key = _key(start, server_name)
        found = self._pools.get(key)
        if found is not None and found[0] is start.cluster and not found[2].stale:
            return found[1]
        return self._adopt(key, start, found)

    def forget(self, start: Start, pool: P, server_name: str | None = None) -> None:
        """Drop a pool that turned out to be closed, so that `get` makes a new one."""
        key = _key(start, server_name)
        found = self._pools.get(key)
        if found is not None and found[1] is pool:
            self._pools.pop(key, None)

    def drain(self) -> list[P]:
        """Drain and return every pool, for whoever closes the transport."""
        pools = self.clear()
        for pool in pools:
            pool.drain()
        return pools

    def clear(self) -> list[P]:
        """Give every pool up, as it is."""
        pools = [pool for _, pool, _, _ in list(self._pools.values())]
        self._pools.clear()
        return pools

    def _adopt(self, key: Key, start: Start, found: tuple[ClusterPlan, P, Secured, UpstreamTls | None] | None) -> P:
        """Take a pool over to the attempt's plan if its settings are the same, else make one."""
        cluster, tls = start.cluster, start.cluster.config.tls_of(start.host.endpoint)
        if found and not found[2].stale and found[3] == tls and _settings(found[0]) == _settings(cluster):
            self._pools[key] = (cluster, found[1], found[2], tls)
            found[1].dial = _dialled(start)
            return found[1]
        secured = self._secured(tls, key[2])
        made = (cluster, self._new(key, start, secured), secured, tls)
        # Two threads may get here at once: the first one's pool is everybody's.
        kept = self._pools.setdefault(key, made) if found is None else made
        if found is not None:
            self._pools[key] = kept
            found[1].drain()
        elif key[2] is not None:
            self._bound(key)
        return kept[1]

    def _bound(self, key: Key) -> None:
        """Drain the oldest of an endpoint's pools by URL host, if there are too many."""
        alike = [other for other in list(self._pools) if other[:2] == key[:2] and other[2] is not None]
        for oldest in alike[:-MAX_URL_HOSTS]:
            if (gone := self._pools.pop(oldest, None)) is not None:
                gone[1].drain()

    def _secured(self, tls: UpstreamTls | None, url_host: str | None) -> Secured:
        """The cluster's TLS as configured; without any, an `https` URL still means what it says: TLS to that host."""
        if tls is None and url_host is None:
            return PLAIN
        if tls is None:
            if not url_host:  # never plain text instead
                raise WireError(
                    FailureKind.TLS_FAILURE, "https without a host that the certificate could be checked for"
                )
            return Secured(default_context(), url_host)
        try:
            return self._upstreams.secure(tls, host=url_host or "")
        except ConfigurationError as error:
            raise WireError(FailureKind.TLS_FAILURE, str(error)) from error

    def _new(self, key: Key, start: Start, secured: Secured) -> P:
        cluster, config, where = start.cluster, start.cluster.config, start.host.endpoint.address
        load, thresholds = cluster.thresholds(key[3])
        stats = cluster.stats

        def count(event: ConnectionEvent) -> None:
            if event.kind is ConnectionEventKind.CONNECTED:
                stats["upstream_cx_total"].add()

        pool = self._make(
            Address(where.host, where.port, where.path),
            ssl_context=secured.context,
            server_hostname=secured.server_name or _name(start),
            limits=PoolLimits(
                max_connections=min(per_endpoint(thresholds), 1 << 30),
                max_pending=min(thresholds.max_pending_requests, 1 << 30),
                max_requests_per_connection=config.max_requests_per_connection or 0,
                idle_timeout=config.idle_timeout,
                max_connection_duration=config.max_connection_duration,
            ),
            connections=connection_gate(load, thresholds, stats["upstream_cx_overflow"]),
            pending=pending_gate(load, thresholds),
            on_connection=count,
        )
        pool.dial = _dialled(start)
        return pool

    def _follow(self, plan: Plan) -> None:
        """Drain the pools of endpoints the new plan does not have."""
        self._plan = plan
        for key, (cluster, pool, _, _) in list(self._pools.items()):
            now = plan.clusters.get(key[0])
            if now is cluster:
                continue
            if now is None or key[1] not in now.addresses:
                self._pools.pop(key, None)
                pool.drain()


def _key(start: Start, server_name: str | None) -> Key:
    head, tls = start.head, start.cluster.config.tls_of(start.host.endpoint)
    if tls.by_host if tls is not None else head.scheme == "https":
        return (start.cluster.name, start.host.address, server_name or _host(head.authority), start.priority)
    return (start.cluster.name, start.host.address, None, start.priority)


def _dialled(start: Start) -> tuple[Address, ...]:
    return tuple(Address(where.host, where.port, where.path) for where in start.host.endpoint.targets)


def _name(start: Start) -> str | None:
    """What TLS asks for where the configuration does not say: the name that was resolved to the address."""
    return start.host.endpoint.hostname or None if start.cluster.config.by_dns else None


def _host(authority: str) -> str:
    """The host as a certificate names it: no port, and no brackets around an IPv6 address."""
    return split_port(authority)[0].removeprefix("[").removesuffix("]")


def _settings(cluster: ClusterPlan) -> tuple[object, ...]:
    """What of a cluster its connections depend on."""
    config = cluster.config
    both = config.circuit_breakers.default, config.circuit_breakers.high
    return (
        id(cluster.state),  # what its gates count in: a cluster that left and came back counts anew
        config.idle_timeout,
        config.max_requests_per_connection,
        config.max_connection_duration,
        *((limits.max_connections, limits.max_pending_requests, limits.max_connections_per_host) for limits in both),
    )
