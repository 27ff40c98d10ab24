"""Filters that hear the end of what they admitted: of calls, and of requests that are served, however they end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from meshlib import Mesh
from meshlib.engine import filters
from meshlib.engine.commands import Abandoned, Fail, Reply, Start, Wait
from meshlib.engine.ends import Admit, End
from meshlib.engine.exchange import Admission, admit_request
from meshlib.engine.filters import LocalReply, Verdict
from meshlib.engine.pauses import Delay
from meshlib.engine.watch import Endings
from meshlib.flags import ResponseFlag
from meshlib.http import server, wsgi
from meshlib.model.filters import FilterConfig, HttpFilter, RouterFilter
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.outcome import Failure
from meshlib.model.request import RequestHead
from meshlib.model.route import DirectResponseAction, Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import static_cluster
from parts.flow import ADDRESSES, Dice, Player, get, held, runtime_of

NO = LocalReply(418, [], b"no", ResponseFlag.RL, "test")
HEAD = RequestHead("GET", "http", "me", "/")


@dataclass(frozen=True)
class Hearing(FilterConfig):
    """A filter that listens."""

    name: str


@dataclass
class Hears:
    """The filter at run time; `verdict` in place of `Admit`, `ends` what it heard."""

    config: FilterConfig = field(default_factory=lambda: Hearing("one"))
    verdict: Verdict = None
    ends: list[End] = field(default_factory=list)

    def on_request(self, head: Any, now: float, rng: Any) -> Verdict:
        return self.verdict or Admit(self.ends.append)

    @property
    def heard(self) -> list[tuple[int | None, bool]]:
        return [(end.status, end.whole) for end in self.ends]


# ---------------------------------------------------------------------------------------------------------- calls


@pytest.fixture
def chain(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Hears, Hears]]:
    """A runtime whose one route has two such filters, and these."""

    def make(action: Any = None) -> tuple[Any, Hears, Hears]:
        made = {name: Hears(Hearing(name)) for name in ("first", "second")}
        monkeypatch.setitem(filters._BUILDERS, Hearing, lambda config: made[config.name])
        entries = (*(HttpFilter(name, each.config) for name, each in made.items()), HttpFilter("r", RouterFilter()))
        route = Route(RouteMatch(PathMatcher("prefix", "/")), action or RouteAction("up"))
        manager = HttpConnectionManager(RouteConfiguration("routes", (VirtualHost("host", ("*",), (route,)),)), entries)
        listener = Listener("out", managers=(manager,), direction="OUTBOUND", bound=True)
        snapshot = Snapshot(listeners={"out": listener}, clusters={"up": static_cluster("up", ADDRESSES)})
        return runtime_of(snapshot), made["first"], made["second"]

    return make


def test_both_filters_hear_a_calls_end_when_its_body_has_ended(chain: Any) -> None:
    runtime, first, second = chain()
    player = Player(runtime, get("up"), now=1.0)
    player.responds(200, 2.0)
    assert not first.ends
    player.body_ends(3.5)
    for each in (first, second):
        assert each.heard == [(200, True)]
        assert (each.ends[0].at, each.ends[0].flag, each.ends[0].grpc_status) == (3.5, None, None)
    assert not held(runtime)


def test_a_body_that_breaks_is_not_whole(chain: Any) -> None:
    runtime, first, _ = chain()
    player = Player(runtime, get("up"))
    player.responds(200, 2.0)
    player.body_ends(3.0, Failure.RESET)
    assert (first.heard, first.ends[0].flag) == ([(200, False)], ResponseFlag.UC)


def test_a_call_that_fails_ends_with_what_a_proxy_would_answer(chain: Any) -> None:
    runtime, first, _ = chain()
    player = Player(runtime, get("up"))
    assert isinstance(player.fails(Failure.CONNECT, 2.0), Fail)
    assert first.heard == [(503, True)]  # at once: not when the driver lets the flow go
    assert (first.ends[0].flag, first.ends[0].at) == (ResponseFlag.UF, 2.0)
    player.close()
    assert len(first.ends) == 1


def test_a_call_that_a_later_filter_answers_has_ended_for_the_first(chain: Any) -> None:
    runtime, first, second = chain()
    second.verdict = NO
    player = Player(runtime, get("up"))
    assert isinstance(player.last, Reply)
    assert (first.heard, first.ends[0].flag, second.ends) == ([(418, True)], ResponseFlag.RL, [])


def test_a_filter_may_admit_after_a_pause(chain: Any) -> None:
    runtime, first, second = chain()
    first.verdict = Delay(1.0, lambda *_: Admit(first.ends.append))
    player = Player(runtime, get("up"))
    assert player.last == Wait(1.0)
    assert isinstance(player.send(1.0), Start)
    player.responds(204, 2.0)
    player.body_ends(2.0)
    assert first.heard == second.heard == [(204, True)]


def test_a_direct_response_ends_at_once(chain: Any) -> None:
    runtime, first, _ = chain(DirectResponseAction(201, b"made"))
    assert isinstance(Player(runtime, get("up")).last, Reply)
    assert first.heard == [(201, True)]


@pytest.mark.parametrize("committed", [False, True])
def test_a_call_that_is_dropped_is_told_of(chain: Any, committed: bool) -> None:
    runtime, first, second = chain()
    for gone in (lambda flow: flow.close(), throw):
        player = Player(runtime, get("up"))
        if committed:
            player.responds(200, 2.0)
        gone(player.flow)
    assert first.heard == second.heard == [(200 if committed else None, False)] * 2
    assert not held(runtime)


def throw(flow: Any) -> None:
    with pytest.raises(Abandoned):
        flow.throw(Abandoned(3.0))


# ------------------------------------------------------------------------------------------------------- admissions


def test_nothing_watches_a_request_that_no_filter_wants_to_hear_of() -> None:
    assert Admission(admit_request(HEAD, 0.0, (), Dice()).context, None).watch is None


def test_the_last_filter_hears_first_and_each_hears_once() -> None:
    order: list[str] = []
    given = [Hears(verdict=Admit(lambda _, name=name: order.append(name))) for name in "abc"]  # type: ignore[misc]
    watch = admit_request(HEAD, 0.0, given, Dice()).watch
    assert watch is not None
    watch.ended(1.0, 200)
    watch.ended(2.0, None)
    assert order == ["c", "b", "a"]


def test_a_request_that_is_forgotten_has_ended() -> None:
    hears = Hears()
    admission = admit_request(HEAD, 4.0, [hears], Dice())
    assert isinstance(admission.watch, Endings)
    assert not hears.ends
    del admission
    gc.collect()
    assert (hears.heard, hears.ends[0].at) == ([(None, False)], 4.0)


def test_a_request_that_gives_up_a_pause_has_ended_for_the_filters_before() -> None:
    first, second = Hears(), Hears(verdict=Delay(1.0, lambda *_: None))
    admission = admit_request(HEAD, 0.0, [first, second], Dice())
    admission.give_up(0.5)
    assert first.heard == [(None, False)]


# ---------------------------------------------------------------------------------------------------------- servers


Scene = Callable[[Any, Any, Any], Any]


async def plain(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})


async def raises(scope: Any, receive: Any, send: Any) -> None:
    raise KeyError


async def breaks(scope: Any, receive: Any, send: Any) -> None:
    await plain(scope, receive, send)
    raise KeyError


async def says_nothing(scope: Any, receive: Any, send: Any) -> None:
    return


async def hangs(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(60.0)


@pytest.mark.parametrize(
    ("app", "heard"),
    [
        (plain, (202, True)),
        (raises, (500, True)),
        (breaks, (202, False)),
        (says_nothing, (None, False)),
        (hangs, (None, False)),
    ],
)
async def test_asgi_tells_however_a_request_ends(app: Any, heard: Any) -> None:
    hears = Hears()
    middleware = server.MeshMiddleware(app, mesh=Mesh.static({"up": ["10.0.0.1:1"]}))
    middleware.inbound._filters = (hears,)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(middleware, raise_app_exceptions=False), base_url="http://me"
    ) as client:
        with contextlib.suppress(TimeoutError, AssertionError):  # the caller went away; httpx wants a response
            await asyncio.wait_for(client.get("/"), 0.2)
    assert hears.heard == [heard]


def listed(environ: Any, start: Any) -> Any:
    start("202 Accepted", [])
    return [b"served"]


def streamed(environ: Any, start: Any) -> Iterator[bytes]:
    start("202 Accepted", [])
    yield b"a"
    yield b"b"


def fails(environ: Any, start: Any) -> Any:
    raise KeyError


def breaks_off(environ: Any, start: Any) -> Iterator[bytes]:
    start("202 Accepted", [])
    yield b"a"
    raise KeyError


def run_wsgi(app: Any, chunks: int | None = None) -> Any:
    """Serve one request as a server does, and close; or only so many chunks, as one whose client is gone."""
    environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "PATH_INFO": "/"}
    result = app(environ, lambda *_: lambda _: None)
    try:
        for count, _ in enumerate(result, 1):
            if count == chunks:
                break
    finally:
        if hasattr(result, "close"):
            result.close()


@pytest.mark.parametrize(
    ("app", "chunks", "heard"),
    [
        (listed, None, (202, True)),
        (streamed, None, (202, True)),
        (streamed, 1, (202, False)),
        (fails, None, (500, True)),
        (breaks_off, None, (202, False)),
    ],
)
def test_wsgi_tells_however_a_request_ends(app: Any, chunks: Any, heard: Any) -> None:
    hears = Hears()
    middleware = wsgi.MeshMiddleware(app, mesh=Mesh.static({"up": ["10.0.0.1:1"]}))
    middleware.inbound._filters = (hears,)
    try:
        run_wsgi(middleware, chunks)
    except KeyError:
        assert app in (fails, breaks_off)
    assert hears.heard == [heard]


def test_wsgi_tells_of_a_body_that_is_never_closed() -> None:
    hears = Hears()
    middleware = wsgi.MeshMiddleware(streamed, mesh=Mesh.static({"up": ["10.0.0.1:1"]}))
    middleware.inbound._filters = (hears,)
    environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "PATH_INFO": "/"}
    body = middleware(environ, lambda *_: lambda _: None)
    next(iter(body))
    del body
    gc.collect()
    assert hears.heard == [(None, False)]


@pytest.mark.parametrize("kind", [server, wsgi])
def test_a_refusal_by_a_later_filter_is_an_end(kind: Any) -> None:
    first, second = Hears(), Hears(verdict=NO)
    middleware = kind.MeshMiddleware(plain if kind is server else listed, mesh=Mesh.static({"up": ["10.0.0.1:1"]}))
    middleware.inbound._filters = (first, second)
    if kind is server:
        transport = httpx.ASGITransport(middleware)

        async def ask() -> None:
            async with httpx.AsyncClient(transport=transport, base_url="http://me") as client:
                await client.get("/")

        asyncio.run(ask())
    else:
        run_wsgi(middleware)
    assert (first.heard, first.ends[0].flag) == ([(418, True)], ResponseFlag.RL)
