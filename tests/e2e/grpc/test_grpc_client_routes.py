"""What a route says, through both channels: matches, header mutations, timeouts, answers of its own, retries."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

import meshlib
from meshlib import Mesh
from meshlib.context import CallContext, current
from meshlib.model.cluster import OutlierDetection
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.matchers import HeaderMatcher, PathMatcher, RouteMatch, StringMatcher
from meshlib.model.route import DirectResponseAction, HostRewrite, RetryPolicy, Route, RouteAction
from meshlib.sources.static import static_cluster
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs

UNAVAILABLE, RESOURCE_EXHAUSTED, OK = 14, 8, 0
Make = Callable[..., Any]
ANY = RouteMatch(PathMatcher("prefix", "/"))


class Both:
    """One stub in two worlds: the blocking one is called on a thread."""

    def __init__(self, api: str, mesh: Mesh, stubs: Stubs) -> None:
        self.api = api
        self.mesh = mesh
        self.channel = mesh.grpc.channel("payments") if api == "sync" else mesh.grpc.aio_channel("payments")
        self._echo = stubs.echo(self.channel)

    async def unary(self, ask: Any, **options: Any) -> Any:
        if self.api == "aio":
            return await self._echo.Unary(ask, **options)
        return await asyncio.to_thread(self._echo.Unary, ask, **options)

    async def stream(self, ask: Any, **options: Any) -> list[Any]:
        call = self._echo.ServerStream(ask, **options)
        if self.api == "aio":
            return [answer async for answer in call]
        return await asyncio.to_thread(list, call)

    async def both(self, asks: list[Any], **options: Any) -> list[Any]:
        call = self._echo.Both(iter(asks) if self.api == "sync" else asks, **options)
        if self.api == "aio":
            return [answer async for answer in call]
        return await asyncio.to_thread(list, call)

    async def metadata(self, ask: Any) -> dict[str, Any]:
        """The initial metadata of a unary call and of a stream, which must be the same."""
        if self.api == "aio":
            call, stream = self._echo.Unary(ask), self._echo.ServerStream(ask)
            found = dict(await call.initial_metadata()), dict(await stream.initial_metadata())
            stream.cancel()
        else:
            _, call = self._echo.Unary.with_call(ask)
            stream = self._echo.ServerStream(ask)
            found = dict(call.initial_metadata()), dict(await asyncio.to_thread(stream.initial_metadata))
            stream.cancel()
            assert dict(self._echo.Unary.future(ask).initial_metadata()) == found[0]
        assert found[0] == found[1]
        return found[0]

    async def close(self) -> None:
        closing = self.channel.close()
        if closing is not None:
            await closing
        self.mesh.close()


@pytest.fixture(params=["sync", "aio"])
async def made(
    request: pytest.FixtureRequest, echo_backends: Callable[[int], list[GrpcBackend]], grpc_stubs: Stubs
) -> AsyncIterator[Make]:
    """`made(routes=[...], backends=1)`: a stub over a mesh whose `payments` has these routes."""
    opened: list[Both] = []

    def make(*routes: Route, backends: Any = 1, cluster: Any = None, **options: Any) -> Both:
        addresses = [item.address for item in echo_backends(backends)] if isinstance(backends, int) else backends
        chosen = {"payments": list(routes)} if routes else {}
        mesh = Mesh.static({"payments": cluster or addresses}, routes=chosen, **options)
        opened.append(Both(request.param, mesh, grpc_stubs))
        return opened[-1]

    yield make
    for one in opened:
        await one.close()


def forward(match: RouteMatch = ANY, **action: Any) -> Route:
    mutations = {name: action.pop(name) for name in ("request_headers", "response_headers") if name in action}
    return Route(match, RouteAction("payments", **action), **mutations)


def sent(answer: Any) -> dict[str, bytes]:
    return {pair.name: pair.value for pair in answer.metadata}


async def test_routes_match_the_method_and_metadata(made: Make, grpc_stubs: Stubs) -> None:
    blue = HeaderMatcher("x-tenant", StringMatcher("exact", "blue"))
    binary = HeaderMatcher("x-tenant-bin", StringMatcher("exact", "blue"))
    pseudo = HeaderMatcher(":method", StringMatcher("exact", "POST"))
    content = HeaderMatcher("content-type", StringMatcher("exact", "application/grpc"))
    here = PathMatcher("path", "/meshlib.test.Echo/Unary")
    echo = made(
        Route(RouteMatch(here, (binary,)), DirectResponseAction(403)),
        Route(RouteMatch(here, (pseudo,)), DirectResponseAction(403)),
        forward(RouteMatch(here, (blue, content), grpc=True)),
        Route(ANY, DirectResponseAction(404, b"nothing here")),
    )
    tenant = (("x-tenant", "blue"), ("x-tenant-bin", b"blue"))
    assert (await echo.unary(grpc_stubs.ask("hi"), metadata=tenant)).text == "hi"
    with pytest.raises(grpc.RpcError) as caught:
        await echo.unary(grpc_stubs.ask())
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, "nothing here")
    with pytest.raises(grpc.RpcError) as caught:
        await echo.stream(grpc_stubs.ask(), metadata=tenant)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_header_mutations_in_and_out(made: Make, grpc_stubs: Stubs) -> None:
    echo = made(
        forward(
            request_headers=HeaderMutations(add=(HeaderValueOption("x-added", "1"),), remove=("x-secret",)),
            response_headers=HeaderMutations(add=(HeaderValueOption("x-route", "r"),), remove=("x-inside",)),
        )
    )
    answer = await echo.unary(grpc_stubs.ask(), metadata=(("x-secret", "s"), ("kept-bin", b"\x01")))
    assert (sent(answer)["x-added"], sent(answer)["kept-bin"]) == (b"1", b"\x01")
    assert "x-secret" not in sent(answer)
    seen = await echo.metadata(grpc_stubs.ask(initial=[("x-inside", b"1"), ("x-plain", b"2"), ("x-bin", b"\x02")]))
    assert (seen["x-route"], seen["x-plain"], seen["x-bin"]) == ("r", "2", b"\x02")
    assert "x-inside" not in seen


async def test_the_host_is_rewritten_on_the_wire(made: Make, grpc_stubs: Stubs, raw_server: Make) -> None:
    address, seen = raw_server()
    echo = made(forward(host_rewrite=HostRewrite("literal", "inside.example")), backends=[address])
    with pytest.raises(grpc.RpcError):
        await echo.unary(grpc_stubs.ask(), timeout=0.3)
    assert b"inside.example" in seen[0]
    assert b"x-envoy-original-host" in seen[0]


async def test_attempts_are_counted_for_the_server(made: Make, grpc_stubs: Stubs, raw_server: Make) -> None:
    address, seen = raw_server()
    policy = RetryPolicy(("reset",), num_retries=3, base_interval=0.05)
    echo = made(forward(retry_policy=policy), backends=[address])
    with pytest.raises(meshlib.CallError):
        await echo.unary(grpc_stubs.ask(), timeout=5)
    counts = [re.findall(rb"grpc-previous-rpc-attempts\x01(\d)", one) for one in seen]
    assert counts[0] == []
    # An attempt may still be put on the connection that is just being closed; the server does not see that one.
    later = [int(count) for (count,) in counts[1:]]
    assert later
    assert later == sorted(set(later))
    assert set(later) <= {1, 2, 3}


@pytest.fixture
def raw_server() -> Any:
    """Starts a server that hangs up after a call's headers; what it was sent, connection by connection."""
    listeners: list[socket.socket] = []

    def serve(listener: socket.socket, seen: list[bytes]) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"\0\0\0\4\0\0\0\0\0")
                data = b""
                while b"Echo/" not in data and (piece := connection.recv(65536)):
                    data += piece
                seen.append(data)

    def start() -> tuple[str, list[bytes]]:
        listener, seen = socket.create_server(("127.0.0.1", 0)), list[bytes]()
        listeners.append(listener)
        threading.Thread(target=serve, args=(listener, seen), daemon=True).start()
        return f"127.0.0.1:{listener.getsockname()[1]}", seen

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


async def test_a_per_try_timeout_is_retried(made: Make, grpc_stubs: Stubs, echo_backends: Make) -> None:
    policy = RetryPolicy(("gateway-error",), num_retries=2, per_try_timeout=0.3, previous_hosts=True)
    first, second = echo_backends(2)
    first.behave(hang=True, statuses=[UNAVAILABLE])  # a status to come keeps its headers back
    echo = made(forward(retry_policy=policy), backends=[first.address, second.address])
    for _ in range(2):
        assert (await echo.unary(grpc_stubs.ask())).backend == second.name
        assert [answer.backend for answer in await echo.stream(grpc_stubs.ask())] == [second.name]
    assert echo.mesh.stats()["cluster.payments.upstream_rq_per_try_timeout"] > 0


async def test_a_per_try_timeout_ends_with_the_response_headers(made: Make, grpc_stubs: Stubs) -> None:
    policy = RetryPolicy(("gateway-error",), num_retries=2, per_try_timeout=0.3)
    echo = made(forward(retry_policy=policy))
    answers = await echo.stream(grpc_stubs.ask(answers=3, pause=0.25, initial=[("a", b"1")]))
    assert [answer.number for answer in answers] == [1, 2, 3]
    late = await echo.stream(grpc_stubs.ask(key=echo.api, answers=1, delay=0.5, initial=[("a", b"1")]))
    assert [(answer.number, answer.arrival) for answer in late] == [(1, 1)]


async def test_a_silent_endpoint_is_given_up(made: Make, grpc_stubs: Stubs) -> None:
    echo = made(forward(idle_timeout=0.3))
    for call in (echo.unary(grpc_stubs.ask(hang=True)), echo.stream(grpc_stubs.ask(hang=True))):
        with pytest.raises(meshlib.UpstreamTimeoutError) as caught:
            await call
        assert caught.value.flag == "SI"
    with pytest.raises(meshlib.UpstreamTimeoutError) as caught:
        await echo.stream(grpc_stubs.ask(answers=2, pause=30))
    assert caught.value.flag == "SI"
    assert len(await echo.stream(grpc_stubs.ask(answers=4, pause=0.15))) == 4


async def test_the_routes_timeout_does_not_bound_streams_of_requests(made: Make, grpc_stubs: Stubs) -> None:
    echo = made(forward(timeout=0.3))
    with pytest.raises(meshlib.UpstreamTimeoutError) as caught:
        await echo.unary(grpc_stubs.ask(hang=True))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    with pytest.raises(meshlib.UpstreamTimeoutError):
        await echo.stream(grpc_stubs.ask(answers=2, pause=30))
    assert len(await echo.both([grpc_stubs.ask(delay=0.5)])) == 1
    bounded = made(forward(max_stream_duration=0.3))
    with pytest.raises(meshlib.UpstreamTimeoutError):
        await bounded.both([grpc_stubs.ask(hang=True)])


async def test_the_deadline_of_the_request_being_served_holds(made: Make, grpc_stubs: Stubs) -> None:
    echo = made()
    loop = asyncio.get_running_loop()
    token = current.set(CallContext(deadline=loop.time() + 0.3, headers=((b"x-request-id", b"abc"),)))
    try:
        answer = await echo.unary(grpc_stubs.ask(), timeout=30)
        assert 0 < answer.remaining <= 0.3
        assert sent(answer)["x-request-id"] == b"abc"
        with pytest.raises(meshlib.UpstreamTimeoutError):
            await echo.unary(grpc_stubs.ask(hang=True))
    finally:
        current.reset(token)


async def test_a_server_says_when_to_come_back(made: Make, grpc_stubs: Stubs) -> None:
    policy = RetryPolicy(("unavailable",), num_retries=2)
    echo = made(forward(retry_policy=policy))
    begun = asyncio.get_running_loop().time()
    pushed = [("grpc-retry-pushback-ms", b"300")]
    answer = await echo.unary(grpc_stubs.ask(key=f"push {echo.api}", statuses=[UNAVAILABLE, OK], trailing=pushed))
    assert (answer.arrival, asyncio.get_running_loop().time() - begun >= 0.3) == (2, True)
    with pytest.raises(grpc.RpcError) as caught:
        await echo.unary(grpc_stubs.ask(statuses=[UNAVAILABLE], trailing=[("grpc-retry-pushback-ms", b"-1")]))
    assert caught.value.meshlib.why_not_retried == "pushback"  # type: ignore[attr-defined]


async def test_streams_that_break_count_against_the_endpoint(
    made: Make, grpc_stubs: Stubs, echo_backends: Make
) -> None:
    (backend,) = echo_backends(1)
    detection = OutlierDetection(consecutive_5xx=3, max_ejection_percent=100)
    cluster = static_cluster("payments", [backend.address], outlier_detection=detection)
    echo = made(cluster=cluster)
    for _ in range(3):
        with pytest.raises(grpc.RpcError):
            await echo.stream(grpc_stubs.ask(answers=1, statuses=[UNAVAILABLE]))
    assert echo.mesh.stats()["cluster.payments.outlier_detection.ejections_enforced_total"] == 1


async def test_resource_exhausted_is_no_fault_of_the_endpoint(made: Make, grpc_stubs: Stubs) -> None:
    echo = made()
    with pytest.raises(grpc.RpcError) as caught:
        await echo.unary(grpc_stubs.ask(statuses=[RESOURCE_EXHAUSTED]))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert echo.mesh.stats()["cluster.payments.upstream_rq_2xx"] == 1
