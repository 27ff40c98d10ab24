"""`shed=` of the servers: what is refused before the application runs, what never is, and who hears of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from meshlib import Mesh
from meshlib.engine.events import LoadShed
from meshlib.http import server, wsgi
from meshlib.model.shedding import AdaptiveConcurrency, Bulkhead, QueueDeadline


class AsgiDoor:
    """An ASGI application that holds every request until told; `ask` one more."""

    def __init__(self, *shed: Any, **options: Any) -> None:
        self.mesh = Mesh.static({"up": ["10.0.0.1:1"]})
        self.begun: list[str] = []
        self.release = asyncio.Event()
        self.app = server.MeshMiddleware(self._serve, mesh=self.mesh, shed=shed, **options)
        self.tasks: list[asyncio.Task[httpx.Response]] = []

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.append(scope["path"])
        await self.release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})

    async def ask(self, path: str = "/", **headers: str) -> asyncio.Task[httpx.Response]:
        async def one() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://me") as client:
                return await client.get(path, headers=headers)

        task = asyncio.create_task(one())
        self.tasks.append(task)
        for _ in range(20):
            await asyncio.sleep(0)
        return task

    async def statuses(self) -> list[int]:
        self.release.set()
        return [response.status_code for response in await asyncio.gather(*self.tasks)]


async def test_asgi_refuses_what_is_over_the_bulkhead_before_the_application_runs() -> None:
    door = AsgiDoor(Bulkhead(2, retry_after=1))
    for _ in range(4):
        await door.ask()
    assert len(door.begun) == 2
    refused = door.tasks[3].result()
    assert (refused.status_code, refused.text) == (503, "bulkhead full")
    assert (refused.headers["x-envoy-overloaded"], refused.headers["retry-after"]) == ("true", "1")
    assert refused.headers["x-request-id"]
    assert await door.statuses() == [200, 200, 503, 503]
    assert (await (await door.ask())).status_code == 200


async def test_health_and_readiness_are_never_shed() -> None:
    door = AsgiDoor("bulkhead 1", readiness_path="/am-i")
    await door.ask()
    for path in ("/healthz", "/health", "/am-i", "/"):
        await door.ask(path)
    assert door.begun == ["/", "/healthz", "/health"]
    assert await door.statuses() == [200, 200, 200, 200, 503]


async def test_the_paths_of_health_can_be_said() -> None:
    door = AsgiDoor(Bulkhead(1), health_paths=["/alive"])
    for path in ("/", "/alive", "/healthz"):
        await door.ask(path)
    assert await door.statuses() == [200, 200, 503]


async def test_a_caller_that_goes_away_frees_its_place() -> None:
    door = AsgiDoor(Bulkhead(1))
    first = await door.ask()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    door.tasks.clear()
    await door.ask()
    assert await door.statuses() == [200]


async def test_asgi_waits_for_its_turn() -> None:
    door = AsgiDoor(Bulkhead(1, max_waiting=2, max_wait=20.0))
    for _ in range(4):
        await door.ask()
    assert (len(door.begun), door.tasks[3].done()) == (1, True)
    door.tasks[1].cancel()  # the first that waits gives up; the second has its turn all the same
    await asyncio.gather(door.tasks.pop(1), return_exceptions=True)
    assert await door.statuses() == [200, 200, 503]
    (shedder,) = door.app.inbound.shed.filters  # type: ignore[union-attr]
    assert shedder.stats() == {"rq_blocked": 1, "rq_active": 0, "rq_pending": 0}


async def test_asgi_waits_no_longer_than_told() -> None:
    door = AsgiDoor(Bulkhead(1, max_waiting=1, max_wait=0.02))
    await door.ask()
    assert (await (await door.ask())).status_code == 503
    assert await door.statuses() == [200, 503]


async def test_a_deadline_ends_the_wait_for_a_turn() -> None:
    door = AsgiDoor(Bulkhead(1, max_waiting=1, max_wait=60.0))
    await door.ask()
    late = await door.ask(**{"x-envoy-expected-rq-timeout-ms": "20"})
    assert (await asyncio.wait_for(late, 20)).status_code == 504
    assert await door.statuses() == [200, 504]
    (shedder,) = door.app.inbound.shed.filters  # type: ignore[union-attr]
    assert shedder.stats() == {"rq_blocked": 0, "rq_active": 0, "rq_pending": 0}


async def test_observers_hear_of_it_once_a_second() -> None:
    door = AsgiDoor(Bulkhead(1, name="front"))
    heard: list[Any] = []
    door.mesh.on_event(lambda event: heard.append(event) if isinstance(event, LoadShed) else None)
    for _ in range(5):
        await door.ask("/orders?a=1")
    await door.statuses()
    assert [(event.name, event.path, event.count) for event in heard] == [("front", "/orders", 1)]


async def test_several_are_asked_in_order_and_hold_nothing_for_each_other() -> None:
    door = AsgiDoor(Bulkhead(3, name="wide"), Bulkhead(1, "/narrow", name="narrow"))
    for path in ("/narrow", "/narrow", "/narrow", "/", "/", "/"):
        await door.ask(path)
    assert await door.statuses() == [200, 503, 503, 200, 200, 503]
    assert [shedder.stats()["rq_active"] for shedder in door.app.inbound.shed.filters] == [0, 0]  # type: ignore[union-attr]


async def test_a_request_that_waited_in_front_is_refused() -> None:
    door = AsgiDoor(QueueDeadline(max_wait=5.0))
    await door.ask(**{"x-request-start": "t=1500000000"})
    assert await door.statuses() == [503]


class WsgiDoor:
    """The same for WSGI, each request on a thread."""

    def __init__(self, *shed: Any) -> None:
        self.release = threading.Event()
        self.begun = threading.Semaphore(0)
        self.app = wsgi.MeshMiddleware(self._serve, mesh=Mesh.static({"up": ["10.0.0.1:1"]}), shed=shed)
        self.statuses: list[int] = []
        self.threads: list[threading.Thread] = []

    def _serve(self, environ: Any, start: Callable[..., Any]) -> list[bytes]:
        self.begun.release()
        assert self.release.wait(20)
        start("200 OK", [])
        return [b"served"]

    def ask(self, **headers: str) -> None:
        def one() -> None:
            with httpx.Client(transport=httpx.WSGITransport(self.app), base_url="http://me") as client:
                self.statuses.append(client.get("/", headers=headers).status_code)

        thread = threading.Thread(target=one)
        thread.start()
        self.threads.append(thread)

    def end(self) -> list[int]:
        self.release.set()
        for thread in self.threads:
            thread.join(20)
        return sorted(self.statuses)


@pytest.mark.parametrize("config", [Bulkhead(2), AdaptiveConcurrency(min_concurrency=2)])
def test_wsgi_refuses_what_is_over_the_limit(config: Any) -> None:
    door = WsgiDoor(config)
    for _ in range(2):
        door.ask()
        assert door.begun.acquire(timeout=20)
    for _ in range(3):
        door.ask()
        door.threads.pop().join(20)
    assert door.statuses == [503, 503, 503]
    assert door.end() == [200, 200, 503, 503, 503]


def test_wsgi_waits_for_its_turn_on_the_thread() -> None:
    door = WsgiDoor(Bulkhead(1, max_waiting=3, max_wait=20.0, target=20.0))
    for _ in range(4):
        door.ask()
    assert door.begun.acquire(timeout=20)
    assert door.end() == [200, 200, 200, 200]
    (shedder,) = door.app.inbound.shed.filters  # type: ignore[union-attr]
    assert shedder.stats() == {"rq_blocked": 0, "rq_active": 0, "rq_pending": 0}


def test_a_deadline_ends_the_wait_on_a_thread() -> None:
    door = WsgiDoor(Bulkhead(1, max_waiting=1, max_wait=60.0))
    door.ask()
    assert door.begun.acquire(timeout=20)
    door.ask(**{"x-envoy-expected-rq-timeout-ms": "20"})
    door.threads.pop().join(20)
    assert door.statuses == [504]
    assert door.end() == [200, 504]


def test_text_that_is_no_load_shedding_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="write 'adaptive'"):
        server.MeshMiddleware(lambda *_: None, mesh=Mesh.static({}), shed=["sometimes"])  # type: ignore[arg-type, return-value]
