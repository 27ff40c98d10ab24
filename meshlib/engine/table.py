"""Outbound tables: which route configuration speaks for an authority.

A call names a host, not a listener, so the library has to find the listener the call would have been sent to:

1. an API listener of that name (proxyless: `payments`, `payments:8080`),
2. the listeners on the call's port (a sidecar's outbound listeners, `0.0.0.0_9080`),
3. every other outbound listener that is `bound`, so not a sidecar's for other ports but its `virtualOutbound`, then
   route configurations no listener refers to: first those where a domain other than `*` fits, then those with `*`.

The answer is remembered per (scheme, authority), bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from meshlib.engine.filters import FilterStates
from meshlib.engine.route import RoutePlan, RouteScope
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.model.report import in_resource
from meshlib.model.route import RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from meshlib.routing.located import at
from meshlib.routing.require_tls import TLS_ROUTE, to_https
from meshlib.routing.router import RouteTable, VirtualHostTable

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "grpc": 80}
_REMEMBERED = 4096


class VirtualHostPlan:
    """A virtual host with its compiled routes; `routes[i]` belongs to index i of `table`."""

    __slots__ = ("listener", "manager", "routes", "source", "table")

    def __init__(self, source: OutboundTable, table: VirtualHostTable, routes: tuple[RoutePlan, ...]) -> None:
        self.source = source
        self.listener = source.listener
        self.manager = source.manager
        self.table = table
        self.routes = routes


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
        referred = set()
        for listener in snapshot.listeners.values():
            for position, manager in enumerate(listener.managers):
                if isinstance(manager.routes, str):
                    referred.add(manager.routes)
                config = snapshot.routes.get(manager.routes) if isinstance(manager.routes, str) else manager.routes
                if config is not None and listener.direction != "INBOUND":
                    self._add(listener, position, manager, config)
        for name, config in snapshot.routes.items():
            if name not in referred:
                self.rest.append(self._table(("", 0, name), config, None, 0))
        self._old = {}

    def _add(
        self, listener: Listener, position: int, manager: HttpConnectionManager, config: RouteConfiguration
    ) -> None:
        table = self._table((listener.name, position, config.name), config, manager, listener.port)
        if listener.api:
            self.named.setdefault(listener.name, []).append(table)
        else:
            self.by_port.setdefault(listener.port, []).append(table)
            if listener.bound:
                self.rest.append(table)

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
            found = next(self._candidates(scheme, authority), None)
            if len(self._memory) >= _REMEMBERED:
                self._memory = {}
            self._memory[key] = found
            return found

    def _candidates(self, scheme: str, authority: str) -> Iterator[VirtualHostPlan]:
        for name in listener_names(scheme, authority):
            yield from _matches(self.named.get(name, ()), authority)
        yield from _matches(self.by_port.get(effective_port(scheme, authority), ()), authority)
        fitting = list(_matches(self.rest, authority))
        yield from (found for found in fitting if "*" not in found.table.config.domains)
        yield from fitting


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
