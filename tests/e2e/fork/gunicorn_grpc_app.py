"""What gunicorn's workers serve when their backend is a gRPC service: each request makes a meshed call.

MESH_TARGET is a control plane's address, or `consul:` and an agent's; STUBS the folder of the generated stubs. MASTER
says what importing this module does, which with `--preload` happens in the master: `imported` nothing more, `called`
makes a blocking call.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from meshlib import Mesh
from parts.grpc_stubs import Stubs

stubs = Stubs(Path(os.environ["STUBS"]))
target = os.environ["MESH_TARGET"]
make = Mesh.from_consul if target.startswith("consul:") else Mesh.from_xds
mesh = make(target.removeprefix("consul:"), declared=["payments"], unknown_hosts="reject")
echo = stubs.echo(mesh.grpc.channel("payments"))
aio_echo = stubs.echo(mesh.grpc.aio_channel("payments"))


def answer(name: str) -> dict[str, Any]:
    return {"pid": os.getpid(), "backend": name}


async def index(request: Request) -> JSONResponse:
    return JSONResponse(answer((await aio_echo.Unary(stubs.ask(), timeout=10)).backend))


asgi = Starlette(routes=[Route("/", index)])


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = json.dumps(answer(echo.Unary(stubs.ask(), timeout=10).backend)).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


if os.environ["MASTER"] == "called":
    echo.Unary(stubs.ask(), timeout=10)
