"""`hedge` and `circuit_breaker`, on functions of both kinds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pybreaker
import pytest

from meshlib import CircuitBreaker, CircuitOpenError, RateLimitedError
from meshlib.decorators import (
    circuit_breaker,
    fallback,
    hedge,
    rate_limit,
)
from meshlib.policy.breaker import Breaker
from parts.stage_clock import StageClock

KINDS = ("sync", "async")
Make = Callable[..., Callable[..., Any]]


# ---------------------------------------------------------------------------------------------------------- hedge


@pytest.mark.parametrize("kind", KINDS)
async def test_the_first_of_a_race_counts(kind: str) -> None:
    begun: list[float] = []

    def pace() -> float:
        begun.append(time.monotonic())
        return 0.0 if len(begun) == 2 else 0.5

    @hedge(0.03)
    async def asynchronous() -> int:
        number = len(begun)
        await asyncio.sleep(pace())
        return number

    @hedge(0.03)
    def blocking() -> int:
        number = len(begun)
        time.sleep(pace())
        return number

    result = await asynchronous() if kind == "async" else await asyncio.to_thread(blocking)
    assert result == 1
    assert len(begun) == 2
    assert begun[1] - begun[0] >= 0.03


@pytest.mark.parametrize("kind", KINDS)
async def test_who_fails_in_a_race_leaves_it_to_the_others(kind: str) -> None:
    count: list[None] = []

    def script() -> int:
        count.append(None)
        return len(count)

    @hedge(0.01, most=3)
    async def asynchronous() -> str:
        number = script()
        await asyncio.sleep(0.06 if number == 1 else 0.0)
        if number > 1:
            raise OSError(number)
        return "first"

    @hedge(0.01, most=3)
    def blocking() -> str:
        number = script()
        time.sleep(0.06 if number == 1 else 0.0)
        if number > 1:
            raise OSError(number)
        return "first"

    assert (await asynchronous() if kind == "async" else await asyncio.to_thread(blocking)) == "first"


def test_a_race_that_all_lose(made: Make) -> None:
    with pytest.raises(OSError, match="gone"):
        made([OSError("gone")], hedge(0.01))()


async def test_those_that_lose_are_cancelled_and_so_is_a_race_that_is_given_up() -> None:
    ended: list[str] = []
    begun: list[None] = []

    @hedge(0.01)
    async def run() -> int:
        begun.append(None)
        number = len(begun)
        try:
            await asyncio.sleep(60 if number != 2 else 0.0)
        except asyncio.CancelledError:
            ended.append(f"{number} cancelled")
            raise
        return number

    assert await run() == 2
    assert ended == ["1 cancelled"]
    begun += [None, None]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run(), 0.1)
    assert sorted(ended[1:]) == ["5 cancelled", "6 cancelled"]


# ------------------------------------------------------------------------------------------------ circuit breaker


def test_a_breaker_opens_and_refuses(made: Make) -> None:
    policy = circuit_breaker(fail_max=2, reset_timeout=60.0)
    function = made([OSError("1"), OSError("2"), "never"], policy)
    for _ in range(2):
        with pytest.raises(OSError, match=r"[12]"):
            function()
    with pytest.raises(CircuitOpenError, match="the circuit breaker is open for") as raised:
        function()
    assert isinstance(raised.value, pybreaker.CircuitBreakerError)
    assert policy.breaker.current_state == "open"  # type: ignore[attr-defined]
    assert len(function.calls) == 2  # type: ignore[attr-defined]


def test_a_breaker_tries_again_and_closes() -> None:
    clock, policy = StageClock(), circuit_breaker(fail_max=1, reset_timeout=10.0)
    with pytest.raises(OSError, match="down"):
        clock.run(policy, OSError("down"))
    with pytest.raises(CircuitOpenError):
        clock.run(policy)
    clock.now += 10.0
    assert clock.run(policy, "up") == "up"
    assert clock.run(policy, "up") == "up"


def test_exclusions_are_answers_and_refusals_say_nothing(made: Make) -> None:
    function = made([KeyError("no such")], circuit_breaker(fail_max=1, exclude=(KeyError,)))
    for _ in range(3):
        with pytest.raises(KeyError):
            function()
    function = made(["done"], circuit_breaker(fail_max=1), rate_limit("1/hour"))
    function()
    for _ in range(3):
        with pytest.raises(RateLimitedError):
            function()


async def test_a_cancelled_probe_gives_its_place_back() -> None:
    policy = circuit_breaker(fail_max=1, reset_timeout=0.0)

    @policy
    async def probe(seconds: float) -> str:
        if seconds < 0:
            raise OSError
        await asyncio.sleep(seconds)
        return "up"

    with pytest.raises(OSError):  # noqa: PT011  any
        await probe(-1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(probe(60), 0.02)
    assert await probe(0) == "up"


def test_a_users_pybreaker(made: Make) -> None:
    heard: list[str] = []

    class Listener(pybreaker.CircuitBreakerListener):  # type: ignore[misc]
        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            heard.append(f"{old_state.name} -> {new_state.name}")

    own = pybreaker.CircuitBreaker(fail_max=2, exclude=[KeyError], listeners=[Listener()])
    function = made([KeyError("1"), OSError("2"), OSError("3")], circuit_breaker(own))
    for kind in (KeyError, OSError, OSError):
        with pytest.raises(kind):
            function()
    with pytest.raises(pybreaker.CircuitBreakerError):
        function()
    assert (own.current_state, heard) == ("open", ["closed -> open"])


def test_a_policy_with_rates_and_slow_calls() -> None:
    clock = StageClock()  # on which every call takes a second
    policy = circuit_breaker(CircuitBreaker(0, slow_call_rate=100, slow_call_duration=0.5, window_size=3))
    assert [clock.run(policy, number) for number in range(3)] == [0, 1, 2]
    with pytest.raises(CircuitOpenError):
        clock.run(policy)


async def test_a_breaker_that_functions_share_lets_as_many_of_a_thousand_tasks_probe_as_are_permitted() -> None:
    breaker = Breaker(CircuitBreaker(1, 0.0, success_threshold=5, half_open_permits=5), "shared")
    breaker.open(0.0)
    inside = most = 0

    async def work() -> bool:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.01)
        inside -= 1
        return True

    functions = [fallback(lambda: False)(circuit_breaker(breaker)(work)) for _ in range(2)]
    answers = await asyncio.gather(*(functions[number % 2]() for number in range(1000)))
    assert (most, sum(answers)) == (5, 5)
    assert breaker.current_state == "closed"
