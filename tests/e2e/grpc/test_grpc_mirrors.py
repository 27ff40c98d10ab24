"""Mirrored gRPC calls of every kind, through both channels: the copy arrives, and the call does not feel it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.route import Route, RouteAction
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs

ANY = RouteMatch(PathMatcher("prefix", "/"))
TO_SHADOW = (RequestMirrorPolicy("shadow"),)


class Calls:
    """Calls of every kind, of either channel."""

    def __init__(self, api: str, mesh: Mesh, stubs: Stubs) -> None:
        self.api = api
        self.mesh = mesh
        self.stubs = stubs
        self.channel = mesh.grpc.channel("payments") if api == "sync" else mesh.grpc.aio_channel("payments")
        self._echo = stubs.echo(self.channel)

    async def every_kind(self) -> list[str]:
        """What each call was answered, by its key."""
        ask = self.stubs.ask
        if self.api == "sync":
            return await asyncio.to_thread(self._blocking)
        unary = await self._echo.Unary(ask("1", key="unary"))
        stream = [answer.text async for answer in self._echo.ServerStream(ask("2", key="stream", answers=3))]
        client = await self._echo.ClientStream(iter(self._asks("client")))
        both = [answer.text async for answer in self._echo.Both(self._asks("both"))]
        written = self._echo.Both()
        for item in self._asks("written"):
            await written.write(item)
        await written.done_writing()
        later = [answer.text async for answer in written]
        return [unary.text, *stream, client.text, *both, *later]

    def _blocking(self) -> list[str]:
        ask = self.stubs.ask
        unary = self._echo.Unary(ask("1", key="unary"))
        stream = [answer.text for answer in self._echo.ServerStream(ask("2", key="stream", answers=3))]
        client = self._echo.ClientStream(iter(self._asks("client")))
        both = [answer.text for answer in self._echo.Both(iter(self._asks("both")))]
        future = self._echo.Unary.future(ask("1", key="written")).result()
        return [unary.text, *stream, client.text, *both, future.text]

    def _asks(self, key: str) -> list[Any]:
        return [self.stubs.ask(text, key=key) for text in ("a", "b", "c")]

    async def settled(self) -> None:
        for _ in range(2000):
            if self.mesh.mirrors.under_way == 0:
                return
            await asyncio.sleep(0.005)
        raise TimeoutError(f"{self.mesh.mirrors.under_way} copies are under way")

    async def close(self) -> None:
        closing = self.channel.close()
        if closing is not None:
            await closing
        self.mesh.close()


@pytest.fixture(params=["sync", "aio"])
async def calls(
    request: pytest.FixtureRequest, echo_backends: Callable[[int], list[GrpcBackend]], grpc_stubs: Stubs
) -> AsyncIterator[tuple[Calls, GrpcBackend, GrpcBackend]]:
    """Calls of a mesh whose `payments` mirrors to `shadow`, and the two backends."""
    main, shadow = echo_backends(2)
    mesh = Mesh.static(
        {"payments": [main.address], "shadow": [shadow.address]},
        routes={"payments": [Route(ANY, RouteAction("payments", request_mirror_policies=TO_SHADOW))]},
    )
    made = Calls(request.param, mesh, grpc_stubs)
    yield made, main, shadow
    await made.close()


async def test_every_kind_of_call_is_mirrored(calls: tuple[Calls, GrpcBackend, GrpcBackend]) -> None:
    made, main, shadow = calls
    await made.every_kind()
    await made.settled()
    arrivals = {"unary": 1, "stream": 1, "client": 1, "both": 1, "written": 1}
    assert dict(main.state.arrivals) == arrivals
    assert dict(shadow.state.arrivals) == arrivals
    stats = made.mesh.stats()
    assert stats["cluster.shadow.upstream_rq_total"] == stats["cluster.shadow.upstream_rq_2xx"] == 5
    assert stats["cluster.payments.upstream_rq_total"] == 5


async def test_a_mirror_that_fails_or_hangs_is_nobodys_trouble(
    calls: tuple[Calls, GrpcBackend, GrpcBackend],
) -> None:
    made, _, shadow = calls
    expected = await made.every_kind()
    await made.settled()
    shadow.behave(statuses=[14])
    assert await made.every_kind() == expected
    await made.settled()
    shadow.behave(hang=True)
    assert await made.every_kind() == expected
    assert made.mesh.mirrors.under_way == 4, "all but the one that has a script of its own"
    mirrors = made.mesh.mirrors
    made.mesh.close()
    for _ in range(2000):
        if mirrors.under_way == 0:
            break
        await asyncio.sleep(0.005)
    assert mirrors.under_way == 0, "closing the mesh gives them up"
    loads = made.mesh.runtime.state.cluster("shadow").default
    assert not loads.requests
