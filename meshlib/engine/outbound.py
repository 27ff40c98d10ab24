"""Outbound: which route configuration speaks for an authority.

A call names a host, not a listener, so the library has to find the listener the call would have been sent to:

1. an API listener of that name (proxyless: `payments`, `payments:8080`),
2. the listeners on the call's port (a sidecar's outbound listeners, `0.0.0.0_9080`),
3. every other outbound listener that is `bound`, so not a sidecar's for other ports but its `virtualOutbound`, then
   route configurations no listener refers to: first those where a domain other than `*` fits, then those with `*`.

The answer is remembered per (scheme, authority), bounded. Where a table of one of these has virtual hosts that come on
demand, the search ends there until it is known whether the authority's is among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from meshlib.engine.filter_states import FilterStates
from meshlib.engine.scoped import ScopedTables
from meshlib.engine.table import OutboundTable, VirtualHostPlan, split_port
from meshlib.model.filters import HttpFilter, RouterFilter
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import HostRewrite, Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.scoped_routes import ScopedRoutes
from meshlib.model.snapshot import Snapshot

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "grpc": 80}
_REMEMBERED = 4096
_TO_CLUSTER = "cluster://"  # which no authority of HTTP begins with


class Outbound:
    """Every table of a snapshot, and the way to the right one."""

    def __init__(self, snapshot: Snapshot, states: FilterStates, previous: Outbound | None = None) -> None:
        self._states = states
        self._runtime = snapshot.runtime
        # What runtime keys say is compiled into the tables.
        self._old = previous._built if previous and previous._runtime == snapshot.runtime else {}
        self._built: dict[tuple[str, int, str], tuple[object, object, OutboundTable]] = {}
        self._memory: dict[tuple[str, str], VirtualHostPlan | None] = {}
        self.named: dict[str, list[OutboundTable]] = {}
        self.by_port: dict[int, list[OutboundTable]] = {}
        self.rest: list[OutboundTable] = []
        referred: set[str] = set()
        self._answered = snapshot.answered_hosts or frozenset()
        asked = snapshot.answered_hosts is not None
        self._has_vhds = asked and any(config.vhds for config in snapshot.routes.values())
        for listener in snapshot.listeners.values():
            for position, manager in enumerate(listener.managers):
                referred |= snapshot.routes_named_by(manager)
                if listener.direction != "INBOUND":
                    self._add(listener, self._of_manager(snapshot, listener, position, manager))
        for name, config in snapshot.routes.items():
            if name not in referred:
                self.rest.append(self._table(("", 0, name), config, None, 0))
        self._old = {}

    def _add(self, listener: Listener, table: OutboundTable | None) -> None:
        if table is None:
            return
        if listener.api:
            self.named.setdefault(listener.name, []).append(table)
        else:
            self.by_port.setdefault(listener.port, []).append(table)
            if listener.bound:
                self.rest.append(table)

    def _of_manager(
        self, snapshot: Snapshot, listener: Listener, position: int, manager: HttpConnectionManager
    ) -> OutboundTable | None:
        """The table of a connection manager; None while its route configuration is not there."""
        routes = manager.routes
        if isinstance(routes, ScopedRoutes):
            return self._scoped(snapshot, listener, position, manager, routes)
        config = snapshot.routes.get(routes) if isinstance(routes, str) else routes
        if config is None:
            return None
        return self._table((listener.name, position, config.name), config, manager, listener.port)

    def _scoped(
        self,
        snapshot: Snapshot,
        listener: Listener,
        position: int,
        manager: HttpConnectionManager,
        routes: ScopedRoutes,
    ) -> OutboundTable:
        tables = {}
        scopes = {scope.name: scope for scope in snapshot.scopes_of(routes)}
        for name, scope in scopes.items():
            config = snapshot.routes.get(scope.routes) if isinstance(scope.routes, str) else scope.routes
            if config is not None:
                key = config.name if isinstance(scope.routes, str) else f"{name}/{config.name}"
                tables[scope.key] = self._table((listener.name, position, key), config, manager, listener.port)
        return ScopedTables(routes, tables, listener.name, manager, listener.port)

    def _table(
        self,
        key: tuple[str, int, str],
        config: RouteConfiguration,
        manager: HttpConnectionManager | None,
        port: int,
    ) -> OutboundTable:
        """A table, taken over from the last plan when nothing in it has changed."""
        old = self._old.get(key)
        if (
            old
            and old[2].port == port
            and (old[0] is config or old[0] == config)
            and (old[1] is manager or old[1] == manager)
        ):
            table = old[2]
        else:
            table = OutboundTable(config, key[0] or f"route:{config.name}", manager, self._states, port, self._runtime)
        self._built[key] = (config, manager, table)
        return table

    def find(self, scheme: str, authority: str) -> VirtualHostPlan | None:
        """The virtual host that speaks for an authority, None when none does."""
        key = (scheme, authority)
        try:
            return self._memory[key]
        except KeyError:
            cluster = self._cluster(authority) if authority.startswith(_TO_CLUSTER) else None
            found = cluster or next(self._candidates(scheme, authority), None)
            if len(self._memory) >= _REMEMBERED:
                self._memory = {}
            self._memory[key] = found
            return found

    def _cluster(self, authority: str) -> VirtualHostPlan | None:
        """The way to a cluster that is called by its own name: a virtual host with one route, and no filters."""
        told, _, name = authority.removeprefix(_TO_CLUSTER).partition("@")
        action = RouteAction(name, host_rewrite=HostRewrite("literal", told or name))
        host = VirtualHost(name, ("*",), (Route(RouteMatch(PathMatcher("prefix", "/")), action),))
        config = RouteConfiguration(_TO_CLUSTER + name, (host,))
        router = HttpFilter("envoy.filters.http.router", RouterFilter(suppress_envoy_headers=True))
        return OutboundTable(config, "", HttpConnectionManager(config, (router,)), self._states).find(authority)

    def awaited(self, scheme: str, authority: str) -> tuple[str, ...]:
        """The virtual hosts that may still come for an authority that nothing speaks for, by what they are asked for
        by (`<route configuration>/<authority>`).
        """
        if not self._has_vhds or self.find(scheme, authority) is not None:
            return ()
        for tables in self._places(scheme, authority):
            names = tuple(self._on_demand(tables, authority))
            if names:
                return names
        return ()

    def denied(self, scheme: str, authority: str) -> str:
        """The virtual host that was asked for in vain, for an authority nothing speaks for; empty when none was."""
        if not self._has_vhds:
            return ""
        tables = (table for tables in self._places(scheme, authority) for table in tables)
        names = (name for table in tables for name in table.on_demand(authority))
        return next((name for name in names if name in self._answered), "")

    def _places(self, scheme: str, authority: str) -> Iterator[Sequence[OutboundTable]]:
        for name in listener_names(scheme, authority):
            yield self.named.get(name, ())
        yield self.by_port.get(effective_port(scheme, authority), ())
        yield self.rest

    def _on_demand(self, tables: Iterable[OutboundTable], authority: str) -> Iterator[str]:
        names = (name for table in tables for name in table.on_demand(authority))
        return (name for name in names if name not in self._answered)

    def _candidates(self, scheme: str, authority: str) -> Iterator[VirtualHostPlan | None]:
        """What may speak for an authority, best first; None where that is not known yet."""
        fitting: list[VirtualHostPlan] = []
        for tables in self._places(scheme, authority):
            fitting = list(_matches(tables, authority))
            if tables is self.rest:
                yield from (found for found in fitting if "*" not in found.table.config.domains)
            else:
                yield from fitting
            if self._has_vhds and any(True for _ in self._on_demand(tables, authority)):
                yield None
        yield from fitting


def cluster_authority(cluster: str, authority: str = "") -> str:
    """What stands for a cluster where a call names an authority: it goes there whatever routes there are. The endpoint
    is told `authority`, by default the cluster's name.
    """
    return f"{_TO_CLUSTER}{authority}@{cluster}"


def _matches(tables: Iterable[OutboundTable], authority: str) -> Iterator[VirtualHostPlan]:
    for table in tables:
        if (found := table.find(authority)) is not None:
            yield found


def listener_names(scheme: str, authority: str) -> tuple[str, ...]:
    """The API listener names of an authority: as written, then with the scheme's default port added or dropped."""
    host, port = split_port(authority)
    default = _DEFAULT_PORTS.get(scheme)
    if port is None:
        return (authority, f"{authority}:{default}") if default else (authority,)
    return (authority, host) if port == default else (authority,)


def effective_port(scheme: str, authority: str) -> int:
    """The port a call to the authority would go to; 0 when neither says."""
    _, port = split_port(authority)
    return port if port is not None else _DEFAULT_PORTS.get(scheme, 0)
