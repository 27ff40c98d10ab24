"""Mutual TLS for gRPC servers: `add_mtls_port`, beside the server's own `add_secure_port`."""

from __future__ import annotations

from typing import Any

import grpc

from meshlib.errors import ConfigurationError
from meshlib.grpc.tunnel.places import PLACES
from meshlib.grpc.tunnel.server import ServerTunnel, caller
from meshlib.identity import Identity, ServerTls
from meshlib.security.peer import Peer

__all__ = ["add_mtls_port", "peer"]


def add_mtls_port(server: Any, address: str, identity: Identity | ServerTls, *, grace: float = 30.0) -> int:
    """Let a `grpc.server` or `grpc.aio.server` serve `address` ("0.0.0.0:50051"; port 0 picks one) by mutual TLS.

    Certificates and authorities may rotate at any time. A connection whose peer was vouched for by an authority that is
    removed gets a GOAWAY, begins no new call, and is closed when its calls have ended, after `grace` seconds at the
    latest. Returns the port. Call it before `server.start()`, in the process that serves (after a fork). Raises
    ConfigurationError for an address that is none, OSError when it cannot be had, MaterialError when the identity has
    no certificate or no authorities.
    """
    tls = identity if isinstance(identity, ServerTls) else ServerTls(identity, alpn=("h2",))
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ConfigurationError(f"{address!r} is no address like '0.0.0.0:50051'")
    path = PLACES.new()
    server.add_secure_port(f"unix:{path}", grpc.local_server_credentials(grpc.LocalConnectionType.UDS))
    return ServerTunnel(tls, (host.strip("[]") or "0.0.0.0", int(port)), path, grace).port  # noqa: S104 - as asked


def peer(context: Any) -> Peer | None:
    """The verified caller of a call that came by `add_mtls_port`; None otherwise."""
    found = caller(context.peer())
    return found[0].peer if found is not None else None
