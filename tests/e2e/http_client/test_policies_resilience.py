"""Retries, timeouts, breakers, thresholds, outlier detection and rate limits, end to end on real backends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pybreaker
import pytest

from e2e.http_client.conftest import held, still_held
from e2e.http_client.doors import Door
from meshlib import CircuitOpenError, Mesh, RateLimitedError, UpstreamOverflowError, UpstreamTimeoutError
from meshlib.engine.events import (
    AttemptEnded,
    BreakerChanged,
    CallEnded,
    EndpointEjected,
    EndpointReturned,
    RateLimited,
)
from meshlib.model.cluster import CircuitBreaker, CircuitBreakers, OutlierDetection, RetryBudget, Thresholds
from meshlib.model.filters import HttpFilter, LocalRateLimit, PerFilterConfig, RouterFilter, TokenBucket
from meshlib.model.headers import HeaderValueOption
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import ALWAYS, PathMatcher, RouteMatch
from meshlib.model.route import RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost
from meshlib.model.snapshot import Snapshot
from meshlib.policy.shared_limit import SharedRateLimit
from meshlib.sources.static import StaticSource, static_cluster
from parts.fast_backend import FastBackend, Reply, Request
from parts.redis_server import RedisServer

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]


def recorded(mesh: Mesh, kind: type) -> list[Any]:
    """The events of one kind, as they come."""
    seen: list[Any] = []
    mesh.on_event(lambda event: seen.append(event) if isinstance(event, kind) else None)
    return seen


def first_fails(count: int, status: int = 503) -> Callable[[Request], Reply]:
    """Fail the first `count` requests."""
    left = [None] * count

    def reply(request: Request) -> Reply:
        return Reply(status) if left and left.pop() is None else Reply()

    return reply


# ---------------------------------------------------------------------- retries


def test_a_503_is_retried_elsewhere_and_the_caller_sees_the_success(
    door: Door, static: Static, fast_backend: Fast
) -> None:
    bad, good = fast_backend("bad", Reply(503)), fast_backend("good")
    mesh = static({"payments": [bad.address, good.address]}, retries=2)
    attempts, calls = recorded(mesh, AttemptEnded), recorded(mesh, CallEnded)
    client = door.client(mesh)
    for _ in range(10):
        response = client.post("/", json={"amount": 1})
        assert (response.status_code, response.headers["x-backend"]) == (200, "good")
    stats = mesh.stats()
    assert stats["cluster.payments.upstream_rq_retry"] == bad.count > 0
    assert stats["cluster.payments.upstream_rq_retry_success"] == bad.count
    assert [event.result for event in attempts if event.retry] == [503] * bad.count
    assert {(call.status, call.flag) for call in calls} == {(200, None)}


def test_the_last_503_is_the_callers_when_retries_are_used_up(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("down", Reply(503, b"sorry"))
    mesh = static({"payments": [backend.address]}, retries=2)
    response = door.client(mesh).get("/")
    assert (response.status_code, response.text) == (503, "sorry")
    assert (response.extensions["meshlib"].attempts, response.extensions["meshlib"].flag) == (3, "URX")
    assert backend.count == 3
    assert mesh.stats()["cluster.payments.upstream_rq_retry_limit_exceeded"] == 1


def test_what_the_policy_does_not_name_is_not_retried(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b", Reply(500))
    assert door.client(static({"payments": [backend.address]}, retries=2)).get("/").status_code == 500
    assert backend.count == 1


def test_a_retry_uses_the_connection_of_the_dropped_answer_or_another_but_loses_none(
    door: Door, static: Static, fast_backend: Fast
) -> None:
    backend = fast_backend("b", first_fails(50))
    mesh = static({"payments": [backend.address]}, retries=1)
    client = door.client(mesh)
    for _ in range(60):
        client.get("/")
    assert still_held(mesh, connections=False) == {}
    assert len(mesh.runtime.state.clusters["payments"].default.connections) <= 2


def test_the_retry_budget_holds_in_a_storm(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("down", Reply(503, delay=0.05))
    budget = CircuitBreakers(default=Thresholds(retry_budget=RetryBudget(20.0, 1)))
    cluster = replace(static_cluster("payments", [backend.address]), circuit_breakers=budget)
    policy = RetryPolicy(("5xx",), num_retries=1, base_interval=0.2, max_interval=0.2)
    mesh = static({"payments": cluster}, retries=policy)
    answers = door.client(mesh).together([("GET", "/")] * 30)
    assert {answer.status_code for answer in answers} == {503}
    retried = mesh.stats()["cluster.payments.upstream_rq_retry"]
    assert 1 <= retried <= 12, "a fifth of what is in flight, not of all 30 again and again"
    assert mesh.stats()["cluster.payments.upstream_rq_retry_overflow"] == 30 - retried
    assert backend.count == 30 + retried


def test_a_per_try_timeout_tries_the_other_endpoint(door: Door, static: Static, fast_backend: Fast) -> None:
    slow, quick = fast_backend("slow", Reply(delay=10)), fast_backend("quick")
    policy = RetryPolicy(("5xx",), 2, 0.15, previous_hosts=True, host_selection_retry_max_attempts=5)
    mesh = static({"payments": [slow.address, quick.address]}, retries=policy)
    client = door.client(mesh)
    for _ in range(4):
        began = time.monotonic()
        assert client.get("/").headers["x-backend"] == "quick"
        assert time.monotonic() - began < 2.0
    assert slow.count > 0
    assert mesh.stats()["cluster.payments.upstream_rq_per_try_timeout"] == slow.count


def test_the_routes_timeout_covers_all_attempts_and_their_back_off(
    door: Door, static: Static, fast_backend: Fast
) -> None:
    replies = iter([Reply(503, delay=0.3), Reply(fault="hang")])
    backend = fast_backend("slow", lambda request: next(replies))
    policy = RetryPolicy(("5xx",), num_retries=50, base_interval=0.001, max_interval=0.001)
    action = RouteAction("payments", timeout=1.0, retry_policy=policy)
    route = Route(RouteMatch(PathMatcher("prefix", "/")), action)
    mesh = static({"payments": [backend.address]}, routes={"payments": (route,)})
    began = time.monotonic()
    with pytest.raises(UpstreamTimeoutError) as failed:
        door.client(mesh).get("/")
    assert time.monotonic() - began > 0.9
    assert failed.value.failure.attempts == backend.count == 2
    first, second = (int(each.header("x-envoy-expected-rq-timeout-ms")) for each in backend.requests)
    assert second <= first - 300, "what the first has taken is no more the second's"
    assert still_held(mesh, connections=False) == {}


# ---------------------------------------------------------------------- circuit breakers


def test_a_breaker_opens_lets_a_probe_through_and_closes(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b", Reply(500))
    breaker = CircuitBreaker(fail_max=3, reset_timeout=0.2)
    mesh = static({"payments": static_cluster("payments", [backend.address], circuit_breaker=breaker)})
    changes = recorded(mesh, BreakerChanged)
    client = door.client(mesh)
    for _ in range(3):
        assert client.get("/").status_code == 500
    with pytest.raises(CircuitOpenError):
        client.get("/")
    assert backend.count == 3
    time.sleep(0.25)
    assert client.get("/").status_code == 500, "the probe, which fails"
    with pytest.raises(CircuitOpenError):
        client.get("/")
    backend.behave()
    time.sleep(0.25)
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 200]
    assert [(change.old, change.new) for change in changes] == [
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
    ]


def test_a_half_open_breaker_lets_only_its_probes_through(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b", Reply(500))
    breaker = CircuitBreaker(fail_max=1, reset_timeout=0.1, half_open_permits=2)
    mesh = static({"payments": static_cluster("payments", [backend.address], circuit_breaker=breaker)})
    client = door.client(mesh)
    client.get("/")
    backend.behave(delay=0.3)
    time.sleep(0.15)
    answers = client.together([("GET", "/")] * 20)
    refused = [answer for answer in answers if isinstance(answer, CircuitOpenError)]
    assert (len(refused), backend.count) == (18, 3)
    assert client.get("/").status_code == 200


def test_a_users_own_pybreaker_object(door: Door, static: Static, fast_backend: Fast) -> None:
    breaker = pybreaker.CircuitBreaker(fail_max=2, reset_timeout=600)
    backend = fast_backend("b", Reply(500))
    client = door.client(static({"payments": [backend.address]}, breakers={"payments": breaker}))
    assert [client.get("/").status_code for _ in range(2)] == [500, 500]
    assert breaker.current_state == "open"
    with pytest.raises(pybreaker.CircuitBreakerError):
        client.get("/")
    breaker.close()
    assert client.get("/").status_code == 500


# ---------------------------------------------------------------------- thresholds


def test_max_requests_counts_until_the_body_has_ended(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b", Reply(200, b"x" * 5_000_000))
    two = CircuitBreakers(default=Thresholds(max_requests=2))
    cluster = replace(static_cluster("payments", [backend.address]), circuit_breakers=two)
    mesh = static({"payments": cluster})
    client = door.client(mesh)
    first, second = client.open("GET", "/1"), client.open("GET", "/2")
    with pytest.raises(UpstreamOverflowError, match="2 active requests") as refused:
        client.get("/3")
    assert isinstance(refused.value, door.error("PoolTimeout"))
    assert not isinstance(refused.value, CircuitOpenError)
    assert len(client.read(first)) == 5_000_000
    assert client.get("/4").status_code == 200
    client.close_response(second)
    assert mesh.stats()["cluster.payments.upstream_rq_active_overflow"] == 1
    assert [request.target for request in backend.requests] == ["/1", "/2", "/4"]


def test_max_pending_requests_bounds_the_queue(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("slow", Reply(delay=0.3))
    small = CircuitBreakers(default=Thresholds(max_connections=1, max_pending_requests=2))
    cluster = replace(static_cluster("payments", [backend.address]), circuit_breakers=small)
    mesh = static({"payments": cluster})
    client = door.client(mesh)
    client.get("/")  # the connection stands: from here on only waiting requests are pending
    answers = client.together([("GET", "/")] * 6)
    refused = [answer for answer in answers if isinstance(answer, UpstreamOverflowError)]
    assert (len(refused), backend.count) == (3, 4)
    assert backend.connections_made == 1
    assert held(mesh, connections=False) == {}


# ---------------------------------------------------------------------- outlier detection


def test_an_outlier_is_ejected_and_comes_back(door: Door, static: Static, fast_backend: Fast) -> None:
    bad, good = fast_backend("bad", Reply(500)), fast_backend("good")
    detection = OutlierDetection(consecutive_5xx=3, base_ejection_time=0.3, interval=0.05, max_ejection_percent=50)
    cluster = static_cluster("payments", [bad.address, good.address], outlier_detection=detection)
    mesh = static({"payments": cluster})
    ejected, returned = recorded(mesh, EndpointEjected), recorded(mesh, EndpointReturned)
    client = door.client(mesh)
    for _ in range(6):
        client.get("/")
    assert [(event.endpoint, event.reason) for event in ejected] == [(bad.address, "consecutive_5xx")]
    before = bad.count
    assert {client.get("/").headers["x-backend"] for _ in range(10)} == {"good"}
    assert bad.count == before == 3
    bad.behave()
    time.sleep(0.4)
    assert {client.get("/").headers["x-backend"] for _ in range(10)} == {"bad", "good"}
    assert [event.endpoint for event in returned] == [bad.address]


def test_a_body_that_breaks_counts_against_the_endpoint(door: Door, static: Static, fast_backend: Fast) -> None:
    bad = fast_backend("bad", Reply(200, b"x" * 1000, fault="truncate"))
    good = fast_backend("good")
    detection = OutlierDetection(consecutive_5xx=1, base_ejection_time=60, max_ejection_percent=50)
    cluster = static_cluster("payments", [bad.address, good.address], outlier_detection=detection)
    mesh = static({"payments": cluster})
    ejected = recorded(mesh, EndpointEjected)
    answers = door.client(mesh).together([("GET", "/")] * 2)
    assert sum(isinstance(answer, Exception) for answer in answers) == 1
    assert [event.endpoint for event in ejected] == [bad.address]


def test_a_caller_that_gives_up_does_not_count_against_the_endpoint(
    door: Door, static: Static, fast_backend: Fast
) -> None:
    backend = fast_backend("b", Reply(200, b"x" * 5_000_000))
    detection = OutlierDetection(consecutive_5xx=1, base_ejection_time=60, max_ejection_percent=100)
    breaker = CircuitBreaker(fail_max=1, reset_timeout=60)
    cluster = static_cluster("payments", [backend.address], outlier_detection=detection, circuit_breaker=breaker)
    mesh = static({"payments": cluster})
    ejected = recorded(mesh, EndpointEjected)
    client = door.client(mesh)
    for _ in range(3):
        client.close_response(client.open("GET", "/"))
    assert ejected == []
    assert len(client.get("/").content) == 5_000_000


# ---------------------------------------------------------------------- rate limits


def limited(backend: FastBackend) -> Snapshot:
    """Two calls for the service, any number for /free."""
    bucket = TokenBucket(2, 2, 3600.0)
    header = (HeaderValueOption("x-limited", "yes"),)
    limit = LocalRateLimit("quota", bucket, ALWAYS, ALWAYS, response_headers=header)
    off = (PerFilterConfig("limit", None, disabled=True),)
    routes = (
        Route(RouteMatch(PathMatcher("prefix", "/free")), RouteAction("payments"), typed_per_filter_config=off),
        Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("payments")),
    )
    table = RouteConfiguration("r", (VirtualHost("payments", ("payments",), routes),))
    filters = (HttpFilter("limit", limit), HttpFilter("router", RouterFilter()))
    listener = Listener("payments", (HttpConnectionManager(table, filters),), api=True)
    return Snapshot(
        listeners=MappingProxyType({"payments": listener}),
        clusters=MappingProxyType({"payments": static_cluster("payments", [backend.address])}),
    )


def test_a_local_rate_limit_answers_429(door: Door, meshes: list[Mesh], fast_backend: Fast) -> None:
    backend = fast_backend()
    meshes.append(Mesh(StaticSource(limited(backend)), seed=1))
    events = recorded(meshes[0], RateLimited)
    client = door.client(meshes[0])
    assert [client.get("/").status_code for _ in range(4)] == [200, 200, 429, 429]
    refused = client.get("/")
    assert (refused.text, refused.headers["x-limited"]) == ("local_rate_limited", "yes")
    assert (refused.extensions["meshlib"].flag, refused.extensions["meshlib"].attempts) == ("RL", 0)
    assert {client.get("/free").status_code for _ in range(5)} == {200}
    assert backend.count == 7
    assert [event.name for event in events] == ["quota"] * 3


def test_a_local_bucket_outlives_a_change_of_configuration(door: Door, meshes: list[Mesh], fast_backend: Fast) -> None:
    backend = fast_backend()
    source = StaticSource(limited(backend))
    meshes.append(Mesh(source, seed=1))
    client = door.client(meshes[0])
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
    source.replace(replace(limited(backend), version="2"))
    assert client.get("/").status_code == 429


def test_a_limit_shared_through_redis(
    door: Door, static: Static, fast_backend: Fast, redis_server: RedisServer
) -> None:
    """Two meshes, as two processes would be, and one quota for each user."""
    backend = fast_backend()

    def client() -> Any:
        limit = door.keep(
            SharedRateLimit("3/hour", redis_server.url, key="%REQ(x-user)%", name="per user", timeout=2.0)
        )
        return door.client(static({"payments": [backend.address]}, rate_limits={"payments": limit}))

    def outcome(client: Any, user: str) -> int:
        try:
            return int(client.get("/", headers={"x-user": user}).status_code)
        except RateLimitedError as error:
            return {"RL": 429, "RLSE": 503}[error.flag]

    one, two = client(), client()
    assert [outcome(one, "ann"), outcome(two, "ann"), outcome(one, "ann")] == [200, 200, 200]
    assert [outcome(one, "ann"), outcome(two, "ann")] == [429, 429]
    assert outcome(two, "bob") == 200
    assert backend.count == 4


def test_events_tell_the_whole_story_of_a_call(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b", first_fails(1))
    mesh = static({"payments": [backend.address]}, retries=1)
    seen: list[Any] = []
    mesh.on_event(seen.append)
    client = door.client(mesh)
    client.get("/charge?card=1")
    told = [event for event in seen if isinstance(event, AttemptEnded | CallEnded)]
    assert [(type(event).__name__, getattr(event, "result", None)) for event in told] == [
        ("AttemptEnded", 503),
        ("AttemptEnded", 200),
        ("CallEnded", None),
    ]
    call = told[-1]
    assert (call.method, call.authority, call.path, call.status) == ("GET", "payments", "/charge", 200)
    assert call.info.attempts == 2
