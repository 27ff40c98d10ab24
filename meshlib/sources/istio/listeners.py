"""Listeners: one a port for sidecar-like consumers (`0.0.0.0_9080`), one a service and port for proxyless ones
(`reviews.default.svc.cluster.local:9080`, an ApiListener).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshlib.sources.istio import cors, faults

Json = dict[str, Any]

_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_TCP_PROXY = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
VIRTUAL_OUTBOUND = "virtualOutbound"
_ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}


def http_filters(routes: Iterable[Json]) -> list[Json]:
    """The filters that these routes need. istiod has them in every listener; without a policy they do nothing."""
    wanted = {name for route in routes for name in route.get("typed_per_filter_config") or ()}
    found = [filters.HTTP_FILTER for filters in (faults, cors) if filters.FILTER in wanted]
    return [*found, _ROUTER]


def sidecar_listener(port: int, filters: list[Json]) -> Json:
    """The outbound listener of a port."""
    name = f"0.0.0.0_{port}"
    manager = {"@type": _HCM, "stat_prefix": f"outbound_{name}", **_manager(str(port), filters)}
    return {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},  # noqa: S104 - Istio's wildcard
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
        "traffic_direction": "OUTBOUND",
    }


def proxyless_listener(host: str, port: int, table: str, filters: list[Json]) -> Json:
    """The API listener of a service; without an address, so that no Envoy is sent it by wildcard."""
    manager = {"@type": _HCM, "stat_prefix": f"{host}:{port}", **_manager(table, filters)}
    return {"name": f"{host}:{port}", "api_listener": {"api_listener": manager}}


def black_hole_listener(cluster: str) -> Json:
    """What takes the calls that no other listener does, so that they go to a cluster without endpoints."""
    proxy = {"@type": _TCP_PROXY, "stat_prefix": cluster, "cluster": cluster}
    return {
        "name": VIRTUAL_OUTBOUND,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15001}},  # noqa: S104 - Istio's wildcard
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
        "use_original_dst": True,
        "traffic_direction": "OUTBOUND",
    }


def _manager(table: str, filters: list[Json]) -> Json:
    source = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
    rds = {"config_source": source, "route_config_name": table}
    return {"rds": rds, "http_filters": filters, "stream_idle_timeout": "0s"}
