"""The span of a request behind the middlewares: one, below its caller, and none where somebody else has made it."""

from __future__ import annotations

import contextvars
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from opentelemetry import baggage, trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

from meshlib import Mesh
from meshlib.engine.events import RequestServed
from meshlib.http import server, wsgi
from parts.spans import Spans, id_of, parent_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
THEIRS = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())


@pytest.fixture
def spans() -> Spans:
    return Spans()


def meshed(spans: Spans, **options: Any) -> Mesh:
    mesh = Mesh.static({"payments": ["10.0.0.1:80"]}, **options)
    mesh.instrument(tracer_provider=spans.provider, metrics=False)
    return mesh


def scope_of(*headers: tuple[bytes, bytes], path: str = "/items/7", **fields: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": path,
        "scheme": "http",
        "query_string": b"page=2&token=x",
        "http_version": "1.1",
        "headers": [(b"host", b"shop:8080"), *headers],
        "state": {},
        **fields,
    }


class Route:
    path = "/items/{id}"


async def run(app: Any, scope: dict[str, Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def app_of(status: int = 200, seen: list[Any] | None = None, error: Exception | None = None) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = Route()
        if seen is not None:
            seen.append((trace.get_current_span(), baggage.get_all()))
        if error is not None:
            raise error
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


async def test_a_request_is_one_server_span_below_its_caller(spans: Spans) -> None:
    seen: list[Any] = []
    app = server.MeshMiddleware(app_of(seen=seen), mesh=meshed(spans))
    await run(app, scope_of(THEIRS, (b"user-agent", b"curl")))
    span = spans.only("SERVER")
    assert span.name == "GET /items/{id}"
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (int(TRACE, 16), int(SPAN, 16))
    assert span.parent.is_remote
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/items/{id}",
        "server.address": "shop",
        "server.port": 8080,
        "url.path": "/items/7",
        "url.query": "page=2&token=REDACTED",
        "url.scheme": "http",
        "user_agent.original": "curl",
    }
    assert id_of(span) == seen[0][0].get_span_context().span_id  # it was the current one
    assert trace.get_current_span() is trace.INVALID_SPAN  # and is no more


@pytest.mark.parametrize("status, error", [(404, None), (500, "500"), (503, "503")])
async def test_only_5xx_are_errors_of_a_server(spans: Spans, status: int, error: str | None) -> None:
    await run(server.MeshMiddleware(app_of(status), mesh=meshed(spans)), scope_of())
    assert spans.only("SERVER").attributes.get("error.type") == error


async def test_a_method_of_the_callers_invention_names_no_span(spans: Spans) -> None:
    await run(server.MeshMiddleware(app_of(), mesh=meshed(spans)), scope_of(method="EVIL" * 100))
    span = spans.only("SERVER")
    assert span.name == "HTTP /items/{id}"
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "EVIL" * 16


async def test_an_exception_is_the_servers_500(spans: Spans) -> None:
    app = server.MeshMiddleware(app_of(error=ValueError("no")), mesh=meshed(spans))
    with pytest.raises(ValueError, match="no"):
        await run(app, scope_of())
    assert spans.only("SERVER").attributes["http.response.status_code"] == 500
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_a_refused_request_is_a_span_with_its_flag(spans: Spans) -> None:
    app = server.MeshMiddleware(app_of(), mesh=meshed(spans), rate_limits=["1/hour"])
    for _ in range(2):
        await run(app, scope_of())
    assert [span.attributes.get("meshlib.response_flags") for span in spans.of_kind("SERVER")] == [None, "RL"]


async def test_a_coroutine_closed_from_elsewhere_leaves_no_span_behind(spans: Spans, caplog: Any) -> None:
    class Forever:
        def __await__(self) -> Any:
            yield

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Forever()

    middleware = server.MeshMiddleware(app, mesh=meshed(spans))
    coroutine = run(middleware, scope_of())
    contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert "Failed to detach" not in caplog.text
    assert spans.only("SERVER").attributes["error.type"] == "cancelled"


async def test_b3_callers_and_allowed_baggage_are_taken_in(spans: Spans) -> None:
    seen: list[Any] = []
    mesh = meshed(spans, propagators=["b3"], baggage=["tenant"])
    headers = ((b"b3", f"{TRACE}-{SPAN}-1".encode()), (b"baggage", b"tenant=a%20b,secret=1"))
    await run(server.MeshMiddleware(app_of(seen=seen), mesh=mesh), scope_of(*headers))
    assert parent_of(spans.only("SERVER")) == int(SPAN, 16)
    assert seen[0][1] == {"tenant": "a b"}


# ------------------------------------------------------------------ beside other instrumentations


async def test_inside_contribs_middleware_there_is_no_second_server_span(spans: Spans) -> None:
    mesh, seen = meshed(spans), []
    app = server.MeshMiddleware(app_of(seen=seen), mesh=mesh)
    both = OpenTelemetryMiddleware(app, tracer_provider=spans.provider, exclude_spans=["receive", "send"])
    await run(both, scope_of(THEIRS, server=("shop", 8080)))
    span = spans.only("SERVER")
    assert span.instrumentation_scope.name == "opentelemetry.instrumentation.asgi"
    assert seen[0][0].get_span_context().span_id == id_of(span)
    assert len(spans.ended) == 1


async def test_around_contribs_middleware_contrib_makes_the_span(spans: Spans) -> None:
    both = OpenTelemetryMiddleware(app_of(), tracer_provider=spans.provider, exclude_spans=["receive", "send"])
    await run(server.MeshMiddleware(both, mesh=meshed(spans)), scope_of(THEIRS, server=("shop", 8080)))
    assert [span.instrumentation_scope.name for span in spans.ended] == ["opentelemetry.instrumentation.asgi"]


async def test_an_application_called_in_the_same_process_has_a_span_of_its_own(spans: Spans) -> None:
    mesh = meshed(spans)
    inner = server.MeshMiddleware(app_of(), mesh=mesh)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await run(inner, scope_of((b"traceparent", f"00-{TRACE}-{'1' * 16}-01".encode())))
        await app_of()(scope, receive, send)

    await run(server.MeshMiddleware(outer, mesh=mesh), scope_of(THEIRS))
    assert sorted(parent_of(span) for span in spans.of_kind("SERVER")) == [int("1" * 16, 16), int(SPAN, 16)]


# ------------------------------------------------------------------ WSGI


@pytest.mark.parametrize("stream", [False, True])
def test_a_wsgi_request_is_one_server_span(spans: Spans, stream: bool) -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("503 Service Unavailable", [])
        if not stream:
            seen.append(trace.get_current_span())
            return [b"x"]

        def body() -> Any:
            seen.append(trace.get_current_span())
            yield b"x"

        return body()

    environ: dict[str, Any] = {"HTTP_TRACEPARENT": THEIRS[1].decode(), "PATH_INFO": "/items/7", "HTTP_HOST": "shop"}
    setup_testing_defaults(environ)
    result = wsgi.MeshMiddleware(app, mesh=meshed(spans))(environ, lambda *_: None)
    assert list(result) == [b"x"]
    if stream:
        assert spans.ended == []  # the response is not complete
        result.close()  # type: ignore[attr-defined]
    span = spans.only("SERVER")
    assert parent_of(span) == int(SPAN, 16)
    assert span.attributes["http.response.status_code"] == 503
    assert seen[0].get_span_context().span_id == id_of(span)
    assert trace.get_current_span() is trace.INVALID_SPAN


# ------------------------------------------------------------------ the event


async def test_observers_hear_of_requests_without_any_tracing() -> None:
    mesh, events = Mesh.static({"payments": ["10.0.0.1:80"]}), []
    mesh.on_event(events.append)
    await run(server.MeshMiddleware(app_of(201), mesh=mesh), scope_of())
    (event,) = events
    assert isinstance(event, RequestServed)
    assert (event.method, event.path, event.route, event.status) == ("GET", "/items/7", "/items/{id}", 201)
