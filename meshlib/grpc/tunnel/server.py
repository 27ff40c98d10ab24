"""The server's end: TLS in front of a gRPC server, which itself listens on a Unix socket of this process."""

from __future__ import annotations

import logging
import selectors
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from meshlib.grpc.tunnel.frames import PREFACE, FrameFilter, goaway
from meshlib.grpc.tunnel.link import End, Link
from meshlib.grpc.tunnel.places import PLACES, unlink
from meshlib.grpc.tunnel.pump import PUMP, guarded
from meshlib.identity.server import ServerTls
from meshlib.identity.verified import VerifiedPeer

log = logging.getLogger("meshlib.grpc")
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_BACKLOG = 512
_HANDSHAKE_SECONDS = 10.0
_CONNECT_SECONDS = 1.0

_callers: dict[str, tuple[VerifiedPeer, str]] = {}
"""Verified peer and network address by what gRPC calls the peer of a tunnelled connection (`context.peer()`)."""


def caller(peer: str) -> tuple[VerifiedPeer, str] | None:
    """Who is behind a gRPC context's `peer()`, and from which address; None when it did not come by this front."""
    return _callers.get(peer)


class ServerTunnel:
    """Takes TLS connections on `address` and passes them to the gRPC server at `path`.

    Peers are checked in the handshake, before gRPC sees anything. When authorities are removed, connections they
    vouched for get a GOAWAY and begin no stream any more; what they carry may end within `grace` seconds.
    """

    def __init__(self, tls: ServerTls, address: tuple[str, int], path: str, grace: float) -> None:
        self._tls = tls
        self._path = path
        self._grace = grace
        self._listener = socket.create_server(
            address,
            family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET,
            backlog=_BACKLOG,
            dualstack_ipv6=address[0] == "::" and socket.has_dualstack_ipv6(),  # what `[::]` means to grpcio
        )
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        PUMP.call_soon(lambda: PUMP.want(self._listener, self, _READ))

    def close(self) -> None:
        """Take no more connections. From any thread."""
        PUMP.call_soon(self._end)

    def ready(self, _sock: Any) -> None:
        """A client dials."""
        if self._stopped():
            return
        try:
            remote, address = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        who = f"{address[0]}:{address[1]}"
        try:
            remote.setblocking(False)
            remote.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wrapped = self._tls.context.wrap_socket(remote, server_side=True, do_handshake_on_connect=False)
        except OSError as error:
            log.debug("gRPC server: %s is gone already: %s", who, error)
            remote.close()
            return
        guarded(_Handshake(self, wrapped, who), wrapped)

    def fail(self, error: Exception) -> None:
        """Accepting failed: for want of file descriptors, for example. The listener stays."""
        log.warning("gRPC server: cannot accept: %s", error)
        PUMP.pause(self._listener, self)

    def tick(self, now: float) -> None:
        """Look whether the server is still there."""
        self._stopped()

    def admitted(self, tls: Any, address: str) -> None:
        """The handshake is done: on to gRPC."""
        verified: VerifiedPeer = tls.verified or VerifiedPeer()
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        name = PLACES.new()
        try:
            local.bind(name)  # so that gRPC can say by whom a call came
            local.settimeout(_CONNECT_SECONDS)
            local.connect(self._path)
        except OSError as error:
            local.close()
            tls.close()
            log.debug("gRPC server: not there, a client is turned away (%s)", error)
            return
        finally:
            unlink(name)
        local.setblocking(False)
        _callers[f"unix:{name}"] = (verified, address)
        _ServerLink(self._tls, verified, tls, local, f"unix:{name}", self._grace).begin()

    def _stopped(self) -> bool:
        """Whether the server was stopped: gRPC takes its socket's name away then. So the port is free at once."""
        if Path(self._path).exists():
            return False
        self._end()
        return True

    def _end(self) -> None:
        PUMP.want(self._listener, self, 0)
        self._listener.close()


class _Handshake:
    """A connection that is not trusted yet."""

    def __init__(self, front: ServerTunnel, tls: Any, address: str) -> None:
        self._front = front
        self._tls = tls
        self._address = address
        self._until = time.monotonic() + _HANDSHAKE_SECONDS

    def ready(self, _sock: Any) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            PUMP.want(self._tls, self, _READ)
            return
        except ssl.SSLWantWriteError:
            PUMP.want(self._tls, self, _WRITE)
            return
        except (OSError, ssl.SSLError) as error:
            self.fail(error)
            return
        PUMP.want(self._tls, self, 0)
        self._front.admitted(self._tls, self._address)

    def fail(self, error: Exception) -> None:
        log.debug("TLS handshake with %s: %s", self._address, error)
        PUMP.want(self._tls, self, 0)
        self._tls.close()

    def tick(self, now: float) -> None:
        if now >= self._until:
            self.fail(TimeoutError("took too long"))


class _ServerLink(Link):
    """A connection with a verified peer, as long as the peer is trusted."""

    def __init__(
        self, tls: ServerTls, verified: VerifiedPeer, remote: Any, local: socket.socket, name: str, grace: float
    ) -> None:
        self._inward, self._outward = FrameFilter(len(PREFACE)), FrameFilter()
        super().__init__(
            End(remote, self._inward.feed), End(local, self._outward.feed), lambda _: _callers.pop(name, None) and None
        )
        self._owner = tls
        self._verified = verified
        self._grace = grace
        tls.follow(self)

    def begin(self) -> None:
        super().begin()
        self._review()  # the trust may have changed between the handshake and now

    def reconsider(self) -> None:
        """Authorities were removed (told on any thread)."""
        PUMP.call_soon(self._review)

    def _review(self) -> None:
        if self.closed or self.cut_at is not None or self._owner.trusts(self._verified):
            return
        self._inward.refuse_new()
        self._outward.insert = goaway(self._inward.last_stream)
        self.tls.put(self._outward.between())
        self.cut_at = time.monotonic() + self._grace
        self._carry()
