"""One HTTP/1.1 connection used from one thread at a time: a socket, its reader, timeouts set only when they change."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final

from meshlib.http.wire.dial import check_name, connect_error, earliest
from meshlib.http.wire.ledger import Slot
from meshlib.http.wire.reader import ReaderLimits, ResponseReader
from meshlib.http.wire.types import Address, FailureKind, Timeouts, WireError

RECEIVE_BYTES: Final = 64 * 1024
_SLACK: Final = 0.9
"""A timeout already on the socket is kept while it is this near below the one wanted: it can only fire early."""
_LONGEST: Final = 2_000_000.0
"""Seconds to wait for at a time: `poll` counts milliseconds in 32 bits, and what is more than that wraps around."""


class SyncConnection:
    """A connected socket. Blocking calls raise TimeoutError at `until`, a time.monotonic() moment (None: never)."""

    __slots__ = ("_poll", "_timeout", "idle_since", "opened_at", "peer", "reader", "requests", "slot", "sock")

    def __init__(self, sock: socket.socket, slot: Slot, peer: str, limits: ReaderLimits) -> None:
        self.sock = sock
        self.slot = slot
        self.peer = peer
        self.reader = ResponseReader(limits)
        self.requests = 0
        self.opened_at = self.idle_since = time.monotonic()
        self._timeout = sock.gettimeout()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def quiet(self) -> bool:
        """Whether an idle connection is still usable: open, and nothing on it that nobody asked for."""
        return not self._poll.poll(0)

    def receive(self, until: float | None) -> bytes:
        """The next bytes, b"" at the end of the stream."""
        while True:
            self._allow(until)
            try:
                return self.sock.recv(RECEIVE_BYTES)
            except TimeoutError:
                continue  # _allow raises if it is really over

    def receive_now(self) -> bytes | None:
        """What has arrived already; None when nothing has."""
        self._set_timeout(0.0)
        try:
            return self.sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def send(self, data: bytes | memoryview, until: float | None) -> int:
        """Hand some of the bytes to the kernel; how many."""
        while True:
            self._allow(until)
            try:
                return self.sock.send(data)
            except TimeoutError:
                continue

    def send_now(self, data: memoryview) -> int:
        """As many bytes as the kernel takes without waiting."""
        self._set_timeout(0.0)
        try:
            return self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def wait_either(self, until: float | None) -> bool:
        """Wait until bytes arrive (True) or more can be sent (False)."""
        self._poll.modify(self.sock, select.POLLIN | select.POLLOUT)
        try:
            left = _left(until)
            events = self._poll.poll(None if left is None else left * 1000)
        finally:
            self._poll.modify(self.sock, select.POLLIN)
        if not events:
            raise TimeoutError
        return bool(events[0][1] & ~select.POLLOUT)

    def close(self) -> None:
        """Close the file descriptor; no shutdown, so a forked child may do it too."""
        self.reader.discard()
        self.sock.close()

    def interrupt(self) -> None:
        """Wake the thread that is blocked on this connection; it closes the socket itself."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        except OSError:
            return  # it is closed or was never connected: nobody is blocked on it

    def lookup(self, name: str) -> Any:
        """Asyncio's names for facts of a transport."""
        if name == "ssl_object":
            return self.sock if isinstance(self.sock, ssl.SSLSocket) else None
        if name == "socket":
            return self.sock
        try:
            return {"peername": self.sock.getpeername, "sockname": self.sock.getsockname}.get(name, lambda: None)()
        except OSError:
            return None

    def _allow(self, until: float | None) -> None:
        left = _left(until)
        have = self._timeout
        if left is None:
            if have is not None:
                self._set_timeout(None)
        elif have is None or not left * _SLACK <= have <= left:
            self._set_timeout(left)

    def _set_timeout(self, timeout: float | None) -> None:
        if timeout != self._timeout:
            self.sock.settimeout(timeout)
            self._timeout = timeout


def connect(
    address: Address,
    context: ssl.SSLContext | None,
    server_hostname: str | None,
    timeouts: Timeouts,
    dial: Sequence[Address] = (),
) -> socket.socket:
    """A connected socket, TLS included, to `address`, or to the first of `dial` that answers. Raises WireError. The
    system's look-up of names knows no deadline.
    """
    until, kind = earliest(time.monotonic(), timeouts.deadline, timeouts.connect, FailureKind.CONNECT_TIMEOUT)
    sock = None
    if context is not None:
        check_name(str(address), server_hostname)
    try:
        sock = _connect_any(dial or (address,), until)
        if context is None:
            return sock
        sock.settimeout(_left(until))
        # A TLS stream that ends without its close_notify may have been cut by someone: an error, not an end.
        return context.wrap_socket(sock, server_hostname=server_hostname, suppress_ragged_eofs=False)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, TimeoutError):
            raise WireError(kind, f"{address}: connecting took too long ({kind.value})") from error
        if isinstance(error, OSError | ValueError):
            raise connect_error(str(address), error) from error
        raise


def _connect_any(addresses: Sequence[Address], until: float | None) -> socket.socket:
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return _connect_plain(address, _share(until))
    return _connect_plain(addresses[-1], until)


def _share(until: float | None) -> float | None:
    """When to give up an address that others stand behind: after half of what is left."""
    left = _left(until)
    return None if left is None else time.monotonic() + left / 2


def _connect_plain(address: Address, until: float | None) -> socket.socket:
    if address.path:
        return _connect_to(socket.AF_UNIX, address.path, until)
    failure: OSError | None = None
    for family, _, _, _, target in socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
        try:
            sock = _connect_to(family, target, until)
        except TimeoutError:
            raise
        except OSError as error:
            failure = error
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    raise failure or OSError(f"no address for {address.host}")


def _connect_to(family: int, target: Any, until: float | None) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(_left(until))
        sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return sock


def _left(until: float | None) -> float | None:
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(left, _LONGEST)
