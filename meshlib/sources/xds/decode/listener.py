"""Listener (`envoy.config.listener.v3`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import enum_name, type_name, unpack, wrapped
from meshlib.sources.xds.decode.connection_manager import MODULES, connection_manager
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields
from meshlib.sources.xds.decode.filter_chain import filter_chain

_NO_SOCKET = "about the listener's own socket, which a library does not open"

_LISTENER = fields(
    "name",
    "address",
    "api_listener",
    "filter_chains",
    "default_filter_chain",
    "traffic_direction",
    "bind_to_port",
    "deprecated_v1",
    "use_original_dst",
    harmless={
        **dict.fromkeys(
            (
                "transparent",
                "freebind",
                "socket_options",
                "tcp_fast_open_queue_length",
                "tcp_backlog_size",
                "reuse_port",
                "enable_reuse_port",
                "enable_mptcp",
                "drain_type",
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


def _api_manager(ctx: Context, message: Any) -> HttpConnectionManager:
    path = "api_listener.api_listener"
    name, found = unpack(message.api_listener.api_listener, MODULES, path)
    if found is None:
        name = name or type_name(message.api_listener.api_listener.type_url)
        raise ResourceError(path, f"must hold an HttpConnectionManager with rds or route_config, holds {name!r}")
    try:
        return connection_manager(ctx, found, path)
    except UnsupportedError as error:
        ctx.degraded(error.path, f"{error.reason}; this HTTP connection manager routes nothing")
        raise ResourceError(path, "must hold an HttpConnectionManager with rds or route_config") from None


def _managers(ctx: Context, message: Any) -> Iterator[HttpConnectionManager]:
    catches_all = wrapped(message, "use_original_dst", default=False)
    for index, chain in enumerate(message.filter_chains):
        yield from filter_chain(ctx, chain, f"filter_chains[{index}]", catches_all=catches_all)
    if message.HasField("default_filter_chain"):
        where = "default_filter_chain"
        yield from filter_chain(ctx, message.default_filter_chain, where, catches_all=catches_all)
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
    """A validated Listener message.

    Of an inbound one no field is applied, because calls do not go through it: that is reported in one line.
    """
    if not any(message.HasField(name) for name in ("address", "api_listener", "internal_listener")):
        raise ResourceError("address", "an address or an api_listener is required")
    direction: Any = enum_name(message, "traffic_direction", "")
    details = ctx
    if direction == "INBOUND":
        ctx.degraded("traffic_direction", "INBOUND: the application's server takes nothing from listeners")
        details = Context(ctx.resource)
    details.check_fields(message, "", _LISTENER)
    address, port = _address(message)
    return Listener(
        name=message.name,
        managers=tuple(_managers(details, message)),
        address=address,
        port=port,
        api=message.HasField("api_listener"),
        direction=direction,
        bound=wrapped(message, "bind_to_port", default=wrapped(message.deprecated_v1, "bind_to_port", default=True)),
    )
