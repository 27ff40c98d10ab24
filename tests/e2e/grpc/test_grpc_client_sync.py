"""The blocking channel over real servers: every kind of call, retries, cancellation, deadlines, errors."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import meshlib
from meshlib import Mesh
from meshlib.engine.events import CallEnded
from meshlib.grpc.direct import DirectCall
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs
from parts.ports import free_port

UNAVAILABLE, NOT_FOUND, OK = 14, 5, 0
Make = Callable[..., Any]
PATIENCE = 10.0


@pytest.fixture(params=["direct", "public"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain unary calls have two ways to a sub-channel, which nobody should be able to tell apart."""
    if request.param == "public":
        monkeypatch.setattr(DirectCall, "of", lambda call: None)


@pytest.fixture
def stub(echo_backends: Callable[[int], list[GrpcBackend]], grpc_stubs: Stubs) -> Iterator[Make]:
    """`stub(2, retries=2)`: a generated stub over a mesh channel to that many backends; `.mesh`, `.channel`."""
    opened: list[Any] = []

    def make(backends: int | list[str] = 1, target: str = "payments", **options: Any) -> Any:
        addresses = [backend.address for backend in echo_backends(backends)] if isinstance(backends, int) else backends
        mesh = Mesh.static({"payments": addresses}, **options)
        channel = mesh.grpc.channel(target)
        opened.append((channel, mesh))
        made = grpc_stubs.echo(channel)
        made.mesh, made.channel = mesh, channel
        return made

    yield make
    for channel, mesh in opened:
        channel.close()
        mesh.close()


@pytest.mark.usefixtures("way")
def test_unary_in_its_three_forms(stub: Make, grpc_stubs: Stubs) -> None:
    echo, ask = stub(), grpc_stubs.ask("hi", initial=[("a", b"1")], trailing=[("b", b"2")])
    assert echo.Unary(ask).text == "hi"
    answer, call = echo.Unary.with_call(ask)
    assert (answer.text, call.code(), dict(call.initial_metadata())["a"]) == ("hi", grpc.StatusCode.OK, "1")
    assert dict(call.trailing_metadata())["b"] == "2"
    assert (call.meshlib.cluster, call.meshlib.attempts, call.meshlib.grpc_status) == ("payments", 1, OK)
    future = echo.Unary.future(ask)
    assert future.result(PATIENCE).text == "hi"
    assert future.done()
    assert not future.running()
    assert future.exception() is None
    assert dict(future.initial_metadata())["a"] == "1"


def test_a_server_stream(stub: Make, grpc_stubs: Stubs) -> None:
    call = stub().ServerStream(grpc_stubs.ask("s", answers=3, initial=[("a", b"1")], trailing=[("b", b"2")]))
    assert dict(call.initial_metadata())["a"] == "1"
    assert [answer.number for answer in call] == [1, 2, 3]
    assert call.code() is grpc.StatusCode.OK
    assert dict(call.trailing_metadata())["b"] == "2"
    assert not call.is_active()


def test_a_client_stream(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub()
    asks = [grpc_stubs.ask(str(number)) for number in range(4)]
    assert echo.ClientStream(iter(asks)).heard == 4
    answer, call = echo.ClientStream.with_call(iter(asks))
    assert (answer.heard, call.code()) == (4, grpc.StatusCode.OK)
    assert echo.ClientStream.future(iter(asks)).result(PATIENCE).heard == 4


def test_both_streams_in_conversation(stub: Make, grpc_stubs: Stubs) -> None:
    answered = threading.Semaphore(1)

    def asks() -> Iterator[Any]:
        for number in range(4):
            assert answered.acquire(timeout=PATIENCE)
            yield grpc_stubs.ask(str(number))

    heard = []
    for answer in stub().Both(asks()):
        heard.append(answer.text)
        answered.release()
    assert heard == ["0", "1", "2", "3"]


@pytest.mark.usefixtures("way")
def test_a_unary_call_is_retried_elsewhere(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub(2, retries=2)
    answer, call = echo.Unary.with_call(grpc_stubs.ask(key="k", statuses=[UNAVAILABLE, OK]))
    assert call.meshlib.attempts > 1
    sent = {pair.name: pair.value for pair in answer.metadata}
    assert sent["grpc-previous-rpc-attempts"] == str(call.meshlib.attempts - 1).encode()


@pytest.mark.parametrize("kind", ["Unary", "ClientStream"])
def test_what_nobody_listens_to_is_retried(stub: Make, grpc_stubs: Stubs, kind: str, echo_backends: Make) -> None:
    echo = stub([f"127.0.0.1:{free_port()}", echo_backends(1)[0].address], retries=3)
    for _ in range(4):
        ask = grpc_stubs.ask("x")
        given = ask if kind == "Unary" else iter([ask, ask])
        assert getattr(echo, kind)(given).text == "x"
        given = ask if kind == "Unary" else iter([ask, ask])
        assert getattr(echo, kind).future(given).result(PATIENCE).text == "x"
    assert echo.mesh.stats()["cluster.payments.upstream_cx_connect_fail"] > 0


@pytest.mark.parametrize("kind", ["ServerStream", "Both"])
def test_a_stream_is_retried_until_it_answers(stub: Make, grpc_stubs: Stubs, kind: str) -> None:
    echo = stub(1, retries=2)
    ask = grpc_stubs.ask("x", key=kind, statuses=[UNAVAILABLE, UNAVAILABLE, OK], answers=0)
    call = getattr(echo, kind)(ask if kind == "ServerStream" else iter([ask]))
    assert [answer.arrival for answer in call] == [3]
    assert call.meshlib.attempts == 3


def test_a_stream_that_nobody_reads_is_retried_too(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub(1, retries=2)
    call = echo.ServerStream(grpc_stubs.ask(key="unread", statuses=[UNAVAILABLE, NOT_FOUND]))
    assert call.code() is grpc.StatusCode.NOT_FOUND
    assert call.meshlib.attempts == 2


def test_a_stream_that_has_answered_is_not_retried(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub(1, retries=2)
    ended: list[Any] = []
    echo.mesh.on_event(ended.append)
    call = echo.ServerStream(grpc_stubs.ask(key="late", answers=2, statuses=[UNAVAILABLE], details="gone"))
    assert [next(call).number, next(call).number] == [1, 2]
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "gone")
    assert call.meshlib.attempts == 1
    told = [event for event in ended if isinstance(event, CallEnded)]
    assert [(event.status, event.info.grpc_status) for event in told] == [(200, UNAVAILABLE)]


def test_initial_metadata_commits_a_stream(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub(1, retries=2)
    call = echo.ServerStream(
        grpc_stubs.ask(key="headers", headers_first=True, delay=0.2, statuses=[UNAVAILABLE], initial=[("a", b"1")])
    )
    assert dict(call.initial_metadata())["a"] == "1"
    assert call.code() is grpc.StatusCode.UNAVAILABLE
    assert call.meshlib.attempts == 1


@pytest.mark.usefixtures("way")
def test_a_status_of_the_server_is_grpcios_own_error(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub(1, retries=2)
    ask = grpc_stubs.ask(statuses=[NOT_FOUND], details="no such order", trailing=[("why", b"gone")])
    with pytest.raises(grpc.RpcError) as caught:
        echo.Unary(ask)
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such order")
    assert dict(error.trailing_metadata())["why"] == "gone"
    assert not isinstance(error, meshlib.MeshError)
    assert (error.meshlib.attempts, error.meshlib.grpc_status) == (1, NOT_FOUND)
    failed = echo.Unary.future(ask)
    assert failed.exception(PATIENCE).code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError):
        failed.result()


@pytest.mark.usefixtures("way")
def test_no_endpoint_listening_is_ours_and_grpcs(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub([f"127.0.0.1:{free_port()}"])
    with pytest.raises(meshlib.UpstreamConnectError) as caught:
        echo.Unary(grpc_stubs.ask())
    error: Any = caught.value
    assert isinstance(error, grpc.RpcError)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.failure.cluster == "payments"
    assert "failed to connect" in error.details()
    assert "failed to connect" in error.debug_error_string()
    restored = pickle.loads(pickle.dumps(error))  # noqa: S301  what we pickled ourselves
    assert (restored.code(), restored.flag, restored.details()) == (error.code(), "UF", error.details())
    stream = echo.ServerStream(grpc_stubs.ask())
    with pytest.raises(meshlib.UpstreamConnectError):
        next(stream)
    assert stream.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("options", "target", "expected", "code"),
    [
        ({"unknown_hosts": "reject"}, "elsewhere", meshlib.NoRouteError, grpc.StatusCode.UNAVAILABLE),
        ({}, "payments", meshlib.NoHealthyUpstreamError, grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_what_the_mesh_refuses(
    stub: Make, grpc_stubs: Stubs, options: dict[str, Any], target: str, expected: type[Exception], code: Any
) -> None:
    echo = stub([], target, **options)
    with pytest.raises(expected) as caught:
        echo.Unary(grpc_stubs.ask())
    assert caught.value.code() is code  # type: ignore[attr-defined]
    assert echo.Unary.future(grpc_stubs.ask()).exception(PATIENCE).code() is code


@pytest.mark.usefixtures("way")
def test_a_deadline_ends_the_call_and_is_seen_by_the_server(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub(1, retries=2)
    assert 0 < echo.Unary(grpc_stubs.ask(), timeout=5.0).remaining <= 5.1  # grpc-timeout is rounded up on the wire
    with pytest.raises(meshlib.UpstreamTimeoutError) as caught:
        echo.Unary(grpc_stubs.ask(hang=True), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    future = echo.Unary.future(grpc_stubs.ask(hang=True), timeout=0.2)
    assert future.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    call = echo.ServerStream(grpc_stubs.ask(hang=True), timeout=0.2)
    with pytest.raises(meshlib.UpstreamTimeoutError):
        next(call)
    call = echo.ServerStream(grpc_stubs.ask(answers=2, pause=30), timeout=0.5)
    assert next(call).number == 1
    with pytest.raises(meshlib.UpstreamTimeoutError):
        next(call)


def test_a_future_is_cancelled_and_gives_everything_back(stub: Make, grpc_stubs: Stubs, echo_backends: Make) -> None:
    echo = stub()
    future = echo.Unary.future(grpc_stubs.ask(hang=True))
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    assert future.running()
    assert future.cancel()
    assert done.wait(PATIENCE)
    assert future.cancelled()
    assert future.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(grpc.FutureCancelledError):
        future.result(PATIENCE)
    assert _load(echo.mesh) == 0


def test_a_stream_is_cancelled_before_and_after_it_answers(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub()
    for script in ({"hang": True}, {"answers": 2, "pause": 30.0}):
        call = echo.ServerStream(grpc_stubs.ask(**script))
        if "answers" in script:
            assert next(call).number == 1
        assert call.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        assert call.cancelled()
        assert _load(echo.mesh) == 0


def test_a_stream_that_is_let_go_of_is_cancelled(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub()
    call = echo.ServerStream(grpc_stubs.ask(answers=2, pause=30.0))
    assert next(call).number == 1
    ended = threading.Event()
    call.add_callback(ended.set)
    del call
    assert ended.wait(PATIENCE)
    assert _load(echo.mesh) == 0


def test_a_cancelled_call_is_not_retried(stub: Make, grpc_stubs: Stubs) -> None:
    """Cancelled in back-off: nothing is under way that could be cancelled."""
    port = free_port()
    echo = stub([f"127.0.0.1:{port}"], retries=1000)
    call = echo.Unary.future(grpc_stubs.ask())
    assert call.cancel()
    assert call.code() is grpc.StatusCode.CANCELLED
    assert _load(echo.mesh) == 0


@pytest.mark.usefixtures("way")
def test_metadata_goes_both_ways(stub: Make, grpc_stubs: Stubs) -> None:
    answer = stub().Unary(grpc_stubs.ask(), metadata=(("x-tenant", "blue"), ("raw-bin", b"\x00\xff")))
    sent = {pair.name: pair.value for pair in answer.metadata}
    assert (sent["x-tenant"], sent["raw-bin"]) == (b"blue", b"\x00\xff")


def test_compression_and_wait_for_ready(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub()
    ask = grpc_stubs.ask(payload=b"a" * 10_000)
    assert echo.Unary(ask, compression=grpc.Compression.Gzip, wait_for_ready=True).heard == 1
    assert echo.ClientStream(iter([ask, ask]), compression=grpc.Compression.Gzip).heard == 2


def test_wait_for_ready_waits_for_an_endpoint_to_come_up(stub: Make, grpc_stubs: Stubs, grpc_backend: Make) -> None:
    backend = grpc_backend("late")
    backend.kill()
    call = stub([backend.address]).Unary.future(grpc_stubs.ask("up"), wait_for_ready=True, timeout=PATIENCE)
    backend.restart()
    assert call.result().text == "up"


def test_call_credentials_need_a_secure_connection(stub: Make, grpc_stubs: Stubs) -> None:
    credentials = grpc.access_token_call_credentials("secret")
    with pytest.raises(grpc.RpcError) as caught:
        stub().Unary(grpc_stubs.ask(), credentials=credentials)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.usefixtures("way")
def test_a_request_that_cannot_be_serialized_is_the_callers(stub: Make) -> None:
    echo = stub(1, retries=3)
    with pytest.raises(grpc.RpcError) as caught:
        echo.Unary("not a message")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    with pytest.raises(grpc.RpcError) as caught:
        echo.ClientStream(iter(["not a message"]))
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert echo.mesh.stats()["cluster.payments.upstream_rq_5xx"] == 0


def test_hosts_outside_the_mesh_are_dialled(
    stub: Make, grpc_stubs: Stubs, echo_backends: Callable[[int], list[GrpcBackend]]
) -> None:
    (backend,) = echo_backends(1)
    echo = stub([], backend.address)
    ask = grpc_stubs.ask("plain", answers=2)
    assert echo.Unary(ask).backend == backend.name
    assert echo.Unary.future(ask).result(PATIENCE).text == "plain"
    assert [answer.number for answer in echo.ServerStream(ask)] == [1, 2]
    assert echo.ClientStream(iter([ask, ask])).heard == 2
    assert [answer.number for answer in echo.Both(iter([ask, ask]))] == [1, 2]
    assert echo.ServerStream(ask).cancel()


def test_interceptors_see_the_call_once(stub: Make, grpc_stubs: Stubs) -> None:
    seen: list[str] = []

    class Seen(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):  # type: ignore[misc]
        def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            seen.append(details.method)
            return continuation(details, request)

        intercept_unary_stream = intercept_unary_unary

    made = stub(1, retries=2)
    echo = grpc_stubs.echo(grpc.intercept_channel(made.channel, Seen()))
    assert echo.Unary(grpc_stubs.ask(key="i", statuses=[UNAVAILABLE, OK])).arrival == 2
    with pytest.raises(grpc.RpcError):
        echo.Unary(grpc_stubs.ask(statuses=[NOT_FOUND]))
    assert [answer.number for answer in echo.ServerStream(grpc_stubs.ask(answers=2))] == [1, 2]
    assert len(seen) == 3


def test_a_stream_request_that_is_too_long_is_not_sent_again(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub(1, retries=2)
    first = grpc_stubs.ask(key="long", statuses=[UNAVAILABLE, OK])
    long = [first, *(grpc_stubs.ask(payload=b"x" * 100_000) for _ in range(4))]
    with pytest.raises(grpc.RpcError) as caught:
        echo.ClientStream(iter(long))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.value.meshlib.why_not_retried == "not-replayable"  # type: ignore[attr-defined]
    short = [grpc_stubs.ask(key="short", statuses=[UNAVAILABLE, OK]), grpc_stubs.ask("second")]
    assert echo.ClientStream(iter(short)).heard == 2


def test_a_closed_channel_takes_no_calls_and_cancels_those_under_way(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub()
    future = echo.Unary.future(grpc_stubs.ask(hang=True))
    echo.channel.close()
    assert future.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(ValueError, match="closed"):
        echo.Unary(grpc_stubs.ask())


def test_ready_once_the_plan_is_there(stub: Make) -> None:
    grpc.channel_ready_future(stub().channel).result(PATIENCE)


def _load(mesh: Mesh) -> int:
    state = mesh.runtime.state.cluster("payments")
    return len(state.default.requests) + sum(cell.active for cell in state.endpoints.values())
