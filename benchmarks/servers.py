"""What a server's middleware and a guarded function cost: the time they add to one that does nothing, on one core."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import io
import logging
import time
import timeit
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.worker import run
from meshlib import CircuitBreaker, Mesh
from meshlib.decorators import bulkhead, circuit_breaker, fallback, hedge, rate_limit, retry, timeout
from meshlib.http import server, wsgi

OURS = "meshlib"
PLAIN = "meshlib, a request that brings nothing"
LIMITED = "meshlib, with a limit and a readiness path"
BASE = "Starlette BaseHTTPMiddleware that does nothing"
OTEL = "OpenTelemetry ASGI middleware, no SDK"
OTEL_SDK = "OpenTelemetry ASGI middleware, SDK recording"
TENACITY = "tenacity and pybreaker, stacked"

BROUGHT = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "x-request-id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "x-envoy-expected-rq-timeout-ms": "1500",
}
COMMON = {"host": "shop", "user-agent": "bench", "accept": "*/*", "accept-encoding": "gzip", "connection": "keep-alive"}
LIMITS = {"rate_limits": ["1000000000/second"], "readiness_path": "/ready"}
Call = Callable[[], Any]


# ASGI ---------------------------------------------------------------------------------------------------------------


def scope(headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": "/checkout",
        "raw_path": b"/checkout",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "state": {},
    }


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    """To nobody."""


def asgi(quick: bool) -> dict[str, float]:
    """Microseconds a middleware adds to a request."""
    mesh = Mesh.static({})
    apps: dict[str, tuple[Any, Mapping[str, str]]] = {
        OURS: (server.MeshMiddleware(asgi_app, mesh=mesh), COMMON | BROUGHT),
        PLAIN: (server.MeshMiddleware(asgi_app, mesh=mesh), COMMON),
        LIMITED: (server.MeshMiddleware(asgi_app, mesh=mesh, **LIMITS), COMMON | BROUGHT),  # type: ignore[arg-type]
    }
    apps |= {name: (app, COMMON | BROUGHT) for name, app in asgi_peers().items()}
    return {name: added(app, asgi_app, headers, quick) for name, (app, headers) in apps.items()}


def asgi_peers() -> dict[str, Any]:
    peers: dict[str, Any] = {}
    if importlib.util.find_spec("starlette"):
        from starlette.middleware.base import BaseHTTPMiddleware

        async def pass_on(request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
            return await call_next(request)

        peers[BASE] = BaseHTTPMiddleware(asgi_app, dispatch=pass_on)
    if importlib.util.find_spec("opentelemetry.instrumentation.asgi"):
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        peers[OTEL] = OpenTelemetryMiddleware(asgi_app)
        if importlib.util.find_spec("opentelemetry.sdk"):
            from opentelemetry.sdk.trace import TracerProvider

            peers[OTEL_SDK] = OpenTelemetryMiddleware(asgi_app, tracer_provider=TracerProvider())
    return peers


def added(app: Any, bare: Any, headers: Mapping[str, str], quick: bool) -> float:
    """The difference of the best rounds: whatever else the machine does makes a round longer, never shorter."""
    number, rounds = (300, 5) if quick else (2000, 9)

    async def once(served: Any) -> float:
        begun = time.perf_counter()
        for _ in range(number):
            await served(scope(headers), receive, send)
        return (time.perf_counter() - begun) / number * 1e6

    async def all_rounds() -> float:
        pairs = [(await once(app), await once(bare)) for _ in range(rounds)]
        return min(mine for mine, _ in pairs) - min(theirs for _, theirs in pairs)

    return asyncio.run(all_rounds())


# WSGI ---------------------------------------------------------------------------------------------------------------


def environ(headers: Mapping[str, str]) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/checkout",
        "RAW_URI": "/checkout",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
    }


def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
    return lambda data: None


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"ok"]


def wsgi_stream(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("content-type", "text/plain")])
    yield b"ok"


def served(app: Any, headers: Mapping[str, str]) -> Call:
    def call() -> None:
        result = app(environ(headers), start_response)
        for _ in result:
            continue
        if hasattr(result, "close"):
            result.close()

    return call


def wsgi_rows(quick: bool) -> dict[str, float]:
    mesh = Mesh.static({})
    ours, stream = wsgi.MeshMiddleware(wsgi_app, mesh=mesh), wsgi.MeshMiddleware(wsgi_stream, mesh=mesh)
    bare, bare_stream = served(wsgi_app, COMMON), served(wsgi_stream, COMMON)
    return {
        OURS: best(served(ours, COMMON | BROUGHT), quick) - best(bare, quick),
        PLAIN: best(served(ours, COMMON), quick) - best(bare, quick),
        "meshlib, a streamed response": best(served(stream, COMMON | BROUGHT), quick) - best(bare_stream, quick),
    }


def best(call: Call, quick: bool) -> float:
    """Microseconds of the best round."""
    number, rounds = (300, 5) if quick else (2000, 9)
    return min(timeit.repeat(call, gc.enable, number=number, repeat=rounds)) / number * 1e6


# Django -------------------------------------------------------------------------------------------------------------


def django_rows(quick: bool) -> dict[str, float]:
    """What each middleware adds to Django's own way of a request."""
    if not importlib.util.find_spec("django"):
        return {}
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse
    from django.test import override_settings
    from django.urls import path

    import benchmarks.servers as here

    here.urlpatterns = [path("checkout", lambda request: HttpResponse("ok"))]  # type: ignore[attr-defined]
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="benchmarks.servers",
        SECRET_KEY="bench",  # noqa: S106  of nothing
        MIDDLEWARE=[],
        MESHLIB={"MESH": mesh},
    )
    django.setup()

    def cost(*middleware: str) -> float:
        with override_settings(MIDDLEWARE=list(middleware)):
            return best(served(WSGIHandler(), COMMON | BROUGHT), quick)

    nothing = cost()
    return {
        OURS: cost("meshlib.integrations.django.MeshMiddleware") - nothing,
        "Django's CommonMiddleware": cost("django.middleware.common.CommonMiddleware") - nothing,
        "Django's SecurityMiddleware": cost("django.middleware.security.SecurityMiddleware") - nothing,
        "a request without middleware, in all": nothing,
    }


def mesh() -> Mesh:
    return Mesh.static({"payments": []}, retries=2, breakers={"payments": CircuitBreaker()})


STACKS: dict[str, tuple[Callable[..., Any], ...]] = {
    "meshlib retry, circuit_breaker": (retry(3), circuit_breaker()),
    "all seven of meshlib's": (
        *(fallback(value=None), retry(3), timeout(5.0), hedge(1.0, most=1)),
        *(circuit_breaker(), rate_limit("1000000000/second"), bulkhead(10)),
    ),
}

# Functions ----------------------------------------------------------------------------------------------------------


def function_rows(quick: bool) -> dict[str, float]:
    """What a guard adds to a function that does nothing; its cluster has a breaker, its route retries and a timeout."""
    guard = mesh().guard("payments")

    @guard
    def blocking() -> None:
        """Do nothing."""

    @guard
    async def awaited() -> None:
        """Do nothing."""

    async def bare() -> None:
        """Do nothing."""

    rows = {"meshlib guard, sync": best(blocking, quick), "meshlib guard, async": awaits(awaited, bare, quick)}
    for name, decorators in STACKS.items():
        rows[f"{name}, sync"] = best(stacked_on(lambda: None, decorators), quick)
        rows[f"{name}, async"] = awaits(stacked_on(bare, decorators), bare, quick)
    if importlib.util.find_spec("tenacity") and importlib.util.find_spec("pybreaker"):
        import pybreaker
        import tenacity

        breaker = pybreaker.CircuitBreaker()
        stacked = tenacity.retry(stop=tenacity.stop_after_attempt(3))(breaker(lambda: None))
        rows[f"{TENACITY}, sync"] = best(stacked, quick)
    return rows


def stacked_on(function: Callable[..., Any], decorators: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """The function under them, the first one outermost."""
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def awaits(function: Callable[[], Awaitable[Any]], bare: Callable[[], Awaitable[Any]], quick: bool) -> float:
    number, rounds = (300, 5) if quick else (2000, 9)

    async def once(called: Callable[[], Awaitable[Any]]) -> float:
        begun = time.perf_counter()
        for _ in range(number):
            await called()
        return (time.perf_counter() - begun) / number * 1e6

    async def all_rounds() -> float:
        pairs = [(await once(function), await once(bare)) for _ in range(rounds)]
        return min(mine for mine, _ in pairs) - min(theirs for _, theirs in pairs)

    return asyncio.run(all_rounds())


def measure(options: Mapping[str, Any]) -> dict[str, Any]:
    logging.getLogger("meshlib").setLevel(logging.ERROR)
    quick = options["quick"]
    return {
        "asgi": asgi(quick),
        "wsgi": wsgi_rows(quick),
        "django": django_rows(quick),
        "functions": function_rows(quick),
    }


if __name__ == "__main__":
    run(measure)
