"""What a resource points at: the edges LDS → RDS → CDS → EDS along which dependencies are followed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import ClusterLoadAssignment
from meshlib.model.global_rate_limit import GlobalRateLimit
from meshlib.model.grpc_service import GrpcService
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matcher_tree import actions
from meshlib.model.rate_limit_quota import RateLimitQuota
from meshlib.model.route import (
    ClusterSpecifier,
    MatchedCluster,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
    WeightedClusters,
)
from meshlib.model.runtime import RuntimeLayer
from meshlib.model.scoped_routes import ScopedRouteConfiguration, ScopedRoutes

Resource = (
    Listener
    | RouteConfiguration
    | ScopedRouteConfiguration
    | VirtualHost
    | Cluster
    | ClusterLoadAssignment
    | RuntimeLayer
)


@dataclass(frozen=True, slots=True)
class References:
    """Names by type. Clusters named by a request header are unknown until a request comes, and are not here.

    `scopes`: all scopes there are (SRDS). `hosts`: the virtual hosts of the route configuration of that name (VHDS).
    """

    routes: frozenset[str] = frozenset()
    clusters: frozenset[str] = frozenset()
    endpoints: frozenset[str] = frozenset()
    scopes: bool = False
    hosts: str = ""


NO_REFERENCES = References()


def _specified(specifier: ClusterSpecifier) -> Iterator[str]:
    if isinstance(specifier, str):
        yield specifier
    elif isinstance(specifier, WeightedClusters):
        yield from (share.name for share in specifier.clusters if share.name)
    elif isinstance(specifier, MatchedCluster):
        yield from actions(specifier.matcher)


def _clusters(configuration: RouteConfiguration) -> frozenset[str]:
    return frozenset(
        name
        for level in _levels(configuration)
        for name in (
            *(_specified(level.cluster) if isinstance(level, RouteAction) else ()),
            *(policy.cluster for policy in level.request_mirror_policies if policy.cluster),
        )
    )


def _levels(configuration: RouteConfiguration) -> Iterator[RouteConfiguration | VirtualHost | RouteAction]:
    """Whatever names clusters: routes, and the levels above them, whose mirrors hold for routes without their own."""
    yield configuration
    for host in configuration.virtual_hosts:
        yield host
        yield from (route.action for route in host.routes if isinstance(route.action, RouteAction))


def _of_listener(listener: Listener) -> References:
    routes: set[str] = set()
    clusters: set[str] = set()
    for manager in listener.managers:
        clusters |= {service.cluster for service in _asked(manager) if service.cluster}
        for found in _of_routes(manager.routes):
            if isinstance(found, str):
                routes.add(found)
            else:
                clusters |= _clusters(found)
    by_srds = any(isinstance(m.routes, ScopedRoutes) and m.routes.scopes is None for m in listener.managers)
    return References(frozenset(routes), frozenset(clusters), scopes=by_srds)


def _asked(manager: HttpConnectionManager) -> Iterator[GrpcService]:
    """The services that the manager's filters ask."""
    for entry in manager.http_filters:
        if isinstance(entry.config, GlobalRateLimit | RateLimitQuota):
            yield entry.config.service


def _of_routes(routes: RouteConfiguration | str | ScopedRoutes) -> Iterator[RouteConfiguration | str]:
    if not isinstance(routes, ScopedRoutes):
        yield routes
    else:
        yield from (scope.routes for scope in routes.scopes or ())


def references(resource: Resource) -> References:
    """The names `resource` points at."""
    match resource:
        case Listener():
            return _of_listener(resource)
        case RouteConfiguration():
            return References(clusters=_clusters(resource), hosts=resource.name if resource.vhds else "")
        case VirtualHost():
            return References(clusters=_clusters(RouteConfiguration("", (resource,))))
        case ScopedRouteConfiguration():
            routes = resource.routes
            if isinstance(routes, str):
                return References(routes=frozenset({routes}))
            return References(clusters=_clusters(routes))
        case Cluster(type="EDS"):
            return References(endpoints=frozenset({resource.endpoints_name}))
        case Cluster():
            return References(clusters=frozenset(resource.clusters))
        case ClusterLoadAssignment() | RuntimeLayer():
            return NO_REFERENCES
