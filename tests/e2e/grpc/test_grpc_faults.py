"""Faults in gRPC: calls through both channels, of every kind, and calls that are served by both servers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from e2e.grpc.hosts import AioHost, SyncHost
from e2e.grpc.test_grpc_client_routes import Both
from meshlib import CallError, Fault, Mesh, ResponseFlag
from meshlib.testing import faults
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs

Code = grpc.StatusCode


@pytest.fixture(params=["sync", "aio"])
async def made(
    request: pytest.FixtureRequest, echo_backends: Callable[[int], list[GrpcBackend]], grpc_stubs: Stubs
) -> AsyncIterator[Both]:
    mesh = Mesh.static({"payments": [echo_backends(1)[0].address]}, seed=1)
    both = Both(request.param, mesh, grpc_stubs)
    yield both
    await both.close()


CALLS: dict[str, Callable[[Both, Any], Any]] = {
    "unary": lambda both, stubs: both.unary(stubs.ask()),
    "server stream": lambda both, stubs: both.stream(stubs.ask()),
    "both": lambda both, stubs: both.both([stubs.ask(), stubs.ask()]),
}


@pytest.mark.parametrize("kind", CALLS)
async def test_an_abort(made: Both, grpc_stubs: Stubs, kind: str) -> None:
    for fault, code in (({"abort": 403}, Code.PERMISSION_DENIED), ({"grpc_abort": 5}, Code.NOT_FOUND)):
        with faults(made.mesh, "payments", **fault), pytest.raises(grpc.RpcError) as refused:
            await CALLS[kind](made, grpc_stubs)
        assert refused.value.code() is code
        assert refused.value.details() == "fault filter abort"
        assert isinstance(refused.value, CallError)
        assert refused.value.flag is ResponseFlag.FI
    await CALLS[kind](made, grpc_stubs)


@pytest.mark.parametrize("kind", CALLS)
async def test_a_delay(made: Both, grpc_stubs: Stubs, kind: str) -> None:
    began = time.monotonic()
    with faults(made.mesh, "payments", delay=0.25, limit_kbps=1):  # which gRPC does not know
        await CALLS[kind](made, grpc_stubs)
    assert 0.24 < time.monotonic() - began < 2.0
    assert made.mesh.stats()["fault.delays_injected"] == 1
    assert made.mesh.faults.active == {}


@pytest.mark.parametrize("kind", CALLS)
async def test_a_deadline_within_a_delay(made: Both, grpc_stubs: Stubs, kind: str) -> None:
    calls = {
        "unary": lambda: made.unary(grpc_stubs.ask(), timeout=0.2),
        "server stream": lambda: made.stream(grpc_stubs.ask(), timeout=0.2),
        "both": lambda: made.both([grpc_stubs.ask()], timeout=0.2),
    }
    with faults(made.mesh, "payments", delay=30), pytest.raises(grpc.RpcError) as refused:
        await calls[kind]()
    assert refused.value.code() is Code.DEADLINE_EXCEEDED
    assert made.mesh.faults.active == {}


# ---------------------------------------------------------------------------------------------------------- served


@pytest.fixture(params=["sync", "aio", "aio-migrated"])
def served(request: pytest.FixtureRequest, grpc_stubs: Stubs) -> Iterator[Callable[..., tuple[Any, Mesh]]]:
    """``served(*faults)``: (a stub over a plain channel, the server's mesh)."""
    ends: list[Callable[[], None]] = []

    class Blocking(grpc_stubs.services.EchoServicer):  # type: ignore[misc,name-defined]
        def Unary(self, request: Any, context: Any) -> Any:  # noqa: N802  as the proto says
            return grpc_stubs.messages.Answer()

        def ServerStream(self, request: Any, context: Any) -> Any:  # noqa: N802
            yield grpc_stubs.messages.Answer()

    class Coroutines(grpc_stubs.services.EchoServicer):  # type: ignore[misc,name-defined]
        async def Unary(self, request: Any, context: Any) -> Any:  # noqa: N802
            return grpc_stubs.messages.Answer()

        async def ServerStream(self, request: Any, context: Any) -> Any:  # noqa: N802
            yield grpc_stubs.messages.Answer()

    def make(*given: Fault) -> tuple[Any, Mesh]:
        mesh = Mesh.static({"up": ["127.0.0.1:1"]}, seed=1)
        sync = request.param == "sync"
        servicer = Coroutines() if request.param == "aio" else Blocking()
        interceptor = (mesh.grpc.server_interceptor if sync else mesh.grpc.aio_server_interceptor)(faults=given)

        def add(server: Any) -> None:
            grpc_stubs.services.add_EchoServicer_to_server(servicer, server)
            checks = health.aio.HealthServicer() if request.param == "aio" else health.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(checks, server)

        host = (SyncHost if sync else AioHost)(add, [interceptor])
        channel = grpc.insecure_channel(host.address)
        ends.extend((channel.close, host.stop, mesh.close))
        echo = grpc_stubs.echo(channel)
        checked = health_pb2_grpc.HealthStub(channel)
        echo.health = lambda: checked.Check(health_pb2.HealthCheckRequest()).status
        return echo, mesh

    yield make
    for end in ends:
        end()


def answered(echo: Any, kind: str, stubs: Stubs, **options: Any) -> Any:
    return echo.Unary(stubs.ask(), **options) if kind == "unary" else list(echo.ServerStream(stubs.ask(), **options))


@pytest.mark.parametrize("kind", ["unary", "server stream"])
@pytest.mark.parametrize(
    "fault, code",
    [(Fault(abort=404), Code.UNIMPLEMENTED), (Fault(grpc_abort=9), Code.FAILED_PRECONDITION)],
)
def test_a_call_is_aborted_before_its_handler(
    served: Callable[..., tuple[Any, Mesh]], grpc_stubs: Stubs, kind: str, fault: Fault, code: grpc.StatusCode
) -> None:
    echo, mesh = served(fault)
    with pytest.raises(grpc.RpcError) as refused:
        answered(echo, kind, grpc_stubs)
    assert (refused.value.code(), refused.value.details()) == (code, "fault filter abort")
    assert mesh.stats()["fault.aborts_injected"] == 1
    mesh.faults.enabled = False
    answered(echo, kind, grpc_stubs)


@pytest.mark.parametrize("kind", ["unary", "server stream"])
def test_a_call_is_delayed_before_its_handler(
    served: Callable[..., tuple[Any, Mesh]], grpc_stubs: Stubs, kind: str
) -> None:
    echo, mesh = served(Fault(delay=0.25), Fault(by_header=True))
    answered(echo, kind, grpc_stubs)  # a connection is there
    began = time.monotonic()
    answered(echo, kind, grpc_stubs)
    assert 0.24 < time.monotonic() - began < 2.0
    with pytest.raises(grpc.RpcError) as refused:
        answered(echo, kind, grpc_stubs, metadata=(("x-envoy-fault-abort-grpc-request", "6"),))
    assert refused.value.code() is Code.ALREADY_EXISTS
    assert mesh.faults.active == {}


def test_health_checks_get_no_fault(served: Callable[..., tuple[Any, Mesh]], grpc_stubs: Stubs) -> None:
    echo, mesh = served(Fault(abort=503))
    with pytest.raises(grpc.RpcError):
        echo.Unary(grpc_stubs.ask())
    assert echo.health() == health_pb2.HealthCheckResponse.SERVING
    assert mesh.stats()["fault.aborts_injected"] == 1
