"""Outbound tables: one route configuration compiled, and its virtual host for an authority."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from meshlib.engine.filter_states import FilterStates
from meshlib.engine.route import RoutePlan, RouteScope
from meshlib.model.listener import HttpConnectionManager
from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.model.report import in_resource
from meshlib.model.request import RequestHead
from meshlib.model.route import RouteConfiguration, VirtualHost
from meshlib.routing.located import at
from meshlib.routing.require_tls import TLS_ROUTE, to_https
from meshlib.routing.router import RouteTable, VirtualHostTable


class VirtualHostPlan:
    """A virtual host with its compiled routes; `routes[i]` belongs to index i of `table`."""

    __slots__ = ("listener", "manager", "routes", "source", "table")

    def __init__(self, source: OutboundTable, table: VirtualHostTable, routes: tuple[RoutePlan, ...]) -> None:
        self.source = source
        self.listener = source.listener
        self.manager = source.manager
        self.table = table
        self.routes = routes

    def of(self, head: RequestHead) -> VirtualHostPlan | None:
        """The virtual host of a request: itself, but for scoped routes."""
        del head
        return self

    def unmatched(self, head: RequestHead) -> str:
        """Why no route of it is the request's."""
        return f"no route of virtual host {self.table.config.name!r} matches {head.method} {head.path_only}"


class OutboundTable:
    """One route configuration behind one connection manager (or none, when it stands alone)."""

    __slots__ = ("_plans", "config", "listener", "manager", "port", "routes")

    def __init__(
        self,
        config: RouteConfiguration,
        listener: str,
        manager: HttpConnectionManager | None,
        states: FilterStates,
        port: int = 0,
        runtime: Struct = EMPTY_STRUCT,
    ) -> None:
        self.config = config
        self.listener = listener
        self.manager = manager
        self.port = port
        scope = replace(RouteScope.of(listener, manager, config), runtime=runtime)
        with in_resource(f"RouteConfiguration {config.name}"):
            self.routes = RouteTable(config, runtime)
            # Keyed by identity: hashing a frozen virtual host would walk all of it.
            self._plans = {
                id(host): tuple(_route_plans(f"virtual_hosts[{number}]", host, scope, states))
                for number, host in enumerate(config.virtual_hosts)
            }

    def route_plans(self) -> Iterator[RoutePlan]:
        """Every route, virtual host by virtual host."""
        for plans in self._plans.values():
            yield from plans

    def configurations(self) -> Iterator[RouteConfiguration]:
        """What it was compiled from."""
        yield self.config

    def on_demand(self, authority: str) -> Iterator[str]:
        """The name that the authority's virtual host is asked for by, where virtual hosts come on demand."""
        if self.config.vhds:
            yield f"{self.config.name}/{self._stripped(authority).lower()}"

    def find(self, authority: str) -> VirtualHostPlan | None:
        """The virtual host for an authority."""
        found = self.routes.virtual_host(self._stripped(authority))
        if found is None:
            return None
        return VirtualHostPlan(self, found, self._plans[id(found.config)])

    def _stripped(self, authority: str) -> str:
        strip = self.manager.strip_port if self.manager else "none"
        if strip == "none":
            return authority
        host, port = split_port(authority)
        return host if port is not None and (strip == "any" or port == self.port) else authority


def _route_plans(where: str, host: VirtualHost, scope: RouteScope, states: FilterStates) -> Iterator[RoutePlan]:
    for index, route in enumerate(host.routes):
        with at(f"{where}.routes[{index}]"):
            yield RoutePlan(index, route, host, scope, states)
    if host.require_tls != "NONE":
        yield _to_https(host, scope, states)


def _to_https(host: VirtualHost, scope: RouteScope, states: FilterStates) -> RoutePlan:
    """The redirect that `require_tls` makes, without what the levels above a route add to its answers."""
    outside = replace(scope, config=RouteConfiguration(scope.config.name))
    plan = RoutePlan(len(host.routes), TLS_ROUTE, VirtualHost(host.name, (), ()), outside, states)
    plan.location = to_https
    return plan


def split_port(authority: str) -> tuple[str, int | None]:
    """`host`, `port` of an authority; a bare IPv6 address in brackets keeps its colons."""
    host, colon, port = authority.rpartition(":")
    if (
        colon
        and port.isascii()
        and port.isdigit()
        and len(port) <= 5
        and not (authority.startswith("[") and "]" in port)
    ):
        return host, int(port)
    return authority, None
