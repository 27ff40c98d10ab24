"""The Flask extension by Flask's own test client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, request

from meshlib import ConfigurationError, Mesh
from meshlib.context import current
from meshlib.integrations import flask as mesh_flask
from meshlib.integrations.flask import Meshlib


def app_of(settings: dict[str, Any] | None = None, **options: Any) -> Flask:
    app = Flask("shop")
    if settings is not None:
        app.config["MESHLIB"] = settings

    @app.get("/")
    def index() -> dict[str, Any]:
        assert request.environ["meshlib.context"] is current.get()
        return {"id": current.get().request_id, "same": mesh_flask.client("a") is mesh_flask.client("a")}

    @app.get("/stream")
    def stream() -> Response:
        def lines() -> Iterator[str]:
            yield current.get().request_id

        return Response(lines())

    Meshlib(app, **options)
    return app


STATIC = {"STATIC": {"a": ["127.0.0.1:1"]}}


def test_requests_are_served_in_their_context_and_by_one_client() -> None:
    client = app_of(STATIC).test_client()
    response = client.get("/", headers={"x-request-id": "mine"})
    assert (response.json, response.headers["x-request-id"]) == ({"id": "mine", "same": True}, "mine")
    assert client.get("/stream", headers={"x-request-id": "mine"}).data == b"mine"


def test_the_servers_settings_hold() -> None:
    client = app_of({**STATIC, "RATE_LIMITS": ["1/hour"], "READINESS_PATH": "/ready"}).test_client()
    assert [client.get(path).status_code for path in ("/ready", "/", "/", "/ready")] == [200, 200, 429, 200]


def test_the_drain_is_the_applications() -> None:
    app, left = app_of({**STATIC, "READINESS_PATH": "/ready", "DRAIN_SECONDS": 3}), []
    with app.app_context():
        drain = mesh_flask.drain()
        assert (drain.seconds, drain) == (3, mesh_flask.drain())
    drain.on_drain(lambda: left.append("the registry"))
    drain.begin()
    assert (app.test_client().get("/ready").status_code, left) == (503, ["the registry"])


def test_a_mesh_of_the_applications_own_takes_the_place_of_a_source() -> None:
    mesh = Mesh.static({})
    for settings in (None, {**STATIC, "READINESS_PATH": "/ready"}):
        app = app_of(settings, mesh=mesh)
        with app.app_context():
            assert mesh_flask.mesh() is mesh
        assert app.test_client().get("/ready").status_code == (404 if settings is None else 200)


def test_two_applications_have_a_mesh_each() -> None:
    extension, found = Meshlib(), []
    for app in (Flask("one"), Flask("two")):
        app.config["MESHLIB"] = STATIC
        extension.init_app(app)
        with app.app_context():
            found.append((mesh_flask.mesh(), mesh_flask.async_client("a")))
    (one, client_of_one), (two, client_of_two) = found
    assert one is not two
    assert client_of_one is not client_of_two


def test_wrong_settings_are_told_when_the_application_is_made() -> None:
    with pytest.raises(
        ConfigurationError, match=r"RATE_LIMIT: there is no such setting \(did you mean RATE_LIMITS\?\)"
    ):
        app_of({**STATIC, "RATE_LIMIT": []})
    with pytest.raises(ConfigurationError, match="nothing says where configuration comes from"):
        app_of()


def test_an_application_without_a_mesh_says_what_to_do() -> None:
    with Flask("shop").app_context(), pytest.raises(RuntimeError, match=r"call Meshlib\(app\)"):
        mesh_flask.client("a")
