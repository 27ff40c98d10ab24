"""Which applications the servers' patches leave alone: those that are behind the mesh already."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from starlette.applications import Starlette

from meshlib import Mesh
from meshlib.http.server import MeshMiddleware
from meshlib.http.wsgi import MeshMiddleware as WsgiMeshMiddleware
from meshlib.integrations.flask import Meshlib
from meshlib.zero_code.servers import _has_middleware

MESH = Mesh.static({})


def flask(*, meshed: bool) -> Flask:
    app = Flask(__name__)
    if meshed:
        Meshlib(app, mesh=MESH)
    return app


def starlette(*, meshed: bool) -> Starlette:
    app = Starlette()
    if meshed:
        app.add_middleware(MeshMiddleware, mesh=MESH)
    return app


def wsgi(*, meshed: bool) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        return []

    return SimpleNamespace(app=WsgiMeshMiddleware(app, mesh=MESH) if meshed else app)


@pytest.mark.parametrize("make", [flask, starlette, wsgi])
@pytest.mark.parametrize("meshed", [True, False])
def test_a_program_that_has_the_middleware_does_not_get_it_twice(make: Any, meshed: bool) -> None:
    assert _has_middleware(make(meshed=meshed)) is meshed


def test_an_application_that_answers_any_name_is_looked_at_for_a_while_only() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> Proxy | list[Any]:
            return [] if name == "user_middleware" else Proxy()

    assert not _has_middleware(Proxy())
