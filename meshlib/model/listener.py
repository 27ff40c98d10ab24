"""Listener and HttpConnectionManager (`envoy.config.listener.v3`, `...http_connection_manager.v3`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshlib.model.filters import HttpFilter
from meshlib.model.route import RouteConfiguration
from meshlib.model.scoped_routes import ScopedRoutes

__all__ = ["HttpConnectionManager", "Listener", "TrafficDirection"]

TrafficDirection = Literal["UNSPECIFIED", "INBOUND", "OUTBOUND"]


@dataclass(frozen=True, slots=True)
class HttpConnectionManager:
    """`routes` is the inline route configuration, the name of one that comes by RDS, or a choice among several.

    Defaults are Envoy's: `stream_idle_timeout` 5 min, the rest off.
    """

    routes: RouteConfiguration | str | ScopedRoutes
    http_filters: tuple[HttpFilter, ...] = ()
    stat_prefix: str = ""
    stream_idle_timeout: float | None = 300.0
    request_timeout: float | None = None
    max_stream_duration: float | None = None
    strip_port: Literal["none", "matching", "any"] = "none"


@dataclass(frozen=True, slots=True)
class Listener:
    """A named entry into the mesh.

    `api` listeners (proxyless gRPC) are found by name; socket listeners by `port` (`address` as in the resource,
    without a port for unix sockets). `managers` are the HTTP connection managers of its filter chains, in order, the
    API listener's or the default chain's last; other network filters are not HTTP and are not kept.
    One that is not `bound` (`bind_to_port: false`) is only for calls to its own port.
    """

    name: str
    managers: tuple[HttpConnectionManager, ...]
    address: str = ""
    port: int = 0
    api: bool = False
    direction: TrafficDirection = "UNSPECIFIED"
    bound: bool = True
