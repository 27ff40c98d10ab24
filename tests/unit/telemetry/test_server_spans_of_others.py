"""Which applications make server spans themselves, so that the mesh makes none: every shape contrib leaves behind."""

from __future__ import annotations

from typing import Any

import flask
import pytest
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from starlette.applications import Starlette

from meshlib.http.watched import makes_server_spans


class Layer:
    """A middleware of somebody's."""

    def __init__(self, app: Any) -> None:
        self.app = app


def rewrapped(inner: Any) -> Any:
    """What contrib's Flask instrumentation puts in the place of `wsgi_app`: a function of its own module."""

    def wrapped_app(environ: Any, start_response: Any) -> Any:
        return inner(environ, start_response)

    wrapped_app.__module__ = "opentelemetry.instrumentation.flask"
    return wrapped_app


def marked(app: Any) -> Any:
    """As contrib's `instrument_app` leaves an application of Starlette, FastAPI or Flask."""
    app._is_instrumented_by_opentelemetry = True
    return app


def plain(environ: Any, start_response: Any) -> Any:
    return []


@pytest.mark.parametrize(
    "app",
    [
        OpenTelemetryMiddleware(plain),
        Layer(Layer(OpenTelemetryMiddleware(plain))),
        marked(Starlette()),
        Layer(marked(Starlette())),
        marked(flask.Flask("shop")),
        marked(flask.Flask("shop")).wsgi_app,
        Layer(marked(flask.Flask("shop")).wsgi_app),
        rewrapped(flask.Flask("shop").wsgi_app),
        Layer(rewrapped(flask.Flask("shop").wsgi_app)),
    ],
    ids=lambda app: type(app).__name__,
)
def test_it_does(app: Any) -> None:
    assert makes_server_spans(app)


def test_it_does_not() -> None:
    unmarked = marked(flask.Flask("shop"))
    unmarked._is_instrumented_by_opentelemetry = False
    for app in (None, plain, Layer(plain), Starlette(), flask.Flask("shop").wsgi_app, unmarked.wsgi_app, Layer(None)):
        assert not makes_server_spans(app)


def test_a_circle_of_layers_has_an_end() -> None:
    layer = Layer(None)
    layer.app = layer
    assert not makes_server_spans(layer)
