"""Guarded functions from many threads and tasks at once: what they take they give back, however they end."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshlib import CircuitBreaker, Mesh, UpstreamOverflowError, current_attempt
from meshlib.model.cluster import CircuitBreakers, Cluster, Thresholds
from meshlib.model.route import RetryPolicy
from parts.flow import held

SEED = 7


def mesh_of(**thresholds: int) -> Mesh:
    limits = CircuitBreakers(default=Thresholds(**thresholds))
    cluster = Cluster("payments", type="STATIC", circuit_breakers=limits)
    retries = RetryPolicy(("5xx",), num_retries=2, per_try_timeout=0.05, base_interval=0.0001)
    breaker = CircuitBreaker(fail_max=10**6)
    return Mesh.static({"payments": cluster}, retries=retries, breakers={"payments": breaker}, seed=SEED)


def test_threads() -> None:
    mesh, chance, own = mesh_of(max_retries=10**6), random.Random(SEED), list[bool]()

    @mesh.guard("payments")
    def function(number: int) -> int:
        attempt = current_attempt()
        assert attempt is not None
        if chance.random() < 0.4:
            raise ConnectionResetError(number)
        return number

    def call(number: int) -> bool:
        try:
            return function(number) == number
        except ConnectionResetError as error:
            own.append(error.args == (number,))
            return False

    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(call, range(1500)))
    assert 0 < sum(done) < len(done)
    assert all(own), "everybody gets their own exception"
    assert current_attempt() is None
    assert held(mesh.runtime) == {}


async def test_tasks_that_are_cancelled_time_out_and_overflow() -> None:
    mesh, inside = mesh_of(max_requests=60, max_retries=10), asyncio.Event()

    @mesh.guard("payments")
    async def function(number: int) -> None:
        if number == 59:
            inside.set()
        await asyncio.sleep(60.0 if number % 3 else 0)
        raise ValueError(number)

    tasks = [asyncio.create_task(function(number)) for number in range(300)]
    await inside.wait()
    for number in range(1, 60, 3):
        tasks[number].cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(ended[number]) for number in range(0, 60, 3)} == {ValueError}
    assert {type(ended[number]) for number in range(1, 60, 3)} == {asyncio.CancelledError}
    assert all(isinstance(ended[number], TimeoutError) for number in range(2, 60, 3))
    assert any(isinstance(error, UpstreamOverflowError) for error in ended[60:])
    assert held(mesh.runtime) == {}


@pytest.mark.parametrize("wrong", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_process_gives_back_too(wrong: type[BaseException]) -> None:
    mesh = mesh_of()

    @mesh.guard("payments")
    def function() -> None:
        raise wrong

    with pytest.raises(wrong):
        function()
    assert held(mesh.runtime) == {}
