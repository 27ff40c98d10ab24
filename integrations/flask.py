"""Flask: `Meshlib(app)`, configured by `app.config["MESHLIB"]`, and the application's clients.

app = Flask(__name__)
app.config["MESHLIB"] = {"CONFIG": "mesh/", "READINESS_PATH": "/ready"}
Meshlib(app)

@app.get("/checkout")
def checkout(): return client("payments").get("/charge").json()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flask import Flask, current_app

from meshlib.http.wsgi import MeshMiddleware
from meshlib.process import ProcessMesh
from meshlib.settings import SOURCES

if TYPE_CHECKING:
    import httpx

    from meshlib import Mesh
    from meshlib.http.drain import Drain

__all__ = ["MeshMiddleware", "Meshlib", "async_client", "client", "drain", "mesh"]

_NAME = "meshlib"


class Meshlib:
    """The extension: the WSGI middleware around the application, and one mesh for it.

    `Meshlib(app)`, or `Meshlib()` and later `init_app(app)`. The settings are `meshlib.settings`'; `mesh` takes the
    place of a source among them. Raises ConfigurationError when they are wrong.
    """

    def __init__(self, app: Flask | None = None, *, mesh: Mesh | None = None) -> None:
        self._mesh = mesh
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Take up an application, once its configuration is there."""
        settings = self._settings(app)
        process = ProcessMesh(lambda: settings)
        app.wsgi_app = MeshMiddleware(  # type: ignore[method-assign]  # as Flask's documentation has it
            app.wsgi_app, mesh=process.mesh, **process.server_options
        )
        app.extensions[_NAME] = process

    def _settings(self, app: Flask) -> Mapping[str, Any]:
        given: Mapping[str, Any] = app.config.get("MESHLIB", {})
        if self._mesh is None:
            return given
        return {name: value for name, value in given.items() if name not in SOURCES} | {"MESH": self._mesh}


def mesh() -> Mesh:
    """The current application's mesh; it starts with the first call."""
    return _process().mesh


def client(service: str) -> httpx.Client:
    """The current application's one blocking client for a service."""
    return _process().client(service)


def async_client(service: str) -> httpx.AsyncClient:
    """The current application's one asyncio client for a service, for async views."""
    return _process().async_client(service)


def drain() -> Drain:
    """The current application's drain: `drain().on_drain(leave_the_registry)`."""
    return _process().drain


def _process() -> ProcessMesh:
    process: ProcessMesh | None = current_app.extensions.get(_NAME)
    if process is None:
        raise RuntimeError("this application has no mesh: call Meshlib(app), or init_app(app), when it is made")
    return process
