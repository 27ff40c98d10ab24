"""Hedged HTTP calls given up from outside: every attempt ends, its connection is closed, and nothing is held."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from e2e.http_client.conftest import still_held
from meshlib import CallError, Mesh
from meshlib.context import CallContext, serving
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.retry import RetryPolicy
from meshlib.model.route import Route, RouteAction
from parts.fast_backend import FastBackend, Reply
from parts.xds import eventually

RETRY = RetryPolicy(("5xx",), num_retries=1, per_try_timeout=0.15, previous_hosts=True)
HANGS = Reply(fault="hang")


@pytest.fixture
def backends(fast_backend: Callable[..., FastBackend]) -> list[FastBackend]:
    return [fast_backend("slow", HANGS), fast_backend("other", HANGS)]


@pytest.fixture
def mesh(backends: list[FastBackend]) -> Iterator[Mesh]:
    action = RouteAction("payments", timeout=10.0, retry_policy=RETRY, hedge_on_per_try_timeout=True)
    route = Route(RouteMatch(PathMatcher("prefix", "/")), action)
    addresses = [f"127.0.0.1:{backend.port}" for backend in backends]
    with Mesh.static({"payments": addresses}, routes={"payments": [route]}) as made:
        yield made
        eventually(lambda: still_held(made) == {}, "everything is given back")
        eventually(lambda: not hedging(), "no thread is left")


def hedging() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "meshlib-hedge"]


def test_the_call_that_waits_ends_with_its_deadline(mesh: Mesh) -> None:
    with mesh.http.client("payments") as client:
        deadline = CallContext(time.monotonic() + 0.5)
        with serving(deadline), pytest.raises(CallError) as raised:
            client.get("/")
    assert raised.value.flag == "UT"


async def test_a_task_that_is_cancelled_takes_its_attempts_along(mesh: Mesh, backends: list[FastBackend]) -> None:
    async with mesh.http.async_client("payments") as client:
        task = asyncio.create_task(client.get("/"))
        await asyncio.to_thread(eventually, lambda: all(backend.count for backend in backends), "both are asked")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert still_held(mesh) == {}


def test_a_loser_that_answers_late_is_dropped(mesh: Mesh, backends: list[FastBackend]) -> None:
    for backend in backends:
        backend.behave(Reply(delay=0.3))
    with mesh.http.client("payments") as client:
        for _ in range(3):
            assert client.get("/").status_code == 200


def test_the_callers_own_body_error_is_raised_as_it_is(mesh: Mesh) -> None:
    def broken() -> Iterator[bytes]:
        yield b"a"
        raise LookupError("mine")

    with mesh.http.client("payments") as client, pytest.raises(LookupError, match="mine"):
        client.post("/", content=broken())
