"""Global rate limits on a real rate limit server: exact, shared, and what happens on the day it is gone."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import pytest

from e2e.rate_limits.limited import forked, limit, limited
from meshlib import Mesh
from parts.fast_backend import FastBackend
from parts.fixtures import Servers
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs
from parts.ratelimit_server import RateLimitServer

Limits = Callable[..., RateLimitServer]
URL = "http://up/"
ADA = {"x-user": "ada"}
NOISE = 0.25  # seconds a busy machine may add to what the limit itself costs


@pytest.fixture
def make_mesh(servers: Servers) -> Iterator[Callable[..., Mesh]]:
    """``make_mesh(backend port, [limit server ports], ...)``: a mesh of the bootstrap of `limited`."""
    made: list[Mesh] = []

    def make(*given: Any, **options: Any) -> Mesh:
        made.append(Mesh.from_file(limited(servers.folder("limited"), *given, **options)))
        return made[-1].start().wait_ready()

    yield make
    for mesh in made:
        mesh.close()


def statuses(client: httpx.Client, count: int, **headers: str) -> Counter[int]:
    return Counter(client.get(URL, headers=headers or ADA).status_code for _ in range(count))


def test_two_meshes_share_one_quota(
    make_mesh: Callable[..., Mesh], ratelimit_server: Limits, fast_backend: Callable[..., FastBackend]
) -> None:
    server, backend = ratelimit_server({"shop": [limit("user", 40)]}), fast_backend("up")
    clients = [make_mesh(backend.port, [server.port]).http.client() for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        told = sum(pool.map(lambda number: statuses(clients[number % 2], 10), range(8)), Counter())
    assert told == {200: 40, 429: 40}
    assert backend.count == 40
    assert statuses(clients[0], 1, **{"x-user": "grace"}) == {200: 1}
    for client in clients:
        client.close()


async def test_a_thousand_tasks_are_counted_one_by_one(
    make_mesh: Callable[..., Mesh], ratelimit_server: Limits, fast_backend: Callable[..., FastBackend]
) -> None:
    server, backend = ratelimit_server({"shop": [limit("user", 300)]}), fast_backend("up")
    mesh = make_mesh(backend.port, [server.port])
    async with mesh.http.async_client() as client:
        turn = asyncio.Semaphore(50)

        async def one() -> int:
            async with turn:
                return (await client.get(URL, headers=ADA)).status_code

        told = Counter(await asyncio.gather(*(one() for _ in range(1000))))
    assert told == {200: 300, 429: 700}
    stats = mesh.stats()
    assert (stats["cluster.up.ratelimit.ok"], stats["cluster.up.ratelimit.over_limit"]) == (300, 700)
    assert stats["cluster.limits.upstream_rq_total"] == 1000
    await asyncio.to_thread(mesh.close)


def test_two_servers_on_one_redis_are_balanced_over(
    make_mesh: Callable[..., Mesh], ratelimit_server: Limits, fast_backend: Callable[..., FastBackend]
) -> None:
    """The service is a cluster like any other: one of its endpoints dies, and nobody notices for long."""
    servers = [ratelimit_server({"shop": [limit("user", 20)]}) for _ in range(2)]
    backend = fast_backend("up")
    ports = [server.port for server in servers]
    common = {"healthy_panic_threshold": {"value": 0}}
    ejecting = {"outlier_detection": {"consecutive_5xx": 2, "max_ejection_percent": 50}, "common_lb_config": common}
    mesh = make_mesh(backend.port, ports, more=ejecting, failure_mode_deny=True)
    with mesh.http.client() as client:
        assert statuses(client, 10) == {200: 10}
        servers[0].kill()
        told = statuses(client, 14)
    assert told == {200: 10, 500: 2, 429: 2}  # what the dead server was asked has not been counted


@pytest.mark.parametrize("deny", [False, True])
def test_a_slow_server_costs_20_ms(
    make_mesh: Callable[..., Mesh],
    ratelimit_server: Limits,
    fast_backend: Callable[..., FastBackend],
    caplog: pytest.LogCaptureFixture,
    deny: bool,
) -> None:
    server, backend = ratelimit_server({"shop": [limit("user", 1000)]}), fast_backend("up")
    mesh = make_mesh(backend.port, [server.port], timeout="0.02s", failure_mode_deny=deny)
    with mesh.http.client() as client, caplog.at_level(logging.WARNING, "meshlib.rate_limit_service"):
        wait_for_service(mesh, client)
        server.pause()
        took = [timed(client) for _ in range(5)]
        assert {status for status, _ in took} == ({500} if deny else {200})
        assert 0.02 <= min(seconds for _, seconds in took) < 0.02 + NOISE
        server.resume()
        wait_for_service(mesh, client)
    said = [record.message for record in caplog.records]
    assert sum("does not answer" in line for line in said) == 1


def timed(client: httpx.Client) -> tuple[int, float]:
    began = time.perf_counter()
    return client.get(URL, headers=ADA).status_code, time.perf_counter() - began


def wait_for_service(mesh: Mesh, client: httpx.Client) -> None:
    """Call until the service has decided about a call."""
    before, until = mesh.stats().get("cluster.up.ratelimit.ok", 0), time.monotonic() + 20.0
    while mesh.stats().get("cluster.up.ratelimit.ok", 0) == before:
        assert time.monotonic() < until, "the service was not taken up again"
        client.get(URL, headers=ADA)


def test_a_server_that_comes_back_is_asked_again(
    make_mesh: Callable[..., Mesh], ratelimit_server: Limits, fast_backend: Callable[..., FastBackend]
) -> None:
    server, backend = ratelimit_server({"shop": [limit("user", 3)]}), fast_backend("up")
    mesh = make_mesh(backend.port, [server.port])
    with mesh.http.client() as client:
        assert statuses(client, 2) == {200: 2}
        server.kill()
        assert statuses(client, 10) == {200: 10}
        server.restart()
        wait_for_service(mesh, client)
        assert statuses(client, 3) == {429: 3}  # what was counted stands in Redis


def test_closing_the_mesh_closes_what_asks(
    make_mesh: Callable[..., Mesh], ratelimit_server: Limits, fast_backend: Callable[..., FastBackend]
) -> None:
    """And the next call asks anew."""
    server, backend = ratelimit_server({"shop": [limit("user", 3)]}), fast_backend("up")
    mesh = make_mesh(backend.port, [server.port])
    with mesh.http.client() as client:
        assert statuses(client, 2) == {200: 2}
        asking = mesh.rate_limit_client
        mesh.close()
        assert "rate_limit_client" not in vars(mesh)
        assert statuses(client, 2) == {200: 1, 429: 1}
        assert mesh.rate_limit_client is not asking


async def test_grpc_calls_of_both_kinds_are_limited(
    make_mesh: Callable[..., Mesh],
    ratelimit_server: Limits,
    echo_backends: Callable[[int], list[GrpcBackend]],
    grpc_stubs: Stubs,
) -> None:
    server, backend = ratelimit_server({"shop": [limit("user", 4)]}), echo_backends(1)[0]
    for exhausted, code in ((False, grpc.StatusCode.UNAVAILABLE), (True, grpc.StatusCode.RESOURCE_EXHAUSTED)):
        mesh = make_mesh(backend.port, [server.port], rate_limited_as_resource_exhausted=exhausted)
        metadata = (("x-user", f"ada-{exhausted}"),)
        with mesh.grpc.channel("up") as channel:
            echo = grpc_stubs.echo(channel)
            await asyncio.to_thread(echo.Unary, grpc_stubs.ask("a"), metadata=metadata)
            future = echo.Unary.future(grpc_stubs.ask("b"), metadata=metadata)
            assert (await asyncio.to_thread(future.result)) is not None
        async with mesh.grpc.aio_channel("up") as channel:
            echo = grpc_stubs.echo(channel)
            await echo.Unary(grpc_stubs.ask("c"), metadata=metadata)
            await echo.Unary(grpc_stubs.ask("d"), metadata=metadata)
            with pytest.raises(grpc.RpcError) as caught:
                await echo.Unary(grpc_stubs.ask("e"), metadata=metadata)
        assert caught.value.code() is code
        assert dict(caught.value.initial_metadata())["x-envoy-ratelimited"] == "true"


def test_a_forked_child_asks_by_itself(
    ratelimit_server: Limits, fast_backend: Callable[..., FastBackend], servers: Servers
) -> None:
    server, backend = ratelimit_server({"shop": [limit("user", 6)]}), fast_backend("up")
    path = limited(servers.folder("limited"), backend.port, [server.port])
    assert forked(path, "limits") == ["parent 200 200", "child 200 200 200", "ended 0", "parent 200 429"]
