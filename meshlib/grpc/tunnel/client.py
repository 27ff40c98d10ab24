"""The client's end: a Unix socket for a gRPC channel to dial, behind which is an endpoint under TLS."""

from __future__ import annotations

import os
import re
import selectors
import socket
import ssl
import threading
import weakref
from collections.abc import Callable
from typing import Any

from meshlib.errors import ConfigurationError
from meshlib.grpc.tunnel.link import End, Link
from meshlib.grpc.tunnel.places import PLACES, ours, unlink
from meshlib.grpc.tunnel.pump import PUMP
from meshlib.identity.upstream import Secured
from meshlib.model.endpoint import Address

ALPN = ("h2",)
_BACKLOG = 16


_tunnels: weakref.WeakValueDictionary[str, ClientTunnel] = weakref.WeakValueDictionary()
_TARGET = re.compile(r"unix:(/[^:\s]+)")


def tunnel_in(details: str, address: Address) -> ClientTunnel | None:
    """The tunnel to `address` that a message of grpcio's names, None when it names none."""
    named = _TARGET.search(details)
    tunnel = _tunnels.get(named[1]) if named is not None else None
    return tunnel if tunnel is not None and tunnel.address == address else None


class ClientTunnel:
    """Connections to one endpoint. `target` is what a channel dials, with `grpc.local_channel_credentials`: it then
    counts as private, so that call credentials may go over it.

    `secure` gives the context for each new connection; `dial(timeout)` a connected socket. `failure` is why the last
    connection did not come about (gRPC itself only sees one that was closed); empty when it did.
    """

    def __init__(
        self,
        address: Address,
        secure: Callable[[], Secured],
        dial: Callable[[float], socket.socket],
        connect_timeout: float,
    ) -> None:
        self.address = address
        self._secure = secure
        self._dial = dial
        self._timeout = connect_timeout
        self._door = _Door(self)
        self.failure = ""
        _tunnels[self._door.path] = self
        # An event loop that ends takes its channels along without closing them.
        weakref.finalize(self, self._door.close).atexit = False

    @property
    def target(self) -> str:
        """The gRPC target."""
        return f"unix:{self._door.path}"

    def close(self) -> None:
        """Take no more connections, and close those there are. Idempotent, from any thread."""
        self._door.close()

    def dialled(self, local: socket.socket) -> None:
        """The channel dials."""
        # A thread of its own: looking up a name and connecting wait, and the pump must not.
        threading.Thread(target=self._connect, args=(local,), name="meshlib-grpc-dial", daemon=True).start()

    def _connect(self, local: socket.socket) -> None:
        remote: socket.socket | None = None
        try:
            secured = self._secure()
            remote = self._dial(self._timeout)
            remote.settimeout(self._timeout)
            assert secured.context is not None  # noqa: S101 - a cluster with TLS has one
            tls = secured.context.wrap_socket(remote, server_hostname=secured.server_name)
        except (OSError, ConfigurationError, ValueError, TypeError) as error:  # the last two: a name that is none
            self.failure = f"TLS handshake: {error}" if isinstance(error, ssl.SSLError) else str(error)
            local.close()
            if remote is not None:
                remote.close()
            return
        self.failure = ""
        tls.setblocking(False)
        local.setblocking(False)
        PUMP.call_soon(lambda: self._begin(End(tls), End(local)))

    def _begin(self, tls: End, plain: End) -> None:
        def gone(error: Exception | None) -> None:
            self._door.links.discard(link)
            if isinstance(error, ssl.SSLError):  # a server of TLS 1.3 refuses our certificate only now
                self.failure = f"TLS: {error}"

        link = Link(tls, plain, gone)
        self._door.links.add(link)
        if self._door.closed:
            link.close()
        else:
            link.begin()


class _Door:
    """Where the channel dials. It keeps no tunnel alive that nobody uses any more."""

    def __init__(self, tunnel: ClientTunnel) -> None:
        self._tunnel = weakref.ref(tunnel)
        self._process = os.getpid()
        self.path = PLACES.new()
        self.links: set[Link] = set()
        self.closed = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        PUMP.call_soon(lambda: PUMP.want(self._listener, self, selectors.EVENT_READ))

    def close(self) -> None:
        """Idempotent, from any thread; a forked child leaves its parent's alone."""
        if not self.closed and os.getpid() == self._process:
            self.closed = True
            PUMP.call_soon(self._end)

    def ready(self, _sock: Any) -> None:
        try:
            local, _ = self._listener.accept()
        except BlockingIOError:
            return
        tunnel = self._tunnel()
        if tunnel is None or not ours(local):
            local.close()
            return
        try:
            tunnel.dialled(local)
        except RuntimeError:  # no more threads
            local.close()
            raise

    def fail(self, error: Exception) -> None:
        """Accepting failed: for want of file descriptors, for example. The channel will dial again, so this stays."""
        if (tunnel := self._tunnel()) is not None:
            tunnel.failure = str(error)
        PUMP.pause(self._listener, self)

    def tick(self, now: float) -> None:
        """Nothing here has a time limit."""

    def _end(self) -> None:
        PUMP.want(self._listener, self, 0)
        self._listener.close()
        unlink(self.path)
        for link in list(self.links):
            link.close()
