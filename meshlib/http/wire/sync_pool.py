"""The connections of one endpoint, shared by the threads of a process."""

from __future__ import annotations

import threading
import time
from typing import Unpack

from meshlib.http.wire.dial import connecting, earliest
from meshlib.http.wire.fork import forgets_on_fork
from meshlib.http.wire.ledger import PendingOverflowError, Slot
from meshlib.http.wire.network import NetworkInfo
from meshlib.http.wire.pool import Pool, PoolSettings
from meshlib.http.wire.request import encode
from meshlib.http.wire.sync_connection import SyncConnection, connect
from meshlib.http.wire.sync_response import SyncWireResponse
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

Grant = SyncConnection | Slot | WireError


class _Waiter:
    """A thread that waits for its turn, and what it is given."""

    __slots__ = ("grant", "ready")

    def __init__(self) -> None:
        self.grant: Grant | None = None
        self.ready = threading.Event()

    def give(self, grant: Grant) -> None:
        self.grant = grant
        self.ready.set()


class SyncPool(Pool[SyncConnection, _Waiter]):
    """Sends requests to one address over kept-alive HTTP/1.1 connections, from any thread.

    The arguments are those of `PoolSettings`. The lock is held over the accounting only: never over I/O, a wait or a
    callback.
    """

    def __init__(self, address: Address, **settings: Unpack[PoolSettings]) -> None:
        super().__init__(address, settings)
        self._lock = threading.Lock()
        forgets_on_fork(self)

    def send(self, request: WireRequest, timeouts: Timeouts = NO_TIMEOUTS) -> SyncWireResponse:
        """The response as soon as its head is read. Raises WireError.

        One request is sent twice in one case only: a kept-alive connection turned out to be closed before a byte of the
        response came, and either nothing was sent on it, or the method is idempotent and the body is at hand
        (RFC 9112 section 9.3.1).
        """
        encoded = encode(request)
        conn = self._idle_connection() or self._connection(timeouts, request.trace)
        exchange = SyncWireResponse(self, conn, request, encoded, timeouts)
        try:
            exchange.run(request)
        except WireError:
            exchange.abandon()
            slot, exchange.kept_slot = exchange.kept_slot, None
            if slot is None:
                raise
            self._gone(conn)
            return self._send_again(slot, request, timeouts, exchange.request_sent)
        except BaseException:
            exchange.abandon()
            if exchange.kept_slot is not None:
                self._gone(conn)
                self._vacate(exchange.kept_slot)
            raise
        return exchange

    def drain(self) -> None:
        """The endpoint is going away: idle connections are closed now, busy ones after their response.

        A call that chose the endpoint a moment ago still gets through, on a connection that is closed after it.
        """
        with self._lock:
            self._ledger.draining = True
            idle = self._ledger.empty_idle()
        for conn in idle:
            self._discard(conn)

    def close(self) -> None:
        """Close every connection; requests that wait fail with POOL_CLOSED, those in flight with RESET. Idempotent."""
        self.closed = True
        self.drain()
        with self._lock:
            waiters = self._ledger.dismiss()
            for waiter in waiters:
                waiter.give(self._closed_error())
            busy = list(self._open)
        for conn in busy:
            conn.interrupt()

    def stats(self) -> PoolStats:
        """Connections active and idle, requests pending."""
        with self._lock:
            return self._ledger.stats()

    def forget_inherited(self) -> None:
        """In a forked child: start afresh, with a lock that no thread of the parent holds."""
        self._lock = threading.Lock()
        self._ledger = self._new_ledger()
        self._open = set()

    # What an exchange reports.

    def finished(self, conn: SyncConnection, reusable: bool) -> None:
        """An exchange is over: pass the connection, or the right to open another, to whoever waits."""
        now = time.monotonic()
        with self._lock:
            keep = reusable and not self.closed and self._ledger.keeps(conn, now)
            if keep:
                waiter = self._ledger.give_back(conn, now)
                if waiter is not None:
                    waiter.give(conn)
                self._ledger.expire(now)
            doomed, self._ledger.doomed = self._ledger.doomed, []
        if not keep:
            self._discard(conn)
        for old in doomed:
            self._discard(old)

    # Getting a connection.

    def _idle_connection(self) -> SyncConnection | None:
        while True:
            with self._lock:
                conn = self._ledger.take(time.monotonic())
                doomed, self._ledger.doomed = self._ledger.doomed, []
            for old in doomed:
                self._discard(old)
            if conn is None or conn.quiet():
                return conn
            self._discard(conn)

    def _connection(self, timeouts: Timeouts, trace: Trace | None) -> SyncConnection:
        waiter = _Waiter()
        try:
            with self._lock:
                if self.closed:
                    raise self._closed_error()
                # Between the look for an idle connection and this lock one may have come back.
                grant: Grant | None = self._ledger.take(time.monotonic()) or self._ledger.reserve()
                if grant is None:
                    self._ledger.wait(waiter)
        except PendingOverflowError as error:
            raise WireError(FailureKind.OVERFLOW, f"{self._peer}: overflow of {error}") from None
        grant = grant or self._turn(waiter, timeouts)
        if isinstance(grant, WireError):
            raise grant
        if isinstance(grant, Slot):
            return self._dial(grant, timeouts, trace)
        return grant if grant.quiet() else self._dial(self._reopen(grant), timeouts, trace)

    def _turn(self, waiter: _Waiter, timeouts: Timeouts) -> Grant:
        now = time.monotonic()
        limit, kind = earliest(now, timeouts.deadline, timeouts.pool, FailureKind.POOL_TIMEOUT)
        try:
            waiter.ready.wait(None if limit is None else max(limit - now, 0.0))
        except BaseException:
            with self._lock:
                self._ledger.withdraw(waiter)
            if waiter.grant is not None:  # handed over in the very moment of the interrupt
                self._pass_on(waiter.grant)
            raise
        with self._lock:
            self._ledger.withdraw(waiter)
        return waiter.grant or WireError(kind, f"{self._peer}: no connection became free in time ({kind.value})")

    def _dial(self, slot: Slot, timeouts: Timeouts, trace: Trace | None) -> SyncConnection:
        conn = None
        try:
            with connecting(trace, self.address, timeouts) as step:
                sock = connect(self.address, self._ssl, self._server_hostname, timeouts, self.dial)
                conn = SyncConnection(sock, slot, self._peer, self._reader_limits)
                step.return_value = NetworkInfo(conn.lookup)
        except BaseException as error:
            if conn is not None:
                conn.close()
            self._vacate(slot)
            if isinstance(error, WireError):
                self._tell(ConnectionEventKind.CONNECT_FAILED, error)
            raise
        with self._lock:
            self._ledger.dialled(slot)
            self._open.add(conn)
        self._tell(ConnectionEventKind.CONNECTED)
        if self.closed:
            self._discard(conn)
            raise self._closed_error()
        return conn

    def _send_again(self, slot: Slot, request: WireRequest, timeouts: Timeouts, sent: bool) -> SyncWireResponse:
        try:
            conn = self._dial(slot, timeouts, request.trace)
        except WireError as error:
            error.request_sent = sent  # on the stale connection
            raise
        exchange = SyncWireResponse(self, conn, request, encode(request), timeouts)
        try:
            exchange.run(request)
        except BaseException:
            exchange.abandon()
            raise
        return exchange

    # Passing on what is free.

    def _pass_on(self, grant: Grant) -> None:
        if isinstance(grant, Slot):
            self._vacate(grant)
        elif isinstance(grant, SyncConnection):
            self.finished(grant, True)

    def _vacate(self, slot: Slot) -> None:
        with self._lock:
            waiter = self._ledger.vacate(slot)
            if waiter is not None:
                waiter.give(slot)

    def _reopen(self, conn: SyncConnection) -> Slot:
        self._gone(conn)
        return conn.slot

    def _discard(self, conn: SyncConnection) -> None:
        self._gone(conn)
        self._vacate(conn.slot)

    def _gone(self, conn: SyncConnection) -> None:
        conn.close()
        with self._lock:
            self._open.discard(conn)
        self._tell(ConnectionEventKind.CLOSED)
