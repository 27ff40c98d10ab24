"""One service that calls ask for: its chain, compiled to routes and clusters, and which chain is in force.

A chain is put into force when the instances of everything it routes to are known, never before: a splitter that names a
new subset must not send a share of the calls to endpoints nobody has told of yet. Until then the one before it stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from meshlib.model.cluster import Cluster
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.report import Report
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.sources.consul.chain import decode_chain
from meshlib.sources.consul.chain_clusters import CLUSTER_DEFAULTS, ChainCluster, chain_clusters
from meshlib.sources.consul.chain_routes import ROUTE_DEFAULTS, RouteDefaults, virtual_host
from meshlib.sources.consul.names import ServiceName
from meshlib.sources.consul.query import ALL_INSTANCES, HealthOptions, Query, Target, chain_query, health_query


@dataclass(frozen=True, slots=True)
class ConsulOptions:
    """What holds for every service. `nearest`: so many instances, by Consul's order, before the others (with
    `health.near`). `reset_grace`: seconds after Consul was away in which
    no instance and no chain is lost on its word alone (`instances`).
    """

    health: HealthOptions = ALL_INSTANCES
    datacenter: str = ""
    cluster: Cluster = CLUSTER_DEFAULTS
    routes: RouteDefaults = ROUTE_DEFAULTS
    nearest: int | None = None
    reset_grace: float = 30.0


CONSUL_OPTIONS = ConsulOptions()


@dataclass(frozen=True, slots=True)
class Compiled:
    """A chain ready to use. `queries` are the health queries of each cluster, in the order of failover."""

    routes: RouteConfiguration
    clusters: tuple[ChainCluster, ...]
    queries: tuple[tuple[Query, ...], ...]
    is_default: bool
    datacenter: str = ""


class Service:
    """What is known of one name. A name with a tag has no chain: tags are Consul's DNS, chains its mesh."""

    def __init__(self, name: ServiceName, options: ConsulOptions) -> None:
        self.name = name
        self._options = options
        self._datacenter = name.datacenter or options.datacenter
        self.chain_query: Query | None = (
            None if name.tag else chain_query(name.service, self._datacenter, options.health)
        )
        self.active: Compiled | None = None
        self._pending = self._plain() if name.tag else None
        self._hold_until = float(
            "-inf"
        )  # monotonic; until then an empty chain does not replace one that said something
        self._held: Compiled | None = None
        self.was_seen = False

    def queries(self) -> Iterator[Query]:
        """Everything there is to watch for it."""
        if self.chain_query is not None:
            yield self.chain_query
        for compiled in (self.active, self._pending):
            for queries in compiled.queries if compiled else ():
                yield from queries

    def target_of(self, query: Query) -> Target | None:
        """The target that a health query of this service is about."""
        for compiled in (self.active, self._pending):
            for cluster, queries in zip(compiled.clusters, compiled.queries, strict=True) if compiled else ():
                if query in queries:
                    return cluster.targets[queries.index(query)]
        return None

    def tell_chain(self, answer: Any, report: Report, *, hold_until: float | None) -> None:
        """A new chain; `hold_until` after Consul lost its state. Raises `ResourceError`, and keeps what there was."""
        chain = decode_chain(answer, self.name.service, report)
        clusters = chain_clusters(chain, "" if self.name.datacenter else chain.datacenter, self._options.cluster)
        names = {target: found.cluster.name for target, found in clusters.items()}
        host = virtual_host(str(self.name), chain, names, self._options.routes)
        self._take(self._compiled(host, tuple(clusters.values()), chain.is_default, chain.datacenter), hold_until)

    def without_chain(self) -> None:
        """Consul has no chains (Connect is off): the service as the catalog has it, from now on."""
        if self.active is None:
            self.chain_query = None
            self._take(self._plain(), None)

    def settle(self, known: Mapping[Query, Any], now: float) -> bool:
        """Put the chain that waits into force if its first choices are all known. Whether that changed anything."""
        if self._held is not None and now >= self._hold_until:
            self._pending, self._held = self._held, None
        pending = self._pending
        if pending is None or not all(queries[0] in known for queries in pending.queries):
            return False
        changed = pending != self.active
        self.active, self._pending = pending, None
        self.was_seen = self.was_seen or not pending.is_default
        return changed

    @property
    def deadline(self) -> float | None:
        """When to settle again without being told anything."""
        return self._hold_until if self._held is not None else None

    def _take(self, compiled: Compiled, hold_until: float | None) -> None:
        if hold_until is not None:
            self._hold_until = hold_until
        is_loss = compiled.is_default and self.active is not None and not self.active.is_default
        self._held, self._pending = (
            (compiled, None) if is_loss and self._hold_until > float("-inf") else (None, compiled)
        )
        if self._held is None:
            self._hold_until = float("-inf")

    def _plain(self) -> Compiled:
        target = Target(self.name.service, self._datacenter, tag=self.name.tag)
        cluster = replace(self._options.cluster, name=str(self.name), type="EDS", load_assignment=None)
        action = RouteAction(cluster.name, timeout=self._options.routes.timeout)
        route = Route(RouteMatch(PathMatcher("prefix", "/")), action, name="default")
        host = VirtualHost(str(self.name), ("*",), (route,), retry_policy=self._options.routes.retries)
        return self._compiled(host, (ChainCluster(cluster, (target,)),), is_default=True)

    def _compiled(
        self, host: VirtualHost, clusters: tuple[ChainCluster, ...], is_default: bool, datacenter: str = ""
    ) -> Compiled:
        options = self._options.health
        queries = tuple(tuple(health_query(target, options) for target in cluster.targets) for cluster in clusters)
        return Compiled(RouteConfiguration(host.name, (host,)), clusters, queries, is_default, datacenter)
