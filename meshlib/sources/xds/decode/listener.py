"""Listener and HttpConnectionManager."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.report import ResourceError
from meshlib.model.route import RouteConfiguration
from meshlib.sources.xds.decode.common import duration, duration_or_off, enum_name, type_name, unpack
from meshlib.sources.xds.decode.config_source import check_config_source
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.filters import http_filters
from meshlib.sources.xds.decode.route import route_configuration

_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_MODULES = {
    _MANAGER: "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
}
_NO_SOCKET = "about the listener's own socket, which a library does not open"
_DOWNSTREAM = "about connections the listener accepts; the application's own server does that"

_LISTENER = fields(
    "name",
    "address",
    "api_listener",
    "filter_chains",
    "default_filter_chain",
    "traffic_direction",
    harmless={
        **dict.fromkeys(
            (
                "bind_to_port",
                "use_original_dst",
                "transparent",
                "freebind",
                "socket_options",
                "tcp_fast_open_queue_length",
                "tcp_backlog_size",
                "reuse_port",
                "enable_reuse_port",
                "enable_mptcp",
                "drain_type",
                "deprecated_v1",
                "connection_balance_config",
                "max_connections_to_accept_per_socket_event",
                "listener_filters_timeout",
                "continue_on_listener_filters_timeout",
                "ignore_global_conn_limit",
                "bypass_overload_manager",
            ),
            _NO_SOCKET,
        ),
        "stat_prefix": "a name for metrics only",
        "metadata": "says where the configuration came from",
    },
    instead={"listener_filters": "a library accepts no connections at the listener; left out"},
)
_CHAIN = fields(
    "filters",
    harmless={"name": "a name for people", "metadata": "says where the configuration came from"},
    instead={"filter_chain_match": "chains are not chosen by connection; their routes count in order"},
)
_HCM = fields(
    "stat_prefix",
    "rds",
    "route_config",
    "http_filters",
    "stream_idle_timeout",
    "request_timeout",
    "common_http_protocol_options",
    "strip_matching_host_port",
    "strip_any_host_port",
    harmless=dict.fromkeys(
        (
            "codec_type",
            "http_protocol_options",
            "http2_protocol_options",
            "http3_protocol_options",
            "server_name",
            "server_header_transformation",
            "max_request_headers_kb",
            "request_headers_timeout",
            "drain_timeout",
            "delayed_close_timeout",
            "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
            "proxy_100_continue",
            "stream_error_on_invalid_http_message",
        ),
        _DOWNSTREAM,
    ),
)
_COMMON = fields(
    "max_stream_duration",
    harmless=dict.fromkeys(("idle_timeout", "max_connection_duration", "max_headers_count"), _DOWNSTREAM),
)
_RDS = fields("config_source", "route_config_name")


def _routes(ctx: Context, message: Any, path: str) -> RouteConfiguration | str:
    match message.WhichOneof("route_specifier"):
        case "route_config":
            return route_configuration(ctx, message.route_config, join(path, "route_config"))
        case "rds":
            where = join(path, "rds")
            ctx.check_fields(message.rds, where, _RDS)
            check_config_source(ctx, message.rds.config_source, join(where, "config_source"))
            if not message.rds.route_config_name:
                raise ResourceError(join(where, "route_config_name"), "must not be empty")
            return str(message.rds.route_config_name)
    raise UnsupportedError(join(path, "scoped_routes"), "scoped routes are not supported")


def _manager(ctx: Context, message: Any, path: str) -> HttpConnectionManager:
    routes = _routes(ctx, message, path)
    ctx.check_fields(message, path, _HCM)
    common = message.common_http_protocol_options
    ctx.check_fields(common, join(path, "common_http_protocol_options"), _COMMON)
    matching, anything = message.strip_matching_host_port, message.strip_any_host_port
    if matching and anything:
        raise ResourceError(path, "only one of strip_matching_host_port, strip_any_host_port may be set")
    return HttpConnectionManager(
        routes=routes,
        http_filters=http_filters(ctx, message.http_filters, join(path, "http_filters")),
        stat_prefix=message.stat_prefix,
        stream_idle_timeout=duration_or_off(message, "stream_idle_timeout", 300.0),
        request_timeout=_request_timeout(ctx, message, path),
        max_stream_duration=duration(common, "max_stream_duration") or None,
        strip_port="any" if anything else "matching" if matching else "none",
    )


def _request_timeout(ctx: Context, message: Any, path: str) -> float | None:
    timeout = duration(message, "request_timeout") or None
    if timeout is not None:
        ctx.degraded(join(path, "request_timeout"), "a caller's upload is bounded by the route's timeout only")
    return timeout


def _try_manager(ctx: Context, typed_config: Any, path: str) -> Iterator[HttpConnectionManager]:
    """The manager in an `Any`, nothing when it holds something else or routes in a way that is not supported."""
    name, message = unpack(typed_config, _MODULES, path)
    if message is None:
        ctx.degraded(path, f"network filter {name or 'without a type'} is not HTTP; left out")
        return
    try:
        yield _manager(ctx, message, path)
    except UnsupportedError as error:
        ctx.degraded(error.path, f"{error.reason}; this HTTP connection manager routes nothing")


def _chain(ctx: Context, message: Any, path: str) -> Iterator[HttpConnectionManager]:
    ctx.check_fields(message, path, _CHAIN)
    for index, found in enumerate(message.filters):
        where = f"{join(path, 'filters')}[{index}]"
        if found.HasField("typed_config"):
            yield from _try_manager(ctx, found.typed_config, join(where, "typed_config"))
        elif found.HasField("config_discovery"):
            ctx.degraded(join(where, "config_discovery"), "filters by ECDS are not supported; left out")
        else:
            raise ResourceError(where, f"network filter {found.name!r} needs a typed_config")


def _api_manager(ctx: Context, message: Any) -> HttpConnectionManager:
    path = "api_listener.api_listener"
    name = type_name(message.api_listener.api_listener.type_url)
    found = list(_try_manager(ctx, message.api_listener.api_listener, path))
    if not found:
        raise ResourceError(path, f"must hold an HttpConnectionManager with rds or route_config, holds {name!r}")
    return found[0]


def _managers(ctx: Context, message: Any) -> Iterator[HttpConnectionManager]:
    for index, chain in enumerate(message.filter_chains):
        yield from _chain(ctx, chain, f"filter_chains[{index}]")
    if message.HasField("default_filter_chain"):
        yield from _chain(ctx, message.default_filter_chain, "default_filter_chain")
    if message.HasField("api_listener"):
        yield _api_manager(ctx, message)


def _address(message: Any) -> tuple[str, int]:
    match message.address.WhichOneof("address"):
        case "socket_address":
            return message.address.socket_address.address, message.address.socket_address.port_value
        case "pipe":
            return message.address.pipe.path, 0
    return message.address.envoy_internal_address.server_listener_name, 0


def listener(ctx: Context, message: Any) -> Listener:
    """A validated Listener message."""
    ctx.check_fields(message, "", _LISTENER)
    if not any(message.HasField(name) for name in ("address", "api_listener", "internal_listener")):
        raise ResourceError("address", "an address or an api_listener is required")
    direction: Any = enum_name(message, "traffic_direction", "")
    address, port = _address(message)
    return Listener(
        name=message.name,
        managers=tuple(_managers(ctx, message)),
        address=address,
        port=port,
        api=message.HasField("api_listener"),
        direction=direction,
    )
