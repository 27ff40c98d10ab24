"""Timeouts of guarded functions: where the two kinds differ."""

from __future__ import annotations

import asyncio
import time

import pytest

from e2e.decorators.kinds import Script
from meshlib import Mesh, UpstreamTimeoutError
from meshlib.engine.events import CallEnded, Event
from meshlib.model.route import RetryPolicy

FOREVER = 60.0


def mesh_of(timeout: float, per_try: float | None = None) -> Mesh:
    retries = RetryPolicy(("5xx",), num_retries=2, per_try_timeout=per_try, base_interval=0.001)
    return Mesh.static({"payments": []}, retries=retries, timeout=timeout)


def test_an_async_attempt_is_cancelled_at_its_per_try_timeout_and_tried_again() -> None:
    mesh = mesh_of(FOREVER, per_try=0.05)
    script = Script("async", mesh, FOREVER, FOREVER, "done")
    assert script() == "done"
    assert script.calls == 3
    assert mesh.stats()["cluster.payments.upstream_rq_per_try_timeout"] == 2


def test_an_async_call_ends_at_the_routes_timeout() -> None:
    cancelled: list[str] = []
    mesh = mesh_of(0.05)

    @mesh.guard("payments")
    async def slow() -> None:
        try:
            await asyncio.sleep(FOREVER)
        finally:
            cancelled.append("cleaned up")

    with pytest.raises(UpstreamTimeoutError) as caught:
        asyncio.run(slow())
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.flag == "UT"
    assert cancelled == ["cleaned up"]


async def test_cancelling_the_caller_cancels_the_function_and_counts_against_nobody() -> None:
    mesh, entered = mesh_of(FOREVER), asyncio.Event()

    @mesh.guard("payments")
    async def slow() -> None:
        entered.set()
        await asyncio.sleep(FOREVER)

    task = asyncio.create_task(slow())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert mesh.stats()["cluster.payments.upstream_rq_rx_reset"] == 0
    assert mesh.runtime.state.clusters["payments"].default.requests == {}


async def test_the_callers_own_timeout_is_the_callers() -> None:
    mesh = mesh_of(FOREVER)

    @mesh.guard("payments")
    async def slow() -> None:
        await asyncio.sleep(FOREVER)

    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.02):
            await slow()
    assert not isinstance(caught.value, UpstreamTimeoutError)


def test_a_late_result_of_a_sync_function_is_the_result_and_is_counted_as_late() -> None:
    mesh, events = mesh_of(0.02), list[Event]()
    mesh.on_event(events.append)
    script = Script("sync", mesh, 0.04)
    assert script() == "late"
    assert script.calls == 1, "what was done is not done again"
    (ended,) = (event for event in events if isinstance(event, CallEnded))
    assert (ended.status, ended.flag) == (200, "UT")
    assert mesh.stats()["cluster.payments.upstream_rq_timeout"] == 1


def test_a_sync_attempt_that_fails_after_its_per_try_timeout_is_one_that_timed_out() -> None:
    mesh = mesh_of(FOREVER, per_try=0.02)
    calls: list[int] = []

    @mesh.guard("payments")
    def slow() -> str:
        calls.append(1)
        if len(calls) > 1:
            return "done"
        time.sleep(0.03)
        raise KeyError("x")

    assert slow() == "done"
    assert mesh.stats()["cluster.payments.upstream_rq_per_try_timeout"] == 1
