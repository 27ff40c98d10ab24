"""Load reports from servers to balancers: in trailers of every kind of call, in HTTP headers, and in streams."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from e2e.grpc.hosts import AioHost, SyncHost
from meshlib import Mesh
from meshlib.grpc import load_report_client
from meshlib.grpc.load_report_server import AioLoadReportInterceptor, LoadReportInterceptor, add_load_reports
from meshlib.http.load_reports import LoadReportASGI, LoadReportWSGI
from meshlib.load_reports import LoadRecorder
from meshlib.model.lb import ClientSideWeightedRoundRobin
from meshlib.model.orca import HEADER, HEADER_BIN, LoadReport
from parts.fast_backend import FastBackend, Reply
from parts.grpc_backend import GrpcBackend
from parts.grpc_stubs import Stubs
from parts.ports import free_port

POLICY = ClientSideWeightedRoundRobin()
REPORT = LoadReport(cpu_utilization=0.25, rps_fractional=100.0)
TRAILER = (HEADER, f"BIN {REPORT.to_header()}".encode())
WEIGHT = 400.0
UNAVAILABLE = 14


def weight(mesh: Mesh, address: str) -> float | None:
    load = mesh.runtime.state.cluster("payments").endpoint(address).reported
    return None if load is None else load.weight


@pytest.fixture
def backend(echo_backends: Callable[[int], list[GrpcBackend]]) -> GrpcBackend:
    return echo_backends(1)[0]


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "unary": lambda echo, ask: echo.Unary(ask),
    "with_call": lambda echo, ask: echo.Unary.with_call(ask),
    "future": lambda echo, ask: echo.Unary.future(ask).result(),
    "server stream": lambda echo, ask: list(echo.ServerStream(ask)),
    "client stream": lambda echo, ask: echo.ClientStream(iter([ask])),
    "both": lambda echo, ask: list(echo.Both(iter([ask]))),
}


@pytest.mark.parametrize("kind", CALLS)
def test_trailers_of_blocking_calls_tell_the_load(kind: str, backend: GrpcBackend, grpc_stubs: Stubs) -> None:
    ask = grpc_stubs.ask("hi", trailing=[TRAILER])
    with (
        Mesh.static({"payments": [backend.address]}, lb_policy=POLICY) as mesh,
        mesh.grpc.channel("payments") as channel,
    ):
        CALLS[kind](grpc_stubs.echo(channel), ask)
        assert weight(mesh, backend.address) == WEIGHT


def test_so_do_those_of_an_error(backend: GrpcBackend, grpc_stubs: Stubs) -> None:
    ask = grpc_stubs.ask("hi", statuses=[5], trailing=[TRAILER])
    with (
        Mesh.static({"payments": [backend.address]}, lb_policy=POLICY) as mesh,
        mesh.grpc.channel("payments") as channel,
    ):
        with pytest.raises(grpc.RpcError):
            grpc_stubs.echo(channel).Unary(ask)
        assert weight(mesh, backend.address) == WEIGHT


async def _streamed(ask: Any) -> Any:
    yield ask


async def _listed(call: Any) -> list[Any]:
    return [answer async for answer in call]


AIO_CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "unary": lambda echo, ask: echo.Unary(ask),
    "server stream": lambda echo, ask: _listed(echo.ServerStream(ask)),
    "client stream": lambda echo, ask: echo.ClientStream(_streamed(ask)),
    "both": lambda echo, ask: _listed(echo.Both(_streamed(ask))),
}


@pytest.mark.parametrize("kind", AIO_CALLS)
async def test_trailers_of_asyncio_calls_tell_the_load(kind: str, backend: GrpcBackend, grpc_stubs: Stubs) -> None:
    ask = grpc_stubs.ask("hi", trailing=[TRAILER])
    mesh = Mesh.static({"payments": [backend.address]}, lb_policy=POLICY)
    async with mesh, mesh.grpc.aio_channel("payments") as channel:
        await AIO_CALLS[kind](grpc_stubs.echo(channel), ask)
        assert weight(mesh, backend.address) == WEIGHT


@pytest.mark.parametrize(
    "header,expected",
    [
        ((HEADER_BIN, REPORT.to_header()), WEIGHT),
        (("endpoint-load-metrics", "TEXT cpu_utilization=0.25,rps_fractional=100"), WEIGHT),
        (("endpoint-load-metrics", 'JSON {"cpu_utilization": 0.25, "rps_fractional": 100}'), WEIGHT),
        (("endpoint-load-metrics", "JSON broken"), None),
        (("x-other", "1"), None),
    ],
)
def test_headers_of_http_tell_the_load(
    header: tuple[str, str], expected: float | None, fast_backend: Callable[..., FastBackend]
) -> None:
    server = fast_backend("a", Reply(headers=(header,)))
    with Mesh.static({"payments": [server.address]}, lb_policy=POLICY) as mesh, mesh.http.client("payments") as client:
        assert client.get("/").status_code == 200
        assert weight(mesh, server.address) == expected


# ---------------------------------------------------------------------------------------- the server's end


class Ticking:
    """A clock that goes on by two seconds whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 2.0
        return self.now


def recorder() -> LoadRecorder:
    made = LoadRecorder(clock=Ticking(), cpu_clock=lambda: 0.0)
    made.application_utilization = 0.5
    made.set_named_metric("queue", 3.0)
    made.set_utilization("disk", 0.25)
    return made


def test_a_recorder_tells_rates_of_the_last_second_or_more() -> None:
    now, cpu = [100.0], [7.0]
    made = LoadRecorder(clock=lambda: now[0], cpu_clock=lambda: cpu[0])
    for number in range(50):
        made.served(failed=number % 10 == 0)
    now[0], cpu[0] = 102.0, 8.0
    first = made.report()
    assert (first.rps_fractional, first.eps) == (25.0, 2.5)
    assert first.cpu_utilization == pytest.approx(0.5 / made._processors)
    now[0] = 102.5
    assert made.report() is first
    now[0] = 103.5
    assert made.report() == LoadReport()


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_an_interceptor_puts_reports_into_the_trailers(kind: str, grpc_stubs: Stubs, relayed: Any) -> None:
    made = recorder()
    address = relayed(kind, made)
    echo: Any
    with Mesh.static({"payments": [address]}, lb_policy=POLICY) as mesh, mesh.grpc.channel("payments") as channel:
        echo = grpc_stubs.echo(channel)
        for number in (1, 2):
            _, call = echo.Unary.with_call(grpc_stubs.ask(str(number)))
            list(echo.ServerStream(grpc_stubs.ask("x")))
        trailing = dict(call.trailing_metadata())
        assert HEADER_BIN not in trailing, "grpcio shows it now: read it, and send it alone"
        found = LoadReport.from_headers(None, trailing[HEADER])
        assert found is not None
        assert (found.application_utilization, found.named_metrics, found.utilization) == (
            0.5,
            {"queue": 3.0},
            {"disk": 0.25},
        )
        assert found.rps_fractional == 0.5
        assert weight(mesh, address) == 0.5 / 0.5


class _Echo:
    """As small as a service can be."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages

    def Unary(self, ask: Any, _: Any) -> Any:  # noqa: N802
        return self._messages.Answer(text=ask.text)

    def ServerStream(self, ask: Any, _: Any) -> Iterator[Any]:  # noqa: N802
        yield self._messages.Answer(text=ask.text)


class _AioEcho:
    def __init__(self, messages: Any) -> None:
        self._messages = messages

    async def Unary(self, ask: Any, _: Any) -> Any:  # noqa: N802
        return self._messages.Answer(text=ask.text)

    async def ServerStream(self, ask: Any, _: Any) -> Any:  # noqa: N802
        yield self._messages.Answer(text=ask.text)


def _handlers(service: Any, messages: Any) -> Any:
    serializers = {
        "request_deserializer": messages.Ask.FromString,
        "response_serializer": messages.Answer.SerializeToString,
    }
    return grpc.method_handlers_generic_handler(
        "meshlib.test.Echo",
        {
            "Unary": grpc.unary_unary_rpc_method_handler(service.Unary, **serializers),
            "ServerStream": grpc.unary_stream_rpc_method_handler(service.ServerStream, **serializers),
        },
    )


@pytest.fixture
def relayed(grpc_stubs: Stubs) -> Iterator[Callable[[str, LoadRecorder], str]]:
    hosts: list[Any] = []

    def start(kind: str, made: LoadRecorder) -> str:
        service = _Echo(grpc_stubs.messages) if kind == "sync" else _AioEcho(grpc_stubs.messages)
        interceptor = LoadReportInterceptor(made) if kind == "sync" else AioLoadReportInterceptor(made)

        def add(server: Any) -> None:
            server.add_generic_rpc_handlers((_handlers(service, grpc_stubs.messages),))
            add_load_reports(server, made, shortest=0.02)

        hosts.append((SyncHost if kind == "sync" else AioHost)(add, [interceptor]))
        return str(hosts[-1].address)

    yield start
    for host in hosts:
        host.stop()


async def _aio(answer: Callable[[Any], Any], context: Any) -> bytes:
    ended = answer(context)
    if ended is not None:
        await ended
    return b""


ENDS: dict[str, Callable[[Any], Any]] = {
    "answers": lambda context: None,
    "aborts with NOT_FOUND": lambda context: context.abort(grpc.StatusCode.NOT_FOUND, "none"),
    "says INVALID_ARGUMENT": lambda context: context.set_code(grpc.StatusCode.INVALID_ARGUMENT),
    "aborts with UNAVAILABLE": lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "none"),
    "says INTERNAL": lambda context: context.set_code(grpc.StatusCode.INTERNAL),
    "raises": lambda context: 1 / 0,
}


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_what_counts_as_an_error_is_what_envoy_counts_as_a_5xx(kind: str) -> None:
    def handler(end: Callable[[Any], Any]) -> Any:
        async def serve(request: bytes, context: Any) -> bytes:
            return await _aio(end, context)

        return grpc.unary_unary_rpc_method_handler(serve if kind == "aio" else lambda _, context: end(context) or b"")

    made = LoadRecorder()
    handlers = {str(number): handler(end) for number, end in enumerate(ENDS.values())}
    interceptor = LoadReportInterceptor(made) if kind == "sync" else AioLoadReportInterceptor(made)
    host = (SyncHost if kind == "sync" else AioHost)(
        lambda server: server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Ends", handlers),)),
        [interceptor],
    )
    found = {}
    try:
        with grpc.insecure_channel(host.address) as channel:
            for number, name in enumerate(ENDS):
                before = made._failed.value
                with contextlib.suppress(grpc.RpcError):
                    channel.unary_unary(f"/t.Ends/{number}")(b"", timeout=10)
                until(lambda number=number: made._served.value == number + 1, "it was not counted")  # type: ignore[misc]
                found[name] = made._failed.value - before
    finally:
        host.stop()
    assert found == {name: int(name in list(ENDS)[3:]) for name in ENDS}


async def test_middlewares_put_reports_on_http_responses() -> None:
    made, sent = recorder(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})

    async def send(message: Any) -> None:
        sent.append(message)

    await LoadReportASGI(app, made)({"type": "http"}, None, send)  # type: ignore[arg-type]
    headers = dict(sent[0]["headers"])
    assert headers[b"a"] == b"b"
    report = LoadReport.from_headers(headers[HEADER_BIN.encode()].decode(), None)
    assert report is not None
    assert report.application_utilization == 0.5

    def wsgi(environ: Any, start_response: Any) -> list[bytes]:
        start_response("503 Service Unavailable", [("a", "b")])
        return [b""]

    told: list[Any] = []
    LoadReportWSGI(wsgi, made)({}, lambda *given: told.append(given))
    assert dict(told[0][1]).keys() == {"a", HEADER_BIN}
    assert made.report().eps == 0.5, "one error in two seconds"


# ---------------------------------------------------------------------------------------- out of band


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_report_client, "FIRST_WAIT", 0.05)


OUT_OF_BAND = ClientSideWeightedRoundRobin(oob_reporting_period=0.02)


@pytest.mark.parametrize("kind", ["sync", "aio"])
@pytest.mark.usefixtures("soon")
def test_endpoints_are_asked_without_any_call(kind: str, relayed: Any) -> None:
    made = recorder()
    made.served()
    address = relayed(kind, made)
    with Mesh.static({"payments": [address]}, lb_policy=OUT_OF_BAND) as mesh:
        until(lambda: weight(mesh, address) is not None, "no report came")
        before = mesh.runtime.state.cluster("payments").endpoint(address).reported
        made.served()
        until(
            lambda: mesh.runtime.state.cluster("payments").endpoint(address).reported != before,
            "no other report came",
        )


@pytest.mark.usefixtures("soon")
def test_a_stream_is_begun_anew_when_its_server_comes_back() -> None:
    made, port = recorder(), free_port()

    def serve() -> Any:
        server = grpc.server(ThreadPoolExecutor(4))
        add_load_reports(server, made, shortest=0.02)
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        return server

    address = f"127.0.0.1:{port}"
    with Mesh.static({"payments": [address]}, lb_policy=OUT_OF_BAND) as mesh:
        for _ in range(2):  # at first nobody listens; then the server goes, and comes back
            cell = mesh.runtime.state.cluster("payments").endpoint(address)
            cell.reported = None
            server = serve()
            made.served()
            until(lambda cell=cell: made.served() or cell.reported is not None, "no report came")  # type: ignore[misc, func-returns-value]
            server.stop(None).wait()


@pytest.mark.usefixtures("soon")
def test_what_goes_wrong_once_is_tried_again(
    relayed: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = recorder()
    made.served()
    address, failures = relayed("sync", made), [OSError("a certificate is being written")]
    opens = load_report_client.OutOfBandReports.open

    def failing_once(self: Any, *target: Any) -> Any:
        if failures:
            raise failures.pop()
        return opens(self, *target)

    monkeypatch.setattr(load_report_client.OutOfBandReports, "open", failing_once)
    with Mesh.static({"payments": [address]}, lb_policy=OUT_OF_BAND) as mesh:
        until(lambda: weight(mesh, address) is not None, "no report came")
    assert "a certificate is being written" in caplog.text


def test_a_plan_is_in_force_where_there_are_no_more_threads(
    relayed: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Any) -> None:
        if self.name.startswith("meshlib-load"):
            raise RuntimeError("can't start new thread")
        start(self)

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Mesh.static({"payments": ["10.0.0.1:1", "10.0.0.2:1"]}, lb_policy=OUT_OF_BAND) as mesh:
        assert mesh.ready
    assert "2 endpoints tell no load: can't start new thread" in caplog.text


def test_its_channels_close_with_the_mesh(relayed: Any) -> None:
    made = recorder()
    made.served()
    address = relayed("sync", made)
    with Mesh.static({"payments": [address]}, lb_policy=OUT_OF_BAND) as mesh:
        until(lambda: weight(mesh, address) is not None, "no report came")
        channels = mesh.load_reports._subchannels
        assert len(channels) == 1
    assert len(channels) == 0


@pytest.mark.usefixtures("soon")
def test_a_server_without_reports_is_asked_once(backend: GrpcBackend, caplog: pytest.LogCaptureFixture) -> None:
    with Mesh.static({"payments": [backend.address]}, lb_policy=OUT_OF_BAND) as mesh:
        mesh.load_reports  # noqa: B018  made with the plan
        until(lambda: "has no load reports to give" in caplog.text, "it was not said")
    assert caplog.text.count("has no load reports to give") == 1


@pytest.mark.usefixtures("soon")
async def test_the_applications_loop_has_no_part_in_it(relayed: Any) -> None:
    made = recorder()
    made.served()
    address = relayed("sync", made)
    async with Mesh.static({"payments": [address]}, lb_policy=OUT_OF_BAND) as mesh:
        before = len(asyncio.all_tasks())
        until(
            lambda: weight(mesh, address) is not None, "no report came while the loop stood still"
        )  # it does not turn
        assert len(asyncio.all_tasks()) == before
