"""The connections of one endpoint on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Unpack

from meshlib.http.wire.aio_connection import AsyncConnection
from meshlib.http.wire.aio_response import AsyncWireResponse
from meshlib.http.wire.dial import check_name, connect_error, connecting, earliest
from meshlib.http.wire.fork import forgets_on_fork
from meshlib.http.wire.ledger import PendingOverflowError, Slot
from meshlib.http.wire.network import NetworkInfo
from meshlib.http.wire.pool import Pool, PoolSettings
from meshlib.http.wire.request import encode
from meshlib.http.wire.types import (
    NO_TIMEOUTS,
    Address,
    ConnectionEventKind,
    FailureKind,
    PoolStats,
    Timeouts,
    Trace,
    WireError,
    WireRequest,
)

Grant = AsyncConnection | Slot | WireError
Waiter = asyncio.Future[Grant]
_GOODBYE_SECONDS = 0.25  # for TLS's close_notify when the pool is closed


class AsyncPool(Pool[AsyncConnection, Waiter]):
    """Sends requests to one address over kept-alive HTTP/1.1 connections; make it on the loop it will be used on.

    The arguments are those of `PoolSettings`. Cancelling `send`, or closing a response early, closes that one
    connection and nothing else.
    """

    def __init__(self, address: Address, **settings: Unpack[PoolSettings]) -> None:
        super().__init__(address, settings)
        self._loop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None
        forgets_on_fork(self)

    async def send(self, request: WireRequest, timeouts: Timeouts = NO_TIMEOUTS) -> AsyncWireResponse:
        """The response as soon as its head is read. Raises WireError.

        One request is sent twice in one case only: a kept-alive connection turned out to be closed before a byte of the
        response came, the method is idempotent and the body is at hand (RFC 9112 section 9.3.1).
        """
        encoded = encode(request)
        conn = self._idle_connection() or await self._connection(timeouts, request.trace)
        exchange = AsyncWireResponse(conn, request, encoded, timeouts)
        try:
            await exchange.run(request)
        except WireError:
            exchange.abandon()
            slot, exchange.kept_slot = exchange.kept_slot, None
            if slot is None:
                raise
            return await self._send_again(slot, request, timeouts)
        except BaseException:
            exchange.abandon()
            if exchange.kept_slot is not None:
                self._vacate(exchange.kept_slot)
            raise
        return exchange

    def drain(self) -> None:
        """The endpoint is going away: idle connections are closed now, busy ones after their response.

        A call that chose the endpoint a moment ago still gets through, on a connection that is closed after it.
        """
        self._ledger.draining = True
        for conn in self._ledger.empty_idle():
            conn.close()
            self._vacate(conn.slot)

    async def aclose(self) -> None:
        """Close every connection; requests that wait fail with POOL_CLOSED, those in flight with RESET. Idempotent."""
        self.closed = True
        self.drain()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for waiter in self._ledger.dismiss():
            _grant(waiter, self._closed_error())
        for conn in list(self._open):
            if conn.open:
                conn.pool_closed()
        await self._until_emptied()

    def loop_closed(self) -> None:
        """The loop was closed under the pool: of its sockets only the count can still be given back."""
        self.closed = True
        self._ledger.forget()
        self._open = set()
        self._sweep = None

    def stats(self) -> PoolStats:
        """Connections active and idle, requests pending."""
        return self._ledger.stats()

    # What a connection reports.

    def finished(self, conn: AsyncConnection, reusable: bool) -> None:
        """An exchange is over: pass the connection, or the right to open another, to whoever waits."""
        if reusable and not self.closed and self._ledger.keeps(conn, self._loop.time()):
            self._offer(conn)
        else:
            if conn.open:
                conn.close()
            self._vacate(conn.slot)

    def lost(self, conn: AsyncConnection) -> None:
        """A socket is closed; if it was idle its slot is free."""
        self._open.discard(conn)
        if self._ledger.forget_idle(conn):
            self._vacate(conn.slot)
        self._tell(ConnectionEventKind.CLOSED)
        if self._emptied is not None and not self._open:
            self._emptied.set()

    # Getting a connection.

    def _idle_connection(self) -> AsyncConnection | None:
        while True:
            conn = self._ledger.take(self._loop.time())
            if self._ledger.doomed:
                self._bury()
            if conn is None or conn.open:
                return conn
            self._vacate(conn.slot)  # its end was read, and the loop has not come to connection_lost yet

    async def _connection(self, timeouts: Timeouts, trace: Trace | None) -> AsyncConnection:
        if self.closed:
            raise self._closed_error()
        try:
            slot = self._ledger.reserve()
            if slot is not None:
                return await self._dial(slot, timeouts, trace)
            waiter: Waiter = self._loop.create_future()
            self._ledger.wait(waiter)
        except PendingOverflowError as error:
            raise WireError(FailureKind.OVERFLOW, f"{self._peer}: overflow of {error}") from None
        grant = await self._turn(waiter, timeouts)
        if isinstance(grant, WireError):
            raise grant
        if isinstance(grant, Slot):
            return await self._dial(grant, timeouts, trace)
        return grant if grant.open else await self._dial(grant.slot, timeouts, trace)

    async def _turn(self, waiter: Waiter, timeouts: Timeouts) -> Grant:
        limit, kind = earliest(self._loop.time(), timeouts.deadline, timeouts.pool, FailureKind.POOL_TIMEOUT)
        timer = None
        if limit is not None:
            error = WireError(kind, f"{self._peer}: no connection became free in time ({kind.value})")
            timer = self._loop.call_at(limit, _grant, waiter, error)
        try:
            return await waiter
        except BaseException:
            # Cancelled in the very moment of the hand-over: what was granted goes to the next in line.
            if not self._ledger.withdraw(waiter) and waiter.done() and not waiter.cancelled():
                self._pass_on(waiter.result())
            raise
        finally:
            self._ledger.withdraw(waiter)
            if timer is not None:
                timer.cancel()

    async def _dial(self, slot: Slot, timeouts: Timeouts, trace: Trace | None) -> AsyncConnection:
        conn = None
        try:
            async with connecting(trace, self.address, timeouts) as step:
                conn = await self._connect(slot, timeouts)
                step.return_value = NetworkInfo(conn.transport.get_extra_info)
        except BaseException as error:
            if conn is not None:
                conn.abort()
            self._vacate(slot)
            if isinstance(error, WireError):
                self._tell(ConnectionEventKind.CONNECT_FAILED, error)
            raise
        self._ledger.dialled(slot)
        self._tell(ConnectionEventKind.CONNECTED)
        if self.closed or not conn.open:
            conn.abort()
            self._vacate(slot)
            raise (
                self._closed_error()
                if self.closed
                else WireError(
                    FailureKind.RESET_BEFORE_REQUEST, f"{self._peer}: the connection was closed as soon as it stood"
                )
            )
        return conn

    async def _connect(self, slot: Slot, timeouts: Timeouts) -> AsyncConnection:
        limit, kind = earliest(self._loop.time(), timeouts.deadline, timeouts.connect, FailureKind.CONNECT_TIMEOUT)
        if self._ssl is not None:
            check_name(self._peer, self._server_hostname)

        def protocol() -> AsyncConnection:
            conn = AsyncConnection(self, slot, self._peer, self._loop, self._reader_limits)
            self._open.add(conn)
            made.append(conn)
            return conn

        made: list[AsyncConnection] = []
        scope = asyncio.timeout_at(limit)
        try:
            async with scope:
                for address in self.dial[:-1]:  # while others stand behind it, an address has half of what is left
                    with contextlib.suppress(OSError):
                        async with asyncio.timeout_at(_half(limit, self._loop.time())):
                            await self._open_to(address, protocol)
                            break
                else:
                    await self._open_to(self.dial[-1], protocol)
        except BaseException as error:
            self._open.difference_update(made)
            if isinstance(error, TimeoutError) and scope.expired():
                raise WireError(kind, f"{self._peer}: connecting took too long ({kind.value})") from error
            if isinstance(error, OSError | ValueError):
                raise connect_error(self._peer, error) from error
            raise
        self._open.difference_update(made[:-1])
        return made[-1]

    async def _open_to(self, address: Address, protocol: Callable[[], AsyncConnection]) -> None:
        if address.path:
            await self._loop.create_unix_connection(
                protocol, address.path, ssl=self._ssl, server_hostname=self._server_hostname
            )
        else:
            await self._loop.create_connection(
                protocol, address.host, address.port, ssl=self._ssl, server_hostname=self._server_hostname
            )

    async def _send_again(self, slot: Slot, request: WireRequest, timeouts: Timeouts) -> AsyncWireResponse:
        try:
            conn = await self._dial(slot, timeouts, request.trace)
        except WireError as error:
            error.request_sent = True  # on the stale connection
            raise
        exchange = AsyncWireResponse(conn, request, encode(request), timeouts)
        try:
            await exchange.run(request)
        except BaseException:
            exchange.abandon()
            raise
        return exchange

    # Passing on what is free.

    def _offer(self, conn: AsyncConnection) -> None:
        now = self._loop.time()
        while (waiter := self._ledger.give_back(conn, now)) is not None:
            if _grant(waiter, conn):
                return
        if self._sweep is None:
            self._plan_sweep()

    def _vacate(self, slot: Slot) -> None:
        while (waiter := self._ledger.vacate(slot)) is not None:
            if _grant(waiter, slot):
                return

    def _pass_on(self, grant: Grant) -> None:
        if isinstance(grant, Slot):
            self._vacate(grant)
        elif isinstance(grant, AsyncConnection):
            self.finished(grant, grant.open)

    def _plan_sweep(self) -> None:
        when = self._ledger.next_expiry()
        self._sweep = None if when is None else self._loop.call_at(when, self._on_sweep)

    def _on_sweep(self) -> None:
        self._ledger.expire(self._loop.time())
        self._bury()
        self._plan_sweep()

    def _bury(self) -> None:
        doomed, self._ledger.doomed = self._ledger.doomed, []
        for conn in doomed:
            conn.close()
            self._vacate(conn.slot)

    # Ends.

    def forget_inherited(self) -> None:
        """In a forked child the loop and its connections are the parent's: this pool is closed, make another."""
        self.closed = True
        self._ledger = self._new_ledger()
        self._open = set()
        self._sweep = None

    async def _until_emptied(self) -> None:
        if not self._open:
            return
        self._emptied = asyncio.Event()
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._emptied.wait()
        except TimeoutError:
            for conn in list(self._open):
                conn.abort()


def _grant(waiter: Waiter, grant: Grant) -> bool:
    if waiter.done():
        return False
    waiter.set_result(grant)
    return True


def _half(limit: float | None, now: float) -> float | None:
    return None if limit is None else now + (limit - now) / 2
