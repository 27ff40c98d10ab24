"""The Django middleware by Django's own test clients: WSGI's chain and ASGI's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from meshlib import Fault
from meshlib.context import NO_CONTEXT, current
from meshlib.engine.ends import End
from meshlib.engine.events import Event, RequestServed
from meshlib.integrations import django as mesh_django
from meshlib.model.limiters import Bucket, RequestLimit
from meshlib.model.request import RequestHead
from parts.flow import Dice

MINE = {"x-request-id": "mine", "grpc-timeout": "5S"}
pytestmark = pytest.mark.usefixtures("configured")


def ask(kind: str, path: str, **headers: str) -> Any:
    """A response, its body read, by the chain of one kind of server."""
    from django.test import AsyncClient, Client

    if kind == "wsgi":
        response = Client(raise_request_exception=False).get(path, headers=headers)
        response.body = b"".join(response) if response.streaming else response.content
        return response

    async def go() -> Any:
        response = await AsyncClient(raise_request_exception=False).get(path, headers=headers)
        if response.streaming:
            response.body = b"".join([part async for part in response])
        else:
            response.body = response.content
        return response

    return asyncio.run(go())


@pytest.mark.parametrize("view", ["/sync", "/async"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_views_of_both_kinds_are_served_in_the_requests_context(kind: str, view: str) -> None:
    response = ask(kind, view, **MINE)
    assert response.json() == {"id": "mine", "deadline": True, "peer": ""}
    assert response.headers["x-request-id"] == "mine"
    assert current.get() is NO_CONTEXT


@pytest.mark.parametrize("view", ["/stream", "/async-stream"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
def test_a_streamed_response_is_made_in_the_requests_context(kind: str, view: str) -> None:
    assert ask(kind, view, **MINE).body == b"mine\nmine\n"
    assert current.get() is NO_CONTEXT


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
def test_a_file_stays_the_servers_to_send(kind: str) -> None:
    response = ask(kind, "/file", **MINE)
    assert response.body == b"content"
    assert response.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_the_applications_own_request_id_stays_and_failures_carry_one(kind: str) -> None:
    assert ask(kind, "/own-id", **MINE).headers["x-request-id"] == "its own"
    failed = ask(kind, "/fails", **MINE)
    assert (failed.status_code, failed.headers["x-request-id"]) == (500, "mine")
    assert current.get() is NO_CONTEXT


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_what_is_refused_never_reaches_a_view(kind: str, configured: Any) -> None:
    configured(MESHLIB={"STATIC": {"a": ["1.2.3.4:1"]}, "RATE_LIMITS": ["1/hour"]})
    dead = ask(kind, "/sync", **{"x-envoy-expected-rq-timeout-ms": "0"})
    assert (dead.status_code, dead.content) == (504, b"the request's deadline had passed on arrival")
    assert [ask(kind, "/sync").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_responses_say_what_is_left_of_a_limit(kind: str, configured: Any) -> None:
    limit = RequestLimit("user", Bucket(0.001, burst=2), key="header:x-user", headers="ratelimit")
    configured(MESHLIB={"STATIC": {"a": ["1.2.3.4:1"]}, "RATE_LIMITS": [limit]})
    answers = [ask(kind, "/sync", **{"x-user": user}) for user in ("ann", "ann", "bob", "ann")]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "0", "1", "0"]
    assert answers[3].headers["retry-after"] == "1000"


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_readiness_and_draining(kind: str, configured: Any) -> None:
    configured(MESHLIB={"STATIC": {"a": ["1.2.3.4:1"]}, "READINESS_PATH": "/ready"})
    assert (ask(kind, "/ready").status_code, ask(kind, "/ready").content) == (200, b"ready")
    mesh_django.drain().begin()
    assert (ask(kind, "/ready").status_code, ask(kind, "/ready").content) == (503, b"draining")
    # Under WSGI the connection is the server's, and a header about it is forbidden.
    assert ask(kind, "/sync").headers.get("connection") == ("close" if kind == "asgi" else None)


@pytest.mark.parametrize("view", ["/sync", "/async", "/stream", "/async-stream", "/file", "/fails"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
def test_observers_are_told_of_every_request_once(kind: str, view: str) -> None:
    events: list[Event] = []
    mesh_django.mesh().on_event(events.append)
    ask(kind, view)
    (served,) = (event for event in events if isinstance(event, RequestServed))
    assert (served.method, served.path, served.route) == ("GET", view, view)
    assert served.status == (500 if view == "/fails" else 200)


async def test_a_view_that_is_cancelled_has_been_served_too() -> None:
    """Django does so when its client goes away."""
    from django.test import AsyncClient

    from unit.frameworks import django_urls

    told: list[Event] = []
    mesh_django.mesh().on_event(told.append)
    asked = asyncio.ensure_future(AsyncClient().get("/waits"))
    await django_urls.begun.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert [event.status for event in told if isinstance(event, RequestServed)] == [None]
    assert current.get() is NO_CONTEXT


@pytest.mark.parametrize("view", ["/sync", "/async", "/stream", "/async-stream", "/file", "/fails"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
def test_a_bulkheads_place_comes_back_whatever_the_view(kind: str, view: str, configured: Any) -> None:
    from meshlib.integrations.django.process import current_process

    configured(MESHLIB={"STATIC": {"a": ["1.2.3.4:1"]}, "SHED": "bulkhead 1"})
    status = 500 if view == "/fails" else 200
    assert [ask(kind, view).status_code for _ in range(3)] == [status] * 3
    (shedder,) = current_process().inbound.shed.filters  # type: ignore[union-attr]
    assert shedder.stats() == {"rq_blocked": 0, "rq_active": 0}
    held = shedder.on_request(RequestHead("GET", "http", "me", "/"), 0.0, Dice())
    refused = ask(kind, view)
    assert (refused.status_code, refused.headers["x-envoy-overloaded"]) == (503, "true")
    assert ask(kind, "/healthz").status_code == 404  # never shed; there is no such view
    held.on_end(End(1.0, 200))  # type: ignore[union-attr]
    assert ask(kind, view).status_code == status


def test_a_project_with_the_middleware_does_not_get_it_twice(configured: Any) -> None:
    """`meshlib run` looks."""
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application

    from meshlib.zero_code.servers import _has_middleware

    assert [_has_middleware(make()) for make in (get_asgi_application, get_wsgi_application)] == [True, True]
    configured(MIDDLEWARE=[])
    assert [_has_middleware(make()) for make in (get_asgi_application, get_wsgi_application)] == [False, False]


def test_the_mesh_and_its_clients_are_the_processs(configured: Any) -> None:
    mesh, client, async_client = mesh_django.mesh(), mesh_django.client("a"), mesh_django.async_client("a")
    assert (mesh_django.mesh(), mesh_django.client("a"), mesh_django.async_client("a")) == (mesh, client, async_client)
    mesh.start()
    configured(MESHLIB={"STATIC": {"b": ["1.2.3.4:1"]}})
    assert mesh_django.mesh() is not mesh
    assert not mesh._started, "the one of the settings before is closed"


def test_without_settings_django_says_so(configured: Any) -> None:
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    configured(MESHLIB=None)
    with pytest.raises(ImproperlyConfigured, match="there is no MESHLIB in the settings"):
        mesh_django.mesh()
    assert settings.MESHLIB is None


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_faults_of_the_settings(kind: str, configured: Any) -> None:
    faults = [Fault(by_header=True), Fault(delay=0.05, path="/sync")]
    configured(MESHLIB={"STATIC": {"payments": ["127.0.0.1:1"]}, "FAULTS": faults})
    view = "/sync" if kind == "wsgi" else "/async"
    aborted = ask(kind, view, **{"x-envoy-fault-abort-request": "418"})
    assert (aborted.status_code, aborted.body) == (418, b"fault filter abort")
    assert ask(kind, view, **{"x-envoy-fault-throughput-response": "1"}).status_code == 200
    mesh = mesh_django.mesh()
    assert mesh.stats()["fault.aborts_injected"] == 1
    assert mesh.stats().get("fault.delays_injected", 0) == (1 if kind == "wsgi" else 0)
    assert mesh.faults.active == {}
