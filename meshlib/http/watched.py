"""Serving an ASGI request that somebody watches: what its status was, and by which route the application served it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from types import FunctionType, MethodType
from typing import Any

from meshlib.engine.watch import Watch

_MOST_LAYERS = 50

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]


async def serve_watched(
    watch: Watch,
    app: Callable[..., Awaitable[None]],
    scope: Scope,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Serve one request. One that ends in an exception before it has a status gets the server's 500."""
    status: int | None = None
    whole = False

    async def send_seen(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        await send(message)

    watch.enter()
    try:
        await app(scope, receive, send_seen)
        whole = True
    except Exception:
        whole, status = status is None, status or 500
        raise
    finally:
        watch.leave()
        watch.ended(time.monotonic(), status, route=route_of(scope), whole=whole)


def route_of(scope: Scope) -> str:
    """The template of the route that served the request, as Starlette and FastAPI tell it; empty where none is told.

    Below a mounted application it begins with where that is mounted, unless values stand in that: a template has none.
    """
    path = getattr(scope.get("route"), "path", "")
    if not isinstance(path, str) or not path:
        return ""
    root = scope.get("root_path", "")
    mounted = root.removeprefix(scope.get("app_root_path", root))
    values = {str(value) for value in scope.get("path_params", {}).values()}
    return path if values & set(mounted.split("/")) else mounted + path


def makes_server_spans(app: object) -> bool:
    """Whether OpenTelemetry's own instrumentation is somewhere inside an application: in the applications that wrap
    each other as `.app` (Starlette's and Flask's know that they were instrumented), or around a Flask's `wsgi_app`,
    which is a method of the application or, once instrumented, a function of the instrumentation's.
    """
    for _ in range(_MOST_LAYERS):
        if app is None:
            return False
        if getattr(app, "_is_instrumented_by_opentelemetry", False) is True:
            return True
        named = app if isinstance(app, FunctionType) else type(app)
        if (named.__module__ or "").startswith("opentelemetry.instrumentation."):
            return True
        app = app.__self__ if isinstance(app, MethodType) else getattr(app, "app", None)
    return False
