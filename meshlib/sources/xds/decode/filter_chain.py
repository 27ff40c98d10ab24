"""FilterChain: of its network filters the HTTP connection manager is what calls are routed by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshlib.model.listener import HttpConnectionManager
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import unpack
from meshlib.sources.xds.decode.connection_manager import DOWNSTREAM, MODULES, connection_manager
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.tcp_routes import tcp_routes

_CHAIN = fields(
    "filters",
    "filter_chain_match",
    harmless={
        "name": "a name for people",
        "metadata": "says where the configuration came from",
        "transport_socket_connect_timeout": DOWNSTREAM,
    },
)
_MATCH = frozenset({"transport_protocol", "application_protocols"})
_HTTP = frozenset({"http/1.0", "http/1.1", "h2c", "h2"})


def filter_chain(
    ctx: Context, message: Any, path: str, *, catches_all: bool = False
) -> Iterator[HttpConnectionManager]:
    """The connection managers of a chain; `catches_all` of a listener that takes what no other one does.

    A chain without any is for connections whose content is not looked at. That is said in one line: what else is in it
    (a TCP proxy, its metrics, its access log) is about none of the calls that are made here, unless `tcp_routes` says
    where calls go by their host alone.
    """
    filters = [_network_filter(found, f"{join(path, 'filters')}[{i}]") for i, found in enumerate(message.filters)]
    if all(manager is None for _, _, manager in filters):
        routed = list(tcp_routes(message, path, catches_all=catches_all))
        if not routed:
            ctx.degraded(join(path, "filters"), "no HTTP connection manager: only HTTP and gRPC go through the mesh")
        yield from routed
        return
    ctx.check_fields(message, path, _CHAIN)
    if not _takes_any_call(message.filter_chain_match):
        where = join(path, "filter_chain_match")
        ctx.degraded(where, "chains are not chosen by connection; their routes count in order")
    for where, name, found in filters:
        if found is None:
            ctx.degraded(where, f"network filter {name or 'without a type'} is not HTTP; left out")
        else:
            yield from _manager(ctx, found, where)


def _network_filter(message: Any, path: str) -> tuple[str, str, Any]:
    """Where the filter's configuration stands, its type's name, and the message if it is a connection manager."""
    if message.HasField("config_discovery"):
        return join(path, "config_discovery"), "by ECDS", None
    if not message.HasField("typed_config"):
        raise ResourceError(path, f"network filter {message.name!r} needs a typed_config")
    where = join(path, "typed_config")
    return where, *unpack(message.typed_config, MODULES, where)


def _takes_any_call(match: Any) -> bool:
    """Whether every HTTP call satisfies the match: it asks for plain HTTP at most, not for certain addresses."""
    return (
        all(descriptor.name in _MATCH for descriptor, _ in match.ListFields())
        and match.transport_protocol in {"", "raw_buffer"}
        and _HTTP.issuperset(match.application_protocols)
    )


def _manager(ctx: Context, message: Any, path: str) -> Iterator[HttpConnectionManager]:
    try:
        yield connection_manager(ctx, message, path)
    except UnsupportedError as error:
        ctx.degraded(error.path, f"{error.reason}; this HTTP connection manager routes nothing")
