"""A service that can do ten things at a time, each of which takes 50 ms: 200 requests a second, as ASGI and as WSGI.

OVERLOAD is a JSON list: what is shed. Whatever comes above that waits inside, without bound; that its caller has gone
it does not notice.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from meshlib import Mesh
from meshlib.http import server, wsgi

WORKERS, SERVICE = 10, 0.05
shed = json.loads(os.environ["OVERLOAD"])
mesh = Mesh.static({})
_tasks = asyncio.Semaphore(WORKERS)
_threads = threading.Semaphore(WORKERS)


async def serve(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for word in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{word}.complete"})
        return
    async with _tasks:
        await asyncio.sleep(SERVICE)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def serve_blocking(environ: Any, start: Callable[..., Any]) -> list[bytes]:
    with _threads:
        time.sleep(SERVICE)
    start("200 OK", [("content-length", "2")])
    return [b"ok"]


asgi_app = server.MeshMiddleware(serve, mesh=mesh, shed=shed)
wsgi_app = wsgi.MeshMiddleware(serve_blocking, mesh=mesh, shed=shed)
