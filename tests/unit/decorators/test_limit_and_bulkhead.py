"""`rate_limit` and `bulkhead`, for threads and tasks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from meshlib import RateLimitedError, UpstreamOverflowError
from meshlib.decorators import (
    bulkhead,
    rate_limit,
)
from parts.stage_clock import StageClock

Make = Callable[..., Callable[..., Any]]


# --------------------------------------------------------------------------------------------- limits and bulkheads


def test_a_rate_limit_refuses_or_waits() -> None:
    clock, policy = StageClock(), rate_limit("10/second")
    for _ in range(10):
        clock.run(policy, "ok")
        clock.now -= 1.0
    with pytest.raises(RateLimitedError, match="over the limit of 10/second"):
        clock.run(policy)
    patient = rate_limit("10/second", wait=0.5)
    for _ in range(10):
        clock.run(patient, "ok")
        clock.now -= 1.0
    clock.slept.clear()
    assert clock.run(patient, "later") == "later"
    assert clock.slept == [pytest.approx(0.1)]
    clock.now -= 1.0
    with pytest.raises(RateLimitedError):
        clock.run(patient, deadline=clock.now + 0.01)


def test_a_bulkhead_is_never_fuller_than_it_may_be() -> None:
    inside, most, refused = [0], [0], []
    lock = threading.Lock()

    @bulkhead(4)
    def work() -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.002)
        with lock:
            inside[0] -= 1

    def call(_: int) -> None:
        try:
            work()
        except UpstreamOverflowError as error:
            refused.append(error)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(call, range(200)))
    assert most[0] == 4
    assert refused
    assert "the bulkhead is full: 4 calls at a time" in str(refused[0])


async def test_who_waits_at_a_bulkhead_comes_in_in_order_tasks_and_threads_alike() -> None:
    policy, order = bulkhead(1, wait=5.0), []

    @policy
    async def task(number: int) -> None:
        order.append(number)
        await asyncio.sleep(0.01)

    @policy
    def thread(number: int) -> None:
        order.append(number)
        time.sleep(0.01)

    running = []
    for number in range(8):
        running.append(asyncio.create_task(task(number) if number % 2 else asyncio.to_thread(thread, number)))
        await asyncio.sleep(0.003)
    await asyncio.gather(*running)
    assert order == list(range(8))
    assert policy.active == 0


async def test_a_place_is_not_lost_with_who_waited_for_it() -> None:
    policy = bulkhead(1, wait=5.0)

    @policy
    async def work(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"

    for patience in (0.005, 0.0099, 0.01, 0.0101, 0.02):  # before, at and behind its turn
        first = asyncio.create_task(work(0.01))
        await asyncio.sleep(0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(work(0.0), patience)
        await first
        assert policy.active == 0
        assert not policy._waiting


async def test_a_queue_that_is_full_and_a_wait_that_is_too_long() -> None:
    policy = bulkhead(1, wait=0.02, queue=1)

    @policy
    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)

    first = asyncio.create_task(work(0.1))
    await asyncio.sleep(0)
    second = asyncio.create_task(work(0.0))
    await asyncio.sleep(0)
    with pytest.raises(UpstreamOverflowError):
        await work(0.0)
    began = time.monotonic()
    with pytest.raises(UpstreamOverflowError):
        await second
    assert time.monotonic() - began < 0.09
    await first
    assert policy.active == 0
