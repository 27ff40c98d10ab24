"""`RequestLimit` through gRPC's doors and httpx's: places are given back after every kind of call, queues make wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from e2e.grpc.test_server_interceptors import SERVERS, World
from meshlib import Mesh
from meshlib.model.limiters import Bucket, ConcurrencyLimit, RequestLimit, UniformRate
from parts.fast_backend import FastBackend, Reply
from parts.grpc_stubs import Stubs


@pytest.fixture
def worlds() -> Iterator[list[World]]:
    made: list[World] = []
    yield made
    for one in made:
        one.close()


@pytest.mark.parametrize("kind", SERVERS)
def test_places_are_given_back_after_every_kind_of_call(
    kind: str, worlds: list[World], grpc_stubs: Stubs, stock_of: FastBackend
) -> None:
    limit = RequestLimit("one-each", ConcurrencyLimit(1), key="header:x-user")
    one = World(kind, grpc_stubs, stock_of, limits=[limit])
    worlds.append(one)
    for text, expected in (("", grpc.StatusCode.OK), ("fail", grpc.StatusCode.UNKNOWN)):
        for name, make in one.calls(text, metadata=(("x-user", "ann"),)).items():
            for _ in range(2):
                assert settled(make) is expected, name


def settled(make: Callable[[], Any]) -> grpc.StatusCode:
    """The code of a call, made anew while the place of the last one is still taken: a caller may hear of a call's end
    before the server does.
    """
    deadline = time.monotonic() + 5.0
    while True:
        try:
            make()
        except grpc.RpcError as error:
            if error.details() != "local_rate_limited" or time.monotonic() > deadline:
                return error.code()
            time.sleep(0.01)
        else:
            return grpc.StatusCode.OK


@pytest.mark.parametrize("kind", SERVERS)
def test_who_is_over_the_limit_is_told_when_to_come_back(
    kind: str, worlds: list[World], grpc_stubs: Stubs, stock_of: FastBackend
) -> None:
    limit = RequestLimit("user", Bucket(0.1, burst=1), key="header:x-user", rate_limited_as_resource_exhausted=True)
    one = World(kind, grpc_stubs, stock_of, limits=[limit])
    worlds.append(one)
    one.echo.Unary(grpc_stubs.ask(), metadata=(("x-user", "ann"),))
    with pytest.raises(grpc.RpcError) as refused:
        one.echo.Unary(grpc_stubs.ask(), metadata=(("x-user", "ann"),))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ("retry-after", "10") in refused.value.trailing_metadata()
    one.echo.Unary(grpc_stubs.ask(), metadata=(("x-user", "bob"),))


@pytest.mark.parametrize("kind", SERVERS)
def test_answers_say_what_is_left(kind: str, worlds: list[World], grpc_stubs: Stubs, stock_of: FastBackend) -> None:
    one = World(kind, grpc_stubs, stock_of, limits=[RequestLimit("user", Bucket(0.1, burst=9), headers="ratelimit")])
    worlds.append(one)
    left = [
        dict(call.initial_metadata())["ratelimit-remaining"] for _, call in (make() for make in one.calls().values())
    ]
    assert left == ["8", "7", "6", "5"]


def test_blocking_calls_queue_and_are_in_flight_to_the_end_of_their_bodies(stock_of: FastBackend) -> None:
    limits = [RequestLimit("queue", UniformRate(50.0, max_wait=1.0)), RequestLimit("few", ConcurrencyLimit(2))]
    with (
        Mesh.static({"stock": [stock_of.address]}, rate_limits={"stock": limits}) as mesh,
        mesh.http.client("stock") as client,
    ):
        began = time.monotonic()
        assert [client.get("/").status_code for _ in range(6)] == [200] * 6
        assert time.monotonic() - began >= 0.1
        stock_of.behave(Reply(delay=0.3))
        with ThreadPoolExecutor(4) as pool:
            statuses = sorted(pool.map(lambda _: client.get("/").status_code, range(4)))
        assert statuses == [200, 200, 429, 429]


async def test_asyncio_calls_too(stock_of: FastBackend) -> None:
    limits = [RequestLimit("queue", UniformRate(50.0, max_wait=1.0)), RequestLimit("few", ConcurrencyLimit(2))]
    with Mesh.static({"stock": [stock_of.address]}, rate_limits={"stock": limits}) as mesh:
        async with mesh.http.async_client("stock") as client:
            began = time.monotonic()
            assert [(await client.get("/")).status_code for _ in range(6)] == [200] * 6
            assert time.monotonic() - began >= 0.1
            stock_of.behave(Reply(delay=0.3))
            answers = await asyncio.gather(*(client.get("/") for _ in range(4)))
            assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
            lost = asyncio.create_task(client.get("/"))
            await asyncio.sleep(0.1)
            lost.cancel()
            answers = await asyncio.gather(*(client.get("/") for _ in range(2)))
            assert [answer.status_code for answer in answers] == [200, 200], "one that was cancelled has ended"


@pytest.fixture
def stock_of(fast_backend: Callable[..., FastBackend]) -> FastBackend:
    return fast_backend("stock")
