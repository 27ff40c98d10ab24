"""The middleware: the server's end of the mesh inside Django, for WSGI and ASGI alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from meshlib.context import serving
from meshlib.http import server, wsgi
from meshlib.http.inbound import REQUEST_ID

from .process import current_process  # noqa: TID252  see __init__


class MeshMiddleware:
    """First in `MIDDLEWARE`. For each request: trace context, request id and deadline are taken in, are on
    `request.mesh` (`request_id`, `deadline`, `peer`), and go on with every meshed call made while it is served, also
    while its response is streamed; a request whose deadline has passed is answered 504, one over a limit 429; the
    readiness path is answered; the response carries the request id.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._inbound = current_process().inbound
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """The response, or what is awaited for it."""
        if self._is_async:
            return self._acall(request)
        ready = self._ready(request)
        if ready is not None:
            return ready
        admission = self._admitted(request)
        if admission.pause is not None:
            self._inbound.settle(admission)
        if admission.reply is not None:
            return _marked(_response(admission.reply), admission)
        with _answering(admission):
            answer = self._get_response(request)
        return _served(_marked(answer, admission), request, admission)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        ready = self._ready(request)
        if ready is not None:
            return ready
        admission = self._admitted(request)
        if admission.pause is not None:
            await self._inbound.asettle(admission)
        if admission.reply is not None:
            return self._closing(_marked(_response(admission.reply), admission))
        with _answering(admission):
            answer = await self._get_response(request)
        return self._closing(_served(_marked(answer, admission), request, admission))

    def _ready(self, request: HttpRequest) -> HttpResponse | None:
        """The answer to a readiness probe; None for any other request."""
        reply = self._inbound.readiness(request.path_info)
        return None if reply is None else _response(reply)

    def _admitted(self, request: HttpRequest) -> Any:
        """Whether the request is to be served, and its context, which the request gets."""
        scope = getattr(request, "scope", None)
        found = wsgi.admit(self._inbound, request.META) if scope is None else server.admit(self._inbound, scope)
        request.mesh = found.context  # type: ignore[attr-defined]  # ours, as request.user is another's
        return found

    def _closing(self, response: HttpResponseBase) -> HttpResponseBase:
        """Draining, a request to close the connection. (Under WSGI the connection is the server's.)"""
        if self._inbound.drain.draining:
            response.headers["Connection"] = "close"
        return response


def _response(reply: Any) -> HttpResponse:
    """An answer of the mesh's own as Django's."""
    response = HttpResponse(reply.body, status=reply.status, content_type="text/plain; charset=utf-8")
    for name, value in reply.headers:
        response.headers[name.decode("latin-1")] = value.decode("latin-1")
    return response


def _marked(response: Any, admission: Any) -> HttpResponseBase:
    """The response with the request id, unless a view set one."""
    marked: HttpResponseBase = response
    marked.headers.setdefault(REQUEST_ID, admission.context.request_id)
    for name, value in admission.headers:
        marked.headers[name.decode("latin-1")] = value.decode("latin-1")
    return marked


def _served(response: Any, request: HttpRequest, admission: Any) -> HttpResponseBase:
    """The response, which if it is streamed is made in the request's context, and is over when it is closed."""
    served: HttpResponseBase = response
    match = request.resolver_match
    route = f"/{match.route}" if match is not None else ""
    # A file is the server's to send, and calls nothing.
    if response.streaming and getattr(response, "file_to_stream", None) is None:
        kind = _AsyncBody if response.is_async else _Body
        response.streaming_content = kind(response.streaming_content, admission, response.status_code, route)
    elif admission.watch is not None:
        admission.watch.ended(time.monotonic(), response.status_code, route=route)
    return served


@contextlib.contextmanager
def _answering(admission: Any) -> Iterator[None]:
    """The application makes its response. It may not come to one: Django cancels a view whose client has gone."""
    try:
        with _inside(admission):
            yield
    except BaseException as error:
        if admission.watch is not None:
            served = isinstance(error, Exception)
            admission.watch.ended(time.monotonic(), 500 if served else None, whole=served)
        raise


@contextlib.contextmanager
def _inside(admission: Any) -> Iterator[None]:
    """The application runs: in the request's context, and for whoever watches it."""
    watch = admission.watch
    with serving(admission.context):
        if watch is not None:
            watch.enter()
        try:
            yield
        finally:
            if watch is not None:
                watch.leave()


class _Streamed:
    """A streamed body. Django closes it with its response."""

    def __init__(self, body: Any, admission: Any, status: int, route: str) -> None:
        self._body = aiter(body) if isinstance(self, _AsyncBody) else iter(body)
        self._admission = admission
        self._ended = status, route
        self._whole = False

    def close(self) -> None:
        """The response is over, whole or not."""
        watch, self._admission.watch = self._admission.watch, None
        if watch is not None:
            status, route = self._ended
            watch.ended(time.monotonic(), status, route=route, whole=self._whole)


class _Body(_Streamed):
    """Each step of which is made in the request's context."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with _inside(self._admission):
            try:
                return bytes(next(self._body))
            except StopIteration:
                self._whole = True
                raise


class _AsyncBody(_Streamed):
    """The same for ASGI."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _inside(self._admission):
            try:
                return bytes(await anext(self._body))
            except StopAsyncIteration:
                self._whole = True
                raise
