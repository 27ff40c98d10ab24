"""The asyncio channel over real servers: every kind of call, retries, cancellation, deadlines, errors."""

from __future__ import annotations

import asyncio
import gc
import pickle
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc import aio

import meshlib
from meshlib import Mesh
from meshlib.engine.events import CallEnded
from meshlib.grpc.aio_direct import DirectMethod
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
        monkeypatch.setattr(DirectMethod, "of", lambda call: None)


@pytest.fixture
async def stub(echo_backends: Callable[[int], list[GrpcBackend]], grpc_stubs: Stubs) -> AsyncIterator[Make]:
    """`stub(2, retries=2)`: a generated stub over a mesh channel to that many backends; `.mesh`, `.channel`."""
    opened: list[Any] = []

    def make(backends: int | list[str] = 1, target: str = "payments", interceptors: Any = (), **options: Any) -> Any:
        addresses = [backend.address for backend in echo_backends(backends)] if isinstance(backends, int) else backends
        mesh = Mesh.static({"payments": addresses}, **options)
        channel = mesh.grpc.aio_channel(target, interceptors=interceptors)
        opened.append((channel, mesh))
        made = grpc_stubs.echo(channel)
        made.mesh, made.channel = mesh, channel
        return made

    yield make
    for channel, mesh in opened:
        await channel.close()
        mesh.close()


@pytest.mark.usefixtures("way")
async def test_unary(stub: Make, grpc_stubs: Stubs) -> None:
    call = stub().Unary(grpc_stubs.ask("hi", initial=[("a", b"1")], trailing=[("b", b"2")]))
    assert (await call).text == "hi"
    assert (await call).text == "hi"
    assert await call.code() is grpc.StatusCode.OK
    assert (await call.initial_metadata())["a"] == "1"
    assert (await call.trailing_metadata())["b"] == "2"
    assert (call.done(), call.cancelled()) == (True, False)
    assert (call.meshlib.cluster, call.meshlib.attempts, call.meshlib.grpc_status) == ("payments", 1, OK)


@pytest.mark.usefixtures("way")
async def test_a_call_goes_on_without_being_awaited(stub: Make, grpc_stubs: Stubs) -> None:
    call = stub(1, retries=2).Unary(grpc_stubs.ask(key="alone", statuses=[UNAVAILABLE, OK]))
    ended = asyncio.Event()
    call.add_done_callback(lambda _: ended.set())
    await asyncio.wait_for(ended.wait(), PATIENCE)
    assert (await call).arrival == 2


async def test_a_server_stream_iterated_and_read(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub()
    call = echo.ServerStream(grpc_stubs.ask(answers=3, initial=[("a", b"1")], trailing=[("b", b"2")]))
    assert (await call.initial_metadata())["a"] == "1"
    assert [answer.number async for answer in call] == [1, 2, 3]
    assert await call.code() is grpc.StatusCode.OK
    assert (await call.trailing_metadata())["b"] == "2"
    with pytest.raises(aio.UsageError):
        await call.read()
    call = echo.ServerStream(grpc_stubs.ask(answers=1))
    assert (await call.read()).number == 1
    assert await call.read() is aio.EOF
    assert await call.read() is aio.EOF
    assert call.done()


async def test_a_client_stream_from_iterators_and_written(stub: Make, grpc_stubs: Stubs) -> None:
    echo, asks = stub(), [grpc_stubs.ask(str(number)) for number in range(4)]

    async def given() -> AsyncIterator[Any]:
        for ask in asks:
            yield ask

    assert (await echo.ClientStream(given())).heard == 4
    assert (await echo.ClientStream(asks)).heard == 4
    call = echo.ClientStream()
    for ask in asks:
        await call.write(ask)
    await call.done_writing()
    await call.done_writing()
    assert (await call).heard == 4
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(asks[0])


async def test_both_streams_in_conversation(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub()
    call = echo.Both()
    for number in range(4):
        await call.write(grpc_stubs.ask(str(number)))
        assert (await call.read()).text == str(number)
    await call.done_writing()
    assert await call.read() is aio.EOF
    asks = [grpc_stubs.ask(str(number)) for number in range(3)]
    assert [answer.text async for answer in echo.Both(asks)] == ["0", "1", "2"]


@pytest.mark.usefixtures("way")
async def test_a_unary_call_is_retried(stub: Make, grpc_stubs: Stubs) -> None:
    call = stub(1, retries=2).Unary(grpc_stubs.ask(key="k", statuses=[UNAVAILABLE, OK]))
    answer = await call
    assert (call.meshlib.attempts, answer.arrival) == (2, 2)
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("kind", ["Unary", "ServerStream", "ClientStream", "Both"])
async def test_what_nobody_listens_to_is_retried(stub: Make, grpc_stubs: Stubs, kind: str, echo_backends: Make) -> None:
    echo = stub([f"127.0.0.1:{free_port()}", echo_backends(1)[0].address], retries=3)
    for _ in range(4):
        given: Any = [grpc_stubs.ask("x")] if kind in ("ClientStream", "Both") else grpc_stubs.ask("x")
        call = getattr(echo, kind)(given)
        texts = [answer.text async for answer in call] if kind in ("ServerStream", "Both") else [(await call).text]
        assert texts == ["x"]
    assert echo.mesh.stats()["cluster.payments.upstream_cx_connect_fail"] > 0
    assert _load(echo.mesh) == 0


@pytest.mark.parametrize("kind", ["ServerStream", "Both"])
async def test_a_stream_is_retried_until_it_answers(stub: Make, grpc_stubs: Stubs, kind: str) -> None:
    ask = grpc_stubs.ask("x", key=f"aio {kind}", statuses=[UNAVAILABLE, UNAVAILABLE, OK])
    call = getattr(stub(1, retries=2), kind)(ask if kind == "ServerStream" else [ask])
    assert [answer.arrival async for answer in call] == [3]
    assert call.meshlib.attempts == 3


async def test_written_requests_are_sent_again(stub: Make, grpc_stubs: Stubs) -> None:
    call = stub(1, retries=2).Both()
    await call.write(grpc_stubs.ask("first", key="again", statuses=[UNAVAILABLE, OK]))
    assert (await call.read()).text == "first"
    await call.write(grpc_stubs.ask("second"))
    assert (await call.read()).text == "second"
    await call.done_writing()
    assert await call.read() is aio.EOF
    assert call.meshlib.attempts == 2


async def test_a_stream_that_has_answered_is_not_retried(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub(1, retries=2)
    told: list[Any] = []
    echo.mesh.on_event(told.append)
    call = echo.ServerStream(grpc_stubs.ask(key="late", answers=2, statuses=[UNAVAILABLE], details="gone"))
    assert [(await call.read()).number, (await call.read()).number] == [1, 2]
    with pytest.raises(aio.AioRpcError) as caught:
        await call.read()
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "gone")
    assert call.meshlib.attempts == 1
    ended = [event for event in told if isinstance(event, CallEnded)]
    assert [(event.status, event.info.grpc_status) for event in ended] == [(200, UNAVAILABLE)]


async def test_initial_metadata_commits_a_stream(stub: Make, grpc_stubs: Stubs) -> None:
    ask = grpc_stubs.ask(key="headers", headers_first=True, delay=0.2, statuses=[UNAVAILABLE], initial=[("a", b"1")])
    call = stub(1, retries=2).ServerStream(ask)
    assert (await call.initial_metadata())["a"] == "1"
    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert call.meshlib.attempts == 1


@pytest.mark.usefixtures("way")
async def test_a_status_of_the_server_is_grpcios_own_error(stub: Make, grpc_stubs: Stubs) -> None:
    ask = grpc_stubs.ask(statuses=[NOT_FOUND], details="no such order", trailing=[("why", b"gone")])
    with pytest.raises(aio.AioRpcError) as caught:
        await stub(1, retries=2).Unary(ask)
    error: Any = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such order")
    assert error.trailing_metadata()["why"] == "gone"
    assert not isinstance(error, meshlib.MeshError)
    assert (error.meshlib.attempts, error.meshlib.grpc_status) == (1, NOT_FOUND)


@pytest.mark.usefixtures("way")
async def test_no_endpoint_listening_is_ours_and_grpcs(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub([f"127.0.0.1:{free_port()}"])
    call = echo.Unary(grpc_stubs.ask())
    with pytest.raises(meshlib.UpstreamConnectError) as caught:
        await call
    error: Any = caught.value
    assert isinstance(error, aio.AioRpcError)
    assert (error.code(), await call.code()) == (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE)
    assert "failed to connect" in error.details()
    restored = pickle.loads(pickle.dumps(error))  # noqa: S301  what we pickled ourselves
    assert (restored.code(), restored.flag, restored.details()) == (error.code(), "UF", error.details())
    with pytest.raises(meshlib.UpstreamConnectError):
        await echo.ServerStream(grpc_stubs.ask()).read()
    call = echo.Both()
    with pytest.raises(meshlib.UpstreamConnectError):
        await call.wait_for_connection()
    with pytest.raises(meshlib.UpstreamConnectError):
        await call.write(grpc_stubs.ask())


async def test_what_the_mesh_refuses(stub: Make, grpc_stubs: Stubs) -> None:
    with pytest.raises(meshlib.NoHealthyUpstreamError) as caught:
        await stub([]).Unary(grpc_stubs.ask())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
    with pytest.raises(meshlib.NoRouteError):
        await stub([], "elsewhere", unknown_hosts="reject").Unary(grpc_stubs.ask())


@pytest.mark.usefixtures("way")
async def test_a_deadline_ends_the_call_and_is_seen_by_the_server(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub(1, retries=2)
    assert (
        0 < (await echo.Unary(grpc_stubs.ask(), timeout=5.0)).remaining <= 5.1
    )  # grpc-timeout is rounded up on the wire
    call = echo.Unary(grpc_stubs.ask(hang=True), timeout=0.2)
    assert 0 < call.time_remaining() <= 0.2
    with pytest.raises(meshlib.UpstreamTimeoutError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    with pytest.raises(meshlib.UpstreamTimeoutError):
        await echo.ServerStream(grpc_stubs.ask(hang=True), timeout=0.2).read()
    stream = echo.ServerStream(grpc_stubs.ask(answers=2, pause=30), timeout=0.5)
    assert (await stream.read()).number == 1
    with pytest.raises(meshlib.UpstreamTimeoutError):
        await stream.read()
    assert _load(echo.mesh) == 0


@pytest.mark.usefixtures("way")
async def test_cancelling_gives_everything_back(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub()
    call = echo.Unary(grpc_stubs.ask(hang=True))
    await asyncio.sleep(0.05)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    assert await call.code() is grpc.StatusCode.CANCELLED
    waiting = asyncio.ensure_future(_awaited(echo.Unary(grpc_stubs.ask(hang=True))))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert _load(echo.mesh) == 0


async def test_a_stream_is_cancelled_before_and_after_it_answers(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub()
    for script in ({"hang": True}, {"answers": 2, "pause": 30.0}):
        call = echo.ServerStream(grpc_stubs.ask(**script))
        if "answers" in script:
            assert (await call.read()).number == 1
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call.read()
        assert call.cancelled()
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert _load(echo.mesh) == 0


@pytest.mark.parametrize("style", ["iterated", "read"])
@pytest.mark.parametrize("script", [{"hang": True}, {"answers": 50, "pause": 0.5}], ids=["before", "between"])
async def test_a_stream_is_cancelled_with_the_task_that_reads_it(
    stub: Make, grpc_stubs: Stubs, style: str, script: dict[str, Any]
) -> None:
    call = stub().ServerStream(grpc_stubs.ask(**script))

    async def read() -> None:
        if style == "iterated":
            async for _ in call:
                pass
        else:
            while await call.read() is not aio.EOF:
                pass

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.1)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert call.cancelled()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_a_stream_that_is_let_go_of_is_cancelled(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub()
    call = echo.ServerStream(grpc_stubs.ask(answers=2, pause=30.0))
    assert (await call.read()).number == 1
    del call
    gc.collect()
    async with asyncio.timeout(PATIENCE):
        while _load(echo.mesh):  # noqa: ASYNC110  nobody tells when the last reference goes
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("way")
async def test_metadata_compression_and_wait_for_ready(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub()
    answer = await echo.Unary(
        grpc_stubs.ask(payload=b"a" * 10_000),
        metadata=aio.Metadata(("x-tenant", "blue"), ("raw-bin", b"\x00\xff")),
        compression=grpc.Compression.Gzip,
        wait_for_ready=True,
    )
    sent = {pair.name: pair.value for pair in answer.metadata}
    assert (sent["x-tenant"], sent["raw-bin"]) == (b"blue", b"\x00\xff")


async def test_hosts_outside_the_mesh_are_dialled(
    stub: Make, grpc_stubs: Stubs, echo_backends: Callable[[int], list[GrpcBackend]]
) -> None:
    (backend,) = echo_backends(1)
    echo, ask = stub([], backend.address), grpc_stubs.ask("plain", answers=2)
    assert (await echo.Unary(ask)).backend == backend.name
    assert [answer.number async for answer in echo.ServerStream(ask)] == [1, 2]
    assert (await echo.ClientStream([ask, ask])).heard == 2
    call = echo.Both()
    await call.write(ask)
    assert (await call.read()).text == "plain"
    assert call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_a_closed_channel_takes_no_calls_and_cancels_those_under_way(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub()
    call = echo.Unary(grpc_stubs.ask(hang=True))
    quick = echo.Unary(grpc_stubs.ask(delay=0.1))
    await echo.channel.close(grace=1.0)
    assert (await quick).heard == 1
    assert await call.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(aio.UsageError):
        echo.Unary(grpc_stubs.ask())
    assert echo.channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_ready_once_the_plan_is_there(stub: Make) -> None:
    channel = stub().channel
    await asyncio.wait_for(channel.channel_ready(), PATIENCE)
    assert channel.get_state() is grpc.ChannelConnectivity.READY


class Seen(
    aio.UnaryUnaryClientInterceptor,
    aio.UnaryStreamClientInterceptor,
    aio.StreamUnaryClientInterceptor,
    aio.StreamStreamClientInterceptor,
):  # type: ignore[misc]
    """Adds metadata, and says what it saw."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self.seen.append(details.method.decode().rpartition("/")[2])
        details.metadata.add("x-seen", "yes")
        return await continuation(details, request)

    intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = intercept_unary_unary


async def test_interceptors_see_each_call_once(stub: Make, grpc_stubs: Stubs) -> None:
    interceptor = Seen()
    echo = stub(1, interceptors=[interceptor], retries=2)
    ask = grpc_stubs.ask("x", key="seen", statuses=[UNAVAILABLE, OK])
    call = echo.Unary(ask)
    answer = await call
    assert answer.arrival == 2
    assert {pair.name: pair.value for pair in answer.metadata}["x-seen"] == b"yes"
    assert await call.code() is grpc.StatusCode.OK
    assert [answer.number async for answer in echo.ServerStream(grpc_stubs.ask(answers=2))] == [1, 2]
    assert (await echo.ClientStream([ask, ask])).heard == 2
    both = echo.Both()
    await both.write(grpc_stubs.ask("written"))
    assert (await both.read()).text == "written"
    await both.done_writing()
    assert await both.read() is aio.EOF
    with pytest.raises(aio.AioRpcError) as caught:
        await echo.Unary(grpc_stubs.ask(statuses=[NOT_FOUND]))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert interceptor.seen == ["Unary", "ServerStream", "ClientStream", "Both", "Unary"]


async def test_an_interceptor_may_answer_itself(stub: Make, grpc_stubs: Stubs) -> None:
    class Cache(aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
        async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
            return grpc_stubs.messages.Answer(text="cached")

    call = stub([], interceptors=[Cache()]).Unary(grpc_stubs.ask())
    assert (await call).text == "cached"
    assert await call.code() is grpc.StatusCode.OK


def test_several_loops_one_after_the_other_and_at_once(
    echo_backends: Callable[[int], list[GrpcBackend]], grpc_stubs: Stubs
) -> None:
    mesh = Mesh.static({"payments": [backend.address for backend in echo_backends(2)]})
    channel = mesh.grpc.aio_channel("payments")
    echo = grpc_stubs.echo(channel)

    async def several() -> int:
        answers = await asyncio.gather(*(echo.Unary(grpc_stubs.ask()) for _ in range(8)))
        return len(answers)

    assert [asyncio.run(several()) for _ in range(3)] == [8, 8, 8]
    asyncio.run(channel.close())
    mesh.close()


def test_a_call_that_its_loop_left_behind_is_no_trouble_for_the_channel(
    echo_backends: Callable[[int], list[GrpcBackend]], grpc_stubs: Stubs
) -> None:
    mesh = Mesh.static({"payments": [backend.address for backend in echo_backends(1)]})
    channel = mesh.grpc.aio_channel("payments")
    echo = grpc_stubs.echo(channel)
    left: list[Any] = []

    async def begin() -> None:
        left.append(echo.Unary(grpc_stubs.ask(delay=PATIENCE)))

    async def answer_and_close() -> str:
        text: str = (await echo.Unary(grpc_stubs.ask("hi"))).text
        await channel.close(grace=0.1)
        return text

    asyncio.run(begin())
    assert asyncio.run(answer_and_close()) == "hi"
    assert not left[0].done()
    mesh.close()


async def test_a_call_that_is_over_goes_with_its_last_reference(stub: Make, grpc_stubs: Stubs) -> None:
    echo = stub()
    await echo.Unary(grpc_stubs.ask())
    gc.collect()
    gc.disable()
    try:
        call = echo.Unary(grpc_stubs.ask())
        await call
        gone = weakref.ref(call)
        del call
        assert gone() is None
    finally:
        gc.enable()


def _load(mesh: Mesh) -> int:
    state = mesh.runtime.state.cluster("payments")
    return len(state.default.requests) + sum(cell.active for cell in state.endpoints.values())


async def _awaited(call: Any) -> Any:
    return await call
