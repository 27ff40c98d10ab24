"""The filter `meshlib.rate_limit`: in calls, in requests that are served, and by keys."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest

from meshlib import Mesh, SharedRateLimit
from meshlib.engine.commands import Commit, Fail, Reply, Start, Wait
from meshlib.engine.pauses import Delay
from meshlib.engine.request_limit import RequestLimitFilter
from meshlib.flags import ResponseFlag
from meshlib.http import server, wsgi
from meshlib.model.filters import HttpFilter, LocalRateLimit, RouterFilter, TokenBucket
from meshlib.model.headers import HeaderValueOption
from meshlib.model.limiters import Bucket, ConcurrencyLimit, LimitHeaders, RequestLimit, UniformRate
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import ALWAYS, NEVER, PathMatcher, RouteMatch
from meshlib.model.request import RequestHead, ServedHead
from meshlib.model.route import Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from meshlib.sources.static import static_cluster
from parts.flow import ADDRESSES, ENDED, Player, get, runtime_of

RNG = random.Random(1)


def head(path: str = "/", source: str = "", **headers: str) -> RequestHead:
    return ServedHead(
        "GET", "http", "a", path, [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()], source
    )


def bearer(claims: object) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"Bearer e30.{middle}.c2ln"


def statuses(config: RequestLimit, *heads: RequestHead, now: float = 0.0) -> list[int]:
    limit = RequestLimitFilter(config)
    return [getattr(limit.on_request(each, now, RNG), "status", 200) for each in heads]


@pytest.mark.parametrize(
    "key,first,other",
    [
        ("header:X-User", head(x_user="ann"), head(x_user="bob")),
        ("query_parameter:u ser", head("/?u%20ser=a%20b"), head("/?u%20ser=b")),
        ("path_segment:1", head("/v1/shops/7"), head("/v1/carts/7")),
        ("remote_address", head(source="10.0.0.1"), head(source="10.0.0.2")),
        ("claim:sub", head(authorization=bearer({"sub": "ann"})), head(authorization=bearer({"sub": 7}))),
    ],
)
def test_each_value_has_a_limiter_of_its_own(key: str, first: RequestHead, other: RequestHead) -> None:
    config = RequestLimit("hot", Bucket(1.0), key=key)
    assert statuses(config, first, other, first, other) == [200, 200, 429, 429]
    assert statuses(RequestLimit("hot", Bucket(1.0)), first, other) == [200, 429]


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic x",
        "Bearer x",
        "Bearer a.b.c",
        "Bearer a.%%%.c",
        bearer([1]),
        bearer({"sub": {"a": 1}}),
        "Bearer a." + "b" * 9000 + ".c",
    ],
)
def test_requests_without_a_value_share_a_limiter(authorization: str) -> None:
    nobody = head(authorization=authorization)
    assert statuses(RequestLimit("hot", Bucket(1.0), key="claim:sub"), head(), nobody) == [200, 429]


def test_keys_do_not_fill_the_memory() -> None:
    limit = RequestLimitFilter(RequestLimit("hot", Bucket(1.0), key="header:x-user", max_keys=100))
    for number in range(5000):
        limit.on_request(head(x_user=f"{number}" * 100), 0.0, RNG)
    assert limit.keys == 100


@pytest.mark.parametrize("key", ["header:", "cookie:a", "path_segment:x", "path_segment", "user", "remote_address:1"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="is not one of header"):
        RequestLimit("hot", Bucket(1.0), key=key)


STYLES: list[tuple[LimitHeaders, dict[bytes, bytes]]] = [
    ("none", {}),
    ("x-ratelimit", {b"x-ratelimit-limit": b"2", b"x-ratelimit-remaining": b"0", b"x-ratelimit-reset": b"5"}),
    ("ratelimit", {b"ratelimit-limit": b"2", b"ratelimit-remaining": b"0", b"ratelimit-reset": b"5"}),
    ("structured", {b"ratelimit-policy": b'"hot";q=2;w=10', b"ratelimit": b'"hot";r=0;t=5'}),
]


@pytest.mark.parametrize("style,expected", STYLES)
def test_what_responses_say_of_the_limit(style: LimitHeaders, expected: dict[bytes, bytes]) -> None:
    limit = RequestLimitFilter(RequestLimit("hot", Bucket(0.2, burst=2), headers=style))
    limit.on_request(head(), 0.0, RNG)
    passed: Any = limit.on_request(head(), 0.0, RNG)
    assert (dict(passed.on_response(0.0)) if passed else {}) == expected
    refused: Any = limit.on_request(head(), 0.0, RNG)
    assert dict(refused.headers) == {**expected, b"retry-after": b"5"}
    assert (refused.status, refused.flag) == (429, ResponseFlag.RL)


def test_who_cannot_know_when_to_come_back_is_not_told() -> None:
    limit = RequestLimitFilter(RequestLimit("few", ConcurrencyLimit(1), status=503, headers="ratelimit"))
    assert limit.on_request(head(), 0.0, RNG) is not None
    refused: Any = limit.on_request(head(), 0.0, RNG)
    assert (refused.status, refused.headers) == (503, [])


# -------------------------------------------------------------------------------------------------------------- calls


def runtime_with(config: RequestLimit) -> Any:
    route = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("up"))
    entries = (HttpFilter("limit", config), HttpFilter("router", RouterFilter()))
    manager = HttpConnectionManager(RouteConfiguration("routes", (VirtualHost("host", ("*",), (route,)),)), entries)
    listener = Listener("out", managers=(manager,), direction="OUTBOUND", bound=True)
    return runtime_of(Snapshot(listeners={"out": listener}, clusters={"up": static_cluster("up", ADDRESSES)}))


def test_a_call_waits_for_its_turn() -> None:
    runtime = runtime_with(RequestLimit("queue", UniformRate(10.0, max_wait=0.15)))
    assert isinstance(Player(runtime, get("up")).last, Start)
    waiting = Player(runtime, get("up"))
    assert waiting.last == Wait(pytest.approx(0.1))
    assert isinstance(Player(runtime, get("up")).last, Reply), "who would wait longer is refused at once"
    assert isinstance(waiting.send(0.1), Start)


def test_a_call_whose_deadline_comes_first_gives_its_turn_up() -> None:
    runtime = runtime_with(RequestLimit("queue", UniformRate(10.0, max_wait=5.0)))
    Player(runtime, get("up"))
    hasty = Player(runtime, get("up"), deadline=0.05)
    assert hasty.last == Wait(0.05)
    assert isinstance(hasty.send(0.05), Fail)
    assert Player(runtime, get("up"), now=0.05).last == Wait(pytest.approx(0.05)), "it is the next one's"


def test_calls_are_in_flight_until_their_bodies_have_ended() -> None:
    runtime = runtime_with(RequestLimit("few", ConcurrencyLimit(1)))
    first = Player(runtime, get("up"))
    assert isinstance(Player(runtime, get("up")).last, Reply)
    assert isinstance(first.responds(200, 1.0), Commit)
    assert isinstance(Player(runtime, get("up")).last, Reply)
    assert first.body_ends(2.0) == ENDED
    second = Player(runtime, get("up"))
    assert isinstance(second.last, Start)
    second.close()
    assert isinstance(Player(runtime, get("up")).last, Start), "one that is given up has ended too"


def test_the_limit_of_all_routes_is_one() -> None:
    runtime = runtime_with(RequestLimit("all", Bucket(1.0)))
    (share,) = runtime.plan.find("http", "up").routes[0].shares
    before = share.filters
    runtime.install(runtime.compile(runtime.plan.snapshot, None))
    assert runtime.plan.find("http", "up").routes[0].shares[0].filters == before


# ----------------------------------------------------------------------------------------------------------- servers


@pytest.mark.asyncio
async def test_an_asgi_application_is_limited_until_its_responses_end() -> None:
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if len(seen) == 0:
            seen.append(1)
            inner = await asked()
            assert inner[0]["status"] == 429
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    mesh = Mesh.static({})
    served = server.MeshMiddleware(
        app,
        mesh=mesh,
        rate_limits=[RequestLimit("few", ConcurrencyLimit(1)), RequestLimit("many", Bucket(9.0), headers="ratelimit")],
    )

    async def asked() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("10.0.0.1", 1)}
        await served(scope, receive, send)
        return sent

    for _ in range(2):
        answer = await asked()
        assert answer[0]["status"] == 200
        assert dict(answer[0]["headers"])[b"ratelimit-limit"] == b"9"
    mesh.close()


def test_a_wsgi_application_is_limited_until_its_bodies_are_closed() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return iter([b"a", b"b"])

    mesh = Mesh.static({})
    served = wsgi.MeshMiddleware(
        app, mesh=mesh, rate_limits=[RequestLimit("few", ConcurrencyLimit(1), key="remote_address")]
    )

    def ask(address: str) -> tuple[str, Any]:
        said: list[str] = []
        environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "PATH_INFO": "/", "REMOTE_ADDR": address}
        body = served(environ, lambda status, headers, exc_info=None: said.append(status))  # type: ignore[arg-type,func-returns-value]
        return (said or [""])[0], body

    _, first = ask("10.0.0.1")
    assert ask("10.0.0.1")[0].startswith("429")
    assert ask("10.0.0.2")[0] == "200 OK"
    first.close()
    assert ask("10.0.0.1")[0] == "200 OK"
    mesh.close()


def test_a_delay_is_a_pause() -> None:
    limit = RequestLimitFilter(RequestLimit("queue", UniformRate(10.0, max_wait=1.0), headers="ratelimit"))
    limit.on_request(head(), 0.0, RNG)
    pause = limit.on_request(head(), 0.0, RNG)
    assert isinstance(pause, Delay)
    after: Any = pause.then(None, 0.1)
    assert dict(after.on_response(0.1))[b"ratelimit-limit"] == b"10"


# ----------------------------------------------------------------------------------------------------- limits from code


def test_limits_from_code_hold_for_the_calls_of_a_cluster() -> None:
    mesh = Mesh.static(
        {"up": ["127.0.0.1:1"], "other": ["127.0.0.1:1"]},
        rate_limits={"up": [RequestLimit("few", ConcurrencyLimit(1)), "2/minute"], "other": "100/minute"},
    )
    mesh.start().wait_ready()
    first = Player(mesh.runtime, get("up"))
    assert isinstance(first.last, Start)
    refused: Any = Player(mesh.runtime, get("up")).last
    assert (refused.status, refused.info.flag) == (429, ResponseFlag.RL)
    assert isinstance(Player(mesh.runtime, get("other")).last, Start)
    first.close()
    again = Player(mesh.runtime, get("up"))
    assert isinstance(again.last, Start)
    again.close()
    refused = Player(mesh.runtime, get("up")).last
    assert (refused.status, refused.info.flag) == (429, ResponseFlag.RL), "by the bucket"
    assert isinstance(Player(mesh.runtime, get("other")).last, Start)
    mesh.close()


@pytest.mark.parametrize("strategy", ["fixed", "sliding", "moving"])
def test_a_server_takes_limits_that_a_store_keeps(strategy: Any) -> None:
    shared = SharedRateLimit("2/hour", "memory://", key="%REQ(x-user)%", strategy=strategy, headers="ratelimit")
    mesh = Mesh.static({})
    served = wsgi.MeshMiddleware(lambda environ, start: start("200 OK", []) or [], mesh=mesh, rate_limits=[shared])

    def ask(user: str) -> tuple[str, dict[str, str]]:
        said: list[Any] = []
        environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "http", "PATH_INFO": "/", "HTTP_X_USER": user}
        served(environ, lambda *given: said.append(given))  # type: ignore[arg-type]
        return said[0][0], {name.lower(): value for name, value in said[0][1]}

    answers = [ask(user) for user in ("ann", "ann", "bob", "ann")]
    assert [status[:3] for status, _ in answers] == ["200", "200", "200", "429"]
    assert [headers["ratelimit-remaining"] for _, headers in answers] == ["1", "0", "1", "0"]
    assert 0 < int(answers[3][1]["retry-after"]) <= 3600
    shared.close()
    mesh.close()


@pytest.mark.parametrize("on_error,expected", [("open", [200, 200]), ("closed", [503, 503]), ("local", [200, 429])])
async def test_a_server_whose_store_is_gone_does_as_it_was_told(on_error: Any, expected: list[int]) -> None:
    shared = SharedRateLimit("1/hour", "redis://127.0.0.1:1", on_error=on_error)
    mesh, statuses = Mesh.static({}), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if message["type"] == "http.response.start" else [])

    served = server.MeshMiddleware(app, mesh=mesh, rate_limits=[shared])
    for _ in range(2):
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": None}
        await served(scope, None, send)  # type: ignore[arg-type]
    assert statuses == expected
    await shared.aclose()
    mesh.close()


# -------------------------------------------------------------------------------------- marks and figures on servers

OVER = LocalRateLimit(
    "over",
    TokenBucket(1, 1, 60.0),
    ALWAYS,
    NEVER,
    request_headers_to_add_when_not_enforced=(HeaderValueOption("x-over", "yes"),),
    enable_x_ratelimit_headers=True,
)


async def test_an_asgi_application_sees_what_is_over_a_limit_that_is_not_enforced() -> None:
    seen: list[Any] = []
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"]).get(b"x-over"))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        told.append(dict(message["headers"])[b"x-ratelimit-remaining"])

    mesh = Mesh.static({})
    served = server.MeshMiddleware(app, mesh=mesh, rate_limits=[OVER])
    for _ in range(2):
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"x-a", b"1")], "client": None}
        await served(scope, None, send)  # type: ignore[arg-type]
    assert (seen, told) == ([None, b"yes"], [b"0", b"0"])
    mesh.close()


def test_a_wsgi_application_does_too() -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append((environ.get("HTTP_X_OVER"), environ["HTTP_X_A"], environ.get("CONTENT_TYPE")))
        start_response("200 OK", [])
        return []

    mesh = Mesh.static({})
    served = wsgi.MeshMiddleware(app, mesh=mesh, rate_limits=[OVER, OVER])
    told: list[Any] = []
    for _ in range(2):
        environ = {
            "REQUEST_METHOD": "GET",
            "wsgi.url_scheme": "http",
            "PATH_INFO": "/",
            "HTTP_X_A": "1",
            "CONTENT_TYPE": "text/plain",
        }
        served(environ, lambda status, headers, exc_info=None: told.append(dict(headers)))  # type: ignore[arg-type,func-returns-value]
    assert seen == [(None, "1", "text/plain"), ("yes,yes", "1", "text/plain")]
    assert [each["x-ratelimit-limit"] for each in told] == ["1", "1"]
    mesh.close()
