"""`retry` and `timeout`, on functions of both kinds; their steps are played by hand where time matters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from meshlib import RateLimitedError, UpstreamTimeoutError
from meshlib.context import CallContext, current, serving
from meshlib.decorators import (
    rate_limit,
    retry,
    timeout,
)
from meshlib.decorators.steps import Invoke, Running, Sleep, Steps
from meshlib.model.cluster import RetryBudget
from parts.stage_clock import StageClock

Make = Callable[..., Callable[..., Any]]


# ---------------------------------------------------------------------------------------------------------- retry


def test_retry_until_it_succeeds(made: Make) -> None:
    function = made([ConnectionError, ConnectionError, "done"], retry(base_interval=0.0))
    assert function("a") == "done"
    assert function.calls == [("a",)] * 3  # type: ignore[attr-defined]


def test_retry_gives_up_with_the_last_error(made: Make) -> None:
    function = made([OSError("1"), OSError("2"), OSError("3")], retry(2, base_interval=0.0))
    with pytest.raises(OSError, match="2"):
        function()


def test_retry_only_what_it_is_for(made: Make) -> None:
    function = made([ValueError("no"), "never"], retry(on=(OSError, KeyError)))
    with pytest.raises(ValueError, match="no"):
        function()
    function = made([ValueError("yes"), "then"], retry(on=lambda error: str(error) == "yes", base_interval=0.0))
    assert function() == "then"


def test_retry_by_the_result(made: Make) -> None:
    assert made([None, None, 3], retry(on_result=lambda result: result is None, base_interval=0.0))() == 3
    assert made([None], retry(on_result=lambda result: result is None, base_interval=0.0))() is None


def test_what_protects_is_not_asked_again_at_once(made: Make) -> None:
    function = made(["done"], retry(5), rate_limit("1/hour"))
    assert function() == "done"
    with pytest.raises(RateLimitedError):
        function()
    function = made(["done"], retry(2, on=RateLimitedError, base_interval=0.0), rate_limit("1/hour"))
    function()
    with pytest.raises(RateLimitedError):
        function()


def test_back_off_grows_to_its_maximum_and_is_drawn() -> None:
    longest: dict[int, float] = {}
    for _ in range(300):
        clock = StageClock()
        with pytest.raises(OSError, match="no"):
            clock.run(retry(6, base_interval=1.0, max_interval=4.0, budget=None), *[OSError("no")] * 6)
        for number, slept in enumerate(clock.slept):
            longest[number] = max(longest.get(number, 0.0), slept)
    for number, bound in enumerate((1.0, 2.0, 4.0, 4.0, 4.0)):
        assert bound * 0.9 < longest[number] < bound


def test_no_attempt_begins_that_the_deadline_would_overtake() -> None:
    clock = StageClock()
    with pytest.raises(OSError, match="first"):
        clock.run(
            retry(base_interval=10_000.0, max_interval=10_000.0), OSError("first"), "never", deadline=clock.now + 1.5
        )
    assert clock.slept == []


def test_a_storm_is_bounded_by_the_budget() -> None:
    """All calls fail and wait to retry: no more than the budget's are under way at a time."""
    policy = retry(10, budget=RetryBudget(20.0, 3), base_interval=0.0)
    flows = []
    for _ in range(100):
        call = Running("f", print, (), {}, None, time.monotonic)

        def below(call: Running) -> Steps:
            return (yield Invoke(call))

        flow = policy.around(call, below)
        assert isinstance(next(flow), Invoke)
        flows.append(flow)
    waiting = 0
    for flow in flows:
        try:
            step = flow.throw(OSError())
        except OSError:
            continue
        assert isinstance(step, Sleep)
        waiting += 1
    assert waiting == pytest.approx(20, abs=4)  # a fifth of those still under way
    for flow in flows:
        flow.close()
    assert (policy._calls, policy._retries) == ({}, {})


# -------------------------------------------------------------------------------------------------------- timeout


async def test_a_timeout_cancels_an_async_function() -> None:
    cancelled = []

    @timeout(0.02)
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(UpstreamTimeoutError, match="slow took longer") as raised:
        await slow()
    assert isinstance(raised.value, TimeoutError)
    assert cancelled == [True]


def test_a_blocking_function_is_not_interrupted_and_its_late_result_is_one() -> None:
    @timeout(0.01)
    def late() -> str:
        time.sleep(0.03)
        return "late"

    @timeout(0.01)
    def fails_late() -> None:
        time.sleep(0.03)
        raise OSError("broken")

    assert late() == "late"
    with pytest.raises(UpstreamTimeoutError) as raised:
        fails_late()
    assert isinstance(raised.value.__cause__, OSError)


def test_what_is_below_inherits_the_deadline(made: Make) -> None:
    seen: list[float | None] = []

    @timeout(5.0)
    @retry(3, base_interval=0.0)
    @timeout(1.0)
    def inner() -> None:
        seen.append(current.get().deadline)

    inner()
    (deadline,) = seen
    assert deadline == pytest.approx(time.monotonic() + 1.0, abs=0.5)
    assert current.get().deadline is None


async def test_the_outer_of_two_timeouts_and_retries_between() -> None:
    """Each attempt has its own time, all of them have the outer one."""
    began = []

    @timeout(0.25)
    @retry(100, base_interval=0.0, max_interval=0.0, budget=None)
    @timeout(0.05)
    async def stuck() -> None:
        began.append(time.monotonic())
        await asyncio.sleep(60)

    with pytest.raises(UpstreamTimeoutError, match=r"longer than 0\.25 s|longer than 0\.05 s"):
        await stuck()
    assert 2 <= len(began) <= 6
    assert began[-1] - began[0] < 0.3


async def test_the_deadline_of_the_request_that_is_served() -> None:
    @retry(5)
    async def stuck() -> None:
        await asyncio.sleep(60)

    with serving(CallContext(deadline=time.monotonic() + 0.03)), pytest.raises(UpstreamTimeoutError, match="inherited"):
        await stuck()


async def test_a_time_out_of_the_functions_own_is_its_own() -> None:
    @timeout(5.0)
    async def impatient() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine") as raised:
        await impatient()
    assert not isinstance(raised.value, UpstreamTimeoutError)
