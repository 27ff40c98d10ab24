"""WSGI middleware: the server's end of the mesh, for Flask, Django, and any other WSGI application and server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import Context, copy_context
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from meshlib.context import current
from meshlib.drivers.shedding import HEALTH_PATHS
from meshlib.engine.exchange import REQUEST_ID, Admission
from meshlib.engine.filters import LocalReply
from meshlib.engine.request_limit import RateLimitConfig
from meshlib.engine.watch import Watch
from meshlib.http.cors import replaced_text
from meshlib.http.drain import Drain
from meshlib.http.environ import EnvironHead, marked_environ
from meshlib.http.inbound import PLAIN_TEXT, Inbound
from meshlib.http.slowed import SlowedBody
from meshlib.model.cors import CorsPolicy
from meshlib.model.fault import HttpFault
from meshlib.model.shedding import Shedding
from meshlib.policy.fault import Fault

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

__all__ = ["MeshMiddleware", "admit"]

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
StartResponse = Callable[..., Callable[[bytes], object]]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

ENVIRON_KEY = "meshlib.context"
_STATUS = "meshlib.status"


class MeshMiddleware:
    """`app.wsgi_app = MeshMiddleware(app.wsgi_app, mesh=mesh)`.

    For each request: W3C trace context, request id and deadline are taken in and go on with every meshed call made
    while it is served, also while the response is iterated; a request whose deadline has passed is answered 504, one
    over a local limit with the limit's status; the response carries the request id. The application finds the context
    in `meshlib.context.current` and in `environ["meshlib.context"]`.

    The options are those of `meshlib.http.inbound.Inbound`. The mesh starts with the first call, in the worker. The
    drain is installed with the first request where the main thread serves (gunicorn's sync worker); where threads do,
    by the server's hook (`meshlib.http.drain.install_all`).
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        mesh: Mesh,
        rate_limits: Sequence[RateLimitConfig] = (),
        faults: Sequence[Fault | HttpFault] = (),
        shed: Sequence[Shedding | str] = (),
        health_paths: Sequence[str] = HEALTH_PATHS,
        drain_seconds: float = 0.0,
        drain: Drain | None = None,
        readiness_path: str | None = None,
        cors: CorsPolicy | bool = False,
    ) -> None:
        self.app = app
        self.mesh = mesh
        self.inbound = Inbound(
            mesh,
            rate_limits=rate_limits,
            faults=faults,
            shed=shed,
            health_paths=health_paths,
            drain_seconds=drain_seconds,
            drain=drain,
            readiness_path=readiness_path,
            cors=cors,
        )
        self.inbound.app = app
        self.drain = self.inbound.drain

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        ready = self.inbound.readiness(environ.get("PATH_INFO", ""))
        if ready is not None:
            return _answer(ready, start_response, "")
        admission = admit(self.inbound, environ)
        if admission.pause is not None:
            self.inbound.settle(admission)
        if admission.reply is not None:
            return _answer(admission.reply, start_response, admission.context.request_id)
        environ[ENVIRON_KEY] = admission.context
        if admission.head is not None:
            environ.update(marked_environ(admission.head))
        return self._admitted(admission, environ, start_response)

    def _admitted(self, admission: Admission, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # One context for the call, the iteration and `close`: what the application sets in one it may reset in another.
        context = copy_context()
        watch = admission.watch
        try:
            result = context.run(self._serve, admission, environ, start_response)
        except BaseException as error:
            if watch is not None:
                watch.ended(time.monotonic(), 500, whole=isinstance(error, Exception))
            raise
        slow = admission.response_limit
        if slow is None and (isinstance(result, (list, tuple)) or _is_file(result, environ)):
            if watch is not None:
                watch.ended(time.monotonic(), environ.get(_STATUS))
            return result  # nothing of the application's runs any more; the server may send a file its own way
        body = _Body(result, context, environ, watch)
        return body if slow is None else SlowedBody(body, slow)

    def _serve(self, admission: Admission, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        request_id, watch = admission.context.request_id, admission.watch

        def start(status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], object]:
            if watch is not None:
                environ[_STATUS] = int(status[:3])
            if admission.headers:
                headers = replaced_text(headers, admission.headers)
            marked = _marked(headers, request_id)
            return start_response(status, marked) if exc_info is None else start_response(status, marked, exc_info)

        current.set(admission.context)
        if watch is not None:
            watch.enter()  # and nothing to leave: the context ends with the request
        return self.app(environ, start)


class _Body:
    """The application's iterable, iterated and closed in the request's context."""

    def __init__(self, body: Iterable[bytes], context: Context, environ: Environ, watch: Watch | None) -> None:
        self._body = body
        self._context = context
        self._environ = environ
        self._watch = watch
        self._chunks: Iterator[bytes] | None = None
        self._closed = False
        self._whole = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._chunks is None:
                self._chunks = self._context.run(iter, self._body)
            return self._context.run(next, self._chunks)
        except StopIteration:
            self._whole = True
            raise
        except Exception:
            self._whole = _STATUS not in self._environ
            self._environ.setdefault(_STATUS, 500)  # the server's answer, unless the application has begun one
            raise

    def close(self) -> None:
        """The server is done with the response, whether it has read it or not."""
        if self._closed:
            return
        self._closed = True
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                self._context.run(close)
        finally:
            if self._watch is not None:
                self._watch.ended(time.monotonic(), self._environ.get(_STATUS), whole=self._whole)


def _is_file(result: object, environ: Environ) -> bool:
    """Whether the result is the server's own wrapper of a file, which it knows by its type."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(result, wrapper)


def admit(inbound: Inbound, environ: Environ) -> Admission:
    """Whether the request of an environ is to be served, and in which context: for a middleware of another kind. The
    path is the one on the wire, where the server tells it. Who called is not known: WSGI says nothing of the
    connection, and headers can be anybody's.
    """
    return inbound.admit(EnvironHead(environ), source_ip=environ.get("REMOTE_ADDR", ""))


def _answer(reply: LocalReply, start_response: StartResponse, request_id: str) -> list[bytes]:
    given = [*reply.headers, (b"content-length", b"%d" % len(reply.body)), PLAIN_TEXT]
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in given]
    start_response(_status_line(reply.status), _marked(headers, request_id))
    return [reply.body]


def _marked(headers: Headers, request_id: str) -> Headers:
    """The response's headers with the request id, unless the application set one. Nothing is said of the connection:
    that is the server's, in WSGI.
    """
    marked = list(headers)
    if request_id and not any(name.lower() == REQUEST_ID for name, _ in headers):
        marked.append((REQUEST_ID, request_id))
    return marked


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Refused"
