"""Applications that know nothing of the mesh are served by it: uvicorn, gunicorn's workers, and their calls on."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.zero_code.conftest import MESHLIB, environment
from parts.fast_backend import FastBackend
from parts.process import Process

ASGI = """
import httpx

async def app(scope, receive, send):
    assert scope["type"] == "http"
    async with httpx.AsyncClient() as client:
        answer = await client.get("http://payments/charge")
    await send({"type": "http.response.start", "status": answer.status_code, "headers": []})
    await send({"type": "http.response.body", "body": answer.content})
"""
WSGI = """
import httpx

def app(environ, start_response):
    answer = httpx.get("http://payments/charge")
    start_response("200 OK", [("content-type", "application/json")])
    return [answer.content]
"""
MESHED = """
import httpx
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from meshlib.integrations.starlette import MeshMiddleware
from meshlib.zero_code.process import process_mesh

async def charge(request):
    async with httpx.AsyncClient() as client:
        return Response((await client.get("http://payments/charge")).content)

app = Starlette(routes=[Route("/", charge)])
app.add_middleware(MeshMiddleware, mesh=process_mesh(), rate_limits=["2/minute"])
"""
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(frozen=True)
class Served:
    """An application under `meshlib run`."""

    url: str
    process: Process

    def get(self, path: str = "/", **options: Any) -> httpx.Response:
        with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:
            return client.get(self.url + path, **options)


@pytest.fixture
def serve(tmp_path: Path, conf: Path, servers: Any, free_port: Callable[[], int]) -> Callable[..., Served]:
    """`serve(ASGI, "uvicorn", "application:app", "--port", "{port}")`."""

    def start(application: str, *command: str, **more: str) -> Served:
        (tmp_path / "application.py").write_text(application)
        port = free_port()
        arguments = [part.format(port=port) for part in command]
        argv = [*MESHLIB, "run", "--config", str(conf), "--", *arguments]
        env = environment(**more) | {"PYTHONPATH": f"{environment()['PYTHONPATH']}:{tmp_path}"}
        process = servers.keep(Process(argv, tmp_path / "server.log", env))
        process.wait_line("running on|Listening at")
        return Served(f"http://127.0.0.1:{port}", process)

    return start


UVICORN = ("uvicorn", "application:app", "--port", "{port}")
GUNICORN = ("gunicorn", "application:app", "--bind", "127.0.0.1:{port}", "--worker-class")


@pytest.mark.parametrize(
    ("application", "command"),
    [
        pytest.param(ASGI, UVICORN, id="uvicorn"),
        pytest.param(ASGI, (*UVICORN, "--workers", "2"), id="uvicorn workers"),
        pytest.param(WSGI, (*GUNICORN, "sync"), id="gunicorn sync"),
        pytest.param(WSGI, (*GUNICORN, "gthread", "--preload"), id="gunicorn gthread preload"),
        pytest.param(ASGI, (*GUNICORN, "uvicorn_worker.UvicornWorker"), id="gunicorn uvicorn"),
        pytest.param(ASGI, (*GUNICORN, "uvicorn_worker.UvicornWorker", "--preload"), id="gunicorn uvicorn preload"),
    ],
)
@pytest.mark.needs("gunicorn")
def test_trace_and_request_id_go_through_the_application(
    serve: Callable[..., Served], payments: FastBackend, application: str, command: tuple[str, ...]
) -> None:
    answer = serve(application, *command).get(headers={"traceparent": TRACE, "x-request-id": "r-1"})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == "r-1"
    sent = dict(json.loads(answer.content)["headers"])
    assert sent["x-request-id"] == "r-1"
    assert sent["traceparent"].split("-")[1] == TRACE.split("-")[1]
    assert sent["host"] == "payments"


def test_settings_of_the_environment_reach_the_server(serve: Callable[..., Served], payments: FastBackend) -> None:
    served = serve(ASGI, *UVICORN, MESHLIB_RATE_LIMITS="2/hour", MESHLIB_READINESS_PATH="/ready")
    assert served.get("/ready").text == "ready"
    assert [served.get().status_code for _ in range(3)] == [200, 200, 429]
    assert payments.count == 2


def test_an_application_with_the_middleware_has_it_once(serve: Callable[..., Served], payments: FastBackend) -> None:
    """Else the environment's limit would count beside its own."""
    served = serve(MESHED, *UVICORN, MESHLIB_RATE_LIMITS="1/hour")
    assert [served.get().status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("worker", ["sync", "gthread"])
@pytest.mark.needs("gunicorn")
def test_workers_of_gunicorn_drain(serve: Callable[..., Served], payments: FastBackend, worker: str) -> None:
    """Those of threads as well, which have no request in the main thread to install it with."""
    options = {"MESHLIB_DRAIN_SECONDS": "4", "MESHLIB_READINESS_PATH": "/ready"}
    served = serve(WSGI, *GUNICORN, worker, **options)
    assert served.get("/ready").status_code == 200
    served.process.terminate()
    until = time.monotonic() + 3
    while (answer := served.get("/ready")).status_code == 200 and time.monotonic() < until:
        time.sleep(0.02)
    assert (answer.status_code, answer.text) == (503, "draining")
    assert served.get().status_code == 200


def test_sigterm_ends_the_server_as_without_the_mesh(serve: Callable[..., Served], payments: FastBackend) -> None:
    process = serve(ASGI, *UVICORN).process
    process.terminate()
    assert process.stop() in (0, -signal.SIGTERM)
    assert "Traceback" not in process.log()
