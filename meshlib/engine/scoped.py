"""Scoped route tables: which route configuration speaks for an authority is the request's own say.

To a call a scoped manager's virtual host is one like any other: its routes are those of the virtual hosts of all
scopes, one after the other, and matching looks at the routes of the request's scope only. So a call that meets no
scoped manager pays nothing, and the call flow knows of no scopes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from meshlib.engine.route import RoutePlan
from meshlib.engine.table import OutboundTable, VirtualHostPlan
from meshlib.model.listener import HttpConnectionManager
from meshlib.model.request import RequestHead
from meshlib.model.route import RouteConfiguration, VirtualHost
from meshlib.model.scoped_routes import ScopedRoutes
from meshlib.policy.rng import Rng
from meshlib.routing.router import RouteTrial, VirtualHostTable
from meshlib.routing.scope_key import ScopeKey, compile_scope_key

Key = tuple[str, ...]


class ScopedTables(OutboundTable):
    """The tables of all scopes behind one connection manager, by scope key."""

    __slots__ = ("_key", "_tables")

    def __init__(
        self,
        scoped: ScopedRoutes,
        tables: Mapping[Key, OutboundTable],
        listener: str,
        manager: HttpConnectionManager,
        port: int,
    ) -> None:
        self.config = RouteConfiguration(scoped.name)
        self.listener = listener
        self.manager = manager
        self.port = port
        self._key = compile_scope_key(scoped.fragments)
        self._tables = tables

    def route_plans(self) -> Iterator[RoutePlan]:
        """Every route, scope by scope."""
        for table in self._tables.values():
            yield from table.route_plans()

    def configurations(self) -> Iterator[RouteConfiguration]:
        """Those of the scopes."""
        for table in self._tables.values():
            yield from table.configurations()

    def on_demand(self, authority: str) -> Iterator[str]:
        """Those of every scope: which one it will be is not known before the request."""
        for table in self._tables.values():
            yield from table.on_demand(authority)

    def find(self, authority: str) -> VirtualHostPlan | None:
        """The virtual hosts of an authority, None when no scope has one."""
        found = ((key, table.find(authority)) for key, table in self._tables.items())
        hosts = {key: host for key, host in found if host is not None}
        return ScopedHostPlan(self, self._key, hosts) if hosts else None


class ScopedHostPlan(VirtualHostPlan):
    """The virtual hosts of an authority in all scopes that have one."""

    __slots__ = ("_hosts", "_key")

    def __init__(self, source: ScopedTables, key: ScopeKey, hosts: Mapping[Key, VirtualHostPlan]) -> None:
        super().__init__(source, _ScopedTable(source.config.name, key, hosts), tuple(_routes(hosts.values())))
        self._key = key
        self._hosts = hosts

    def of(self, head: RequestHead) -> VirtualHostPlan | None:
        """The virtual host of the request's scope."""
        key = self._key(head)
        return None if key is None else self._hosts.get(key)

    def unmatched(self, head: RequestHead) -> str:
        """Why no route matches."""
        host = self.of(head)
        if host is not None:
            return host.unmatched(head)
        key = self._key(head)
        scope = "(the request has no key)" if key is None else f"with the request's key {'/'.join(key)!r}"
        return f"no scope of {self.source.config.name!r} {scope} speaks for {head.authority!r}"


class _ScopedTable(VirtualHostTable):
    """The tables of the scopes' virtual hosts; an index counts the routes of all of them."""

    __slots__ = ("_key", "_scopes")

    def __init__(self, name: str, key: ScopeKey, hosts: Mapping[Key, VirtualHostPlan]) -> None:
        tables = [host.table for host in hosts.values()]
        everything = all("*" in table.config.domains for table in tables)
        self.config = VirtualHost(name, ("*",) if everything else (), ())
        self.draws = any(table.draws for table in tables)
        self._key = key
        self._scopes: dict[Key, tuple[int, VirtualHostTable]] = {}
        first = 0
        for scope, host in hosts.items():
            self._scopes[scope] = (first, host.table)
            first += len(host.routes)

    def match(self, head: RequestHead, rng: Rng) -> int:
        """The index of the first route of the request's scope that matches, -1 when none does."""
        key = self._key(head)
        scope = None if key is None else self._scopes.get(key)
        if scope is None:
            return -1
        first, table = scope
        index = table.match(head, rng)
        return index if index < 0 else first + index

    def trace(self, head: RequestHead, rng: Rng) -> list[RouteTrial]:
        """The routes tried in the request's scope."""
        key = self._key(head)
        scope = None if key is None else self._scopes.get(key)
        return [] if scope is None else scope[1].trace(head, rng)


def _routes(hosts: Iterable[VirtualHostPlan]) -> Iterator[RoutePlan]:
    for host in hosts:
        yield from host.routes
