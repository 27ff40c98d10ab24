"""The WSGI middleware as a value: environ in, response out; under the validator of the standard library."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from meshlib import Mesh
from meshlib.context import NO_CONTEXT, CallContext, current
from meshlib.engine.events import Event, RateLimited, RequestServed
from meshlib.http.drain import Drain
from meshlib.http.wsgi import MeshMiddleware

OK = "200 OK"
TEXT = [("content-type", "text/plain")]


@pytest.fixture
def mesh() -> Mesh:
    return Mesh.static({})


def environ_of(path: str = "/", **changes: Any) -> dict[str, Any]:
    environ: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", **changes}
    setup_testing_defaults(environ)
    return environ


class Server:
    """Calls an application as a server does: iterates what it gets, and closes it."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.written: list[bytes] = []

    def ask(self, *, read: bool = True, **environ: Any) -> Server:
        given = environ_of(**environ)
        self.result = self.app(given, self._start)
        try:
            self.body = b"".join(self.result) if read else b""
        finally:
            if hasattr(self.result, "close"):
                self.result.close()
        return self

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        self.status, self.headers, self.exc_info = status, headers, exc_info
        return self.written.append

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


def app_200(environ: Any, start_response: Any) -> list[bytes]:
    start_response(OK, TEXT)
    return [current.get().request_id.encode()]


def test_the_middleware_is_valid_wsgi_on_both_sides(mesh: Mesh) -> None:
    server = Server(validator(MeshMiddleware(validator(app_200), mesh=mesh)))
    server.ask(HTTP_X_REQUEST_ID="mine")
    assert (server.status, server.body, server.header("x-request-id")) == (OK, b"mine", "mine")


def test_the_application_runs_in_the_requests_context_and_nobody_else_does(mesh: Mesh) -> None:
    seen: list[CallContext] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        seen.extend((current.get(), environ["meshlib.context"]))
        start_response(OK, [])
        return []

    Server(MeshMiddleware(app, mesh=mesh)).ask(HTTP_GRPC_TIMEOUT="5S", HTTP_TRACEPARENT="bad", HTTP_X_REQUEST_ID="a")
    inside, given = seen
    assert inside is given
    assert inside.request_id == "a"
    assert inside.deadline is not None
    assert current.get() is NO_CONTEXT


class Streaming:
    """A response that looks at its context while it is iterated and closed, and resets what it set when called."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.closed = 0

    def __call__(self, environ: Any, start_response: Any) -> Streaming:
        self._token = current.set(CallContext(None, "its own", ()))
        start_response(OK, TEXT)
        return self

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(2):
            self.seen.append(current.get().request_id)
            yield b"x"

    def close(self) -> None:
        current.reset(self._token)
        self.seen.append(current.get().request_id)
        self.closed += 1


@pytest.mark.parametrize("read", [True, False])
def test_a_streamed_body_is_iterated_and_closed_in_the_context_of_its_call(mesh: Mesh, read: bool) -> None:
    app = Streaming()
    server = Server(MeshMiddleware(app, mesh=mesh)).ask(read=read, HTTP_X_REQUEST_ID="mine")
    assert app.seen == (["its own"] * 2 if read else []) + ["mine"]
    server.result.close()
    assert app.closed == 1, "the application is closed once, whatever the server does"
    assert current.get() is NO_CONTEXT


def test_bodies_iterated_in_turns_keep_their_contexts(mesh: Mesh) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response(OK, TEXT)
        for _ in range(3):
            yield current.get().request_id.encode()

    middleware = MeshMiddleware(app, mesh=mesh)
    bodies = [middleware(environ_of(HTTP_X_REQUEST_ID=name), lambda *_: None) for name in ("a", "b")]
    assert list(zip(*bodies, strict=True)) == [(b"a", b"b")] * 3
    assert current.get() is NO_CONTEXT


def test_an_application_that_fails_leaves_no_context_behind(mesh: Mesh) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        Server(MeshMiddleware(app, mesh=mesh)).ask()
    assert current.get() is NO_CONTEXT


def test_write_and_exc_info_pass_through(mesh: Mesh) -> None:
    error = (RuntimeError, RuntimeError("no"), None)

    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response(OK, TEXT)
        write(b"old style")
        start_response("500 No", [("X-Request-Id", "its own")], error)
        return []

    server = Server(MeshMiddleware(app, mesh=mesh)).ask(HTTP_X_REQUEST_ID="mine")
    assert server.written == [b"old style"]
    assert (server.status, server.exc_info, server.headers) == ("500 No", error, [("X-Request-Id", "its own")])


def test_a_file_stays_a_file_of_the_servers_and_a_list_a_list(mesh: Mesh) -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(OK, TEXT)
        return environ["wsgi.file_wrapper"](io.BytesIO(b"content"))

    middleware = MeshMiddleware(app, mesh=mesh)
    sent = middleware(environ_of(**{"wsgi.file_wrapper": FileWrapper}), lambda *_: None)
    assert isinstance(sent, FileWrapper)
    by_function = middleware(environ_of(**{"wsgi.file_wrapper": iter}), lambda *_: None)
    assert b"".join(by_function) == b"content"
    assert MeshMiddleware(app_200, mesh=mesh)(environ_of(HTTP_X_REQUEST_ID="a"), lambda *_: None) == [b"a"]


def test_over_the_limit_and_after_the_deadline_the_application_is_not_called(mesh: Mesh) -> None:
    events: list[Event] = []
    mesh.on_event(events.append)
    server = Server(validator(MeshMiddleware(app_200, mesh=mesh, rate_limits=["1/hour"])))
    dead = {"HTTP_X_ENVOY_EXPECTED_RQ_TIMEOUT_MS": "0"}
    statuses = [server.ask(path="/charge", **given).status for given in (dead, dead, {}, {})]
    assert statuses == ["504 Gateway Timeout"] * 2 + [OK, "429 Too Many Requests"]
    assert server.header("x-request-id")
    (event,) = [event for event in events if isinstance(event, RateLimited)]
    assert event.path == "/charge"


@pytest.mark.parametrize("begun, status", [(True, 200), (False, 500)])
def test_a_body_that_breaks_is_told_with_the_status_its_caller_saw(mesh: Mesh, begun: bool, status: int) -> None:
    events: list[Event] = []
    mesh.on_event(events.append)

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        if begun:
            start_response(OK, TEXT)
            yield b"a"
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        Server(MeshMiddleware(app, mesh=mesh)).ask()
    assert [event.status for event in events if isinstance(event, RequestServed)] == [status]


def test_a_status_without_a_name_is_answered(mesh: Mesh) -> None:
    from dataclasses import replace

    from meshlib import local_limit

    strange = replace(local_limit("1/hour"), status=499)
    server = Server(validator(MeshMiddleware(app_200, mesh=mesh, rate_limits=[strange])))
    assert [server.ask().status for _ in range(2)] == [OK, "499 Refused"]


def test_readiness_is_answered_here(mesh: Mesh) -> None:
    drain = Drain(5.0)
    server = Server(validator(MeshMiddleware(app_200, mesh=mesh, drain=drain, readiness_path="/ready")))
    assert (server.ask(path="/ready").status, server.body) == (OK, b"ready")
    drain.begin()
    assert (server.ask(path="/ready").status, server.body) == ("503 Service Unavailable", b"draining")
    assert server.ask(path="/").status == OK
    assert server.header("connection") is None, "the connection is the server's"
