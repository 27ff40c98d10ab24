"""`@circuit_breaker` around functions, blocking and asyncio."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pybreaker
import pytest

from meshlib import CircuitBreaker, CircuitOpenError
from meshlib.decorators.circuit import circuit_breaker
from meshlib.policy.breaker import Breaker

OFTEN = CircuitBreaker(fail_max=2, reset_timeout=600)


class Flaky:
    """Fails while it is told to, and counts its calls."""

    def __init__(self) -> None:
        self.failing = True
        self.calls = 0

    def __call__(self, value: int) -> int:
        self.calls += 1
        if self.failing:
            raise ConnectionError(value)
        return value * 2


def attempt(function: object, times: int = 2) -> None:
    assert callable(function)
    for _ in range(times):
        with pytest.raises(ConnectionError):
            function(1)


def test_a_function_that_fails_is_not_called_any_more() -> None:
    flaky = Flaky()

    @circuit_breaker(OFTEN)
    def charge(value: int) -> int:
        """Charges."""
        return flaky(value)

    attempt(charge)
    with pytest.raises(CircuitOpenError, match="charge") as refused:
        charge(1)
    assert isinstance(refused.value, pybreaker.CircuitBreakerError)
    assert (flaky.calls, charge.__doc__) == (2, "Charges.")


async def test_the_fallback_has_the_functions_arguments_blocking_or_not() -> None:
    flaky = Flaky()

    async def stale(value: int) -> int:
        return -value

    @circuit_breaker(OFTEN, fallback=stale)
    async def ask(value: int) -> int:
        return flaky(value)

    @circuit_breaker(OFTEN, fallback=lambda value: -value)
    def charge(value: int) -> int:
        return flaky(value)

    for _ in range(2):
        with pytest.raises(ConnectionError):
            await ask(3)
    attempt(charge)
    assert (await ask(3), charge(4)) == (-3, -4)


async def test_a_cancelled_call_says_nothing_and_frees_its_probes_place() -> None:
    breaker = Breaker(OFTEN, "shared")

    @circuit_breaker(breaker)
    async def hang() -> None:
        await asyncio.Event().wait()

    breaker.half_open(0.0)
    for _ in range(3):
        task = asyncio.create_task(hang())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert breaker.current_state == "half-open"


def test_a_users_pybreaker_is_driven_without_its_lock_and_excludes_what_it_excludes() -> None:
    theirs = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=600, exclude=[ValueError])
    inside = threading.Barrier(4)

    @circuit_breaker(theirs)
    def together() -> None:
        inside.wait(5)

    @circuit_breaker(theirs)
    def check(error: Exception) -> None:
        raise error

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: together(), range(4)))  # one after the other they would never meet
    for _ in range(5):
        with pytest.raises(ValueError, match="fine"):
            check(ValueError("fine"))
    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            check(OSError("broken"))
    assert theirs.current_state == "open"
    with pytest.raises(pybreaker.CircuitBreakerError):
        together()


async def test_a_thousand_tasks_get_as_many_probes_as_permitted() -> None:
    policy = CircuitBreaker(fail_max=1, reset_timeout=0.0, half_open_permits=5, success_threshold=5)
    breaker = Breaker(policy, "shared")
    breaker.open(0.0)
    inside = most = 0

    @circuit_breaker(breaker, fallback=lambda: False)
    async def probe() -> bool:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.01)
        inside -= 1
        return True

    answers = await asyncio.gather(*(probe() for _ in range(1000)))
    assert (most, sum(answers)) == (5, 5)
    assert breaker.current_state == "closed"


def test_what_is_no_breaker_is_refused() -> None:
    with pytest.raises(TypeError, match="_state_storage"):
        circuit_breaker(object())
