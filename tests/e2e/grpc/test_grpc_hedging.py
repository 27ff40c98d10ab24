"""Hedged gRPC calls: futures too, and whoever gives a call up gives up all of its attempts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from meshlib import Mesh
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.retry import RetryPolicy
from meshlib.model.route import Route, RouteAction
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs
from parts.xds import eventually

ANY = RouteMatch(PathMatcher("prefix", "/"))
RETRY = RetryPolicy(("gateway-error",), num_retries=2, per_try_timeout=0.2, previous_hosts=True)


@pytest.fixture
def backends(echo_backends: Callable[[int], list[GrpcBackend]]) -> list[GrpcBackend]:
    return echo_backends(2)


@pytest.fixture
def mesh(backends: list[GrpcBackend]) -> Iterator[Mesh]:
    action = RouteAction("payments", timeout=10.0, retry_policy=RETRY, hedge_on_per_try_timeout=True)
    addresses = [backend.address for backend in backends]
    with Mesh.static({"payments": addresses}, routes={"payments": [Route(ANY, action)]}) as made:
        yield made
        load = made.runtime.state.cluster("payments").default
        eventually(lambda: not load.requests and not load.retries, "everything is given back")


def let_go(backends: list[GrpcBackend]) -> None:
    """No backend works for anybody any more: what lost, or was given up, is cancelled."""
    for backend in backends:
        eventually(lambda one=backend: one.state.active == 0, "the backend is let go")


def test_a_future_is_hedged(mesh: Mesh, grpc_stubs: Stubs, backends: list[GrpcBackend]) -> None:
    slow, quick = backends
    slow.behave(hang=True)
    with mesh.grpc.channel("payments") as channel:
        echo = grpc_stubs.echo(channel)
        calls = [echo.Unary.future(grpc_stubs.ask(), timeout=8) for _ in range(4)]
        assert [call.result(timeout=5).backend for call in calls] == [quick.name] * 4
        assert {call.code() for call in calls} == {grpc.StatusCode.OK}
        assert max(call.meshlib.attempts for call in calls) == 2
        let_go(backends)


def test_with_call_has_the_winners_metadata(mesh: Mesh, grpc_stubs: Stubs, backends: list[GrpcBackend]) -> None:
    slow, quick = backends
    slow.behave(hang=True)
    quick.behave(initial=[("who", b"won")])
    with mesh.grpc.channel("payments") as channel:
        echo = grpc_stubs.echo(channel)
        for _ in range(2):
            response, call = echo.Unary.with_call(grpc_stubs.ask(), timeout=8)
            assert response.backend == quick.name
            assert dict(call.initial_metadata())["who"] == "won"


def test_errors_are_raised_as_ever(mesh: Mesh, grpc_stubs: Stubs, backends: list[GrpcBackend]) -> None:
    for backend in backends:
        backend.behave(hang=True)
    with mesh.grpc.channel("payments") as channel:
        echo = grpc_stubs.echo(channel)
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as raised:
            echo.Unary(grpc_stubs.ask(), timeout=0.8)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 5.0
        let_go(backends)


def test_a_future_that_is_cancelled_takes_all_its_attempts_along(
    mesh: Mesh, grpc_stubs: Stubs, backends: list[GrpcBackend]
) -> None:
    for backend in backends:
        backend.behave(hang=True)
    with mesh.grpc.channel("payments") as channel:
        call = grpc_stubs.echo(channel).Unary.future(grpc_stubs.ask(), timeout=8)
        eventually(lambda: all(backend.state.active for backend in backends), "two attempts are under way")
        assert call.cancel()
        with pytest.raises(grpc.FutureCancelledError):
            call.result(timeout=5)
        let_go(backends)


async def test_an_awaited_call_that_is_cancelled_does_too(
    mesh: Mesh, grpc_stubs: Stubs, backends: list[GrpcBackend]
) -> None:
    for backend in backends:
        backend.behave(hang=True)
    async with mesh.grpc.aio_channel("payments") as channel:
        call = grpc_stubs.echo(channel).Unary(grpc_stubs.ask(), timeout=8)
        await asyncio.to_thread(
            eventually, lambda: all(backend.state.active for backend in backends), "two attempts are under way"
        )
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.to_thread(let_go, backends)


async def test_an_awaited_call_knows_the_winner(mesh: Mesh, grpc_stubs: Stubs, backends: list[GrpcBackend]) -> None:
    slow, quick = backends
    slow.behave(hang=True)
    quick.behave(initial=[("who", b"won")])
    async with mesh.grpc.aio_channel("payments") as channel:
        echo: Any = grpc_stubs.echo(channel)
        for _ in range(2):
            call = echo.Unary(grpc_stubs.ask(), timeout=8)
            assert (await call).backend == quick.name
            assert dict(await call.initial_metadata())["who"] == "won"
            assert await call.code() is grpc.StatusCode.OK
        await asyncio.to_thread(let_go, backends)


def test_streams_are_retried_not_hedged(mesh: Mesh, grpc_stubs: Stubs, backends: list[GrpcBackend]) -> None:
    slow, quick = backends
    slow.behave(hang=True, statuses=[14])  # a status to come keeps its headers back
    with mesh.grpc.channel("payments") as channel:
        echo = grpc_stubs.echo(channel)
        for _ in range(2):
            assert {answer.backend for answer in echo.ServerStream(grpc_stubs.ask(), timeout=8)} == {quick.name}
    assert mesh.stats()["cluster.payments.upstream_rq_tx_reset"] == 0
