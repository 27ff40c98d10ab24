"""A pair of sockets whose bytes are carried across: one end is TLS, the other gRPC's plain Unix socket."""

from __future__ import annotations

import selectors
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

from meshlib.grpc.tunnel.pump import PUMP

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_CHUNK = 64 * 1024
_HIGH_WATER = 256 * 1024  # what may wait for one end before the other is no longer read

Change = Callable[[bytes], bytes]


class End:
    """One socket of a link, not blocking, and the bytes that wait to be sent on it."""

    __slots__ = ("change", "ended", "out", "pending", "sock", "wants_write")

    def __init__(self, sock: Any, change: Change | None = None) -> None:
        self.sock = sock
        self.out: deque[memoryview] = deque()
        self.pending = 0
        self.ended = False  # nothing more will be read here
        self.wants_write = False
        self.change = change  # applied to what is read here

    def put(self, data: bytes) -> None:
        """Let these bytes be sent, too."""
        if data:
            self.out.append(memoryview(data))
            self.pending += len(data)

    def flush(self) -> None:
        """Send as much as goes without waiting."""
        self.wants_write = False
        while self.out:
            try:
                sent = self.sock.send(self.out[0])
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            except ssl.SSLWantWriteError:
                self.wants_write = True
                return
            self.pending -= sent
            if sent == len(self.out[0]):
                self.out.popleft()
            else:
                self.out[0] = self.out[0][sent:]

    def pull(self, other: End) -> None:
        """Read what there is into the other end's queue, until nothing comes or the queue is full."""
        while not self.ended and other.pending < _HIGH_WATER:
            try:
                data = self.sock.recv(_CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            except ssl.SSLWantWriteError:
                self.wants_write = True
                return
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError, ConnectionResetError):
                data = b""
            if not data:
                self.ended = True
            other.put(self.change(data) if self.change is not None else data)
            if len(data) < _CHUNK and not self._more():
                return

    def _more(self) -> bool:
        """Whether TLS has bytes that were decrypted already: of those the selector knows nothing."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0


class Link:
    """Carries bytes both ways until one end has ended and what it said has been passed on."""

    def __init__(self, tls: End, plain: End, on_close: Callable[[Exception | None], None]) -> None:
        self.tls = tls
        self.plain = plain
        self.closed = False
        self.cut_at: float | None = None  # when to close whatever still goes on (monotonic)
        self._on_close = on_close

    def begin(self) -> None:
        """Start (on the pump's thread)."""
        try:
            self._carry()
        except OSError as error:
            self.fail(error)

    def ready(self, sock: Any) -> None:
        """One of the sockets can be read or written."""
        source, target = (self.tls, self.plain) if sock is self.tls.sock else (self.plain, self.tls)
        if source.out or target.wants_write:  # it was full, or TLS waits for something else than it seems
            self._carry()
            return
        source.pull(target)
        target.flush()
        self._settle()

    def fail(self, error: Exception) -> None:
        """One of them broke: the other is closed, which is how its side learns of it."""
        self.close(error)

    def tick(self, now: float) -> None:
        """Close when the time is up."""
        if self.cut_at is not None and now >= self.cut_at:
            self.close()

    def close(self, error: Exception | None = None) -> None:
        """Close both ends now."""
        if self.closed:
            return
        self.closed = True
        for end in (self.tls, self.plain):
            PUMP.want(end.sock, self, 0)
        goodbye(self.tls.sock)
        self.plain.sock.close()
        self._on_close(error)

    def _carry(self) -> None:
        tls, plain = self.tls, self.plain
        for source, target in ((tls, plain), (plain, tls)):
            # First what waits: an end that was full takes more again, and then the other may be read again.
            target.flush()
            source.pull(target)
            target.flush()
        self._settle()

    def _settle(self) -> None:
        tls, plain = self.tls, self.plain
        if (tls.ended and not plain.out) or (plain.ended and not tls.out):
            self.close()
            return
        PUMP.want(tls.sock, self, _mask(tls, plain))
        PUMP.want(plain.sock, self, _mask(plain, tls))


def _mask(end: End, other: End) -> int:
    reads = _READ if not end.ended and other.pending < _HIGH_WATER else 0
    return reads | (_WRITE if end.out or end.wants_write else 0)


def goodbye(sock: Any) -> None:
    """Close a TLS socket with its close_notify, if that goes without waiting."""
    try:
        if sock.version() is not None:
            sock.unwrap()
    except (OSError, ValueError):
        pass  # the other end is gone, or does not answer: it cannot be told
    finally:
        sock.close()
