"""Server interceptors: what a call brings along reaches the second service, in every kind of call and of handler."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from e2e.grpc.hosts import AioHost, SyncHost
from e2e.grpc.relays import AioRelay, ReadWriteRelay, Relay
from meshlib import Mesh
from meshlib.engine.events import RateLimited
from meshlib.model.filters import LocalRateLimit, TokenBucket
from meshlib.model.matchers import ALWAYS
from parts.fast_backend import FastBackend
from parts.grpc_stubs import Stubs

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
EXPECTED = "x-envoy-expected-rq-timeout-ms"
BROUGHT = {"traceparent": TRACE, "tracestate": "congo=t61rcWkgMzE", "x-request-id": "order-7"}
SERVERS = ("sync", "aio", "aio-read-write", "aio-migrated")


class World:
    """A relay behind the interceptor, and the second service behind the relay."""

    def __init__(self, kind: str, stubs: Stubs, stock: FastBackend, limits: Any = (), credentials: Any = None) -> None:
        self.stubs, self.stock = stubs, stock
        self.mesh = Mesh.static({"stock": [stock.address]}, timeout=9, seed=1)
        self._client = self.mesh.http.client("stock")
        relay: Any
        if kind in ("sync", "aio-migrated"):
            relay = Relay(stubs.messages, self._client)
        else:
            of_kind = AioRelay if kind == "aio" else ReadWriteRelay
            relay = of_kind(stubs.messages, lambda: self.mesh.http.async_client("stock"))
        doors = self.mesh.grpc
        sync = kind == "sync"
        host, interceptor = (SyncHost, doors.server_interceptor) if sync else (AioHost, doors.aio_server_interceptor)
        self.host = host(
            lambda server: stubs.services.add_EchoServicer_to_server(relay, server),
            [interceptor(rate_limits=limits)],
            credentials=credentials,
        )
        self.channel = grpc.insecure_channel(self.host.address)
        self.echo = stubs.echo(self.channel)

    def calls(self, text: str = "", **options: Any) -> dict[str, Callable[[], tuple[list[Any], Any]]]:
        """Each kind of call: makes it, and gives its answers and itself."""
        ask, echo = self.stubs.ask(text), self.echo

        def finished(call: Any) -> tuple[list[Any], Any]:
            return list(call), call

        def single(method: Any, request: Any) -> tuple[list[Any], Any]:
            answer, call = method.with_call(request, **options)
            return [answer], call

        return {
            "unary": lambda: single(echo.Unary, ask),
            "server stream": lambda: finished(echo.ServerStream(ask, **options)),
            "client stream": lambda: single(echo.ClientStream, iter([ask, ask])),
            "both": lambda: finished(echo.Both(iter([ask, ask]), **options)),
        }

    def close(self) -> None:
        self.channel.close()
        self.host.stop()
        self._client.close()
        self.mesh.close()


@pytest.fixture
def stock(fast_backend: Callable[..., FastBackend]) -> FastBackend:
    return fast_backend("stock")


@pytest.fixture
def world(grpc_stubs: Stubs, stock: FastBackend) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(kind: str, **options: Any) -> World:
        made.append(World(kind, grpc_stubs, stock, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def echoed(answer: Any) -> dict[str, str]:
    return {pair.name: pair.value.decode("latin-1") for pair in answer.metadata}


@pytest.mark.parametrize("kind", SERVERS)
def test_trace_and_request_id_reach_every_kind_of_call(world: Any, kind: str) -> None:
    one = world(kind)
    for name, make in one.calls(metadata=tuple(BROUGHT.items())).items():
        answers, call = make()
        assert len(answers) == (2 if name in ("server stream", "both") else 1)
        for answer in answers:
            assert BROUGHT.items() <= echoed(answer).items(), name
            assert echoed(answer)["seen-id"] == "order-7"
            assert 8000 < int(echoed(answer)[EXPECTED]) <= 9000
        assert ("x-request-id", "order-7") in call.initial_metadata(), name


@pytest.mark.parametrize("kind", SERVERS)
def test_what_did_not_come_is_made(world: Any, kind: str) -> None:
    one = world(kind)
    ids = set()
    for make in one.calls().values():
        answers, call = make()
        made = dict(call.initial_metadata())["x-request-id"]
        assert UUID.fullmatch(made)
        assert {echoed(answer)["x-request-id"] for answer in answers} == {made}, "one call, one id"
        ids.add(made)
        assert not any("traceparent" in echoed(answer) for answer in answers), "a trace nobody records is none"
    assert len(ids) == 4
    hostile = (("traceparent", TRACE.upper()), ("tracestate", "a=b"), ("x-request-id", "two words"))
    got = echoed(one.echo.Unary(one.stubs.ask(), metadata=hostile))
    assert UUID.fullmatch(got["x-request-id"])
    assert "traceparent" not in got
    assert "tracestate" not in got


@pytest.mark.parametrize("kind", SERVERS)
def test_the_deadline_goes_on(world: Any, kind: str) -> None:
    one = world(kind)
    for name, make in one.calls(timeout=5).items():
        for answer in make()[0]:
            assert 2000 < int(echoed(answer)[EXPECTED]) <= 5100, name  # grpc-timeout is rounded up on the wire
    shorter = one.echo.Unary(one.stubs.ask(), timeout=5, metadata=((EXPECTED, "3000"),))
    assert int(echoed(shorter)[EXPECTED]) <= 3000


@pytest.mark.parametrize("kind", SERVERS)
def test_dead_on_arrival(world: Any, stock: FastBackend, kind: str) -> None:
    one = world(kind)
    for make in one.calls(metadata=((EXPECTED, "0"), ("x-request-id", "dead-1"))).values():
        with pytest.raises(grpc.RpcError) as refused:
            make()
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert refused.value.details() == "the request's deadline had passed on arrival"
        assert ("x-request-id", "dead-1") in refused.value.trailing_metadata()
    assert stock.count == 0


@pytest.mark.parametrize("exhausted", [False, True])
@pytest.mark.parametrize("kind", SERVERS)
def test_a_local_limit_answers_before_the_handler(world: Any, stock: FastBackend, kind: str, exhausted: bool) -> None:
    limit = LocalRateLimit(
        "quota", TokenBucket(2, 1, 3600.0), ALWAYS, ALWAYS, rate_limited_as_resource_exhausted=exhausted
    )
    one = world(kind, limits=[limit])
    seen: list[Any] = []
    one.mesh.on_event(seen.append)
    code = grpc.StatusCode.RESOURCE_EXHAUSTED if exhausted else grpc.StatusCode.UNAVAILABLE
    for _ in range(2):
        one.echo.Unary(one.stubs.ask())
    for make in one.calls(metadata=(("x-request-id", "too-many"),)).values():
        with pytest.raises(grpc.RpcError) as refused:
            make()
        assert (refused.value.code(), refused.value.details()) == (code, "local_rate_limited")
        assert ("x-request-id", "too-many") in refused.value.trailing_metadata()
        assert not refused.value.initial_metadata(), "trailers only: a retry policy may retry it"
    assert stock.count == 2
    limited = [event for event in seen if isinstance(event, RateLimited)]
    assert [event.name for event in limited] == ["quota"] * 4
    assert {event.path for event in limited} >= {"/meshlib.test.Echo/Unary", "/meshlib.test.Echo/Both"}


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize(
    "text, code, details",
    [("fail", "UNKNOWN", "as asked"), ("abort", "NOT_FOUND", "as asked"), ("code", "NOT_FOUND", "")],
)
def test_errors_stay_what_they_are(world: Any, kind: str, text: str, code: str, details: str) -> None:
    one = world(kind)
    for name, make in one.calls(text, metadata=(("x-request-id", "order-8"),)).items():
        with pytest.raises(grpc.RpcError) as failed:
            make()
        assert failed.value.code().name == code, name
        assert details in failed.value.details()
        if text == "code" and name in ("server stream", "both"):
            continue  # answers came first, and the metadata with them
        assert not failed.value.initial_metadata(), "trailers only"
        assert ("x-request-id", "order-8") in failed.value.trailing_metadata()
        assert (("x-own", "1") in failed.value.trailing_metadata()) == (text == "abort")


@pytest.mark.parametrize("kind", SERVERS)
def test_an_error_after_the_first_answer(world: Any, kind: str) -> None:
    one = world(kind)
    call = one.echo.ServerStream(one.stubs.ask("late"), metadata=(("x-request-id", "order-9"),))
    assert next(call)
    assert next(call)
    with pytest.raises(grpc.RpcError) as failed:
        next(call)
    assert failed.value.code() is grpc.StatusCode.UNKNOWN
    assert ("x-request-id", "order-9") in call.initial_metadata()
    assert "x-request-id" not in dict(call.trailing_metadata())


@pytest.mark.parametrize("kind", SERVERS)
def test_initial_metadata_of_the_handlers_own(world: Any, kind: str) -> None:
    one = world(kind)
    _, call = one.calls("own")["unary"]()
    sent = dict(call.initial_metadata())
    assert sent["x-own"] == "1"
    assert UUID.fullmatch(sent["x-request-id"])


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_calls_at_once_never_see_each_others_context(world: Any, kind: str) -> None:
    one = world(kind)
    calls = [one.echo.Unary.future(one.stubs.ask(), metadata=(("x-request-id", f"id-{n}"),)) for n in range(200)]
    streams = [one.echo.ServerStream(one.stubs.ask(), metadata=(("x-request-id", f"stream-{n}"),)) for n in range(20)]
    for n, call in enumerate(calls):
        assert echoed(call.result())["x-request-id"] == f"id-{n}"
    for n, stream in enumerate(streams):
        assert {echoed(answer)["x-request-id"] for answer in stream} == {f"stream-{n}"}


@pytest.mark.parametrize("kind", SERVERS)
def test_a_stranger_has_no_name(world: Any, kind: str) -> None:
    one = world(kind)
    for make in one.calls().values():
        assert {echoed(answer)["seen-peer"] for answer in make()[0]} <= {"", "None"}


def test_what_nobody_serves_is_unimplemented(world: Any) -> None:
    for kind in ("sync", "aio"):
        one = world(kind)
        with pytest.raises(grpc.RpcError) as failed:
            one.channel.unary_unary("/meshlib.test.Echo/Nothing")(b"")
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
