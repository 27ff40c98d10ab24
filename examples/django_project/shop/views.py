"""Views that call payments: sync, async, and while a response is streamed."""

from __future__ import annotations

import os
from collections.abc import Iterator

from django.http import HttpRequest, JsonResponse, StreamingHttpResponse

from meshlib import CallError
from meshlib.integrations.django import async_client, client


def checkout(request: HttpRequest) -> JsonResponse:
    try:
        answer = client("payments").get("/charge")
    except CallError as error:
        return JsonResponse({"failed": str(error.flag)}, status=503)
    return JsonResponse({"pid": os.getpid(), "request_id": request.mesh.request_id, "payments": answer.json()})


async def checkout_async(request: HttpRequest) -> JsonResponse:
    try:
        answer = await async_client("payments").get("/charge")
    except CallError as error:
        return JsonResponse({"failed": str(error.flag)}, status=503)
    return JsonResponse({"pid": os.getpid(), "request_id": request.mesh.request_id, "payments": answer.json()})


def receipts(request: HttpRequest) -> StreamingHttpResponse:
    """Each line is a call of its own, made while the response is on its way."""

    def lines() -> Iterator[bytes]:
        for _ in range(3):
            yield client("payments").get("/charge").content + b"\n"

    return StreamingHttpResponse(lines(), content_type="application/x-ndjson")
