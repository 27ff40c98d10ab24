"""Snapshot: everything known at one moment, consistent in itself. A source makes them; a plan is compiled from one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import ClusterLoadAssignment
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.model.route import RouteConfiguration
from meshlib.model.scoped_routes import ScopedRouteConfiguration, ScopedRoutes
from meshlib.model.zones import NOWHERE, Local

__all__ = ["Snapshot"]

T = TypeVar("T")


def _none() -> Mapping[str, T]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Resources by name. `endpoints` is keyed by EDS service name.

    `listeners` route by name or port; `routes` holds both RDS answers and route configurations that stand alone in a
    file: those no listener refers to are route tables of their own. `absent` names listeners that are known not to
    exist; with `on_demand`, an authority that is neither there nor absent can still be asked for.
    `scopes` are what SRDS brought, by name. `answered_hosts` are the virtual hosts that were asked for on demand, as
    `<route configuration>/<authority>`, and either came or do not exist; None: nobody can be asked for any.
    `runtime` holds the values of runtime keys, which replace the defaults of fractions in matches.
    `resolved` holds the endpoints of DNS clusters by the cluster's name, addresses in place of names, once somebody
    resolves them: a cluster that is not in it is still waited for. None: nobody does, and their endpoints have names.
    `local`: where this process is, as far as the source knows.
    `version` is for people: a counter, a file time, an xDS version.
    """

    listeners: Mapping[str, Listener] = field(default_factory=_none)
    routes: Mapping[str, RouteConfiguration] = field(default_factory=_none)
    clusters: Mapping[str, Cluster] = field(default_factory=_none)
    endpoints: Mapping[str, ClusterLoadAssignment] = field(default_factory=_none)
    absent: frozenset[str] = frozenset()
    on_demand: bool = False
    version: str = ""
    runtime: Struct = EMPTY_STRUCT
    resolved: Mapping[str, ClusterLoadAssignment] | None = None
    local: Local = NOWHERE
    scopes: Mapping[str, ScopedRouteConfiguration] = field(default_factory=_none)
    answered_hosts: frozenset[str] | None = None

    def scopes_of(self, routes: ScopedRoutes) -> tuple[ScopedRouteConfiguration, ...]:
        """The scopes a connection manager chooses among."""
        return tuple(self.scopes[name] for name in sorted(self.scopes)) if routes.scopes is None else routes.scopes

    def routes_named_by(self, manager: HttpConnectionManager) -> frozenset[str]:
        """The route configurations that a connection manager takes from `routes`."""
        if isinstance(manager.routes, ScopedRoutes):
            return frozenset(scope.routes for scope in self.scopes_of(manager.routes) if isinstance(scope.routes, str))
        return frozenset({manager.routes}) if isinstance(manager.routes, str) else frozenset()

    def routes_inside(self, manager: HttpConnectionManager) -> Iterator[RouteConfiguration]:
        """The route configurations that a connection manager, or a scope of it, has inline."""
        if isinstance(manager.routes, ScopedRoutes):
            for scope in self.scopes_of(manager.routes):
                if not isinstance(scope.routes, str):
                    yield scope.routes
        elif not isinstance(manager.routes, str):
            yield manager.routes

    def assignment(self, cluster: Cluster) -> ClusterLoadAssignment | None:
        """The endpoints of a cluster: by EDS where its type says so, inline otherwise; None when not (yet) known."""
        if cluster.type == "EDS":
            return self.endpoints.get(cluster.endpoints_name)
        if self.resolved is not None and cluster.by_dns:
            return self.resolved.get(cluster.name)
        return cluster.load_assignment
