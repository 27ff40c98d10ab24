"""Runtime fractions as Envoy's router check tool has them: those of one key hold, all others do not."""

from __future__ import annotations

from dataclasses import replace

from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import NEVER
from meshlib.model.route import Route, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot


def only_runtime(snapshot: Snapshot, key: str) -> Snapshot:
    """The snapshot in which no request is in a fraction of another key; what is not changed is the same object."""
    return replace(
        snapshot,
        routes={name: _table(config, key) for name, config in snapshot.routes.items()},
        listeners={name: _listener(listener, key) for name, listener in snapshot.listeners.items()},
    )


def has_fractions(config: RouteConfiguration) -> bool:
    """Whether chance has a part in which of its routes match."""
    return any(route.match.runtime_fraction is not None for host in config.virtual_hosts for route in host.routes)


def _listener(listener: Listener, key: str) -> Listener:
    managers = tuple(_manager(manager, key) for manager in listener.managers)
    return listener if managers == listener.managers else replace(listener, managers=managers)


def _manager(manager: HttpConnectionManager, key: str) -> HttpConnectionManager:
    routes = manager.routes
    return replace(manager, routes=_table(routes, key)) if isinstance(routes, RouteConfiguration) else manager


def _table(config: RouteConfiguration, key: str) -> RouteConfiguration:
    if not has_fractions(config):
        return config
    return replace(config, virtual_hosts=tuple(_host(host, key) for host in config.virtual_hosts))


def _host(host: VirtualHost, key: str) -> VirtualHost:
    return replace(host, routes=tuple(_route(route, key) for route in host.routes))


def _route(route: Route, key: str) -> Route:
    fraction = route.match.runtime_fraction
    if fraction is None or (key and fraction.runtime_key == key):
        return route
    return replace(route, match=replace(route.match, runtime_fraction=NEVER))
