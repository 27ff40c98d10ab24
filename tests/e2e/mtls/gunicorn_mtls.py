"""What test_mtls_gunicorn serves: an application, and a worker class with mutual TLS, as a user would write them."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker

from meshlib import Mesh
from meshlib.http.server import MeshMiddleware
from meshlib.identity import Identity, ServerTls
from meshlib.integrations.uvicorn import MeshHttpToolsProtocol, ssl_context_factory

IDENTITY = Identity.from_folder(os.environ["CERTIFICATES"], refresh_interval=0.01)


class Worker(UvicornWorker):  # type: ignore[misc]
    """uvicorn under gunicorn, with the caller known."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "http": MeshHttpToolsProtocol,
        "ssl_context_factory": ssl_context_factory(ServerTls(IDENTITY)),
    }


async def introduce(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    pair, bundle = IDENTITY.current.pair, IDENTITY.current.bundle
    assert pair is not None
    assert bundle is not None
    body = f"{os.getpid()} {pair.leaf.serial} {len(bundle)} {scope['state']['mesh'].peer.spiffe_id}".encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = MeshMiddleware(introduce, mesh=Mesh.static({}))
