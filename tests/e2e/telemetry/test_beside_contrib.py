"""Beside OpenTelemetry's own instrumentations, all of them on: one span for a call, one for each attempt, no third."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from opentelemetry.instrumentation.grpc import (
    GrpcAioInstrumentorClient,
    GrpcAioInstrumentorServer,
    GrpcInstrumentorClient,
    GrpcInstrumentorServer,
)
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor

from e2e.grpc.hosts import AioHost, SyncHost
from meshlib import Mesh
from parts.fast_backend import FastBackend
from parts.spans import Spans, header, id_of, parent_of

OURS, HTTPX = "meshlib", "opentelemetry.instrumentation.httpx"


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def contrib(spans: Spans) -> Iterator[None]:
    """Every instrumentation of clients and servers that is installed."""
    kinds = (HTTPXClientInstrumentor, HTTPX2ClientInstrumentor, GrpcInstrumentorClient, GrpcAioInstrumentorClient)
    kinds = (*kinds, GrpcInstrumentorServer, GrpcAioInstrumentorServer)
    made = [kind() for kind in kinds]
    for instrumentor in made:
        instrumentor.instrument(tracer_provider=spans.provider)
    yield
    for instrumentor in made:
        instrumentor.uninstrument()


@pytest.fixture
def mesh(spans: Spans, backends: list[FastBackend]) -> Iterator[Mesh]:
    with Mesh.static({"payments": [backend.address for backend in backends]}, retries=2, seed=1) as made:
        made.instrument(tracer_provider=spans.provider, metrics=False)
        yield made


@pytest.fixture
def backends(fast_backend: Callable[..., FastBackend]) -> list[FastBackend]:
    return [fast_backend("a"), fast_backend("b")]


def scopes(spans: Spans) -> list[str]:
    return [span.instrumentation_scope.name for span in spans.ended]


def sent(backend: FastBackend) -> list[str | None]:
    return [request.header("traceparent") for request in backend.requests]


@pytest.mark.usefixtures("contrib")
@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_ready_client(mesh: Mesh, spans: Spans, backends: list[FastBackend], library: Any) -> None:
    for backend in backends:
        backend.behave(status=503)
    with mesh.http.client("payments", library=library) as client:
        client.get("/")
    assert scopes(spans) == [OURS] * 4
    attempts, call = spans.of_kind("CLIENT"), spans.only("INTERNAL")
    assert [parent_of(span) for span in attempts] == [id_of(call)] * 3
    assert sorted(map(header, attempts)) == sorted(sent(backends[0]) + sent(backends[1]))


@pytest.mark.usefixtures("contrib")
@pytest.mark.parametrize("library", ["httpx", "httpx2"])
async def test_a_ready_client_on_a_loop(mesh: Mesh, spans: Spans, backends: list[FastBackend], library: Any) -> None:
    async with mesh.http.async_client("payments", library=library) as client:
        await client.get("/")
    assert scopes(spans) == [OURS] * 2
    (got,) = sent(backends[0]) + sent(backends[1])
    assert got == header(spans.only("CLIENT"))


@pytest.mark.usefixtures("contrib")
def test_a_host_outside_the_mesh_is_contribs(mesh: Mesh, spans: Spans, backends: list[FastBackend]) -> None:
    with mesh.http.client() as client:
        client.get(backends[0].url)
    assert scopes(spans) == [HTTPX]
    assert sent(backends[0]) == [header(spans.only("CLIENT"))]


def test_a_client_that_was_instrumented_by_hand(mesh: Mesh, spans: Spans, backends: list[FastBackend]) -> None:
    """Its span stands for the call: the mesh adds what it knows to it, and makes only the attempts'."""
    for backend in backends:
        backend.behave(status=503)
    with mesh.http.client("payments") as client:
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=spans.provider)
        client.get("/")
        HTTPXClientInstrumentor.uninstrument_client(client)
    call = spans.ended[-1]
    assert scopes(spans) == [OURS] * 3 + [HTTPX]
    assert [parent_of(span) for span in spans.ended[:-1]] == [id_of(call)] * 3
    assert call.attributes["meshlib.why_not_retried"] == "retry-limit"
    assert call.attributes["meshlib.route"] == "payments/0"
    assert sorted(map(header, spans.ended[:-1])) == sorted(sent(backends[0]) + sent(backends[1]))


async def test_an_asyncio_client_that_was_instrumented_by_hand(mesh: Mesh, spans: Spans) -> None:
    async with mesh.http.async_client("payments") as client:
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=spans.provider)
        await client.get("/")
    assert scopes(spans) == [OURS, HTTPX]
    assert parent_of(spans.ended[0]) == id_of(spans.ended[1])


def test_off_again_the_callers_headers_go_on(mesh: Mesh, backends: list[FastBackend]) -> None:
    mesh.uninstrument()
    theirs = f"00-{'1' * 32}-{'2' * 16}-01"
    with mesh.http.client("payments") as client:
        client.get("/", headers={"traceparent": theirs})
    assert sent(backends[0]) + sent(backends[1]) == [theirs]


# ------------------------------------------------------------------ gRPC


@pytest.fixture
def echo_mesh(spans: Spans, echo_backends: Any) -> Iterator[Mesh]:
    addresses = [backend.address for backend in echo_backends(1)]
    with Mesh.static({"payments": addresses}, retries=2, seed=1) as made:
        made.instrument(tracer_provider=spans.provider, metrics=False)
        yield made


def rpc(spans: Spans) -> tuple[list[Any], Any]:
    attempts, call = spans.of_kind("CLIENT"), spans.only("INTERNAL")
    assert scopes(spans) == [OURS] * (len(attempts) + 1)
    assert all(parent_of(span) == id_of(call) for span in attempts)
    return attempts, call


@pytest.mark.usefixtures("contrib")
def test_a_grpc_channel(echo_mesh: Mesh, spans: Spans, grpc_stubs: Any) -> None:
    with echo_mesh.grpc.channel("payments") as channel:
        grpc_stubs.echo(channel).Unary(grpc_stubs.ask("hi", key="k", statuses=[14, 0]))
    attempts, call = rpc(spans)
    assert call.name == "meshlib.test.Echo/Unary"
    assert [span.attributes["rpc.grpc.status_code"] for span in attempts] == [14, 0]
    assert [span.attributes.get("error.type") for span in attempts] == ["UNAVAILABLE", None]
    assert [span.attributes.get("http.request.resend_count") for span in attempts] == [None, 1]
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert call.status.is_unset


@pytest.mark.usefixtures("contrib")
def test_a_grpc_stream_that_fails(echo_mesh: Mesh, spans: Spans, grpc_stubs: Any) -> None:
    with echo_mesh.grpc.channel("payments") as channel, pytest.raises(grpc.RpcError):
        list(grpc_stubs.echo(channel).ServerStream(grpc_stubs.ask("hi", answers=2, statuses=[5])))
    attempts, call = rpc(spans)
    assert [span.attributes["rpc.grpc.status_code"] for span in (*attempts, call)] == [5, 5]
    assert call.attributes["error.type"] == "NOT_FOUND"


@pytest.mark.usefixtures("contrib")
async def test_an_asyncio_grpc_channel(echo_mesh: Mesh, spans: Spans, grpc_stubs: Any) -> None:
    async with echo_mesh.grpc.aio_channel("payments") as channel:
        await grpc_stubs.echo(channel).Unary(grpc_stubs.ask("hi", key="a", statuses=[14, 0]))
    attempts, _ = rpc(spans)
    assert [span.attributes["rpc.grpc.status_code"] for span in attempts] == [14, 0]


class Here:
    """An Echo service in this process that notes which trace it is called in."""

    def __init__(self, stubs: Any) -> None:
        self.stubs = stubs

    def Unary(self, request: Any, context: Any) -> Any:  # noqa: N802  the service's name
        return self.stubs.messages.Answer(text=request.text)

    def __getattr__(self, name: str) -> Any:
        return lambda request, context: None


class AioHere(Here):
    async def Unary(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self.stubs.messages.Answer(text=request.text)


@pytest.mark.parametrize("instrumented", [False, True], ids=["alone", "beside contrib"])
@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_a_grpc_server(kind: str, instrumented: bool, spans: Spans, grpc_stubs: Any, request: Any) -> None:
    """Client and server in one process: the server's span is below the attempt's, and there is one."""
    if instrumented:
        request.getfixturevalue("contrib")
    mesh = Mesh.static({}, seed=1)
    mesh.instrument(tracer_provider=spans.provider, metrics=False)
    sync = kind == "sync"
    host, servicer = (SyncHost, Here(grpc_stubs)) if sync else (AioHost, AioHere(grpc_stubs))
    interceptor = mesh.grpc.server_interceptor() if sync else mesh.grpc.aio_server_interceptor()
    running = host(lambda server: grpc_stubs.services.add_EchoServicer_to_server(servicer, server), [interceptor])
    try:
        with Mesh.static({"payments": [running.address]}) as client:
            client.instrument(tracer_provider=spans.provider, metrics=False)
            with client.grpc.channel("payments") as channel:
                assert grpc_stubs.echo(channel).Unary(grpc_stubs.ask("hi")).text == "hi"
    finally:
        running.stop()
    served = spans.only("SERVER")
    assert parent_of(served) == id_of(spans.only("CLIENT"))
    assert served.attributes["rpc.grpc.status_code"] == 0
    assert served.instrumentation_scope.name == ("opentelemetry.instrumentation.grpc" if instrumented else OURS)
