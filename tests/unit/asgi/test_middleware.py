"""MeshMiddleware as a value: scopes and messages in, messages out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.context import NO_CONTEXT, CallContext, current
from meshlib.engine.events import Event, RateLimited
from meshlib.http.drain import Drain
from meshlib.http.server import MeshMiddleware
from meshlib.model.report import ResourceError
from meshlib.sources.static import StaticSource, static_snapshot

Headers = list[tuple[bytes, bytes]]
App = Callable[[Any, Any, Any], Awaitable[None]]
ID = (b"x-request-id", b"mine")


@pytest.fixture
def mesh() -> Mesh:
    return Mesh.static({})


def scope_of(*headers: tuple[bytes, bytes], kind: str = "http", **changes: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": list(headers),
        "http_version": "1.1",
        **changes,
    }


class App200:
    """Answers 200 with its own headers, and keeps the context it was called in."""

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.headers = headers
        self.contexts: list[CallContext] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.contexts.append(current.get())
        await send({"type": "http.response.start", "status": 200, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": b"ok"})


async def run(app: App, scope: dict[str, Any], *incoming: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages sent for a scope."""
    sent: list[dict[str, Any]] = []
    waiting = list(incoming)

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def test_the_application_runs_in_the_requests_context_and_nobody_else_does(mesh: Mesh) -> None:
    app = App200()
    (start, _) = await run(MeshMiddleware(app, mesh=mesh), scope_of(ID, (b"grpc-timeout", b"5S")))
    (context,) = app.contexts
    assert context.request_id == "mine"
    assert context.deadline is not None
    assert ID in start["headers"]
    assert current.get() is NO_CONTEXT


async def test_an_application_that_fails_leaves_no_context_behind(mesh: Mesh) -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("inside")

    for kind in ("http", "websocket"):
        with pytest.raises(RuntimeError, match="inside"):
            await run(MeshMiddleware(fail, mesh=mesh), scope_of(ID, kind=kind))
        assert current.get() is NO_CONTEXT


async def test_the_applications_own_request_id_stays(mesh: Mesh) -> None:
    (start, _) = await run(MeshMiddleware(App200((b"X-Request-Id", b"its own")), mesh=mesh), scope_of(ID))
    assert start["headers"] == [(b"X-Request-Id", b"its own")]


@pytest.mark.parametrize("version, asked", [("1.0", True), ("1.1", True), ("2", False), ("3", False)])
async def test_while_draining_connections_are_asked_to_close(mesh: Mesh, version: str, asked: bool) -> None:
    drain = Drain(5.0)
    middleware = MeshMiddleware(App200(), mesh=mesh, drain=drain, readiness_path="/ready")
    close = (b"connection", b"close")
    (before, _) = await run(middleware, scope_of(http_version=version))
    (ready, _) = await run(middleware, scope_of(path="/ready", http_version=version))
    drain.begin()
    (after, _) = await run(middleware, scope_of(http_version=version))
    (unready, _) = await run(middleware, scope_of(path="/ready", http_version=version))
    assert (ready["status"], unready["status"]) == (200, 503)
    assert [close in message["headers"] for message in (before, ready)] == [False, False]
    assert [close in message["headers"] for message in (after, unready)] == [asked, asked]


async def test_over_the_limit_the_application_is_not_called(mesh: Mesh) -> None:
    events: list[Event] = []
    mesh.on_event(events.append)
    app = App200()
    middleware = MeshMiddleware(app, mesh=mesh, rate_limits=["2/hour"])
    statuses = [(await run(middleware, scope_of(path="/charge")))[0]["status"] for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert len(app.contexts) == 2
    (event,) = [event for event in events if isinstance(event, RateLimited)]
    assert event.path == "/charge"


async def test_a_request_that_is_dead_takes_no_token(mesh: Mesh) -> None:
    middleware = MeshMiddleware(App200(), mesh=mesh, rate_limits=["1/hour"])
    dead = scope_of((b"x-envoy-expected-rq-timeout-ms", b"0"))
    statuses = [(await run(middleware, scope))[0]["status"] for scope in (dead, dead, scope_of(), scope_of())]
    assert statuses == [504, 504, 200, 429]


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "http", "path": "/", "headers": []},
        scope_of(raw_path=None),
        scope_of(path="/é", raw_path=b"/\xff%2f"),
        scope_of((b"\xff", b"\xff"), (b"host", b"\xff"), (b"x-request-id", b"a\r\nset-cookie: b")),
    ],
)
async def test_odd_scopes_are_served(mesh: Mesh, scope: dict[str, Any]) -> None:
    (start, _) = await run(MeshMiddleware(App200(), mesh=mesh), scope)
    assert start["status"] == 200
    assert all(b"\r" not in value for _, value in start["headers"])


async def test_other_scopes_pass(mesh: Mesh) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    scope = {"type": "something.new"}
    await run(MeshMiddleware(app, mesh=mesh), scope)
    assert seen[0][0] is scope


# Lifespan -----------------------------------------------------------------------------------------------------------

STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}


class Source(StaticSource):
    """Says what is asked of it."""

    def __init__(self, story: list[str]) -> None:
        super().__init__(static_snapshot({}))
        self._story = story

    def start(self, sink: Any) -> None:
        self._story.append("mesh starts")
        super().start(sink)

    def close(self) -> None:
        self._story.append("mesh closes")
        super().close()


def lifespan_app(story: list[str], *answers: str) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for answer in answers:
            await receive()
            story.append(answer)
            await send({"type": f"lifespan.{answer}"})

    return app


@pytest.mark.parametrize(
    "answers, story",
    [
        (
            ("startup.complete", "shutdown.complete"),
            ["mesh starts", "startup.complete", "shutdown.complete", "mesh closes"],
        ),
        (
            ("startup.complete", "shutdown.failed"),
            ["mesh starts", "startup.complete", "shutdown.failed", "mesh closes"],
        ),
        (("startup.failed",), ["mesh starts", "startup.failed", "mesh closes"]),
    ],
)
async def test_the_mesh_starts_first_and_closes_last(answers: tuple[str, ...], story: list[str]) -> None:
    told: list[str] = []
    middleware = MeshMiddleware(lifespan_app(told, *answers), mesh=Mesh(Source(told)))
    sent = await run(middleware, {"type": "lifespan"}, STARTUP, SHUTDOWN)
    assert told == story
    assert [message["type"] for message in sent] == [f"lifespan.{answer}" for answer in answers]


async def test_an_application_that_dies_in_its_lifespan_closes_the_mesh() -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await run(MeshMiddleware(app, mesh=Mesh(Source(told))), {"type": "lifespan"}, STARTUP)
    assert told == ["mesh starts", "mesh closes"]


async def test_an_application_without_lifespan_leaves_a_mesh_that_is_running_alone() -> None:
    """Others may use it; the server goes on without lifespan."""
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError(f"{scope['type']} is not known here")

    with Mesh(Source(told)) as mesh:
        with pytest.raises(ValueError, match="lifespan is not known"):
            await run(MeshMiddleware(app, mesh=mesh), {"type": "lifespan"}, STARTUP)
        assert told == ["mesh starts"]


async def test_a_mesh_that_cannot_start_is_a_startup_that_failed() -> None:
    class Broken(Source):
        def start(self, sink: Any) -> None:
            raise ResourceError("clusters", "no use")

    sent: list[dict[str, Any]] = []
    middleware = MeshMiddleware(lifespan_app([], "startup.complete"), mesh=Mesh(Broken([])))

    async def receive() -> dict[str, Any]:
        return STARTUP

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ResourceError):
        await middleware({"type": "lifespan"}, receive, send)
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert "the mesh cannot start: " in message["message"]
    assert "no use" in message["message"]


def test_requests_in_tasks_of_one_loop_keep_their_contexts_apart(mesh: Mesh) -> None:
    seen: dict[str, str] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        seen[scope["path"]] = current.get().request_id

    async def scenario() -> None:
        middleware = MeshMiddleware(app, mesh=mesh)
        scopes = [scope_of((b"x-request-id", b"%d" % index), path=f"/{index}") for index in range(50)]
        await asyncio.gather(*(run(middleware, scope) for scope in scopes))

    asyncio.run(scenario())
    assert seen == {f"/{index}": str(index) for index in range(50)}
