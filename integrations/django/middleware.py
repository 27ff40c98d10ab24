"""The middleware: the server's end of the mesh inside Django, for WSGI and ASGI alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from meshlib.context import CallContext, serving
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
        answer, context = self._admitted(request)
        if answer is None:
            with serving(context):
                answer = self._get_response(request)
        return self._marked(answer, context)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        answer, context = self._admitted(request)
        if answer is None:
            with serving(context):
                answer = await self._get_response(request)
        response = self._marked(answer, context)
        if self._inbound.drain.draining:
            response.headers["Connection"] = "close"  # under WSGI the connection is the server's
        return response

    def _admitted(self, request: HttpRequest) -> tuple[Any, CallContext]:
        """The answer if the request is not to be served (None: it is), and its context."""
        scope: Any = getattr(request, "scope", None)
        reply, context = self._inbound.readiness(request.path_info), CallContext()
        if reply is None:
            head = wsgi.request_head(request.META) if scope is None else server.request_head(scope)
            admission = self._inbound.admit(head)
            reply, context = admission.reply, admission.context
            request.mesh = context  # type: ignore[attr-defined]  # ours, as request.user is another's
        if reply is None:
            return None, context
        response = HttpResponse(reply.body, status=reply.status, content_type="text/plain; charset=utf-8")
        for name, value in reply.headers:
            response.headers[name.decode("latin-1")] = value.decode("latin-1")
        return response, context

    def _marked(self, response: Any, context: CallContext) -> HttpResponseBase:
        """The response with the request id, and a streamed body in the request's context."""
        marked: HttpResponseBase = response
        if context.request_id:
            marked.headers.setdefault(REQUEST_ID, context.request_id)
        # A file is the server's to send, and calls nothing.
        if response.streaming and getattr(response, "file_to_stream", None) is None:
            body = response.streaming_content
            response.streaming_content = _AsyncBody(body, context) if response.is_async else _Body(body, context)
        return marked


class _Body:
    """A streamed body, each step of which is made in the request's context."""

    def __init__(self, body: Iterator[bytes], context: CallContext) -> None:
        self._body = iter(body)
        self._context = context

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with serving(self._context):
            return next(self._body)


class _AsyncBody:
    """The same for ASGI."""

    def __init__(self, body: AsyncIterator[bytes], context: CallContext) -> None:
        self._body = aiter(body)
        self._context = context

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with serving(self._context):
            return await anext(self._body)
