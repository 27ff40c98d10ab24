"""What gunicorn's workers serve: each request makes a meshed call and says which worker and which backend it was.

MESH_TARGET is a control plane's address, or `consul:` and an agent's. MASTER says what importing this module does, and
with `--preload` what the master does: `imported` nothing more, `called` starts the mesh and calls, `aio` also leaves a
loop alive in a thread.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from meshlib import Mesh
from meshlib.integrations.starlette import MeshMiddleware

target = os.environ["MESH_TARGET"]
make = Mesh.from_consul if target.startswith("consul:") else Mesh.from_xds
mesh = make(target.removeprefix("consul:"), declared=["payments"], unknown_hosts="reject")
client = mesh.http.client("payments")
async_client = mesh.http.async_client("payments")


def headers() -> dict[str, str]:
    return {"x-pid": str(os.getpid())}


def answer(name: str) -> dict[str, Any]:
    return {"pid": os.getpid(), "parent": os.getppid(), "backend": name}


async def acall() -> str:
    return str((await async_client.get("/", headers=headers())).json()["name"])


def call() -> str:
    return str(client.get("/", headers=headers()).json()["name"])


async def index(request: Request) -> JSONResponse:
    return JSONResponse(answer(await acall()))


asgi = Starlette(
    routes=[Route("/", index)],
    middleware=[Middleware(MeshMiddleware, mesh=mesh, readiness_path="/ready", drain_seconds=0.5)],
)


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = json.dumps(answer(call())).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


if os.environ["MASTER"] in ("called", "aio"):
    call()
if os.environ["MASTER"] == "aio":
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(acall(), loop).result(15)
