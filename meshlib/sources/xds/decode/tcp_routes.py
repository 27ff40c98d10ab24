"""TCP proxying that tells where HTTP calls go: by the host of their TLS, or because no other listener takes them.

A sidecar sends on what it cannot read by a TCP proxy. To a call, which knows its host, that is a route without retries
or timeouts: `server_names` are its domains (TLS passed through to the cluster), and of a listener that takes whatever
no other one does (`use_original_dst`) the domain is `*`: istiod names PassthroughCluster there, or BlackHoleCluster
under REGISTRY_ONLY.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.model.filters import HttpFilter, RouterFilter
from meshlib.model.listener import HttpConnectionManager
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.sources.xds.decode.common import unpack
from meshlib.sources.xds.decode.context import join

_TCP_PROXY = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_MODULES = {_TCP_PROXY: "envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2"}
_EVERYTHING = RouteMatch(PathMatcher("prefix", "/"))
_ROUTER = (HttpFilter("envoy.filters.http.router", RouterFilter()),)


def tcp_routes(message: Any, path: str, *, catches_all: bool) -> Iterator[HttpConnectionManager]:
    """The routes that a chain without a connection manager amounts to, none for a chain chosen in another way."""
    domains = _domains(message.filter_chain_match, catches_all=catches_all)
    for index, found in enumerate(message.filters):
        _, proxy = unpack(found.typed_config, _MODULES, f"{join(path, 'filters')}[{index}].typed_config")
        if domains and proxy is not None and proxy.cluster:
            yield _manager(proxy.stat_prefix, domains, str(proxy.cluster))


def _domains(match: Any, *, catches_all: bool) -> tuple[str, ...]:
    chosen_by = {descriptor.name for descriptor, _ in match.ListFields()}
    if chosen_by <= {"server_names", "transport_protocol"} and match.server_names:
        return tuple(match.server_names)
    return ("*",) if catches_all and not chosen_by else ()


def _manager(name: str, domains: tuple[str, ...], cluster: str) -> HttpConnectionManager:
    route = Route(_EVERYTHING, RouteAction(cluster, timeout=None), name=cluster)
    table = RouteConfiguration(name, (VirtualHost(cluster, domains, (route,)),), ignore_port_in_host_matching=True)
    return HttpConnectionManager(table, _ROUTER, stat_prefix=name, stream_idle_timeout=None)
