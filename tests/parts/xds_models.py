"""Model resources for tests of what lies behind the decoder, as short as they go."""

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost


def listener(name: str, routes: str, stat_prefix: str = "") -> Listener:
    return Listener(name, (HttpConnectionManager(routes, stat_prefix=stat_prefix),), api=True)


def routes(name: str, *clusters: str) -> RouteConfiguration:
    """One route a cluster."""
    made = tuple(Route(RouteMatch(PathMatcher("prefix", f"/{cluster}")), RouteAction(cluster)) for cluster in clusters)
    return RouteConfiguration(name, (VirtualHost("all", ("*",), made),))


def cluster(name: str, service: str = "", connect_timeout: float = 5.0) -> Cluster:
    return Cluster(name, "EDS", eds_service_name=service, connect_timeout=connect_timeout)


def assignment(name: str, port: int = 80) -> ClusterLoadAssignment:
    return ClusterLoadAssignment(name, (LocalityLbEndpoints((LbEndpoint(Address("10.0.0.1", port)),)),))
