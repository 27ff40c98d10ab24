"""xDS resources for tests, as proto3 JSON: the shortest valid ones, to be changed in one place each."""

from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from meshlib.sources.xds.types import (
    CLUSTER,
    CLUSTER_LOAD_ASSIGNMENT,
    LISTENER,
    ROUTE_CONFIGURATION,
    RUNTIME,
    SCOPED_ROUTE_CONFIGURATION,
    VIRTUAL_HOST,
)

Json = dict[str, Any]
_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}


def manager(**changes: Any) -> Json:
    """A connection manager that takes its routes by RDS from ``routes``."""
    rds = {"rds": {"config_source": {"ads": {}}, "route_config_name": "routes"}}
    if "route_config" in changes:
        rds = {}
    return {"stat_prefix": "http", "http_filters": [ROUTER], **rds, **changes}


def api_listener(name: str = "payments", routes: str = "routes", **changes: Any) -> Json:
    """A listener as proxyless clients get it."""
    rds = {"config_source": {"ads": {}}, "route_config_name": routes}
    return {"name": name, "api_listener": {"api_listener": {"@type": _HCM, **manager(rds=rds, **changes)}}}


def socket_listener(name: str, port: int, routes: str) -> Json:
    """A listener as sidecars get it."""
    rds = {"config_source": {"ads": {}}, "route_config_name": routes}
    chain = {"filters": [{"name": "http", "typed_config": {"@type": _HCM, **manager(rds=rds)}}]}
    address = {"socket_address": {"address": "0.0.0.0", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [chain], "traffic_direction": "OUTBOUND"}


def route(cluster: str = "payments", prefix: str = "/", **changes: Any) -> Json:
    return {"match": {"prefix": prefix}, "route": {"cluster": cluster}, **changes}


def route_configuration(name: str = "routes", *routes: Json, **changes: Any) -> Json:
    """One virtual host for every domain; without routes, one to the cluster ``payments``."""
    host = {"name": "all", "domains": ["*"], "routes": list(routes) or [route()]}
    return {"name": name, "virtual_hosts": [host], **changes}


def eds_cluster(name: str = "payments", **changes: Any) -> Json:
    return {"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}, **changes}


def endpoint(host: str = "10.0.0.1", port: int = 8080, **changes: Any) -> Json:
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}, **changes}


def assignment(name: str = "payments", *endpoints: Json, **changes: Any) -> Json:
    """One locality; without endpoints, 10.0.0.1:8080."""
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": list(endpoints) or [endpoint()]}], **changes}


def message(type_url: str, resource: Json) -> Message:
    """The protobuf message of a resource's JSON; what is in an ``Any`` must be imported, so all of it is."""
    from envoy.config.cluster.v3 import cluster_pb2
    from envoy.config.endpoint.v3 import endpoint_pb2
    from envoy.config.listener.v3 import listener_pb2
    from envoy.config.route.v3 import route_components_pb2, route_pb2, scoped_route_pb2
    from envoy.extensions.filters.http.fault.v3 import fault_pb2  # noqa: F401
    from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2  # noqa: F401
    from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
    from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
    from envoy.extensions.transport_sockets.tls.v3 import tls_pb2  # noqa: F401
    from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: F401
    from envoy.service.runtime.v3 import rtds_pb2

    classes = {
        LISTENER: listener_pb2.Listener,
        ROUTE_CONFIGURATION: route_pb2.RouteConfiguration,
        SCOPED_ROUTE_CONFIGURATION: scoped_route_pb2.ScopedRouteConfiguration,
        VIRTUAL_HOST: route_components_pb2.VirtualHost,
        CLUSTER: cluster_pb2.Cluster,
        CLUSTER_LOAD_ASSIGNMENT: endpoint_pb2.ClusterLoadAssignment,
        RUNTIME: rtds_pb2.Runtime,
    }
    parsed: Message = json_format.ParseDict(resource, classes[type_url]())
    return parsed


def any_json(type_url: str, resource: Json) -> Json:
    """The resource as go-control-plane's folder and Envoy's YAML have it, with its ``@type``."""
    return {"@type": type_url, **resource}
