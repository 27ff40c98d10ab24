"""One HTTP/1.1 connection on an event loop: bytes in both directions and one lazily moved timer.

It has no opinion on requests: an exchange (`AsyncWireResponse`) attaches, is fed, and is detached when its response
is complete or the connection fails. After that nothing the exchange's task does can touch the connection, which may
serve another by then.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final, Protocol, cast

from meshlib.http.wire.ledger import Slot
from meshlib.http.wire.reader import ReaderLimits, ReadError, ResponseReader
from meshlib.http.wire.types import FailureKind, WireError

if TYPE_CHECKING:
    from meshlib.http.wire.aio_response import AsyncWireResponse

READ_HIGH_WATER: Final = 64 * 1024
"""Body bytes nobody has taken yet at which the connection stops reading; it goes on once they are taken."""
NEVER: Final = float("inf")


class Owner(Protocol):
    """The pool, as its connections see it."""

    def finished(self, conn: AsyncConnection, reusable: bool) -> None:
        """An exchange is over; the connection is idle again, or of no more use."""
        ...

    def lost(self, conn: AsyncConnection) -> None:
        """The socket is closed."""
        ...


class AsyncConnection(asyncio.Protocol):
    """A socket, its reader, and the exchange that uses it now (None: idle, or just handed over)."""

    def __init__(
        self, owner: Owner, slot: Slot, peer: str, loop: asyncio.AbstractEventLoop, limits: ReaderLimits
    ) -> None:
        self.loop = loop
        self.slot = slot
        self.peer = peer
        self.requests = 0
        self.opened_at = self.idle_since = loop.time()
        self.open = False
        self.write_paused = False
        self.transport: asyncio.Transport
        self._owner = owner
        self._reader = ResponseReader(limits)
        self._current: AsyncWireResponse | None = None
        self._read_paused = False
        self._expires = NEVER
        self._timer: asyncio.TimerHandle | None = None

    # What an exchange uses.

    def attach(self, exchange: AsyncWireResponse, *, without_body: bool) -> ResponseReader:
        """Start reading for this exchange."""
        self.requests += 1
        self._current = exchange
        self._reader.begin(without_body=without_body)
        return self._reader

    def detach(self) -> None:
        """The exchange gives up: what comes next here would be in the middle of something, so close."""
        self._current = None
        self.abort()
        self._owner.finished(self, False)

    def expect_by(self, when: float) -> None:
        """Fail the exchange at `when` (loop time) unless told otherwise before; NEVER switches it off.

        Moving the moment later costs nothing: the timer in place fires early, sees that, and is set again.
        """
        self._expires = when
        timer = self._timer
        if when != NEVER and (timer is None or when < timer.when()):
            if timer is not None:
                timer.cancel()
            self._timer = self.loop.call_at(when, self._on_timer)

    def body_taken(self) -> None:
        """The exchange took what was buffered: read on."""
        if self._read_paused and self._reader.body.size < READ_HIGH_WATER:
            self._read_paused = False
            if self.open:
                self.transport.resume_reading()

    def pool_closed(self) -> None:
        """End whatever is under way, for good."""
        message = "the pool was closed"
        if self._current is not None and not self._current.request_sent:
            self.fail(FailureKind.POOL_CLOSED, message)
        else:
            self.fail(FailureKind.RESET, message, final=True)

    def fail(self, kind: FailureKind, message: str, cause: BaseException | None = None, *, final: bool = False) -> None:
        """End the current exchange with an error, and the connection with it."""
        exchange, self._current = self._current, None
        self.abort()
        if exchange is None:
            return
        started = self._reader.started
        error = WireError(kind, f"{self.peer}: {message}", request_sent=exchange.request_sent, response_started=started)
        error.__cause__ = cause
        if not exchange.failed(error, final=final):
            self._owner.finished(self, False)

    def abort(self) -> None:
        """Close without waiting for anything."""
        self._close_state()
        self.transport.abort()

    def close(self) -> None:
        """Close an idle connection, with TLS's good-bye."""
        self._close_state()
        self.transport.close()

    @property
    def ssl_object(self) -> ssl.SSLObject | None:
        """The TLS session, None on plain TCP."""
        return cast("ssl.SSLObject | None", self.transport.get_extra_info("ssl_object"))

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, TLS included."""
        self.transport = cast(asyncio.Transport, transport)
        self.open = True

    def data_received(self, data: bytes) -> None:
        """Response bytes; bytes nobody asked for end an idle connection."""
        exchange = self._current
        if exchange is None:
            self.abort()
            return
        reader = self._reader
        try:
            reader.feed(data)
        except ReadError as error:
            self.fail(FailureKind.PROTOCOL_ERROR, f"response: {error}", error)
            return
        if reader.complete:
            self._complete(exchange)
            return
        if reader.body.size >= READ_HIGH_WATER and not self._read_paused:
            self._read_paused = True
            self.transport.pause_reading()
        exchange.progressed(reader.head)

    def eof_received(self) -> None:
        """The peer closed its side: the end of some responses, the failure of others."""
        self.open = False
        exchange = self._current
        if exchange is None:
            return
        try:
            self._reader.feed_eof()
        except ReadError as error:
            if self._reader.started:
                self.fail(FailureKind.PROTOCOL_ERROR, f"response: {error}", error)
            else:
                self.fail(FailureKind.RESET, "closed by the peer before a response")
        else:
            self._complete(exchange)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._close_state()
        if exc is None:
            self.eof_received()
        elif self._current is not None:
            self.fail(FailureKind.RESET, f"connection lost: {exc}", exc)
        self._reader.discard()
        self._owner.lost(self)

    def pause_writing(self) -> None:
        """The kernel takes no more for now."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """Most of what was waiting is written."""
        self.write_paused = False
        if self._current is not None:
            self._current.progressed(None)

    def _complete(self, exchange: AsyncWireResponse) -> None:
        self._current = None
        self._expires = NEVER
        if self._read_paused:
            self._read_paused = False
            self.transport.resume_reading()
        reusable = self._reader.reusable and exchange.leaves_reusable and not self.transport.get_write_buffer_size()
        if not reusable:
            self.close()
        exchange.progressed(self._reader.head)
        self._owner.finished(self, reusable)
        exchange.ended()

    def _close_state(self) -> None:
        self.open = False
        self._expires = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._current is None or self._expires == NEVER:
            return
        if self.loop.time() < self._expires:
            self.expect_by(self._expires)
        else:
            self.fail(*self._current.expiry())
