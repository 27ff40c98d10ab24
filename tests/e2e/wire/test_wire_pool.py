"""Bounds, queues, lifetimes and endings of a pool, the same for both."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from e2e.wire.doors import PATIENT, SyncDoor, request
from e2e.wire.raw_server import Peer
from meshlib.http.wire import (
    ConnectionEvent,
    ConnectionEventKind,
    FailureKind,
    PoolLimits,
    PoolStats,
    Timeouts,
    WireError,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UNFINISHED = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok"


def answers(peer: Peer) -> None:
    while peer.head():
        peer.send(OK)


def unfinished(peer: Peer) -> None:
    peer.head()
    peer.send(UNFINISHED)
    peer.wait()


def test_at_the_limit_a_request_waits_and_then_gives_up(door: Any, raw: Any) -> None:
    pool: SyncDoor = door(raw(unfinished), limits=PoolLimits(max_connections=1))
    response = pool.open(request())
    with pytest.raises(WireError) as caught:
        pool.fetch(request(), Timeouts(pool=0.05))
    assert (caught.value.kind, caught.value.request_sent) == (FailureKind.POOL_TIMEOUT, False)
    with pytest.raises(WireError) as caught:
        pool.fetch(request(), Timeouts(pool=5.0, deadline=pool.now() + 0.05))
    assert caught.value.kind is FailureKind.DEADLINE
    assert pool.stats() == PoolStats(active=1, idle=0, pending=0)
    pool.close_response(response)
    pool.close_response(pool.open(request()))


def test_beyond_the_pending_limit_a_request_is_refused_at_once(door: Any, raw: Any) -> None:
    pool: SyncDoor = door(raw(unfinished), limits=PoolLimits(max_connections=5, max_pending=0))
    with pytest.raises(WireError) as caught:
        pool.fetch(request(), PATIENT)
    assert caught.value.kind is FailureKind.OVERFLOW


class CountingGate:
    """A cluster's limit, kept strictly."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held: set[object] = set()
        self._lock = threading.Lock()

    def try_acquire(self, token: object) -> bool:
        with self._lock:
            if len(self.held) >= self.limit:
                return False
            self.held.add(token)
            return True

    def release(self, token: object) -> None:
        with self._lock:
            self.held.discard(token)


def test_the_pools_of_a_cluster_share_its_gates_but_each_has_one_connection(door: Any, raw: Any) -> None:
    gate, pending = CountingGate(1), CountingGate(10)
    pools: list[SyncDoor] = [door(raw(unfinished), connections=gate, pending=pending) for _ in range(2)]
    responses = [pool.open(request()) for pool in pools]
    assert len(gate.held) == 1
    assert not pending.held
    for pool in pools:
        with pytest.raises(WireError) as caught:
            pool.fetch(request(), Timeouts(pool=0.02))
        assert caught.value.kind is FailureKind.POOL_TIMEOUT
    for pool, response in zip(pools, responses, strict=True):
        pool.close_response(response)
    assert not gate.held
    assert not pending.held


def test_a_response_closed_early_costs_its_connection_only(door: Any, raw: Any) -> None:
    server = raw(unfinished)
    pool: SyncDoor = door(server)
    for _ in range(5):
        response = pool.open(request())
        assert next(pool.chunks(response)) == b"ok"
        pool.close_response(response)
        pool.close_response(response)
    assert pool.stats() == PoolStats(0, 0, 0)
    for _ in range(5):
        assert server.closed.acquire(timeout=10)


def test_lifetimes_end_connections_between_requests(door: Any, raw: Any) -> None:
    for limits, expected in (
        (PoolLimits(max_requests_per_connection=2), 3),
        (PoolLimits(max_connection_duration=0.0), 6),
        (PoolLimits(idle_timeout=0.0), 6),
        (PoolLimits(), 1),
    ):
        server = raw(answers)
        pool = door(server, limits=limits)
        for _ in range(6):
            assert pool.fetch().body == b"ok"
        assert server.connections == expected, limits


def test_idle_connections_are_closed_in_time(door: Any, raw: Any) -> None:
    server = raw(answers)
    pool = door(server, limits=PoolLimits(idle_timeout=0.03))
    pool.fetch()
    if pool.kind == "sync":
        return  # a synchronous pool acts only when called: see the test above
    pool.settle()
    assert pool.stats() == PoolStats(0, 0, 0)
    assert server.closed.acquire(timeout=10)


def test_connections_are_reported_when_they_open_fail_and_close(door: Any, raw: Any) -> None:
    events: list[ConnectionEvent] = []
    server = raw(answers)
    pool: SyncDoor = door(server, on_connection=events.append)
    pool.fetch()
    pool.fetch()
    pool.drain()
    pool.settle()
    server.stop()
    with pytest.raises(WireError):
        pool.fetch()
    kinds = ConnectionEventKind
    assert [event.kind for event in events] == [kinds.CONNECTED, kinds.CLOSED, kinds.CONNECT_FAILED]
    assert events[-1].error is not None
    assert events[-1].error.kind is FailureKind.CONNECT_FAILURE


def test_a_drained_pool_still_serves_but_keeps_nothing(door: Any, raw: Any) -> None:
    server = raw(answers)
    pool: SyncDoor = door(server)
    pool.fetch()
    pool.drain()
    assert pool.stats().idle == 0
    assert pool.fetch().body == b"ok"
    assert pool.stats() == PoolStats(0, 0, 0)
    assert server.connections == 2


def test_a_closed_pool_refuses_and_fails_what_is_in_flight(door: Any, raw: Any) -> None:
    pool: SyncDoor = door(raw(unfinished))
    response = pool.open(request())
    chunks = pool.chunks(response)
    assert next(chunks) == b"ok"
    ended: list[Any] = []
    response.on_done = ended.append
    if pool.kind == "sync":
        pool.close()
    else:
        pool.runner.run(pool.async_pool.aclose())  # type: ignore[attr-defined]
    with pytest.raises(WireError, match="pool was closed") as caught:
        next(chunks)
    assert (caught.value.kind, caught.value.request_sent) == (FailureKind.RESET, True)
    assert ended == [caught.value]
    with pytest.raises(WireError) as caught:
        pool.fetch()
    assert (caught.value.kind, caught.value.request_sent) == (FailureKind.POOL_CLOSED, False)
    assert pool.stats() == PoolStats(0, 0, 0)


def test_what_nobody_takes_is_not_read(door: Any, raw: Any) -> None:
    sent = 0
    stopped = threading.Event()
    size, piece = 200_000_000, bytes(100_000)

    def script(peer: Peer) -> None:
        nonlocal sent
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        peer.sock.settimeout(0.3)
        try:
            while sent < size:
                peer.send(piece)
                sent += len(piece)
        except TimeoutError:
            stopped.set()

    pool: SyncDoor = door(raw(script))
    response = pool.open(request())
    for _ in range(100):
        pool.settle()
        if stopped.wait(0.05):
            break
    assert stopped.is_set(), "the server could send everything"
    assert sent < 30_000_000, "more than the kernel's buffers hold"
    pool.close_response(response)


def test_a_slow_reader_gets_everything(door: Any, raw: Any) -> None:
    size = 30_000_000

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 100_000):
            peer.send(bytes(100_000))
        peer.wait()

    pool: SyncDoor = door(raw(script))
    response = pool.open(request())
    pool.settle()
    assert sum(len(chunk) for chunk in pool.chunks(response)) == size
    assert pool.stats() == PoolStats(active=0, idle=1, pending=0)


def test_uvicorn_echoes(door: Any, backend: Callable[..., Any]) -> None:
    from meshlib.http.wire import Address

    server = backend("stable")
    pool: SyncDoor = door(Address(server.host, server.port))
    for method in (b"GET", b"PUT", b"DELETE"):
        reply = pool.fetch(request(method, target=b"/a?b=1"))
        assert reply.status == 200
        assert b'"stable"' in reply.body
    body = b"x" * 1_000_000
    assert b'"body_length": 1000000' in pool.fetch(request(b"POST", body)).body.replace(b":1000000", b": 1000000")
    streamed = pool.fetch(request(b"POST", pool.body([body[:500_000], body[500_000:]])))
    assert b"1000000" in streamed.body
    assert len(pool.fetch(request(target=b"/?size=1000000")).body) >= 1_000_000
    assert pool.stats() == PoolStats(active=0, idle=1, pending=0)
