"""Faults injected into requests that are served, by uvicorn (ASGI) and by a WSGI server, over real connections."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import wsgiref.simple_server
from collections.abc import Callable, Iterator
from socketserver import ThreadingMixIn
from typing import Any, ClassVar

import httpx
import pytest
import uvicorn

from meshlib import Fault, Mesh
from meshlib.engine.events import FaultInjected, RequestServed
from meshlib.flags import ResponseFlag
from meshlib.http import server, wsgi

BODY = b"x" * 3000


class Served:
    """An application behind the middleware; `seen` are the paths it was asked for."""

    def __init__(self, kind: str, *faults: Any, **options: Any) -> None:
        self.mesh = Mesh.static({"up": ["127.0.0.1:1"]}, seed=1)
        self.seen: list[str] = []
        self.events: list[Any] = []
        self.mesh.on_event(self.events.append)
        start = self._asgi if kind == "asgi" else self._wsgi
        self._stop = start({"mesh": self.mesh, "faults": faults, **options})

    def _asgi(self, options: dict[str, Any]) -> Callable[[], None]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                return
            self.seen.append(scope["path"])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": BODY[:1000], "more_body": True})
            await send({"type": "http.response.body", "body": BODY[1000:]})

        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        running = uvicorn.Server(
            uvicorn.Config(server.MeshMiddleware(app, **options), log_level="error", lifespan="off")
        )
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()

        def stop() -> None:
            running.should_exit = True
            thread.join(10)

        return stop

    def _wsgi(self, options: dict[str, Any]) -> Callable[[], None]:
        def app(environ: Any, start_response: Any) -> Any:
            self.seen.append(environ["PATH_INFO"])
            start_response("200 OK", [])
            return [BODY[:1000], BODY[1000:]]

        running = wsgiref.simple_server.make_server(
            "127.0.0.1", 0, wsgi.MeshMiddleware(app, **options), _Threads, _Quiet
        )
        self.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()

        def stop() -> None:
            running.shutdown()
            thread.join(10)
            running.server_close()

        return stop

    def get(self, path: str = "/", **headers: str) -> tuple[httpx.Response, float]:
        began = time.monotonic()
        response = httpx.get(self.url + path, headers=headers)
        return response, time.monotonic() - began

    def stats(self) -> dict[str, int]:
        return {name: value for name, value in self.mesh.stats().items() if name.startswith("fault.") and value}

    def idle(self) -> bool:
        """Whether no fault is active, soon: a server has a word to say after the caller has heard all."""
        until = time.monotonic() + 2.0
        while self.mesh.faults.active and time.monotonic() < until:
            time.sleep(0.01)
        return not self.mesh.faults.active

    def close(self) -> None:
        self._stop()
        self.mesh.close()


class _Threads(ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads: ClassVar[bool] = True


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(params=["asgi", "wsgi"])
def served(request: pytest.FixtureRequest) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(*faults: Any, **options: Any) -> Served:
        made.append(Served(request.param, *faults, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_an_abort_before_the_application(served: Callable[..., Served]) -> None:
    here = served(Fault(abort=418, path="/charge"))
    response, _ = here.get("/charge")
    assert (response.status_code, response.text) == (418, "fault filter abort")
    assert response.headers.get_list("content-type") == ["text/plain; charset=utf-8"]
    assert (here.get("/other")[0].status_code, here.seen) == (200, ["/other"])
    assert here.stats() == {"fault.aborts_injected": 1}
    assert [(event.kind, event.name) for event in here.events if isinstance(event, FaultInjected)] == [
        ("abort", "requests served")
    ]
    flags = [event.flag for event in here.events if isinstance(event, RequestServed)]
    assert flags[0] is ResponseFlag.FI


def test_a_delay_before_the_application(served: Callable[..., Served]) -> None:
    here = served(Fault(delay=0.3))
    response, took = here.get()
    assert (response.status_code, response.content) == (200, BODY)
    assert 0.29 < took < 1.0
    assert here.stats() == {"fault.delays_injected": 1}


def test_a_slow_response(served: Callable[..., Served]) -> None:
    here = served(Fault(limit_kbps=10))
    response, took = here.get()
    assert response.content == BODY
    assert 0.2 < took < 0.8
    assert here.idle()


def test_what_a_caller_asks_for(served: Callable[..., Served]) -> None:
    here = served(Fault(by_header=True))
    assert here.get()[0].status_code == 200
    assert here.get(**{"x-envoy-fault-abort-request": "444"})[0].status_code == 444
    assert here.get(**{"x-envoy-fault-delay-request": "200"})[1] > 0.19
    assert here.get(**{"x-envoy-fault-throughput-response": "10"})[1] > 0.2


def test_too_many_at_once(served: Callable[..., Served]) -> None:
    here = served(Fault(delay=0.5, max_active=2))

    async def all_at_once() -> list[float]:
        async with httpx.AsyncClient() as client:

            async def one() -> float:
                began = time.monotonic()
                await client.get(here.url)
                return time.monotonic() - began

            return await asyncio.gather(*(one() for _ in range(6)))

    took = asyncio.run(all_at_once())
    assert sum(seconds > 0.49 for seconds in took) == 2
    assert here.stats() == {"fault.delays_injected": 2, "fault.faults_overflow": 4}


def test_a_caller_that_leaves_a_slow_response(served: Callable[..., Served]) -> None:
    here = served(Fault(limit_kbps=1))
    with httpx.stream("GET", here.url) as response:
        next(response.iter_raw())
        assert len(here.mesh.faults.active) == 1
    here.mesh.faults.enabled = False
    assert here.get()[0].status_code == 200


def test_the_switch(served: Callable[..., Served]) -> None:
    here = served(Fault(abort=503))
    here.mesh.faults.enabled = False
    assert here.get()[0].status_code == 200
    here.mesh.faults.enabled = True
    assert here.get()[0].status_code == 503


def test_faults_come_before_limits(served: Callable[..., Served]) -> None:
    here = served(Fault(abort=503, headers={"x-drill": "1"}), rate_limits=["1/hour"])
    assert [here.get(**{"x-drill": "1"})[0].status_code for _ in range(3)] == [503] * 3
    assert [here.get()[0].status_code for _ in range(2)] == [200, 429]
