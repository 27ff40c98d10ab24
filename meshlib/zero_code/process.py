"""The process's one mesh, made from its environment when something first asks for it."""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING, Any, Literal

from meshlib.zero_code.environment import is_launched, settings
from meshlib.zero_code.imports import when_imported

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

_made: dict[str, Mesh] = {}
_installed: list[bool] = []


def process_mesh() -> Mesh:
    """The mesh every patched client and server of this process shares. Nothing of it starts before the first call, and
    a forked child goes on with it as every mesh does.
    """
    known = _made.get("mesh")
    if known is not None:
        return known
    from meshlib.settings import mesh_from_settings

    # Two threads may get here at once: the first one's is everybody's. No lock, because a fork could take it along.
    made = mesh_from_settings(settings(os.environ))
    kept = _made.setdefault("mesh", made)
    if kept is made:
        atexit.register(made.close)
    return kept


def behind_mesh(application: Any, kind: Literal["asgi", "wsgi"]) -> Any:
    """The application behind the mesh's middleware."""
    from meshlib.settings import server_options

    options = server_options(settings(os.environ))
    if kind == "asgi":
        from meshlib.http.server import MeshMiddleware

        return MeshMiddleware(application, mesh=process_mesh(), **options)
    from meshlib.http.wsgi import MeshMiddleware as WsgiMeshMiddleware

    return WsgiMeshMiddleware(application, mesh=process_mesh(), **options)


def install() -> None:
    """Wait for the libraries that can be meshed. Called before the program, so it imports none of them. Idempotent."""
    if _installed:
        return
    _installed.append(True)
    when_imported("httpx", _clients)
    when_imported("httpx2", _clients)
    when_imported("grpc", _channels)
    when_imported("uvicorn.config", _uvicorn)
    when_imported("gunicorn.workers.base", _gunicorn)


def install_if_launched() -> None:
    """`install` in a program of `meshlib run`. An entry point of OpenTelemetry: `opentelemetry-instrument` puts its own
    `sitecustomize` before ours when it is the later of the two commands, and runs no other.
    """
    if is_launched(os.environ):
        install()


def _clients(module: Any) -> None:
    from meshlib.zero_code.httpx_clients import mesh_clients

    mesh_clients(module)


def _channels(module: Any) -> None:
    from meshlib.zero_code.grpc_channels import mesh_channels

    mesh_channels(module)


def _uvicorn(module: Any) -> None:
    from meshlib.zero_code.servers import mesh_uvicorn

    mesh_uvicorn(module)


def _gunicorn(module: Any) -> None:
    from meshlib.zero_code.servers import mesh_gunicorn

    mesh_gunicorn(module)
