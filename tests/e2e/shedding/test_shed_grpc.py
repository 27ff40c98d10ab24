"""Load shedding in front of gRPC handlers: what is refused, and that a call gives its place back however it ends."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from e2e.grpc.hosts import AioHost, SyncHost
from meshlib import Mesh
from meshlib.engine.events import LoadShed
from meshlib.model.shedding import Bulkhead
from parts.grpc_stubs import Stubs

PATIENCE = 20.0


class Holds:
    """Blocking handlers that answer when told."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages
        self.begun = threading.Semaphore(0)
        self.release = threading.Event()

    def _answer(self) -> Any:
        return self._messages.Answer()

    def Unary(self, ask: Any, context: Any) -> Any:  # noqa: N802
        self.begun.release()
        if ask.text == "fail":
            raise ValueError("as asked")
        if ask.text == "abort":
            context.abort(grpc.StatusCode.NOT_FOUND, "as asked")
        assert self.release.wait(PATIENCE)
        return self._answer()

    def ServerStream(self, ask: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self.begun.release()
        while context.is_active() and not self.release.wait(0.01):
            yield self._answer()

    def ClientStream(self, asks: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    def Both(self, asks: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError


class AioHolds(Holds):
    """The same as coroutines."""

    async def Unary(self, ask: Any, context: Any) -> Any:  # type: ignore[override]  # noqa: N802
        self.begun.release()
        if ask.text == "fail":
            raise ValueError("as asked")
        if ask.text == "abort":
            await context.abort(grpc.StatusCode.NOT_FOUND, "as asked")
        await asyncio.to_thread(self.release.wait, PATIENCE)
        return self._answer()

    async def ServerStream(self, ask: Any, context: Any) -> AsyncIterator[Any]:  # type: ignore[override]  # noqa: N802
        self.begun.release()
        while not self.release.is_set():
            await asyncio.sleep(0.005)
            yield self._answer()


class World:
    """Such a service behind the interceptor."""

    def __init__(self, kind: str, stubs: Stubs, *shed: Any) -> None:
        self.mesh = Mesh.static({})
        doors, self._ask = self.mesh.grpc, stubs.ask
        self.holds = (Holds if kind == "sync" else AioHolds)(stubs.messages)
        self.interceptor = (doors.server_interceptor if kind == "sync" else doors.aio_server_interceptor)(shed=shed)
        host = SyncHost if kind == "sync" else AioHost
        self.host = host(
            lambda server: stubs.services.add_EchoServicer_to_server(self.holds, server), [self.interceptor]
        )
        self.channel = grpc.insecure_channel(self.host.address)
        self.echo = stubs.echo(self.channel)

    @property
    def active(self) -> float:
        (shedder,) = self.interceptor._inbound._shed.filters  # type: ignore[union-attr]
        return shedder.stats()["rq_active"]

    def begin(self, text: str = "") -> Any:
        """A call whose handler runs."""
        call = self.echo.Unary.future(self._ask(text))
        assert self.holds.begun.acquire(timeout=PATIENCE)
        return call

    def begin_stream(self) -> Any:
        call = self.echo.ServerStream(self._ask(""))
        assert self.holds.begun.acquire(timeout=PATIENCE)
        return call

    def refused(self) -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as refused:
            self.echo.Unary(self._ask(""))
        return refused.value

    def until_free(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.active and time.monotonic() < deadline:
            time.sleep(0.005)
        assert self.active == 0

    def close(self) -> None:
        self.holds.release.set()
        self.channel.close()
        self.host.stop()
        self.mesh.close()


@pytest.fixture
def world(grpc_stubs: Stubs) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(kind: str, *shed: Any) -> World:
        made.append(World(kind, grpc_stubs, *shed))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_calls_over_the_bulkhead_are_unavailable(world: Any, kind: str) -> None:
    one = world(kind, Bulkhead(2, retry_after=3))
    heard: list[Any] = []
    one.mesh.on_event(heard.append)
    calls = [one.begin(), one.begin()]
    error = one.refused()
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "bulkhead full")  # type: ignore[attr-defined]
    trailing = dict(error.trailing_metadata())  # type: ignore[attr-defined]
    assert (trailing["x-envoy-overloaded"], trailing["retry-after"]) == ("true", "3")
    assert not error.initial_metadata()  # type: ignore[attr-defined]
    one.holds.release.set()
    for call in calls:
        call.result(PATIENCE)
    one.until_free()
    one.begin().result(PATIENCE)
    told = [event for event in heard if isinstance(event, LoadShed)]
    assert [(event.name, event.path) for event in told] == [("bulkhead", "/meshlib.test.Echo/Unary")]


@pytest.mark.parametrize("kind", ["sync", "aio"])
@pytest.mark.parametrize("text", ["fail", "abort"])
def test_a_call_that_fails_gives_its_place_back(world: Any, kind: str, text: str) -> None:
    one = world(kind, Bulkhead(1))
    for _ in range(3):
        assert one.begin(text).exception(PATIENCE) is not None
        one.until_free()


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_a_stream_that_its_caller_leaves_gives_its_place_back(world: Any, kind: str) -> None:
    one = world(kind, Bulkhead(1))
    for _ in range(3):
        stream = one.begin_stream()
        assert next(stream) is not None
        assert one.active == 1
        assert one.refused().code() is grpc.StatusCode.UNAVAILABLE
        stream.cancel()
        one.until_free()


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_a_call_that_its_caller_leaves_gives_its_place_back(world: Any, kind: str) -> None:
    one = world(kind, Bulkhead(1))
    one.begin().cancel()
    if kind == "sync":  # a blocking handler runs to its end, and holds its thread that long
        one.holds.release.set()
    one.until_free()


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_calls_wait_for_their_turn(world: Any, kind: str) -> None:
    one = world(kind, Bulkhead(1, max_waiting=2, max_wait=PATIENCE, target=PATIENCE))
    first = one.begin()
    waiting = [one.echo.Unary.future(one._ask("")) for _ in range(2)]
    (shedder,) = one.interceptor._inbound._shed.filters
    deadline = time.monotonic() + PATIENCE
    while shedder.queue.waiting < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert one.refused().code() is grpc.StatusCode.UNAVAILABLE
    one.holds.release.set()
    for call in (first, *waiting):
        call.result(PATIENCE)
    one.until_free()


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_health_checks_are_never_shed(world: Any, kind: str, grpc_stubs: Stubs) -> None:
    health = pytest.importorskip("grpc_health.v1.health")
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    mesh = Mesh.static({})
    doors = mesh.grpc
    interceptor = (doors.server_interceptor if kind == "sync" else doors.aio_server_interceptor)(shed=[Bulkhead(1)])
    interceptor._inbound._filters[0].compartments.enter("")  # it is full, and stays so
    servicer = health.HealthServicer() if kind == "sync" else health.aio.HealthServicer()
    host = (SyncHost if kind == "sync" else AioHost)(
        lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server), [interceptor]
    )
    try:
        with grpc.insecure_channel(host.address) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        host.stop()
        mesh.close()
