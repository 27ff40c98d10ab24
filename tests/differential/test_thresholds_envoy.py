"""Circuit-breaker thresholds, whole calls through both sides: who is refused, and what the gauges say meanwhile."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from differential.calls_twin import Answer, Call, Twin, cluster, marked, virtual_host
from meshlib.engine.readings import read
from meshlib.errors import CallFailure, UpstreamOverflowError
from meshlib.flags import ResponseFlag
from parts.fast_backend import FastBackend, Reply, Request

Make = Callable[..., Twin]
Backends = Callable[..., FastBackend]
ALL: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster": "up"}}
HIGH: dict[str, Any] = {"match": {"prefix": "/high"}, "route": {"cluster": "up", "priority": "HIGH"}}
GAUGES = "circuit_breakers"


def limits(*thresholds: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"circuit_breakers": {"thresholds": list(thresholds), **more}}


def sides(twin: Twin) -> list[tuple[str, Callable[[Call], Answer]]]:
    return [("envoy", twin.theirs), ("mesh", twin.ours)]


def at_once(twin: Twin, side: str, send: Callable[[Call], Answer], calls: list[Call]) -> Counter[int]:
    return Counter(answer.status for answer in twin.at_once(send, [marked(side, call) for call in calls]))


def told(twin: Twin, side: str) -> dict[str, int]:
    """The gauges of the thresholds of cluster `up`, by Envoy's names."""
    if side == "envoy":
        found = twin.envoy.stats(f"cluster.up.{GAUGES}")
        return {name.removeprefix("cluster.up."): value for name, value in found.items() if "pool" not in name}
    return {
        sample.metric.name.removeprefix("meshlib.cluster."): int(sample.value)
        for sample in read(twin.mesh.runtime)
        if GAUGES in sample.metric.name and sample.labels == ("up",)
    }


def in_flight(twin: Twin, send: Callable[[Call], Answer], calls: list[Call], backend: FastBackend) -> list[Future[Any]]:
    """The calls, sent and not answered yet."""
    before = backend.count
    futures = [twin._threads.submit(send, call) for call in calls]
    deadline = time.monotonic() + 5
    while backend.count < before + len(calls):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return futures


@pytest.mark.parametrize("priority", ["default", "high"])
def test_the_gauges_at_rest_below_and_at_the_thresholds(make_twin: Make, fast_backend: Backends, priority: str) -> None:
    backend = fast_backend("up", Reply(delay=0.6))
    mine = {"max_requests": 3, "max_connections": 4, "max_pending_requests": 5, "max_retries": 6}
    thresholds = limits(
        {"priority": "DEFAULT", "track_remaining": True, **mine},
        {"priority": "HIGH", "track_remaining": True, **mine},
    )
    twin = make_twin([virtual_host([HIGH, ALL])], [cluster("up", [backend.port], **thresholds)])
    path = "/high" if priority == "high" else "/"
    seen: dict[str, list[dict[str, int]]] = {}
    for side, send in sides(twin):
        seen[side] = [told(twin, side)]
        for number in (2, 3):
            futures = in_flight(twin, send, [Call(f"{side}-{number}-{each}", path) for each in range(number)], backend)
            seen[side].append(told(twin, side))
            assert {future.result().status for future in futures} == {200}
    assert seen["mesh"] == seen["envoy"]
    busy = seen["mesh"][2]
    assert (busy[f"{GAUGES}.{priority}.rq_open"], busy[f"{GAUGES}.{priority}.remaining_rq"]) == (1, 0)
    assert busy[f"{GAUGES}.{priority}.remaining_cx"] == 1


def test_nothing_remains_to_be_told_unless_it_is_asked_for(make_twin: Make, fast_backend: Backends) -> None:
    backend = fast_backend("up")
    twin = make_twin([virtual_host([ALL])], [cluster("up", [backend.port], **limits({"max_requests": 3}))])
    ours = told(twin, "mesh")
    assert ours == told(twin, "envoy")
    assert not [name for name in ours if "remaining" in name]


def test_the_priorities_have_thresholds_of_their_own(make_twin: Make, fast_backend: Backends) -> None:
    backend = fast_backend("up", Reply(delay=0.4))
    thresholds = limits(
        {"priority": "DEFAULT", "max_connections": 1, "max_pending_requests": 1},
        {"priority": "HIGH", "max_connections": 2, "max_pending_requests": 1},
    )
    twin = make_twin([virtual_host([HIGH, ALL])], [cluster("up", [backend.port], **thresholds)])
    for side, send in sides(twin):
        # With as many connections as there may be: a dial under way counts as pending.
        backend.behave(Reply(delay=0.1))
        for path, number in (("/", 1), ("/high", 1)):
            at_once(twin, side, send, [Call(f"warm{path}{each}", path) for each in range(number)])
        backend.behave(Reply(delay=0.4))
        assert at_once(twin, side, send, [Call(f"d{each}") for each in range(6)]) == {200: 2, 503: 4}, side
        both = [Call(f"b{each}", "/high" if each % 2 else "/") for each in range(4)]
        assert at_once(twin, side, send, both) == {200: 4}, side


@pytest.mark.parametrize("per_host, most", [(1, 1), (2, 2), (9, 3)])
def test_connections_to_one_host(make_twin: Make, fast_backend: Backends, per_host: int, most: int) -> None:
    backends = [fast_backend(name, Reply(delay=0.15)) for name in ("a", "b")]
    thresholds = limits(
        {"max_connections": 1000}, per_host_thresholds=[{"priority": "DEFAULT", "max_connections": per_host}]
    )
    twin = make_twin([virtual_host([ALL])], [cluster("up", [each.port for each in backends], **thresholds)])
    for side, send in sides(twin):
        for backend in backends:
            backend.connections_made = 0
        assert at_once(twin, side, send, [Call(str(each)) for each in range(6)]) == {200: 6}
        assert [backend.connections_made for backend in backends] == [most, most], side
    stat = "cluster.up.upstream_cx_overflow"
    # How often differs: Envoy counts those that wait once more when a connection becomes free.
    for overflows in (twin.mesh.stats()[stat], twin.envoy.stats(stat)[stat]):
        assert (overflows > 0) is (per_host < 3)


class FailsOnce:
    """`/slow` takes its time. Anything else fails at once, and the second time takes its time, too."""

    def __init__(self) -> None:
        self.seen: Counter[str | None] = Counter()

    def __call__(self, request: Request) -> Reply:
        self.seen[request.header("x-call-id")] += 1
        again = self.seen[request.header("x-call-id")] > 1
        return Reply(200, delay=1.5) if again or request.target == "/slow" else Reply(503)


@pytest.mark.parametrize(
    "budget",
    [
        {"budget_percent": {"value": 30}, "min_retry_concurrency": 1},
        {"budget_percent": {"value": 0}, "min_retry_concurrency": 2},
        {},
    ],
)
def test_a_budget_is_a_share_of_the_requests_in_flight(
    make_twin: Make, fast_backend: Backends, budget: dict[str, Any]
) -> None:
    backend = fast_backend("up", FailsOnce())
    again = {"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": again}}
    twin = make_twin(
        [virtual_host([route])],
        [cluster("up", [backend.port], **limits({"retry_budget": budget, "track_remaining": True}))],
    )
    counts = {}
    for side, send in sides(twin):
        slow = in_flight(twin, send, [Call(f"{side}-slow-{each}", "/slow") for each in range(10)], backend)
        failing = []
        for each in range(12):  # one after the other, and the retries stay
            failing.append(twin._threads.submit(send, Call(f"{side}-{each}")))
            time.sleep(0.03)
        statuses = Counter(future.result().status for future in failing)
        assert {future.result().status for future in slow} == {200}
        counts[side] = statuses[200]
        assert statuses[503] == 12 - statuses[200]
        assert told(twin, side)[f"{GAUGES}.default.remaining_retries"] == 0
    assert counts["mesh"] == counts["envoy"]
    stat = "cluster.up.upstream_rq_retry_overflow"
    assert twin.mesh.stats()[stat] == twin.envoy.stats(stat)[stat] == 12 - counts["mesh"]
    if budget:
        assert counts["mesh"] == (2 if budget["min_retry_concurrency"] == 2 else 4)


def test_an_overflow_says_so_in_a_header(make_twin: Make, fast_backend: Backends) -> None:
    backend = fast_backend("up")
    twin = make_twin([virtual_host([ALL])], [cluster("up", [backend.port], **limits({"max_requests": 0}))])
    theirs, ours = twin.both([Call("over")])[0]
    assert (theirs.status, ours.status, ours.flag) == (503, 503, "UO")
    error = UpstreamOverflowError(CallFailure(ResponseFlag.UO, "over"))
    assert set(error.headers) <= set(theirs.headers)
    assert error.headers == (("x-envoy-overloaded", "true"),)
