"""A user's pybreaker object whose storage is a real Redis, shared by meshes: nobody waits for it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pybreaker
import pytest
import redis

from meshlib import CircuitOpenError, Mesh
from meshlib.policy.breaker import Transition
from meshlib.policy.pybreaker_bridge import PybreakerBridge
from parts.fast_backend import FastBackend, Reply
from parts.redis_server import RedisServer
from parts.xds import eventually

Bridge = tuple[PybreakerBridge, list[Transition]]


@contextmanager
def shared(server: RedisServer, namespace: str, **options: Any) -> Iterator[pybreaker.CircuitBreaker]:
    client = redis.Redis.from_url(server.url)
    storage = pybreaker.CircuitRedisStorage("closed", client, namespace=namespace)
    yield pybreaker.CircuitBreaker(**{"fail_max": 3, "reset_timeout": 0.5, **options}, state_storage=storage)
    client.close()


def fail(bridge: PybreakerBridge, now: float) -> None:
    given = bridge.permit(now)
    assert given is not None
    bridge.record(given, False, now)
    bridge.settle()


def test_two_processes_worth_of_breakers_are_one(redis_server: RedisServer) -> None:
    with shared(redis_server, "one") as ours, shared(redis_server, "one") as theirs:
        seen: list[Transition] = []
        mine, other = PybreakerBridge(ours, listeners=[seen.append]), PybreakerBridge(theirs)
        now = time.monotonic
        fail(mine, now())
        fail(other, now())
        fail(mine, now())
        assert mine.permit(now()) is None, "with the failure of the other it is one too many"
        mine.settle()
        assert (ours.current_state, theirs.current_state) == ("open", "open")
        eventually(lambda: other.permit(now()) is None, "the other one hears of it")
        probes = []
        eventually(lambda: probes.append(mine.permit(now())) or probes[-1] is not None, "a probe")
        mine.record(probes[-1], True, now())
        mine.settle()
        eventually(lambda: theirs.current_state == "closed", "it is closed for all")
        eventually(lambda: (given := other.permit(now())) is not None and not given.probe, "and the other one knows")
        assert (seen[0].new, seen[-1].new) == ("open", "closed")


def test_an_open_breakers_time_is_not_started_anew_by_what_redis_makes_of_it(redis_server: RedisServer) -> None:
    with shared(redis_server, "seconds", fail_max=1) as ours:
        seen: list[Transition] = []
        bridge = PybreakerBridge(ours, listeners=[seen.append])
        fail(bridge, 0.0)
        for _ in range(5):
            time.sleep(0.11)  # longer than what is known may be old
            assert bridge.permit(0.1) is None
            bridge.settle()
        assert len(seen) == 1
        ours.open()  # by hand, a second or more later in whole seconds
        redis.Redis.from_url(redis_server.url).set("seconds:pybreaker:opened_at", int(time.time()) + 5)
        eventually(lambda: bridge.permit(0.2) is None and len(seen) == 2, "that is seen")


def test_redis_gone_stops_nothing(redis_factory: Callable[[], RedisServer]) -> None:
    server = redis_factory()
    with shared(server, "gone", fail_max=2) as ours:
        bridge = PybreakerBridge(ours)
        fail(bridge, 0.0)
        server.stop()
        began = time.perf_counter()
        for _ in range(200):
            given = bridge.permit(0.0)
            assert given is not None
            bridge.record(given, True, 0.0)
        assert time.perf_counter() - began < 0.5


async def test_no_event_loop_waits_for_redis(
    redis_server: RedisServer, fast_backend: Callable[..., FastBackend]
) -> None:
    backend = fast_backend("payments", Reply(500))
    with shared(redis_server, "loop", reset_timeout=60) as ours:
        mesh = Mesh.static({"payments": [backend.address]}, breakers={"payments": ours})
        try:
            async with mesh.http.async_client() as client:
                redis_server.command("CLIENT PAUSE 1500 ALL")
                began = time.perf_counter()
                answers = [(await client.get("http://payments/")).status_code for _ in range(3)]
                with pytest.raises(pybreaker.CircuitBreakerError) as refused:
                    await client.get("http://payments/")
                assert time.perf_counter() - began < 1.0
            assert answers == [500] * 3
            assert isinstance(refused.value, CircuitOpenError)
            await asyncio.to_thread(mesh.runtime.plan.clusters["payments"].breaker.settle)
            assert ours.current_state == "open"
        finally:
            mesh.close()
