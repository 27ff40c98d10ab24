"""Circuit breakers of endpoints and routes, slow calls and fallbacks, end to end through every door."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pybreaker
import pytest

from e2e.http_client.doors import Door
from meshlib import CircuitOpenError, Mesh
from meshlib.engine.events import BreakerChanged
from meshlib.model.circuit_breaker import FallbackResponse
from meshlib.model.cluster import CircuitBreaker
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import Route, RouteAction
from meshlib.sources.static import static_cluster
from parts.fast_backend import FastBackend, Reply, Request

Static = Callable[..., Mesh]
Fast = Callable[..., FastBackend]


def changes_of(mesh: Mesh) -> list[BreakerChanged]:
    seen: list[BreakerChanged] = []
    mesh.on_event(lambda event: seen.append(event) if isinstance(event, BreakerChanged) else None)
    return seen


def test_one_failing_endpoint_is_left_out_and_comes_back(door: Door, static: Static, fast_backend: Fast) -> None:
    bad, good = fast_backend("bad", Reply(500)), fast_backend("good")
    policy = CircuitBreaker(fail_max=2, reset_timeout=0.3, scope="endpoint")
    addresses = [bad.address, good.address]
    mesh = static({"payments": static_cluster("payments", addresses, circuit_breaker=policy)})
    changes = changes_of(mesh)
    client = door.client(mesh)
    statuses = Counter(client.get("/").status_code for _ in range(20))
    assert statuses == {500: 2, 200: 18}
    bad.behave(delay=0.2)
    time.sleep(0.35)
    before = bad.count
    assert {answer.status_code for answer in client.together([("GET", "/")] * 12)} == {200}
    assert bad.count == before + 1, "one probe, and nobody waits for it"
    assert Counter(client.get("/").json()["name"] for _ in range(10)) == {"bad": 5, "good": 5}
    name = f"payments@{bad.address}"
    assert [(change.name, change.new) for change in changes] == [
        (name, "open"),
        (name, "half-open"),
        (name, "closed"),
    ]
    assert changes[0].figures == {"consecutive_failures": 2, "fail_max": 2}


def test_when_every_endpoint_is_out_the_error_is_an_open_circuit(
    door: Door, static: Static, fast_backend: Fast
) -> None:
    backends = [fast_backend(name, Reply(500)) for name in "ab"]
    policy = CircuitBreaker(fail_max=1, reset_timeout=60, scope="endpoint")
    addresses = [backend.address for backend in backends]
    client = door.client(static({"payments": addresses}, breakers={"payments": policy}))
    assert [client.get("/").status_code for _ in range(2)] == [500, 500]
    with pytest.raises(CircuitOpenError, match="circuit breakers of the endpoints") as refused:
        client.get("/")
    assert isinstance(refused.value, pybreaker.CircuitBreakerError)
    assert refused.value.headers == (("x-envoy-overloaded", "true"),)


def test_a_pybreaker_of_each_endpoint(door: Door, static: Static, fast_backend: Fast) -> None:
    bad, good = fast_backend("bad", Reply(500)), fast_backend("good")
    made: dict[str, pybreaker.CircuitBreaker] = {}

    def make(address: str) -> pybreaker.CircuitBreaker:
        made[address] = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=60)
        return made[address]

    client = door.client(static({"payments": [bad.address, good.address]}, breakers={"payments": make}))
    assert Counter(client.get("/").status_code for _ in range(10)) == {500: 1, 200: 9}
    assert {address: each.current_state for address, each in made.items()} == {
        bad.address: "open",
        good.address: "closed",
    }


def test_slow_calls_of_one_route_open_its_breaker_and_the_fallback_answers(
    door: Door, static: Static, fast_backend: Fast
) -> None:
    def reply(request: Request) -> Reply:
        return Reply(delay=0.06) if request.target == "/report" else Reply()

    backend = fast_backend("b", reply)
    policy = CircuitBreaker(
        fail_max=0,
        slow_call_rate=60,
        slow_call_duration=0.05,
        window_size=5,
        fallback=FallbackResponse(203, (("x-from", "cache"),), b'{"stale": true}'),
    )
    report = Route(
        RouteMatch(PathMatcher("exact", "/report")), RouteAction("payments"), "report", circuit_breaker=policy
    )
    rest = Route(RouteMatch(PathMatcher("prefix", "/")), RouteAction("payments"), "rest")
    mesh = static({"payments": [backend.address]}, routes={"payments": (report, rest)})
    changes = changes_of(mesh)
    client = door.client(mesh)
    assert [client.get("/report").status_code for _ in range(5)] == [200] * 5
    answer = client.get("/report")
    assert (answer.status_code, answer.json(), answer.headers["x-from"]) == (203, {"stale": True}, "cache")
    assert answer.headers["x-envoy-overloaded"] == "true"
    assert answer.extensions["meshlib"].flag == "UO"
    assert client.get("/other").status_code == 200
    assert backend.count == 6
    assert [(change.name, change.reason) for change in changes] == [("payments/report", "slow call rate")]
    assert changes[0].figures["slow_call_rate"] == 100.0


def test_exactly_the_permitted_probes_under_many_calls_at_once(door: Door, static: Static, fast_backend: Fast) -> None:
    backend = fast_backend("b", Reply(500))
    policy = CircuitBreaker(fail_max=1, reset_timeout=0.1, half_open_permits=3, success_threshold=3)
    client = door.client(static({"payments": [backend.address]}, breakers={"payments": policy}))
    client.get("/")
    backend.behave(delay=0.4)
    time.sleep(0.15)
    answers = client.together([("GET", "/")] * 60)
    assert sum(isinstance(answer, CircuitOpenError) for answer in answers) == 57
    assert backend.count == 4
    assert client.get("/").status_code == 200
