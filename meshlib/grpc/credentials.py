"""How a sub-channel reaches an endpoint whose cluster has TLS: through our own (`meshlib.grpc.tunnel` says why)."""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import Any

import grpc

from meshlib.engine.table import split_port
from meshlib.grpc.tunnel.client import ALPN, ClientTunnel
from meshlib.identity.upstream import Secured, Upstreams
from meshlib.model.cluster import UpstreamTls
from meshlib.model.endpoint import Address

Options = tuple[tuple[str, Any], ...]


def secured(upstreams: Upstreams, tls: UpstreamTls, authority: str) -> Secured:
    """The newest context for gRPC to a cluster, for calls to `authority`. Raises ConfigurationError naming what cannot
    be honoured; connecting then fails, never with less protection.
    """
    return upstreams.secure(tls, ALPN, split_port(authority)[0].removeprefix("[").removesuffix("]"))


def tunnel_to(
    upstreams: Upstreams, tls: UpstreamTls, address: Address, authority: str, connect_timeout: float
) -> ClientTunnel:
    """A way to the endpoint for one sub-channel; close it with the channel."""
    return ClientTunnel(
        address, lambda: secured(upstreams, tls, authority), lambda left: _dial(address, left), connect_timeout
    )


@lru_cache(maxsize=1)
def tunnel_credentials() -> grpc.ChannelCredentials:
    """The credentials for a tunnel's target: it counts as private, so that call credentials may go over it."""
    return grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)


def _dial(address: Address, timeout: float) -> socket.socket:
    if not address.path:
        sock = socket.create_connection((address.host, address.port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(address.path)
    except BaseException:
        sock.close()
        raise
    return sock
