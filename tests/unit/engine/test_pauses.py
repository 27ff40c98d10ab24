"""Filters that wait or ask before they decide: in calls, and in requests that are served, by every door."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from meshlib import Mesh
from meshlib.engine import filters
from meshlib.engine.commands import Abandoned, Fail, Query, Reply, Start, Wait
from meshlib.engine.filters import LocalReply, Verdict
from meshlib.engine.pauses import Consult, Delay
from meshlib.flags import ResponseFlag
from meshlib.http import server, wsgi
from meshlib.model.filters import FilterConfig, HttpFilter, RouterFilter
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import static_cluster
from parts.flow import ADDRESSES, ENDED, Player, get, runtime_of

Decide = Callable[[Any, float], Verdict]
NO = LocalReply(418, [(b"x-why", b"tea")], b"no", ResponseFlag.RL, "test")


@dataclass(frozen=True)
class Pausing(FilterConfig):
    """A filter that does what a test says."""

    name: str


@dataclass
class Runs:
    """The filter at run time; `first` is its verdict, `gone` what was given up."""

    config: FilterConfig
    first: Verdict = None
    gone: int = 0
    asked: int = 0

    def on_request(self, head: Any, now: float, rng: Any) -> Verdict:
        self.asked += 1
        return self.first

    def give_up(self) -> None:
        self.gone += 1


class Answer:
    """A question with an answer."""

    def __init__(self, answer: Any, error: BaseException | None = None) -> None:
        self.answer, self.error = answer, error
        self.threads: list[int] = []

    def ask(self) -> Any:
        self.threads.append(threading.get_ident())
        if self.error is not None:
            raise self.error
        return self.answer

    async def aask(self) -> Any:
        await asyncio.sleep(0)
        return self.ask()


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, list[Runs]]]:
    """A runtime whose one route has two such filters, and these."""

    def make() -> tuple[Any, list[Runs]]:
        made = [Runs(Pausing("first")), Runs(Pausing("second"))]
        by_name = {each.config.name: each for each in made}  # type: ignore[attr-defined]
        monkeypatch.setitem(filters._BUILDERS, Pausing, lambda config: by_name[config.name])
        entries = (*(HttpFilter(each.config.name, each.config) for each in made), HttpFilter("router", RouterFilter()))  # type: ignore[attr-defined]
        route = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("up"))
        manager = HttpConnectionManager(RouteConfiguration("routes", (VirtualHost("host", ("*",), (route,)),)), entries)
        listener = Listener("out", managers=(manager,), direction="OUTBOUND", bound=True)
        return runtime_of(Snapshot(listeners={"out": listener}, clusters={"up": static_cluster("up", ADDRESSES)})), made

    return make


# ---------------------------------------------------------------------------------------------------------- calls


def test_a_call_waits_and_goes_on_with_the_filters_behind(chain: Any) -> None:
    runtime, (first, second) = chain()
    seen: list[Any] = []
    first.first = Delay(2.0, lambda answer, now: seen.append((answer, now)))
    player = Player(runtime, get("up"), now=1.0)
    assert player.last == Wait(2.0)
    assert second.asked == 0
    assert isinstance(player.send(3.5), Start)
    assert (seen, second.asked, first.gone) == ([(None, 3.5)], 1, 0)


def test_a_call_asks_and_is_answered_by_the_filter(chain: Any) -> None:
    runtime, (first, second) = chain()
    question = Answer("full")
    first.first = Consult(question, lambda answer, now: NO if answer == "full" else None)
    player = Player(runtime, get("up"))
    assert player.last == Query(question)
    reply = player.send(("full", 1.0))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.info.flag, second.asked) == (418, ResponseFlag.RL, 0)


def test_a_pause_may_follow_a_pause(chain: Any) -> None:
    runtime, (first, _) = chain()
    first.first = Consult(Answer(1), lambda answer, now: Delay(answer, lambda *_: NO))
    player = Player(runtime, get("up"))
    assert player.send((0.25, 1.0)) == Wait(0.25)
    assert isinstance(player.send(1.25), Reply)


def test_a_deadline_ends_a_pause(chain: Any) -> None:
    runtime, (first, second) = chain()
    first.first = Delay(60.0, lambda *_: None, first.give_up)
    player = Player(runtime, get("up"), now=10.0, deadline=12.0)
    assert player.last == Wait(2.0)
    fail = player.send(12.0)
    assert isinstance(fail, Fail)
    assert fail.failure.flag is ResponseFlag.UT
    assert (first.gone, second.asked) == (1, 0)
    assert player.send(None) == ENDED


def test_a_caller_that_goes_away_gives_the_filter_up(chain: Any) -> None:
    runtime, (first, _) = chain()
    first.first = Delay(60.0, lambda *_: None, first.give_up)
    player = Player(runtime, get("up"))
    with pytest.raises(Abandoned):
        player.flow.throw(Abandoned(3.0))
    player = Player(runtime, get("up"))
    player.flow.close()
    assert first.gone == 2


# --------------------------------------------------------------------------------------------------------- servers


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"served"]


async def over_asgi(app: Any, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://me") as client:
        return await client.get("/", headers=headers)


def over_wsgi(app: Any, **headers: str) -> httpx.Response:
    with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://me") as client:
        return client.get("/", headers=headers)


async def served(kind: str, *given: Runs, **headers: str) -> httpx.Response:
    """One request to an application behind these filters."""
    mesh = Mesh.static({"up": ["10.0.0.1:1"]})
    if kind == "asgi":
        app = server.MeshMiddleware(asgi_app, mesh=mesh)
        app.inbound._filters = given
        return await over_asgi(app, **headers)
    blocking = wsgi.MeshMiddleware(wsgi_app, mesh=mesh)
    blocking.inbound._filters = given
    return await asyncio.to_thread(over_wsgi, blocking, **headers)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
async def test_a_request_waits_and_is_served(kind: str) -> None:
    first, second = Runs(Pausing("first")), Runs(Pausing("second"))
    first.first = Delay(0.01, lambda *_: None)
    second.first = Consult(Answer(True), lambda answer, now: None)
    assert (await served(kind, first, second)).text == "served"
    assert (first.asked, second.asked) == (1, 1)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
async def test_a_request_is_refused_after_a_pause(kind: str) -> None:
    first, second = Runs(Pausing("first")), Runs(Pausing("second"))
    first.first = Consult(Answer(7), lambda answer, now: Delay(0.0, lambda *_: replace(NO, status=400 + answer)))
    response = await served(kind, first, second)
    assert (response.status_code, response.headers["x-why"], response.text, second.asked) == (407, "tea", "no", 0)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
async def test_a_requests_deadline_ends_its_pause(kind: str) -> None:
    first = Runs(Pausing("first"))
    first.first = Delay(60.0, lambda *_: None, first.give_up)
    response = await served(kind, first, **{"x-envoy-expected-rq-timeout-ms": "20"})
    assert (response.status_code, first.gone) == (504, 1)


async def test_a_request_whose_caller_goes_away_is_given_up() -> None:
    first = Runs(Pausing("first"))
    first.first = Delay(60.0, lambda *_: None, first.give_up)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(served("asgi", first), 0.2)
    assert first.gone == 1


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
async def test_a_question_that_fails_is_the_filters_mistake_and_gives_it_up(kind: str) -> None:
    first = Runs(Pausing("first"))
    first.first = Consult(Answer(None, ZeroDivisionError()), lambda *_: None, first.give_up)
    with pytest.raises(ZeroDivisionError):
        await served(kind, first)
    assert first.gone == 1
