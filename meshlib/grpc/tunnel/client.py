"""The client's end: a Unix socket for a gRPC channel to dial, behind which is an endpoint under TLS."""

from __future__ import annotations

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
        self._path = PLACES.new()
        self._links: set[Link] = set()
        self._closed = False
        self.failure = ""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self._path)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        _tunnels[self._path] = self
        PUMP.call_soon(lambda: PUMP.want(self._listener, self, selectors.EVENT_READ))

    @property
    def target(self) -> str:
        """The gRPC target."""
        return f"unix:{self._path}"

    def close(self) -> None:
        """Take no more connections, and close those there are. Idempotent, from any thread."""
        if not self._closed:
            self._closed = True
            PUMP.call_soon(self._end)

    def ready(self, _sock: Any) -> None:
        """The channel dials."""
        try:
            local, _ = self._listener.accept()
        except BlockingIOError:
            return
        if not ours(local):
            local.close()
            return
        # A thread of its own: looking up a name and connecting wait, and the pump must not.
        try:
            threading.Thread(target=self._connect, args=(local,), name="meshlib-grpc-dial", daemon=True).start()
        except RuntimeError:  # no more threads
            local.close()
            raise

    def fail(self, error: Exception) -> None:
        """Accepting failed: for want of file descriptors, for example. The channel will dial again, so this stays."""
        self.failure = str(error)
        PUMP.pause(self._listener, self)

    def tick(self, now: float) -> None:
        """Nothing here has a time limit."""

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
            self._links.discard(link)
            if isinstance(error, ssl.SSLError):  # a server of TLS 1.3 refuses our certificate only now
                self.failure = f"TLS: {error}"

        link = Link(tls, plain, gone)
        self._links.add(link)
        if self._closed:
            link.close()
        else:
            link.begin()

    def _end(self) -> None:
        self._closed = True
        PUMP.want(self._listener, self, 0)
        self._listener.close()
        unlink(self._path)
        for link in list(self._links):
            link.close()
