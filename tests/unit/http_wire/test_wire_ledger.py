"""The accounting of a pool: a list of values in, a list of values out; and any order of events keeps its promises."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshlib.http.wire.ledger import Ledger, PendingOverflowError, Slot
from meshlib.http.wire.types import PoolLimits, PoolStats


@dataclass(eq=False)
class Conn:
    slot: Slot
    opened_at: float = 0.0
    idle_since: float = 0.0
    requests: int = 0


@dataclass
class CountingGate:
    limit: int
    held: set[object] = field(default_factory=set)
    refused: int = 0

    def refuse(self) -> None:
        self.refused += 1

    def try_acquire(self, token: object) -> bool:
        if len(self.held) >= self.limit:
            return False
        self.held.add(token)
        return True

    def release(self, token: object) -> None:
        self.held.discard(token)


def connect(ledger: Ledger[Conn, str], now: float = 0.0) -> Conn:
    slot = ledger.reserve()
    assert slot is not None
    ledger.dialled(slot)
    return Conn(slot, opened_at=now)


def test_the_connection_used_last_is_used_next() -> None:
    ledger: Ledger[Conn, str] = Ledger(PoolLimits())
    first, second = connect(ledger), connect(ledger)
    ledger.give_back(first, 1.0)
    ledger.give_back(second, 2.0)
    assert ledger.stats() == PoolStats(active=0, idle=2, pending=0)
    assert ledger.take(3.0) is second
    assert ledger.take(3.0) is first
    assert ledger.take(3.0) is None


def test_at_the_limit_requests_wait_in_line_and_connections_go_to_the_first() -> None:
    ledger: Ledger[Conn, str] = Ledger(PoolLimits(max_connections=1))
    conn = connect(ledger)
    assert ledger.reserve() is None
    ledger.wait("a")
    ledger.wait("b")
    assert ledger.stats() == PoolStats(active=1, idle=0, pending=2)
    assert ledger.give_back(conn, 1.0) == "a"
    assert not ledger.withdraw("a"), "it was served"
    assert ledger.vacate(conn.slot) == "b", "the connection died: the slot goes to the next, who dials"
    assert ledger.stats() == PoolStats(active=1, idle=0, pending=1)
    ledger.dialled(conn.slot)
    assert ledger.vacate(conn.slot) is None
    assert ledger.stats() == PoolStats(active=0, idle=0, pending=0)


def test_who_leaves_the_line_is_not_served() -> None:
    ledger: Ledger[Conn, str] = Ledger(PoolLimits(max_connections=1))
    conn = connect(ledger)
    ledger.wait("a")
    ledger.wait("b")
    assert ledger.withdraw("a")
    assert ledger.give_back(conn, 1.0) == "b"


def test_pending_counts_those_that_dial_as_envoy_does() -> None:
    ledger: Ledger[Conn, str] = Ledger(PoolLimits(max_connections=5, max_pending=1))
    slot = ledger.reserve()
    assert slot is not None
    with pytest.raises(PendingOverflowError):
        ledger.reserve()
    ledger.dialled(slot)
    assert ledger.reserve() is not None


def test_pending_overflow_leaves_nothing_behind() -> None:
    connections, pending = CountingGate(5), CountingGate(0)
    ledger: Ledger[Conn, str] = Ledger(PoolLimits(), connections, pending)
    with pytest.raises(PendingOverflowError):
        ledger.reserve()
    assert not connections.held
    assert ledger.stats() == PoolStats(active=0, idle=0, pending=0)


def test_a_pool_gets_one_connection_even_when_the_gate_of_the_cluster_refuses() -> None:
    gate = CountingGate(0)
    ledger: Ledger[Conn, str] = Ledger(PoolLimits(), gate)
    conn = connect(ledger)
    assert ledger.reserve() is None
    ledger.vacate(conn.slot)
    assert not gate.held
    assert ledger.reserve() is not None


def test_the_gate_counts_each_connection_once_and_lets_go() -> None:
    gate = CountingGate(2)
    one: Ledger[Conn, str] = Ledger(PoolLimits(), gate)
    two: Ledger[Conn, str] = Ledger(PoolLimits(), gate)
    first, second = connect(one), connect(two)
    assert len(gate.held) == 2
    assert one.reserve() is None
    two.vacate(second.slot)
    two.vacate(second.slot)
    third = connect(one)
    assert len(gate.held) == 2
    one.vacate(first.slot)
    one.vacate(third.slot)
    assert not gate.held


def test_idle_connections_run_out_oldest_first() -> None:
    ledger: Ledger[Conn, str] = Ledger(PoolLimits(idle_timeout=10.0))
    old, young = connect(ledger), connect(ledger)
    ledger.give_back(old, 0.0)
    ledger.give_back(young, 5.0)
    assert ledger.next_expiry() == 10.0
    ledger.expire(9.9)
    assert ledger.doomed == []
    ledger.expire(10.0)
    assert ledger.doomed == [old]
    assert ledger.next_expiry() == 15.0
    assert ledger.take(15.0) is None
    assert ledger.doomed == [old, young]


def test_lifetime_and_request_limits_end_a_connection_between_requests() -> None:
    ledger: Ledger[Conn, str] = Ledger(PoolLimits(max_connection_duration=10.0, max_requests_per_connection=3))
    conn = connect(ledger)
    assert ledger.keeps(conn, 9.9)
    assert not ledger.keeps(conn, 10.0)
    conn.requests = 3
    assert not ledger.keeps(conn, 1.0)
    ledger.give_back(conn, 1.0)
    assert ledger.take(10.0) is None
    assert ledger.doomed == [conn]


def test_a_draining_pool_keeps_nothing() -> None:
    ledger: Ledger[Conn, str] = Ledger(PoolLimits())
    idle, busy = connect(ledger), connect(ledger)
    ledger.give_back(idle, 0.0)
    ledger.draining = True
    assert ledger.empty_idle() == [idle]
    assert not ledger.keeps(busy, 0.0)
    assert connect(ledger) is not None, "a call that chose the endpoint before still gets through"


class AnyOrder(RuleBasedStateMachine):
    """Requests come, dial, finish, fail and give up in any order."""

    limits = PoolLimits(max_connections=3, max_pending=4, max_requests_per_connection=5)

    def __init__(self) -> None:
        super().__init__()
        self.connections, self.pending = CountingGate(2), CountingGate(3)
        self.ledger: Ledger[Conn, int] = Ledger(self.limits, self.connections, self.pending)
        self.now = 0.0
        self.names = 0
        self.waiting: list[int] = []
        self.dialling: list[Slot] = []
        self.busy: list[Conn] = []
        self.idle: list[Conn] = []

    @rule()
    def request(self) -> None:
        conn = self.ledger.take(self.now)
        if conn is not None:
            assert conn is self.idle.pop()
            self.busy.append(conn)
            return
        assert not self.idle
        self.names += 1
        try:
            slot = self.ledger.reserve()
            if slot is None:
                self.ledger.wait(self.names)
                self.waiting.append(self.names)
            else:
                self.dialling.append(slot)
        except PendingOverflowError:
            assert len(self.waiting) + len(self.dialling) >= 3

    @precondition(lambda self: self.dialling)
    @rule(data=st.data(), works=st.booleans())
    def dial(self, data: st.DataObject, works: bool) -> None:
        slot = self.dialling.pop(data.draw(st.integers(0, len(self.dialling) - 1)))
        if works:
            self.ledger.dialled(slot)
            self.busy.append(Conn(slot, opened_at=self.now, requests=1))
        else:
            self.vacated(slot)

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), reusable=st.booleans())
    def finish(self, data: st.DataObject, reusable: bool) -> None:
        conn = self.busy.pop(data.draw(st.integers(0, len(self.busy) - 1)))
        if not (reusable and self.ledger.keeps(conn, self.now)):
            self.vacated(conn.slot)
            return
        conn.requests += 1
        waiter = self.ledger.give_back(conn, self.now)
        if waiter is None:
            assert not self.waiting
            self.idle.append(conn)
        else:
            assert waiter == self.waiting.pop(0), "first in, first out"
            self.busy.append(conn)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        assert self.ledger.withdraw(self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1))))

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def idle_dies(self, data: st.DataObject) -> None:
        conn = self.idle.pop(data.draw(st.integers(0, len(self.idle) - 1)))
        assert self.ledger.forget_idle(conn)
        self.vacated(conn.slot)

    @rule(seconds=st.floats(0.1, 5))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    def vacated(self, slot: Slot) -> None:
        waiter = self.ledger.vacate(slot)
        if waiter is None:
            assert not self.waiting
        else:
            assert waiter == self.waiting.pop(0)
            self.dialling.append(slot)

    @invariant()
    def counts_are_true(self) -> None:
        stats = self.ledger.stats()
        assert stats.idle == len(self.idle)
        assert stats.active == len(self.busy) + len(self.dialling)
        assert stats.pending == len(self.waiting) + len(self.dialling) == len(self.pending.held)
        assert stats.active + stats.idle <= 3
        assert len(self.connections.held) <= stats.active + stats.idle <= len(self.connections.held) + 1

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        if self.waiting:
            assert self.busy or self.dialling


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
