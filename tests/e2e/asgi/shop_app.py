"""The service under test: a FastAPI or Starlette application that calls a second service through the mesh.

SHOP is a JSON object: `framework`, `target` (the second service's address), and what of the middleware's options there
is (`drain_seconds`, `readiness_path`; `limit` requests a minute); `fails` makes the application's own startup fail,
`broken` the mesh's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.websockets import WebSocket

from meshlib import CallError, Mesh
from meshlib.integrations.fastapi import MeshMiddleware

settings: dict[str, Any] = json.loads(os.environ["SHOP"])
# Without a bootstrap in the environment a mesh over xDS cannot start.
mesh = Mesh.from_xds() if settings.get("broken") else Mesh.static({"stock": [settings["target"]]}, timeout=9.0)
client = mesh.http.client("stock")
async_client = mesh.http.async_client("stock")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def call(request: Request) -> JSONResponse:
    """Wait, then call the second service: `?wait=0.1`."""
    await asyncio.sleep(float(request.query_params.get("wait", "0")))
    try:
        return JSONResponse((await async_client.get("/echo")).json())
    except CallError as error:
        return JSONResponse({"flag": str(error.flag)}, status_code=504)


async def call_from_thread(request: Request) -> JSONResponse:
    response = await run_in_threadpool(client.get, "/echo")
    return JSONResponse(response.json())


async def stream(request: Request) -> StreamingResponse:
    async def lines() -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(0.01)
            yield (await async_client.get("/echo")).content + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def background(request: Request) -> JSONResponse:
    async def later() -> None:
        await asyncio.sleep(0.01)
        await async_client.get("/background")

    return JSONResponse({}, background=BackgroundTask(later))


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    async for _ in websocket.iter_text():
        await websocket.send_text((await async_client.get("/echo")).text)


@contextlib.asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    if settings.get("fails"):
        raise RuntimeError("the application cannot start")
    say("application started")
    yield
    say(f"application stops, calls still work: {(await async_client.get('/bye')).status_code}")


app = (FastAPI if settings["framework"] == "fastapi" else Starlette)(lifespan=lifespan)
for path, endpoint in (
    ("/call", call),
    ("/thread", call_from_thread),
    ("/stream", stream),
    ("/background", background),
):
    app.add_route(path, endpoint, methods=["GET", "POST"])
app.router.add_websocket_route("/socket", socket)
limit = settings.get("limit")
limits = [f"{limit}/minute"] if limit else []
options = {name: settings[name] for name in ("drain_seconds", "readiness_path") if name in settings}
app.add_middleware(MeshMiddleware, mesh=mesh, rate_limits=limits, **options)
