"""Whole after cancellation: whatever tasks and threads do to each other, no connection, slot or waiter is lost."""

import asyncio
import random
import threading
import time
import types
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from e2e.wire.doors import request
from e2e.wire.raw_server import Peer
from meshlib.http.wire import Address, AsyncPool, FailureKind, PoolLimits, PoolStats, SyncPool, Timeouts, WireError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def slow(peer: Peer) -> None:
    """Answers each request after up to 4 ms, half of the body apart."""
    rng = random.Random(peer.number)
    while peer.head():
        time.sleep(rng.random() * 0.003)
        peer.send(OK[:-1])
        time.sleep(rng.random() * 0.001)
        peer.send(OK[-1:])


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("seed", range(3))
def test_twenty_tasks_and_150_cancels_on_ten_connections(raw: Any, loop: str, seed: int) -> None:
    server = raw(slow)

    async def scenario() -> None:
        pool = AsyncPool(Address("127.0.0.1", server.port), limits=PoolLimits(max_connections=10))
        rng = random.Random(seed)
        print("seed", seed)  # noqa: T201  shown when it fails

        async def one() -> None:
            response = await pool.send(request(), Timeouts(5, 5, 5, 5))
            assert b"".join([chunk async for chunk in response]) == b"ok"

        async def caller() -> None:
            while True:
                await one()

        tasks = [asyncio.create_task(caller()) for _ in range(20)]
        for _ in range(150):
            await asyncio.sleep(rng.random() * 0.004)
            at = rng.randrange(20)
            tasks[at].cancel()
            await asyncio.gather(tasks[at], return_exceptions=True)
            tasks[at] = asyncio.create_task(caller())
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends
        stats = pool.stats()
        assert (stats.active, stats.pending) == (0, 0)
        async with asyncio.timeout(20):
            await asyncio.gather(*(one() for _ in range(200)))
        assert pool.stats().active == 0
        assert 0 < pool.stats().idle <= 10
        await pool.aclose()
        assert pool.stats() == PoolStats(0, 0, 0)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_a_waiter_cancelled_in_the_moment_of_the_hand_over_passes_the_connection_on(raw: Any, loop: str) -> None:
    def script(peer: Peer) -> None:
        while peer.head():
            peer.send(OK[:-1])
            peer.sock.settimeout(0.05)
            peer.send(OK[-1:])
            peer.sock.settimeout(None)

    server = raw(script)

    async def scenario() -> None:
        pool = AsyncPool(Address("127.0.0.1", server.port), limits=PoolLimits(max_connections=1))
        for _ in range(20):
            first = await pool.send(request())
            second = asyncio.create_task(pool.send(request()))
            third = asyncio.create_task(pool.send(request()))
            await asyncio.sleep(0)
            first.on_done = lambda _, task=second: task.cancel()  # type: ignore[misc]
            async for _ in first:
                pass
            response = await asyncio.wait_for(third, 10)
            async for _ in response:
                pass
            ends = await asyncio.gather(second, return_exceptions=True)
            if not isinstance(ends[0], BaseException):
                await ends[0].aclose()
        assert pool.stats().active == pool.stats().pending == 0
        await pool.aclose()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(scenario())


def test_cancelling_in_every_phase_closes_that_connection_and_leaks_nothing(raw: Any) -> None:
    reached = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        head = peer.head()
        if b"/upload" in head:
            peer.exactly(1)
        if b"/body" in head:
            peer.send(OK[:-1])
        reached.release()
        peer.wait()

    server = raw(script)

    async def scenario() -> None:
        pool = AsyncPool(Address("127.0.0.1", server.port))

        async def endless() -> Any:
            while True:
                yield bytes(100_000)

        async def read(target: bytes, body: Any = None) -> None:
            response = await pool.send(request(b"PUT", body, target=target), Timeouts(10, 10, 10, 10))
            async for _ in response:
                pass

        for target, body in ((b"/head", None), (b"/upload", endless()), (b"/body", None)):
            task = asyncio.create_task(read(target, body))
            await asyncio.to_thread(reached.acquire, timeout=10)
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert pool.stats() == PoolStats(0, 0, 0)
            assert await asyncio.to_thread(server.closed.acquire, timeout=10)
        await pool.aclose()

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(2))
def test_twenty_threads_with_timeouts_on_ten_connections(raw: Any, seed: int) -> None:
    server = raw(slow)
    pool = SyncPool(Address("127.0.0.1", server.port), limits=PoolLimits(max_connections=10))
    unexpected: list[BaseException] = []

    def caller(number: int) -> None:
        rng = random.Random(seed * 100 + number)
        for _ in range(40):
            timeouts = Timeouts(read=rng.choice((0.001, 0.003, 5.0)), pool=rng.choice((0.001, 5.0)), connect=5.0)
            try:
                response = pool.send(request(), timeouts)
                assert b"".join(response) == b"ok"
            except WireError as error:
                if error.kind not in (FailureKind.READ_TIMEOUT, FailureKind.POOL_TIMEOUT):
                    unexpected.append(error)
            except BaseException as error:
                unexpected.append(error)
                raise

    run_threads(caller, 20)
    assert unexpected == []
    stats = pool.stats()
    assert (stats.active, stats.pending) == (0, 0)

    def patient(number: int) -> None:
        assert b"".join(pool.send(request(), Timeouts(5, 5, 5, 5))) == b"ok"

    run_threads(patient, 30)
    assert pool.stats().active == 0
    assert 0 < pool.stats().idle <= 10
    pool.close()
    assert pool.stats() == PoolStats(0, 0, 0)


def test_waiting_threads_are_served_in_turn(raw: Any) -> None:
    server = raw(slow)
    pool = SyncPool(Address("127.0.0.1", server.port), limits=PoolLimits(max_connections=2))
    done: list[int] = []

    def caller(number: int) -> None:
        for _ in range(10):
            assert b"".join(pool.send(request(), Timeouts(5, 5, 5, 10))) == b"ok"
        done.append(number)

    run_threads(caller, 16)
    assert sorted(done) == list(range(16))
    assert server.connections == 2
    pool.close()


def test_a_thread_interrupted_in_the_moment_of_the_hand_over_passes_the_connection_on(
    raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = SyncPool(Address("127.0.0.1", raw(slow).port), limits=PoolLimits(max_connections=1))
    first = pool.send(request())

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert b"".join(first) == b"ok"  # gives the connection to the one who waits here
            assert self.is_set()
            raise KeyboardInterrupt

    namespace = types.SimpleNamespace(Event=Interrupted, Lock=threading.Lock)
    monkeypatch.setattr("meshlib.http.wire.sync_pool.threading", namespace)
    with pytest.raises(KeyboardInterrupt):
        pool.send(request(), Timeouts(5, 5, 5, 5))
    assert pool.stats() == PoolStats(active=0, idle=1, pending=0)
    pool.close()


def test_closing_the_pool_wakes_threads_that_wait_and_threads_that_read(raw: Any) -> None:
    reading = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        peer.head()
        reading.release()
        peer.wait()

    pool = SyncPool(Address("127.0.0.1", raw(script).port), limits=PoolLimits(max_connections=1))
    failures: list[tuple[FailureKind, bool]] = []

    def caller(number: int) -> None:
        with pytest.raises(WireError) as caught:
            pool.send(request())
        failures.append((caught.value.kind, caught.value.request_sent))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    assert reading.acquire(timeout=10)
    deadline = time.monotonic() + 10
    while pool.stats().pending < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    pool.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    waiting = (FailureKind.POOL_CLOSED, False)
    assert sorted(failures, key=str) == sorted([(FailureKind.RESET, True), waiting, waiting], key=str)
    assert pool.stats() == PoolStats(0, 0, 0)


@pytest.mark.parametrize("loop", LOOPS)
def test_closing_the_pool_ends_tasks_that_wait_and_tasks_that_read(raw: Any, loop: str) -> None:
    reading = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        peer.head()
        peer.send(OK)  # the connection is a kept one when the pool is closed: even then nothing is sent again
        peer.head()
        reading.release()
        peer.wait()

    server = raw(script)

    async def scenario() -> None:
        pool = AsyncPool(Address("127.0.0.1", server.port), limits=PoolLimits(max_connections=1))
        assert b"".join([chunk async for chunk in await pool.send(request())]) == b"ok"
        tasks = [asyncio.create_task(pool.send(request())) for _ in range(3)]
        assert await asyncio.to_thread(reading.acquire, timeout=10)
        await pool.aclose()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [(end.kind, end.request_sent) for end in ends if isinstance(end, WireError)] == [
            (FailureKind.RESET, True),
            (FailureKind.POOL_CLOSED, False),
            (FailureKind.POOL_CLOSED, False),
        ]
        assert pool.stats() == PoolStats(0, 0, 0)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(scenario())
    assert server.connections == 1


def run_threads(target: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=target, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
