"""HttpConnectionManager: what a listener routes requests with."""

from __future__ import annotations

from typing import Any

from meshlib.model.listener import HttpConnectionManager
from meshlib.model.report import ResourceError
from meshlib.model.route import RouteConfiguration
from meshlib.model.scoped_routes import ScopedRoutes
from meshlib.sources.xds.decode.common import duration, duration_or_off
from meshlib.sources.xds.decode.config_source import check_config_source
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.filters import http_filters
from meshlib.sources.xds.decode.route import route_configuration
from meshlib.sources.xds.decode.scoped_routes import scoped_routes

MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
MODULES = {MANAGER: "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2"}
DOWNSTREAM = "about connections the listener accepts; the application's own server does that"

_HCM = fields(
    "stat_prefix",
    "rds",
    "route_config",
    "scoped_routes",
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
            "use_remote_address",
            "xff_num_trusted_hops",
            "forward_client_cert_details",
            "set_current_client_cert_details",
        ),
        DOWNSTREAM,
    ),
    instead={
        "tracing": "what is sampled and where spans go is OpenTelemetry's configuration",
        "access_log": "not written; calls are told by events, spans and metrics",
        "request_id_extension": "x-request-id is sent on as the caller set it",
        "normalize_path": "paths are matched and sent as the HTTP client wrote them",
        "path_with_escaped_slashes_action": "paths are matched and sent as the HTTP client wrote them",
        "merge_slashes": "paths are matched and sent as the HTTP client wrote them",
        "upgrade_configs": "upgrades are not proxied",
    },
)
_COMMON = fields(
    "max_stream_duration",
    harmless=dict.fromkeys(("idle_timeout", "max_connection_duration", "max_headers_count"), DOWNSTREAM),
)
_RDS = fields("config_source", "route_config_name")


def _routes(ctx: Context, message: Any, path: str) -> RouteConfiguration | str | ScopedRoutes:
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
    return scoped_routes(ctx, message.scoped_routes, join(path, "scoped_routes"))


def connection_manager(ctx: Context, message: Any, path: str) -> HttpConnectionManager:
    """A validated HttpConnectionManager message; raises `UnsupportedError` where its routes cannot be told."""
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
