"""Mirrored requests through every door: the copy is the request, and the call does not feel it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from e2e.http_client.conftest import still_held
from e2e.http_client.doors import Caller, Door
from meshlib import Mesh
from meshlib.drivers.mirrors import MOST_THREADS, Mirrors
from meshlib.model.cluster import CircuitBreakers, Thresholds
from meshlib.model.matchers import FractionalPercent, PathMatcher, RouteMatch
from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.redirect import InternalRedirectPolicy
from meshlib.model.route import RetryPolicy, Route, RouteAction
from meshlib.sources.static import static_cluster
from parts.fast_backend import FastBackend, Reply, Request

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]
ANY = RouteMatch(PathMatcher("prefix", "/"))
TO_SHADOW = (RequestMirrorPolicy("shadow"),)


def mirrored(static: Static, main: FastBackend, shadow: Any, *, limit: int | None = None, **action: Any) -> Mesh:
    """A mesh whose `payments` mirrors to `shadow`: a backend, an address, or a cluster."""
    address = shadow.address if isinstance(shadow, FastBackend) else shadow
    clusters = {"payments": [main.address], "shadow": [address] if isinstance(address, str) else address}
    route = RouteAction("payments", **{"request_mirror_policies": TO_SHADOW} | action)
    return static(clusters, routes={"payments": (Route(ANY, route, request_body_buffer_limit=limit),)})


def wait(caller: Caller, until: Callable[[], bool]) -> None:
    """Copies take their own time; a loop has to run for them."""
    limit = time.monotonic() + 10
    while not until() and time.monotonic() < limit:
        caller.settle()
        time.sleep(0.001)
    assert until()


def compared(request: Request) -> tuple[Any, ...]:
    headers = [pair for pair in request.headers if pair[0] not in ("host", "x-envoy-expected-rq-timeout-ms")]
    return request.method, request.target, request.body, sorted(headers)


def test_the_copy_is_the_request_with_another_host(door: Door, static: Static, fast_backend: Fast) -> None:
    main, shadow = fast_backend("main"), fast_backend("shadow")
    mesh = mirrored(static, main, shadow)
    caller = door.client(mesh)
    caller.get("/a?b=c", headers={"x-own": "1"})
    caller.post("/bytes", content=b"whole body")
    caller.post("/stream", content=door.body([b"in ", b"", b"pieces"]))
    caller.request("PUT", "/length", content=door.body([b"12", b"345"]), headers={"content-length": "5"})
    caller.post("/form", data={"a": "1"}, files={"f": b"file"})
    wait(caller, lambda: shadow.count == 5)
    assert sorted(map(compared, shadow.requests)) == sorted(map(compared, main.requests))
    assert {request.header("host") for request in main.requests} == {"payments"}
    assert {request.header("host") for request in shadow.requests} == {"payments-shadow"}
    wait(caller, lambda: mesh.mirrors.under_way == 0)
    assert mesh.stats()["cluster.shadow.upstream_rq_2xx"] == 5
    assert still_held(mesh, connections=False) == {}


@pytest.mark.parametrize("fault", ["hang", "reset", "close", "truncate", "error", "refused"])
def test_a_bad_mirror_is_nobodys_trouble(door: Door, static: Static, fast_backend: Fast, fault: str) -> None:
    main, shadow = fast_backend("main"), fast_backend("shadow")
    if fault == "error":
        shadow.behave(status=500)
    elif fault == "refused":
        shadow.stop()
    else:
        shadow.behave(Reply(fault=fault))
    mesh = mirrored(static, main, shadow)
    caller = door.client(mesh)
    answers = [caller.post("/", content=b"x") for _ in range(40)]
    assert [answer.status_code for answer in answers] == [200] * 40
    stats = mesh.stats()
    assert stats["cluster.payments.upstream_rq_total"] == 40
    if fault == "hang":
        wait(caller, lambda: shadow.count == (40 if door.asynchronous else MOST_THREADS))
        assert mesh.mirrors.under_way == 40
        return  # closing the mesh gives them up: the fixture looks
    wait(caller, lambda: mesh.mirrors.under_way == 0)
    stats = mesh.stats()
    assert stats["cluster.shadow.upstream_rq_total"] == 40
    counted = {
        "error": "upstream_rq_5xx",
        "refused": "upstream_cx_connect_fail",
        "truncate": "upstream_rq_2xx",
        "reset": "upstream_rq_rx_reset",
        "close": "upstream_rq_rx_reset",
    }
    assert stats[f"cluster.shadow.{counted[fault]}"] == 40


def test_closing_the_mesh_gives_copies_up(door: Door, static: Static, fast_backend: Fast) -> None:
    main, shadow = fast_backend("main"), fast_backend("shadow", Reply(fault="hang"))
    mesh = mirrored(static, main, shadow)
    caller = door.client(mesh)
    for _ in range(30):
        caller.get("/")
    mirrors = mesh.mirrors
    assert mirrors.under_way == 30
    begun = 30 if door.asynchronous else MOST_THREADS
    wait(caller, lambda: shadow.count == begun)
    mesh.close()
    wait(caller, lambda: mirrors.under_way == 0)
    assert not mirrors.on_thread(None)  # type: ignore[arg-type]  # it is closed
    assert caller.get("/").status_code == 200, "calls go on, with copies of their own"
    assert mesh.mirrors is not mirrors
    wait(caller, lambda: shadow.count > begun)


def test_copies_are_bounded_by_the_process_and_by_their_cluster(door: Door, static: Static, fast_backend: Fast) -> None:
    main, shadow = fast_backend("main"), fast_backend("shadow", Reply(fault="hang"))
    mesh = mirrored(static, main, shadow)
    mesh.__dict__["mirrors"] = Mirrors(most=5)
    caller = door.client(mesh)
    assert [caller.get("/").status_code for _ in range(20)] == [200] * 20
    assert mesh.mirrors.under_way == 5
    wait(caller, lambda: shadow.count == 5)
    assert mesh.stats()["cluster.shadow.upstream_rq_pending_overflow"] == 15
    limited = static_cluster("shadow", [shadow.address])
    thresholds = CircuitBreakers(Thresholds(max_requests=3))
    other = static(
        {
            "payments": [main.address],
            "shadow": type(limited)("shadow", load_assignment=limited.load_assignment, circuit_breakers=thresholds),
        },
        routes={"payments": (Route(ANY, RouteAction("payments", request_mirror_policies=TO_SHADOW)),)},
    )
    caller = door.client(other)
    for _ in range(10):
        caller.get("/")
    wait(caller, lambda: other.stats()["cluster.shadow.upstream_rq_active_overflow"] == 7)
    wait(caller, lambda: shadow.count == 5 + 3)
    assert other.mirrors.under_way == 3


def test_a_long_stream_is_not_kept_for_a_copy(door: Door, static: Static, fast_backend: Fast) -> None:
    main, shadow = fast_backend("main"), fast_backend("shadow")
    mesh = mirrored(static, main, shadow, limit=10, request_mirror_policies=TO_SHADOW * 2)
    caller = door.client(mesh)
    caller.post("/", content=door.body([b"12345", b"67890"]))
    wait(caller, lambda: shadow.count == 2)
    caller.post("/", content=door.body([b"12345", b"67890", b"1"]))
    assert main.requests[-1].body == b"12345678901"
    wait(caller, lambda: mesh.mirrors.under_way == 0)
    assert shadow.count == 2
    assert mesh.stats()["cluster.payments.retry_or_shadow_abandoned"] == 1


def test_a_stream_that_breaks_off_has_no_copy(door: Door, static: Static, fast_backend: Fast) -> None:
    main, shadow = fast_backend("main"), fast_backend("shadow")
    mesh = mirrored(static, main, shadow)
    caller = door.client(mesh)

    def pieces() -> Any:
        yield b"some"
        raise LookupError("the caller's own")

    with pytest.raises(LookupError):
        caller.post("/", content=door.body(pieces()))
    assert (shadow.count, mesh.stats()["cluster.payments.retry_or_shadow_abandoned"]) == (0, 1)
    wait(caller, lambda: main.connections_made == 1)  # a server that stops while it accepts says so


def test_the_share_of_a_seed(door: Door, static: Static, fast_backend: Fast) -> None:
    """The same seed mirrors the same requests, whichever door they go through."""
    main, shadow = fast_backend("main"), fast_backend("shadow")
    share = (RequestMirrorPolicy("shadow", fraction=FractionalPercent(30)),)
    mesh = mirrored(static, main, shadow, request_mirror_policies=share)
    caller = door.client(mesh)
    for number in range(100):
        caller.get(f"/{number}")
    wait(caller, lambda: mesh.mirrors.under_way == 0)
    assert len(shadow.requests) == 33, "of 100 by seed 7"


def test_a_retried_call_is_mirrored_once(door: Door, static: Static, fast_backend: Fast) -> None:
    statuses = iter([503, 503, 200])
    main = fast_backend("main", lambda request: Reply(next(statuses)))
    shadow = fast_backend("shadow")
    mesh = mirrored(static, main, shadow, retry_policy=RetryPolicy(("5xx",), num_retries=3))
    caller = door.client(mesh)
    assert caller.get("/").extensions["meshlib"].attempts == 3
    wait(caller, lambda: mesh.mirrors.under_way == 0)
    assert shadow.count == 1


@pytest.mark.parametrize(("status", "method", "body"), [(303, "GET", b""), (307, "POST", b"body")])
def test_an_internal_redirect_is_followed(
    door: Door, static: Static, fast_backend: Fast, status: int, method: str, body: bytes
) -> None:
    def answer(request: Request) -> Reply:
        if request.target == "/from":
            return Reply(status, b"moved", headers=(("location", "http://payments/to?x"),))
        return Reply(200, b"there")

    main = fast_backend("main", answer)
    policy = InternalRedirectPolicy(codes=(303, 307))
    mesh = mirrored(static, main, main, request_mirror_policies=(), internal_redirect=policy)
    caller = door.client(mesh)
    response = caller.post("/from", content=b"body")
    assert (response.status_code, response.content) == (200, b"there")
    assert response.extensions["meshlib"].internal_redirects == 1
    assert [(request.method, request.target, request.body) for request in main.requests] == [
        ("POST", "/from", b"body"),
        (method, "/to?x", body),
    ]
    streamed = caller.post("/from", content=door.body([b"body"]))
    assert (streamed.status_code, streamed.extensions["meshlib"].why_not_redirected) == (status, "not-replayable")
    assert still_held(mesh, connections=False) == {}
