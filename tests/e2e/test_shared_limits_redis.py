"""Shared limits on a real Redis: shared by processes and loops, and what happens on the day Redis is gone."""

import asyncio
import gc
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from meshlib.flags import ResponseFlag
from meshlib.policy.limit_store import MAX_CONNECTIONS
from meshlib.policy.shared_limit import DEFAULT_TIMEOUT, OnError, SharedRateLimit, SharedVerdict
from parts.redis_server import RedisServer

STRATEGIES = ("fixed", "sliding", "moving")
NOISE = 0.25  # seconds a busy machine may add to what the limit itself costs


@contextmanager
def limit_on(redis: RedisServer, limit: str = "10/minute", **options: object) -> Iterator[SharedRateLimit]:
    shared = SharedRateLimit(limit, redis.url, **options)  # type: ignore[arg-type]
    yield shared
    shared.close()


def timed(hit: Callable[[], SharedVerdict]) -> tuple[SharedVerdict, float]:
    started = time.perf_counter()
    verdict = hit()
    return verdict, time.perf_counter() - started


def wait_for_store(limit: SharedRateLimit, seconds: float = 10.0) -> SharedVerdict:
    """Hit until the store decides again: the circuit tries it once a second."""
    until = time.monotonic() + seconds
    while (verdict := limit.hit()).source != "store":
        assert time.monotonic() < until, "the store was not taken up again"
        time.sleep(0.05)
    return verdict


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_clients_share_one_quota(redis_server: RedisServer, strategy: str) -> None:
    options = {"strategy": strategy, "name": "quota"}
    with limit_on(redis_server, **options) as ours, limit_on(redis_server, **options) as theirs:
        verdicts = [limit.hit("ada") for _ in range(7) for limit in (ours, theirs)]
        assert sum(verdict.allowed for verdict in verdicts) == 10
        assert [verdict.remaining for verdict in verdicts[:4]] == [9, 8, 7, 6]
        assert verdicts[-1].flag is ResponseFlag.RL
        assert verdicts[-1].reset is not None
        assert 0 < verdicts[-1].reset <= 60
        assert ours.hit("grace").allowed


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_sync_and_asyncio_share_one_quota(redis_server: RedisServer, strategy: str) -> None:
    limit = SharedRateLimit("10/minute", redis_server.url, strategy=strategy)  # type: ignore[arg-type]
    verdicts = [await limit.ahit() for _ in range(6)]
    verdicts += await asyncio.gather(*(asyncio.to_thread(limit.hit) for _ in range(6)))
    assert sum(verdict.allowed for verdict in verdicts) == 10
    assert {verdict.source for verdict in verdicts} == {"store"}
    await limit.aclose()


def test_one_limit_serves_several_event_loops(redis_server: RedisServer) -> None:
    limit = SharedRateLimit("10/minute", redis_server.url)

    async def hits() -> list[bool]:
        verdicts = await asyncio.gather(*(limit.ahit() for _ in range(4)))
        await limit.aclose()
        return [verdict.allowed for verdict in verdicts if verdict.source == "store"]

    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(lambda _: asyncio.run(hits()), range(2)))
    later = asyncio.run(hits())
    assert [len(loop) for loop in (*at_once, later)] == [4, 4, 4]
    assert sum(sum(loop) for loop in (*at_once, later)) == 10


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of loops that ended without `aclose`
def test_loops_that_ended_leave_no_connections(redis_server: RedisServer) -> None:
    """A loop for each call is what `async_to_sync` and task queues do."""
    limit = SharedRateLimit("1000/minute", redis_server.url)

    async def hit(*, at_last: bool = False) -> str:
        verdict = await limit.ahit()
        if at_last:
            await limit.aclose()
        return verdict.source

    assert {asyncio.run(hit()) for _ in range(12)} == {"store"}
    assert asyncio.run(hit(at_last=True)) == "store"
    gc.collect()
    until = time.monotonic() + 10
    while int(redis_server.info("connected_clients")) > 3 and time.monotonic() < until:
        time.sleep(0.02)
    assert int(redis_server.info("connected_clients")) <= 3  # and one of them asks


def test_sixteen_threads_get_exactly_the_quota(redis_server: RedisServer) -> None:
    # A generous timeout: here the count matters, and a busy machine must not fall back.
    with limit_on(redis_server, "50/minute", timeout=5.0) as limit, ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(lambda _: limit.hit(), range(200)))
    assert sum(verdict.allowed for verdict in verdicts) == 50


def _hit_in_child(url: str, answers: "multiprocessing.Queue[int]", limit: SharedRateLimit | None) -> None:
    limit = limit or SharedRateLimit("20/minute", url, name="forked", timeout=5.0)
    answers.put(sum(limit.hit().allowed for _ in range(10)))


def connections_of(redis_server: RedisServer) -> int:
    """How many connections clients have; the one that asks is not counted."""
    return int(redis_server.info("connected_clients")) - 1


def until_closed(redis_server: RedisServer) -> int:
    """How many connections are left: Redis notices their end a moment later."""
    until = time.monotonic() + 5
    while (left := connections_of(redis_server)) and time.monotonic() < until:
        time.sleep(0.01)
    return left


async def test_hundreds_of_hits_at_once_share_some_connections(redis_server: RedisServer) -> None:
    limit = SharedRateLimit("1000000/hour", redis_server.url, on_error="closed", timeout=5.0)
    verdicts = await asyncio.gather(*(limit.ahit() for _ in range(300)))
    assert {verdict.source for verdict in verdicts} == {"store"}
    assert connections_of(redis_server) <= MAX_CONNECTIONS
    await limit.aclose()
    assert until_closed(redis_server) == 0


def test_so_do_threads(redis_server: RedisServer) -> None:
    limit = SharedRateLimit("1000000/hour", redis_server.url, on_error="closed", timeout=5.0)
    with ThreadPoolExecutor(150) as threads:
        verdicts = list(threads.map(lambda _: limit.hit(), range(600)))
    assert {verdict.source for verdict in verdicts} == {"store"}
    assert connections_of(redis_server) <= MAX_CONNECTIONS
    limit.close()
    assert until_closed(redis_server) == 0


def test_a_forked_child_goes_on_with_a_connection_of_its_own(redis_server: RedisServer) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with limit_on(redis_server, "20/minute", name="forked", timeout=5.0) as limit:
        assert sum(limit.hit().allowed for _ in range(5)) == 5  # the parent's connection is open
        children = [context.Process(target=_hit_in_child, args=("", answers, limit)) for _ in range(2)]
        for child in children:
            child.start()
        counted = sum(answers.get(timeout=30) for _ in children)
        for child in children:
            child.join(30)
        assert counted == 15
        assert limit.hit().source == "store"


def assert_policy(verdict: SharedVerdict, on_error: OnError) -> None:
    assert verdict.source == on_error
    assert verdict.allowed == (on_error != "closed")
    assert verdict.flag == (ResponseFlag.RLSE if on_error == "closed" else None)


@pytest.mark.parametrize("on_error", ["local", "open", "closed"])
def test_redis_killed_and_restarted(
    redis_factory: Callable[[], RedisServer], on_error: OnError, caplog: pytest.LogCaptureFixture
) -> None:
    redis = redis_factory()
    with limit_on(redis, "1000/minute", on_error=on_error) as limit, caplog.at_level(logging.INFO, "meshlib"):
        assert limit.hit().source == "store"
        redis.kill()
        started = time.perf_counter()
        verdicts = [limit.hit() for _ in range(200)]
        assert time.perf_counter() - started < 3 * 2 * DEFAULT_TIMEOUT + NOISE
        for verdict in verdicts:
            assert_policy(verdict, on_error)
        assert len(caplog.records) == 1
        redis.restart()
        assert wait_for_store(limit).remaining == 999  # it came back empty
        assert len(caplog.records) == 2
        assert [limit.hit().source for _ in range(20)] == ["store"] * 20


@pytest.mark.parametrize("on_error", ["local", "open", "closed"])
def test_a_hanging_redis_costs_its_timeout_three_times_and_then_once_a_second(
    redis_factory: Callable[[], RedisServer], on_error: OnError
) -> None:
    redis = redis_factory()
    with limit_on(redis, "1000/minute", on_error=on_error) as limit:
        assert limit.hit().source == "store"
        redis.pause()
        try:
            paid = [timed(limit.hit) for _ in range(3)]
            free = [timed(limit.hit) for _ in range(200)]
        finally:
            redis.resume()
        for verdict, _ in (*paid, *free):
            assert_policy(verdict, on_error)
        assert all(DEFAULT_TIMEOUT * 0.9 < seconds < 2 * DEFAULT_TIMEOUT + NOISE for _, seconds in paid)
        assert sorted(seconds for _, seconds in free)[150] < 0.005
        assert sum(seconds for _, seconds in free) < 2 * DEFAULT_TIMEOUT + NOISE
        assert wait_for_store(limit).allowed


async def test_a_hanging_redis_does_not_hold_up_the_event_loop(redis_factory: Callable[[], RedisServer]) -> None:
    redis = redis_factory()
    limit = SharedRateLimit("1000/minute", redis.url)
    assert (await limit.ahit()).source == "store"
    redis.pause()
    try:
        started = time.perf_counter()
        verdicts = await asyncio.gather(*(limit.ahit() for _ in range(100)))
        assert time.perf_counter() - started < DEFAULT_TIMEOUT + NOISE
        assert {verdict.source for verdict in verdicts} == {"local"}
        started = time.perf_counter()
        assert all([(await limit.ahit()).source == "local" for _ in range(100)])
        assert time.perf_counter() - started < DEFAULT_TIMEOUT + NOISE
    finally:
        redis.resume()
    await limit.aclose()


async def test_cancelled_hits_neither_break_the_connection_nor_use_up_the_probe(
    redis_factory: Callable[[], RedisServer],
) -> None:
    redis = redis_factory()
    limit = SharedRateLimit("100000/minute", redis.url, timeout=5.0)
    redis.pause()
    tasks = [asyncio.create_task(limit.ahit()) for _ in range(20)]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    redis.resume()
    assert all(task.cancelled() for task in tasks)
    verdicts = [await limit.ahit() for _ in range(20)]
    assert {verdict.source for verdict in verdicts} == {"store"}
    await limit.aclose()


def test_a_redis_that_answers_with_errors_counts_as_gone(redis_factory: Callable[[], RedisServer]) -> None:
    redis = redis_factory()
    with limit_on(redis) as limit:
        assert limit.hit().source == "store"
        redis.command("CONFIG SET maxmemory 1")  # every write is refused from here on
        assert [limit.hit().source for _ in range(5)] == ["local"] * 5
        redis.command("CONFIG SET maxmemory 0")
        assert wait_for_store(limit).allowed
