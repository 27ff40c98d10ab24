"""Who may use which connection: the accounting of one pool, without I/O, clock or lock.

A connection stands on a `Slot`. A slot always has exactly one owner: the connection that is idle, the exchange that
uses it, the request that dials on it, or the waiter it was handed to. Every way out of those states passes the slot
on or frees it, which is why a cancelled request cannot lose one. AsyncPool calls this on its loop, SyncPool under
its lock; each call is O(1).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from meshlib.http.wire.types import Gate, PoolLimits, PoolStats


class Slot:
    """The right to have one connection; the token the connections gate counts."""

    __slots__ = ("gated", "ticket")

    def __init__(self) -> None:
        self.gated = False
        self.ticket: object | None = None  # counted as pending until the connection stands


class Pooled(Protocol):
    """What the ledger must know of a connection."""

    slot: Slot
    opened_at: float
    idle_since: float
    requests: int


C = TypeVar("C", bound=Pooled)
W = TypeVar("W")


class PendingOverflowError(Exception):
    """The pending limit is reached."""


class Ledger(Generic[C, W]):
    """Idle connections (last in, first out), slots, and waiters (first in, first out) of one endpoint.

    `W` is whatever the pool waits on; a grant is returned to the pool, which wakes the waiter.
    """

    def __init__(self, limits: PoolLimits, connections: Gate | None = None, pending: Gate | None = None) -> None:
        self._limits = limits
        self._connections = connections
        self._pending_gate = pending
        self._idle: OrderedDict[C, None] = OrderedDict()
        self._slots: set[Slot] = set()
        self._tickets: set[object] = set()
        self._waiters: OrderedDict[W, object] = OrderedDict()
        self.draining = False
        self.doomed: list[C] = []  # closed by the pool, which then vacates their slots

    def take(self, now: float) -> C | None:
        """The idle connection used last; those past their time that it meets go to `doomed`, for the pool to close."""
        idle = self._idle
        while idle:
            conn, _ = idle.popitem()
            if not self._expired(conn, now):
                return conn
            self.doomed.append(conn)
        return None

    def expire(self, now: float) -> None:
        """Move connections past their idle time to `doomed`. Oldest first, so it stops at the first young one."""
        idle, timeout = self._idle, self._limits.idle_timeout
        while idle and timeout is not None:
            conn = next(iter(idle))
            if now - conn.idle_since < timeout:
                return
            del idle[conn]
            self.doomed.append(conn)

    def next_expiry(self) -> float | None:
        """When the connection idle for longest runs out; None: never."""
        timeout = self._limits.idle_timeout
        if timeout is None or not self._idle:
            return None
        return next(iter(self._idle)).idle_since + timeout

    def reserve(self) -> Slot | None:
        """A slot to dial on, counted as pending; None: at the limit, wait. Raises PendingOverflowError.

        A pool without a connection gets one even when the gate refuses, as in Envoy: else its requests wait for
        nothing.
        """
        if len(self._slots) >= self._limits.max_connections:
            if self._connections is not None:
                self._connections.refuse()
            return None
        slot = Slot()
        slot.gated = self._connections is None or self._connections.try_acquire(slot)
        if not slot.gated and self._slots:
            return None
        try:
            slot.ticket = self._ticket()
        except PendingOverflowError:
            self._release_gate(slot)
            raise
        self._slots.add(slot)
        return slot

    def wait(self, waiter: W) -> None:
        """Queue up. Raises PendingOverflowError."""
        self._waiters[waiter] = self._ticket()

    def withdraw(self, waiter: W) -> bool:
        """Leave the queue; False: it was granted something already, which the caller must use or pass on."""
        ticket = self._waiters.pop(waiter, None)
        if ticket is None:
            return False
        self._return_ticket(ticket)
        return True

    def dialled(self, slot: Slot) -> None:
        """The connection on this slot stands: its request is no longer pending."""
        if slot.ticket is not None:
            self._return_ticket(slot.ticket)
            slot.ticket = None

    def give_back(self, conn: C, now: float) -> W | None:
        """A usable connection comes back: it goes to the first waiter (returned) or becomes idle."""
        conn.idle_since = now
        if self._waiters:
            waiter, ticket = self._waiters.popitem(last=False)
            self._return_ticket(ticket)
            return waiter
        self._idle[conn] = None
        return None

    def vacate(self, slot: Slot) -> W | None:
        """The connection on this slot is gone: the first waiter (returned) gets it to dial on, or it is freed."""
        if slot not in self._slots:
            return None
        self.dialled(slot)
        if self._waiters:
            waiter, slot.ticket = self._waiters.popitem(last=False)
            return waiter
        self._slots.discard(slot)
        self._release_gate(slot)
        return None

    def keeps(self, conn: C, now: float) -> bool:
        """Whether a connection that finished an exchange may serve another one."""
        limits = self._limits
        if self.draining or (
            limits.max_requests_per_connection and conn.requests >= limits.max_requests_per_connection
        ):
            return False
        return limits.max_connection_duration is None or now - conn.opened_at < limits.max_connection_duration

    def forget_idle(self, conn: C) -> bool:
        """Take out one idle connection that died; its slot is still to be vacated. False: it was not idle."""
        if conn not in self._idle:
            return False
        del self._idle[conn]
        return True

    def empty_idle(self) -> list[C]:
        """Take out all idle connections; their slots are still to be vacated."""
        conns = list(self._idle)
        self._idle.clear()
        return conns

    def dismiss(self) -> list[W]:
        """Take out all waiters, to be refused."""
        waiters = list(self._waiters)
        for waiter in waiters:
            self.withdraw(waiter)
        return waiters

    def forget(self) -> None:
        """Give back everything the gates count, whoever has it."""
        self._idle.clear()
        self.dismiss()
        for slot in self._slots:
            self.dialled(slot)
            self._release_gate(slot)
        self._slots.clear()

    def stats(self) -> PoolStats:
        """Counts at this moment."""
        return PoolStats(len(self._slots) - len(self._idle), len(self._idle), len(self._tickets))

    def _expired(self, conn: C, now: float) -> bool:
        limits = self._limits
        if limits.idle_timeout is not None and now - conn.idle_since >= limits.idle_timeout:
            return True
        return limits.max_connection_duration is not None and now - conn.opened_at >= limits.max_connection_duration

    def _ticket(self) -> object:
        ticket = object()
        if len(self._tickets) >= self._limits.max_pending:
            raise PendingOverflowError("pending requests of the endpoint")
        if self._pending_gate is not None and not self._pending_gate.try_acquire(ticket):
            raise PendingOverflowError("pending requests of the cluster")
        self._tickets.add(ticket)
        return ticket

    def _return_ticket(self, ticket: object) -> None:
        self._tickets.discard(ticket)
        if self._pending_gate is not None:
            self._pending_gate.release(ticket)

    def _release_gate(self, slot: Slot) -> None:
        if slot.gated and self._connections is not None:
            self._connections.release(slot)
        slot.gated = False
