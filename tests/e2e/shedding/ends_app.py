"""An application whose requests end in every way there is, under a bulkhead of two; `/healthz` says what is inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from meshlib import Mesh
from meshlib.http.server import MeshMiddleware
from meshlib.model.shedding import Bulkhead


async def fine(request: Request) -> Response:
    return PlainTextResponse("fine")


async def fails(request: Request) -> Response:
    raise RuntimeError("as asked")


async def stream(request: Request) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        while True:
            yield b"line\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(lines())


async def breaks(request: Request) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        yield b"line\n"
        raise RuntimeError("as asked")

    return StreamingResponse(lines())


async def waits(request: Request) -> Response:
    while not await request.is_disconnected():  # noqa: ASYNC110  Starlette tells it in no other way
        await asyncio.sleep(0.01)
    return PlainTextResponse("for nobody")


async def health(request: Request) -> Response:
    (shedder,) = app.inbound.shed.filters  # type: ignore[union-attr]
    return JSONResponse(shedder.stats())


inner: Any = Starlette()
for endpoint in (fine, fails, stream, breaks, waits):
    inner.add_route(f"/{endpoint.__name__}", endpoint)
inner.add_route("/healthz", health)
app = MeshMiddleware(inner, mesh=Mesh.static({}), shed=[Bulkhead(2)])
