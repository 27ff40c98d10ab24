"""The store of a shared limit is gone while calls go on: what the policy says happens, and no call waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from e2e.http_client.doors import DOORS
from meshlib import Mesh, RateLimitedError
from meshlib.flags import ResponseFlag
from meshlib.policy.shared_limit import OnError, SharedRateLimit
from parts.fast_backend import FastBackend
from parts.load import Load
from parts.redis_server import RedisServer

PATIENCE = 10.0


def mesh_with(limit: SharedRateLimit, service: FastBackend) -> Mesh:
    return Mesh.static({"payments": [service.address]}, rate_limits={"payments": limit})


@pytest.mark.parametrize("how", ["kill", "pause"])
@pytest.mark.parametrize("on_error", ["local", "open"])
def test_a_store_that_goes_and_comes_back_fails_no_call(
    redis_factory: Callable[[], RedisServer], fast_backend: Callable[..., FastBackend], how: str, on_error: OnError
) -> None:
    redis, limit_of = redis_factory(), "1000000/minute"
    limit = SharedRateLimit(limit_of, redis.url, name="faults", on_error=on_error)
    with mesh_with(limit, fast_backend("payments")) as mesh:
        with Load(mesh, "payments", leave_loop=limit.aclose) as load:
            load.during(0.3)
            getattr(redis, how)()
            load.during(1.0)
            before = load.calls
            load.during(0.5)
            assert load.calls > before + 20, "calls go on without the store"
            redis.resume() if how == "pause" else redis.restart()
            deadline = time.monotonic() + PATIENCE
            while limit.hit().source != "store":
                assert time.monotonic() < deadline, "the store was not taken up again"
                time.sleep(0.05)
            load.during(0.2)
        assert load.failures == []
        assert load.slowest < 1.0
    limit.close()


@pytest.mark.parametrize("open_door", DOORS)
def test_a_policy_that_refuses_says_why_and_at_once(
    redis_factory: Callable[[], RedisServer], fast_backend: Callable[..., FastBackend], open_door: Any
) -> None:
    redis, service, door = redis_factory(), fast_backend("payments"), DOORS[open_door]()
    limit = door.keep(SharedRateLimit("1000000/minute", redis.url, on_error="closed"))
    with mesh_with(limit, service) as mesh:
        client = door.client(mesh)
        assert client.get("/").status_code == 200
        redis.kill()
        for _ in range(10):
            began = time.monotonic()
            with pytest.raises(RateLimitedError) as caught:
                client.get("/")
            assert caught.value.flag is ResponseFlag.RLSE
            assert time.monotonic() - began < 0.5
        assert service.count == 1
        redis.restart()
        deadline = time.monotonic() + PATIENCE
        while limit.hit().source != "store":
            assert time.monotonic() < deadline, "the store was not taken up again"
            time.sleep(0.05)
        assert client.get("/").status_code == 200
    door.close()


def test_a_store_that_was_never_there(free_port: Callable[[], int], fast_backend: Callable[..., FastBackend]) -> None:
    """The local bucket limits from the first call on."""
    service = fast_backend("payments")
    limit = SharedRateLimit("3/hour", f"redis://127.0.0.1:{free_port()}", on_error="local")
    with mesh_with(limit, service) as mesh, mesh.http.client("payments") as client:
        for _ in range(3):
            assert client.get("/").status_code == 200
        with pytest.raises(RateLimitedError) as caught:
            client.get("/")
        assert caught.value.flag is ResponseFlag.RL
    assert service.count == 3
    limit.close()
