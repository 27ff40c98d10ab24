"""The process's one mesh, made from its environment when something first asks for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from meshlib.zero_code.environment import is_launched, settings
from meshlib.zero_code.imports import when_imported

if TYPE_CHECKING:
    from meshlib.mesh import Mesh
    from meshlib.process import ProcessMesh

_made: dict[str, ProcessMesh] = {}
_installed: list[bool] = []


def process_mesh() -> Mesh:
    """The mesh every patched client and server of this process shares. Nothing of it starts before the first call, and
    a forked child goes on with it as every mesh does.
    """
    known = _made.get("process")
    if known is None:
        from meshlib.process import ProcessMesh

        known = _made.setdefault("process", ProcessMesh(lambda: settings(os.environ)))
    return known.mesh


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
