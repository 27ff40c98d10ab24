"""Views that say in which context they are served."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any

from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from meshlib.context import current

begun = asyncio.Event()


def told(request: Any) -> dict[str, Any]:
    context = current.get()
    assert request.mesh is context
    return {"id": context.request_id, "deadline": context.deadline is not None, "peer": context.peer}


def sync_view(request: Any) -> JsonResponse:
    return JsonResponse(told(request))


async def async_view(request: Any) -> JsonResponse:
    return JsonResponse(told(request))


async def waits(request: Any) -> HttpResponse:
    begun.set()
    await asyncio.Event().wait()
    return HttpResponse("never")


def fails(request: Any) -> HttpResponse:
    raise RuntimeError("inside")


def own_id(request: Any) -> HttpResponse:
    return HttpResponse("", headers={"X-Request-ID": "its own"})


def stream(request: Any) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        for _ in range(2):
            yield current.get().request_id + "\n"

    return StreamingHttpResponse(lines())


async def async_stream(request: Any) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[str]:
        for _ in range(2):
            yield current.get().request_id + "\n"

    return StreamingHttpResponse(lines())


def file(request: Any) -> FileResponse:
    return FileResponse(io.BytesIO(b"content"), filename="a.txt")


urlpatterns = [
    path("sync", sync_view),
    path("async", async_view),
    path("waits", waits),
    path("fails", fails),
    path("own-id", own_id),
    path("stream", stream),
    path("async-stream", async_stream),
    path("file", file),
]
