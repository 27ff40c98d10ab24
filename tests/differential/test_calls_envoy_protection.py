"""What protects upstreams, whole calls: thresholds, outlier detection and panic, rate limits, weights, priorities."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from differential.balancing_envoy import chi_squared, critical_value
from differential.calls_twin import EXTENSIONS, Answer, Call, Twin, cluster, endpoint, marked, virtual_host
from e2e.wire.raw_server import Peer, RawServer
from parts.fast_backend import FastBackend, Reply
from parts.fixtures import Servers

ALL: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster": "up"}}
Make = Callable[..., Twin]
Backends = Callable[..., FastBackend]


def limits(**thresholds: Any) -> dict[str, Any]:
    return {"circuit_breakers": {"thresholds": [{"priority": "DEFAULT", **thresholds}]}}


# Envoy takes changes of hosts in at most once a second unless told otherwise; a mesh at once.
AT_ONCE = {"update_merge_window": "0s"}


def each_side(twin: Twin) -> list[tuple[str, Callable[[Call], Answer]]]:
    return [("envoy", twin.theirs), ("mesh", twin.ours)]


@pytest.mark.parametrize(
    "thresholds,admitted,counter",
    [
        ({"max_requests": 3}, 3, "upstream_rq_active_overflow"),
        ({"max_requests": 1}, 1, "upstream_rq_active_overflow"),
        ({"max_connections": 1, "max_pending_requests": 2}, 3, "upstream_rq_pending_overflow"),
        ({"max_connections": 1, "max_pending_requests": 5}, 6, "upstream_rq_pending_overflow"),
    ],
)
def test_what_is_over_a_threshold_is_refused(
    make_twin: Make, fast_backend: Backends, thresholds: dict[str, int], admitted: int, counter: str
) -> None:
    backend = fast_backend("up", Reply(delay=0.4))
    twin = make_twin([virtual_host([ALL])], [cluster("up", [backend.port], **limits(**thresholds))])
    calls = [Call(str(number)) for number in range(12)]
    for side, send in each_side(twin):
        assert send(Call(f"{side}-first")).status == 200  # a connection is there: a dial under way counts as pending
        backend.requests.clear()
        answers = twin.at_once(send, [marked(side, call) for call in calls])
        assert Counter(answer.status for answer in answers) == {200: admitted, 503: 12 - admitted}, side
        assert backend.count == admitted, side
    flags = twin.flags(len(calls) + 1)
    assert Counter(tuple(found) for found in flags.values()) == {(): admitted + 1, ("UO",): 12 - admitted}
    stat = f"cluster.up.{counter}"
    assert twin.mesh.stats()[stat] == twin.envoy.stats(stat)[stat] == 12 - admitted


def test_retries_over_their_threshold_are_not_made(make_twin: Make, fast_backend: Backends) -> None:
    backend = fast_backend("up", Reply(503, delay=0.3))
    policy = {"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.01s"}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": policy}}
    twin = make_twin([virtual_host([route])], [cluster("up", [backend.port], **limits(max_retries=2))])
    calls = [Call(str(number)) for number in range(10)]
    counts = {}
    for side, send in each_side(twin):
        answers = twin.at_once(send, [marked(side, call) for call in calls])
        assert {answer.status for answer in answers} == {503}
        counts[side] = backend.count
        backend.requests.clear()
    assert counts == {"envoy": 12, "mesh": 12}


@pytest.mark.parametrize("percent,ejected", [(100, 2), (50, 2), (25, 1), (10, 0)])
def test_failing_hosts_are_ejected_by_the_same_sequence(
    make_twin: Make, fast_backend: Backends, percent: int, ejected: int
) -> None:
    backends = [fast_backend(f"b{number}", Reply(500 if number < 2 else 200)) for number in range(4)]
    ports = [each.port for each in backends]
    detection = {"consecutive_5xx": 3, "max_ejection_percent": percent, "base_ejection_time": "60s"}
    twin = make_twin(
        [virtual_host([ALL])],
        [cluster("up", ports, outlier_detection=detection, common_lb_config=AT_ONCE)],
    )
    told = {}
    for side, send in each_side(twin):
        for number in range(24):
            send(Call(f"{side}-{number}"))
        if side == "envoy":
            settled(twin, ejected)
        after = [send(Call(f"{side}-after-{number}")) for number in range(24)]
        told[side] = sum(answer.status == 500 for answer in after), len({answer.backend for answer in after})
    # Which of the two failing hosts goes first is chance, how many go is not.
    assert told["mesh"] == told["envoy"]
    assert told["mesh"][1] == 4 - ejected
    assert len(twin.mesh.runtime.state.clusters["up"].ejected) == ejected


@pytest.mark.parametrize("threshold,expected", [(50, {500}), (0, {503})])
def test_when_every_host_is_ejected(
    make_twin: Make, fast_backend: Backends, threshold: int, expected: set[int]
) -> None:
    backends = [fast_backend(f"b{number}", Reply(500)) for number in range(3)]
    detection = {"consecutive_5xx": 2, "max_ejection_percent": 100, "base_ejection_time": "60s"}
    common = {**AT_ONCE, "healthy_panic_threshold": {"value": threshold}}
    ports = [each.port for each in backends]
    twin = make_twin(
        [virtual_host([ALL])], [cluster("up", ports, outlier_detection=detection, common_lb_config=common)]
    )
    for side, send in each_side(twin):
        for number in range(12):
            send(Call(f"{side}-{number}"))
        if side == "envoy":
            settled(twin, len(backends))
        after = [send(Call(f"{side}-after-{number}")) for number in range(9)]
        assert {answer.status for answer in after} == expected, side
        assert len({answer.backend for answer in after}) == (3 if threshold else 1), side
    flags = twin.flags(21)
    assert flags["envoy-after-8"] == ({"UH"} if threshold == 0 else frozenset())


def settled(twin: Twin, ejected: int) -> None:
    """Wait until Envoy has ejected so many hosts; its workers hear of it a moment later than its statistics."""
    stat = "cluster.up.outlier_detection.ejections_active"
    twin.envoy.wait_for(lambda: twin.envoy.stats(stat).get(stat) == ejected, f"{ejected} ejected hosts")


def rate_limit(tokens: int, prefix: str) -> dict[str, Any]:
    everything = {"default_value": {"numerator": 100}}
    return {
        "@type": f"{EXTENSIONS}.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": prefix,
        "token_bucket": {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": "60s"},
        "filter_enabled": everything,
        "filter_enforced": everything,
        "response_headers_to_add": [{"header": {"key": "x-limited", "value": prefix}}],
    }


def test_buckets_refuse_as_many_calls(make_twin: Make, fast_backend: Backends) -> None:
    name = "envoy.filters.http.local_ratelimit"
    backend = fast_backend("up")
    routes = [
        {
            "match": {"prefix": "/own"},
            "route": {"cluster": "up"},
            "typed_per_filter_config": {name: rate_limit(3, "own")},
        },
        {"match": {"prefix": "/answer"}, "direct_response": {"status": 200}},
        ALL,
    ]
    twin = make_twin(
        [virtual_host(routes)],
        [cluster("up", [backend.port])],
        [{"name": name, "typed_config": rate_limit(7, "all")}],
    )
    paths = ["/own", "/", "/answer"] * 8
    for side, send in each_side(twin):
        answers = [send(Call(f"{side}-{number}", path)) for number, path in enumerate(paths)]
        told = [
            (path, answer.status, dict(answer.headers).get("x-limited"))
            for path, answer in zip(paths, answers, strict=True)
        ]
        refused = Counter(each for each in told if each[1] != 200)
        assert refused[("/own", 429, "own")] == 5, side
        assert refused[("/", 429, "all")] + refused[("/answer", 429, "all")] == 9, side
        assert {answer.body for answer in answers if answer.status == 429} == {b"local_rate_limited"}
        if side == "envoy":
            expected = told
        else:
            assert told == expected
    flags = twin.flags(len(paths))
    assert sum("RL" in found for found in flags.values()) == 14


def test_shares_of_a_weighted_route(make_twin: Make, fast_backend: Backends) -> None:
    backends = {name: fast_backend(name) for name in ("a", "b", "c")}
    shares = [{"name": name, "weight": weight} for name, weight in (("a", 70), ("b", 25), ("c", 5))]
    route = {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": shares}}}
    twin = make_twin([virtual_host([route])], [cluster(name, [each.port]) for name, each in backends.items()])
    counts: dict[str, Counter[str | None]] = {}
    for side, send in each_side(twin):
        counts[side] = Counter(send(Call(f"{side}-{number}")).backend for number in range(3000))
    explained = Counter(twin.explainer.explain("GET", "http://mesh.test/").cluster for _ in range(3000))
    for other in (counts["mesh"], explained):
        statistic, degrees = chi_squared(counts["envoy"], other)
        assert degrees == 2
        assert statistic < critical_value(degrees), (counts, explained)


@pytest.mark.parametrize("healthy,shares", [(4, {0: 1.0}), (2, {0: 0.7, 1: 0.3}), (0, {1: 1.0})])
def test_priorities_take_over(make_twin: Make, fast_backend: Backends, healthy: int, shares: dict[int, float]) -> None:
    first = [fast_backend(f"first{number}") for number in range(4)]
    second = [fast_backend(f"second{number}") for number in range(2)]
    groups = [
        {
            "priority": 0,
            "lb_endpoints": [
                endpoint(each.port, health_status="HEALTHY" if number < healthy else "UNHEALTHY")
                for number, each in enumerate(first)
            ],
        },
        {"priority": 1, "lb_endpoints": [endpoint(each.port) for each in second]},
    ]
    up = {"name": "up", "load_assignment": {"cluster_name": "up", "endpoints": groups}}
    twin = make_twin([virtual_host([ALL])], [up])
    for side, send in each_side(twin):
        taken = Counter(send(Call(f"{side}-{number}")).backend.startswith("second") for number in range(1000))
        for priority, share in shares.items():
            assert abs(taken[bool(priority)] / 1000 - share) < 0.075, (side, taken)  # five standard deviations


def half_and_reset(peer: Peer) -> None:
    peer.head()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\nhalf")
    time.sleep(0.2)  # a reset sent at once may overtake what was sent before it
    peer.reset()


def test_what_no_upstream_answers_has_the_same_flag(
    make_twin: Make, fast_backend: Backends, servers: Servers, free_port: Callable[[], int]
) -> None:
    reset, cut = (
        fast_backend("reset", Reply(fault="reset")),
        fast_backend("cut", Reply(fault="truncate", body=b"x" * 64)),
    )
    torn = servers.keep(RawServer(half_and_reset))
    clusters = [
        cluster("refused", [free_port()]),
        cluster("nobody", []),
        cluster("reset", [reset.port]),
        cluster("cut", [cut.port]),
        cluster("torn", [torn.port]),
    ]
    names = ("refused", "nobody", "reset", "cut", "torn", "missing")
    routes = [{"match": {"prefix": f"/{name}"}, "route": {"cluster": name}} for name in names]
    twin = make_twin([virtual_host(routes)], clusters)
    calls = [Call(name, f"/{name}", (("content-length", "0"),), "POST") for name in (*names, "none")]
    pairs = twin.both(calls)
    flags = twin.flags(len(calls))
    for call, (theirs, ours) in zip(calls, pairs, strict=True):
        assert (theirs.status, theirs.whole) == (ours.status, ours.whole), call.id
        expected = "UPE" if call.id == "torn" else ours.flag  # see call_differences
        assert flags[f"envoy-{call.id}"] == {expected}, call.id
    seen = dict(zip((call.id for call in calls), (ours.flag for _, ours in pairs), strict=True))
    assert (seen["cut"], seen["torn"]) == ("UPE", "UC")
