"""Mirroring, internal redirects and sticky sessions beside Envoy: what upstreams receive and what callers get."""

from __future__ import annotations

import base64
import http.client
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from differential.actions_generate import Asked, requests, routes
from differential.calls_twin import EXTENSIONS, Call, Twin, cluster, endpoint, virtual_host
from meshlib.errors import CallError
from parts.fast_backend import FastBackend, Reply, Request

ROUTES = 100
NOISE = frozenset(
    (
        *("accept", "accept-encoding", "connection", "user-agent", "x-forwarded-proto", "transfer-encoding"),
        *("x-envoy-internal", "x-forwarded-for"),  # of copies only: call_differences, 10
    )
)
Headers = dict[str, str]
Arrived = tuple[str, str, tuple[tuple[str, str], ...], bytes]
CALL_ID = "x-call-id"


def redirecting(request: Request) -> Reply:
    """Redirects to where the request says."""
    code, where = request.header("x-code"), request.header("x-loc")
    if code is None or where is None:
        return Reply()
    return Reply(int(code), b"moved", headers=(("location", where), ("x-given", "yes")))


def arrived(request: Request) -> Arrived:
    headers = sorted((name, rounded(name, value)) for name, value in request.headers if name not in NOISE)
    return request.method, request.target, tuple(headers), request.body


def rounded(name: str, value: str) -> str:
    """A copy is sent a moment later than its request, and has that much less time."""
    return str(round(int(value), -3)) if name == "x-envoy-expected-rq-timeout-ms" else value


def by_call(*backends: FastBackend) -> dict[str, list[Arrived]]:
    found: dict[str, list[Arrived]] = {}
    for backend in backends:
        for request in list(backend.requests):
            found.setdefault(request.header(CALL_ID) or "", []).append(arrived(request))
    return found


def of_envoy(port: int, number: int, asked: Asked) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"host": asked.host, CALL_ID: str(number), **asked.headers}.items():
            connection.putheader(name, value)
        if asked.body:
            connection.putheader("content-length", str(len(asked.body)))
        connection.endheaders(asked.body or None)
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("location") or ""
    finally:
        connection.close()


def of_mesh(client: httpx.Client, number: int, asked: Asked, reasons: Counter[str]) -> tuple[int, str]:
    headers = {CALL_ID: str(number), **asked.headers}
    try:
        response = client.request(
            asked.method, f"http://{asked.host}{asked.path}", headers=headers, content=asked.body or None
        )
    except CallError as error:
        return error.status, ""
    why = response.extensions["meshlib"].why_not_redirected
    if why:
        reasons[why] += 1
    return response.status_code, response.headers.get("location", "")


def wait_until(same: Callable[[], bool]) -> None:
    """Copies arrive when they do."""
    limit = time.monotonic() + 10
    while not same() and time.monotonic() < limit:
        time.sleep(0.01)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("seed", "count"), [(5, 1000), pytest.param(6, 20_000, marks=pytest.mark.slow)])
def test_generated_mirrors_and_redirects(
    seed: int, count: int, make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend]
) -> None:
    rng = random.Random(seed)
    backends = [fast_backend("main", redirecting), fast_backend("shadow"), fast_backend("other-shadow")]
    table = routes(rng, ROUTES)
    names = [str(route["name"]) for route in table]
    hosts = [
        virtual_host(table, name="mesh", domains=["mesh.test", "mesh.test:80", "mesh.test:8080"]),
        virtual_host(
            table[::2],
            name="other",
            domains=["other.test"],
            request_mirror_policies=[{"cluster": "shadow", "host_rewrite_literal": "of-the-host.test"}],
        ),
    ]
    twin = make_twin(hosts, [cluster(backend.name, [backend.port]) for backend in backends])
    asked = requests(rng, names, count)
    theirs = [of_envoy(twin.envoy.port, number, call) for number, call in enumerate(asked)]
    expected_main, expected_copies = by_call(backends[0]), by_call(*backends[1:])
    wait_until(lambda: (found := by_call(*backends[1:])) == expected_copies or not expected_copies.update(found))
    for backend in backends:
        backend.requests.clear()
    reasons: Counter[str] = Counter()
    with twin.mesh.http.client() as client:
        ours = [of_mesh(client, number, call, reasons) for number, call in enumerate(asked)]
        wait_until(lambda: sorted(by_call(*backends[1:])) == sorted(expected_copies))
        wait_until(lambda: twin.mesh.mirrors.under_way == 0)
    main, copies = by_call(backends[0]), by_call(*backends[1:])
    differences = []
    for number, call in enumerate(asked):
        key = str(number)
        if theirs[number] != ours[number]:
            differences.append(f"{call}: {theirs[number]} there, {ours[number]} here")
        if expected_main.get(key) != main.get(key):
            differences.append(f"{call}: {expected_main.get(key)} there, {main.get(key)} here")
        if sorted(expected_copies.get(key, [])) != sorted(copies.get(key, [])):
            differences.append(f"{call}: copies {expected_copies.get(key)} there, {copies.get(key)} here")
    assert differences == []
    counted = twin.envoy.stats("internal_redirect|shadow.upstream_rq_total")
    stats = twin.mesh.stats()
    compared = {name: value for name, value in counted.items() if name.startswith("cluster.")}
    assert compared == {name: stats[name] for name in compared}
    passed = {
        name.removeprefix("http.out.passthrough_internal_redirect_").replace("_", "-"): value
        for name, value in counted.items()
        if "passthrough" in name and value
    }
    assert passed == dict(reasons)
    assert len(passed) == 5, "every reason not to follow a redirect has been met"
    assert sum(map(len, copies.values())) > count / 4, "there was something to compare"
    assert compared["cluster.main.upstream_internal_redirect_succeeded_total"] > count / 20


# ------------------------------------------------------------------------------------------------------------ sessions

SESSION = f"{EXTENSIONS}.filters.http.stateful_session.v3"
HEALTH = ("HEALTHY", "DEGRADED", "UNHEALTHY", "DRAINING", "UNKNOWN", "TIMEOUT")


def session(state: dict[str, Any], name: str = "session", **more: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{SESSION}.StatefulSession", "session_state": state, **more}}


def cookie(**fields: Any) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"
    return {"name": "envoy.http.stateful_session.cookie", "typed_config": {"@type": kind, "cookie": fields}}


HEADER = {
    "name": "envoy.http.stateful_session.header",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState",
        "name": "x-session",
    },
}


def per_route(**fields: Any) -> dict[str, Any]:
    return {"session": {"@type": f"{SESSION}.StatefulSessionPerRoute", **fields}}


class Doors:
    """The same request through Envoy and through the mesh, each told as response headers (lower case)."""

    def __init__(self, twin: Twin, client: httpx.Client) -> None:
        self._port = twin.envoy.port
        self._client = client

    def there(self, path: str, headers: Headers) -> Headers:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        connection.request("GET", path, headers={"host": "mesh.test", **headers})
        response = connection.getresponse()
        response.read()
        connection.close()
        return {name.lower(): value for name, value in response.getheaders()} | {":status": str(response.status)}

    def here(self, path: str, headers: Headers) -> Headers:
        self._client.cookies.clear()
        try:
            response = self._client.get(f"http://mesh.test{path}", headers=headers)
        except CallError as error:
            return {":status": "503" if error.flag == "UH" else str(error)}
        return dict(response.headers) | {":status": str(response.status_code)}


def told(answer: Headers) -> Headers:
    """What the response says of the session, but for the moment it expires (after the address, in the same base64)."""
    found = {name: value for name, value in answer.items() if name in ("set-cookie", "x-session")}
    return {name: f"{value[:28]} {value.partition(';')[2]}" for name, value in found.items()}


def wanting(answer: Headers) -> Headers:
    """The request headers of somebody who was answered so."""
    if "x-session" in answer:
        return {"x-session": answer["x-session"]}
    return {"cookie": answer["set-cookie"].partition(";")[0]}


def begun_and_continued(doors: Doors, path: str) -> None:
    for begun, went_on in ((doors.there, doors.here), (doors.here, doors.there)):
        first = begun(path, {})
        for _ in range(4):
            again = went_on(path, wanting(first))
            assert again["x-backend"] == first["x-backend"], path
            assert told(again) == {}, "the caller knows already"


def said_of(ask: Callable[[str, Headers], Headers], path: str) -> dict[str, Headers]:
    """What is said of each endpoint."""
    return {answer["x-backend"]: told(answer) for answer in (ask(path, {}) for _ in range(6))}


def encoded(text: bytes | str) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


@pytest.fixture
def session_twin(
    make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend]
) -> Iterator[tuple[Doors, dict[str, str]]]:
    """A cluster of three with a session, for each way to have one; and the endpoints' names by address."""
    backends = [fast_backend(name) for name in "abc"]
    ttl = session(cookie(name="sid", path="/app", ttl="3600s", attributes=[{"name": "SameSite", "value": "Lax"}]))
    own = {
        "/plain": per_route(stateful_session={"session_state": cookie(name="plain")}),
        "/header": per_route(stateful_session={"session_state": HEADER}),
        "/off": per_route(disabled=True),
    }
    table = [
        {"match": {"prefix": path}, "route": {"cluster": "up"}, "typed_per_filter_config": config}
        for path, config in own.items()
    ]
    table.append({"match": {"prefix": "/"}, "route": {"cluster": "up"}})
    twin = make_twin([virtual_host(table)], [cluster("up", [backend.port for backend in backends])], filters=[ttl])
    with twin.mesh.http.client() as client:
        yield Doors(twin, client), {f"127.0.0.1:{backend.port}": backend.name for backend in backends}


def test_sessions_go_on_through_either(session_twin: tuple[Doors, dict[str, str]]) -> None:
    """A session begun through one continues through the other, and both say the same of the same endpoint."""
    doors, names = session_twin
    for path in ("/app", "/app/x?y=1", "/plain", "/header"):
        begun_and_continued(doors, path)
        theirs, ours = said_of(doors.there, path), said_of(doors.here, path)
        assert set(theirs) == set(names.values())
        assert theirs == ours
    for path in ("/apple", "/off"):
        assert told(doors.there(path, {})) == told(doors.here(path, {})) == {}


def test_what_a_cookie_may_say(session_twin: tuple[Doors, dict[str, str]]) -> None:
    """Both take an address alone, and balance where a cookie says nothing that can be used."""
    doors, names = session_twin
    values = {encoded(address): name for address, name in names.items()}
    values |= dict.fromkeys(("", "!!", "zz", encoded("10.0.0.1:1"), encoded(b"\x0a")), "")
    for value, name in values.items():
        for header in (f"sid={value}", f'x=1; sid="{value}"; y=2'):
            for ask in (doors.there, doors.here):
                answers = [ask("/app", {"cookie": header}) for _ in range(4)]
                found = {answer["x-backend"] for answer in answers}
                assert found == {name} if name else len(found) > 1
                assert all(bool(told(answer)) != bool(name) for answer in answers)


STATUSES: dict[str, list[str] | None] = {
    "default": None,
    "none": [],
    "healthy": ["HEALTHY"],
    "draining": ["DRAINING", "UNKNOWN"],
    "bad": ["UNHEALTHY", "TIMEOUT", "DEGRADED"],
}


def clusters_by_statuses(endpoints: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for name, statuses in STATUSES.items():
        made = cluster(name, [])
        made["load_assignment"]["endpoints"] = [{"lb_endpoints": endpoints}]
        if statuses is not None:
            made["common_lb_config"] = {"override_host_status": {"statuses": statuses}}
        yield made


def where_it_went(ask: Callable[[str, Headers], Headers], path: str, port: int, name: str) -> str:
    value = encoded(f"127.0.0.1:{port}")
    answers = [ask(path, {"cookie": f"sid={value}"}) for _ in range(12)]  # else chance would lead there too
    if all(answer[":status"] == "503" for answer in answers):
        return "503"
    return "there" if all(answer["x-backend"] == name for answer in answers) else "elsewhere"


def test_the_health_of_the_endpoint_a_session_wants(
    make_twin: Callable[..., Twin], fast_backend: Callable[..., FastBackend]
) -> None:
    """Every health by every set of statuses, strict or not: there or elsewhere, or 503."""
    backends = {health: fast_backend(health) for health in HEALTH}
    endpoints = [endpoint(backend.port, health_status=health) for health, backend in backends.items()]
    strict = per_route(stateful_session={"session_state": cookie(name="sid"), "strict": True})
    table: list[dict[str, Any]] = []
    for name in STATUSES:
        table.append({"match": {"path": f"/{name}"}, "route": {"cluster": name}})
        table.append({**table[-1], "match": {"path": f"/{name}/strict"}, "typed_per_filter_config": strict})
    clusters = list(clusters_by_statuses(endpoints))
    twin = make_twin([virtual_host(table)], clusters, filters=[session(cookie(name="sid"))])
    results: Counter[str] = Counter()
    with twin.mesh.http.client() as client:
        doors = Doors(twin, client)
        for route in table:
            path = str(route["match"]["path"])
            for health, backend in backends.items():
                theirs = where_it_went(doors.there, path, backend.port, health)
                assert where_it_went(doors.here, path, backend.port, health) == theirs, (path, health)
                results[theirs] += 1
    assert set(results) == {"there", "elsewhere", "503"}


@pytest.mark.parametrize("action", ["filter_action", "non_forwarding_action"])
def test_routes_that_do_not_forward(make_twin: Callable[..., Twin], action: str) -> None:
    twin = make_twin([virtual_host([{"match": {"prefix": "/x"}, action: {}}])], [])
    for path, flag in (("/x", "NC"), ("/other", "NR")):
        theirs, ours = (ask(Call(path.strip("/"), path)) for ask in (twin.theirs, twin.ours))
        assert (theirs.status, ours.flag) == (ours.status, flag)
