"""The Explainer's answers, and that they are those of the call flow itself."""

import dataclasses
import random
from typing import Any

import pytest

from meshlib.engine.call import call_flow
from meshlib.engine.commands import Start
from meshlib.engine.runtime import Runtime
from meshlib.errors import ConfigurationError
from meshlib.explain import Explainer, Explanation
from meshlib.explain.request import head_from
from meshlib.model.cluster import CircuitBreakers, Cluster, Thresholds
from meshlib.model.endpoint import (
    Address,
    ClusterLoadAssignment,
    DropOverload,
    LbEndpoint,
    Locality,
    LocalityLbEndpoints,
)
from meshlib.model.filters import HttpFilter, LocalRateLimit, TokenBucket
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.lb import RingHash
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.matchers import HeaderMatcher, PathMatcher, RouteMatch, StringMatcher
from meshlib.model.route import (
    DirectResponseAction,
    HashPolicy,
    HostRewrite,
    RedirectAction,
    RetryPolicy,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
)
from meshlib.model.snapshot import Snapshot

ALL = RouteMatch(PathMatcher("prefix", "/"))
CANARY = RouteMatch(PathMatcher("prefix", "/charge"), (HeaderMatcher("x-canary", StringMatcher("exact", "1")),))
RETRIES = RetryPolicy(("5xx", "reset"), 2, per_try_timeout=0.5, retriable_status_codes=(418,), previous_hosts=True)
LIMIT = HttpFilter("limit", LocalRateLimit("side", TokenBucket(10)))


def cluster(name: str, *ports: int, **more: Any) -> Cluster:
    endpoints = tuple(LbEndpoint(Address("10.0.0.1", port), hostname=f"{name}.internal") for port in ports)
    group = LocalityLbEndpoints(endpoints, Locality("eu", "a")) if ports else None
    return Cluster(name, load_assignment=ClusterLoadAssignment(name, (group,) if group else ()), **more)


CLUSTERS = (
    cluster("stable", 8001, 8002),
    cluster("canary", 8003, circuit_breakers=CircuitBreakers(Thresholds(max_requests=7))),
    cluster("empty"),
    cluster("hashed", *range(9000, 9020), lb_policy=RingHash()),
    Cluster("anywhere", type="ORIGINAL_DST"),
)


def configuration(*routes: Route, manager: dict[str, Any] | None = None, **host: Any) -> Snapshot:
    entry = VirtualHost("payments", ("payments",), routes, **host)
    config = RouteConfiguration("routes", (entry,))
    listener = Listener("out", (HttpConnectionManager(config, **(manager or {})),), port=80)
    return Snapshot(listeners={"out": listener}, clusters={each.name: each for each in CLUSTERS})


def explain(*routes: Route, path: str = "/", headers: dict[str, str] | None = None, **options: Any) -> Explanation:
    return Explainer(configuration(*routes, **options), seed=1).explain("GET", f"http://payments{path}", headers or {})


def to(name: Any, match: RouteMatch = ALL, **more: Any) -> Route:
    return Route(match, RouteAction(name, **more), name=str(name) if isinstance(name, str) else "split")


def test_the_path_of_a_decision_and_why_the_others_were_not_taken() -> None:
    result = explain(to("canary", CANARY), to("stable"), path="/charge?x=1", headers={"X-Canary": "0"})
    assert (result.listener, result.route_configuration, result.virtual_host) == ("out", "routes", "payments")
    assert (result.route, result.route_index, result.cluster) == ("payments/stable", 1, "stable")
    first, second = result.trials
    assert (first["route"], first["matched"]) == ("canary", False)
    assert "x-canary" in first["failed"]
    assert second == {"route": "stable", "index": 1, "matched": True, "failed": ""}
    assert result.endpoint in ("10.0.0.1:8001", "10.0.0.1:8002")
    assert (result.authority, result.path) == ("payments", "/charge?x=1")


def test_what_the_upstream_sees_is_what_the_first_attempt_sends() -> None:
    route = Route(
        CANARY,
        RouteAction(
            "canary",
            prefix_rewrite="/v2",
            host_rewrite=HostRewrite("auto"),
            append_x_forwarded_host=True,
            retry_policy=RETRIES,
        ),
        request_headers=HeaderMutations((HeaderValueOption("x-added", "%REQ(x-canary)%"),)),
    )
    snapshot = configuration(route, include_request_attempt_count=True)
    given = {"x-canary": "1", "x-envoy-expected-rq-timeout-ms": "9"}
    result = Explainer(snapshot, seed=3).explain("GET", "http://payments/charge/7", given)

    runtime = Runtime(random.Random(3))
    runtime.install(runtime.compile(snapshot, None))
    start = next(call_flow(runtime, head_from("GET", "http://payments/charge/7", given), 1000.0))
    assert isinstance(start, Start)
    sent = [[name.decode().lower(), value.decode()] for name, value in start.head.headers]
    assert (result.authority, result.path, result.headers) == (start.head.authority, start.head.path, sent)
    assert result.endpoint == start.host.address
    assert dict(map(tuple, result.headers)) == {  # type: ignore[arg-type]
        "host": "canary.internal",
        "x-canary": "1",
        "x-added": "1",
        "x-envoy-original-host": "payments",
        "x-envoy-original-path": "/charge/7",
        "x-forwarded-host": "payments",
        "x-envoy-expected-rq-timeout-ms": "500",
        "x-envoy-attempt-count": "1",
    }


def test_what_bounds_a_call() -> None:
    result = explain(to("canary", timeout=2.0, retry_policy=RETRIES, priority="DEFAULT"))
    bounds = {"route": 2.0, "per_try": 0.5, "idle": 300.0, "per_try_idle": None, "connect": 5.0, "stream": None}
    assert result.timeouts == bounds
    assert result.retry_policy == {
        "retry_on": ["5xx", "reset"],
        "num_retries": 2,
        "per_try_timeout": 0.5,
        "retriable_status_codes": [418],
        "retriable_headers": [],
        "retriable_request_headers": [],
        "base_interval": 0.025,
        "max_interval": 0.25,
        "reset_headers": [],
        "previous_hosts": True,
        "omit_canary_hosts": False,
        "previous_priorities": None,
        "hedge_on_per_try_timeout": False,
    }
    assert result.thresholds is not None
    assert result.thresholds["max_requests"] == 7
    high = explain(to("canary", priority="HIGH"))
    assert high.thresholds is not None
    assert (high.thresholds["priority"], high.thresholds["max_requests"]) == ("HIGH", 1024)


def test_what_the_request_asks_for_counts_too() -> None:
    asks = {
        "x-envoy-max-retries": "5",
        "x-envoy-retry-on": "connect-failure",
        "x-envoy-upstream-rq-timeout-ms": "700",
        "x-envoy-upstream-rq-per-try-timeout-ms": "100",
        "x-envoy-hedge-on-per-try-timeout": "true",
    }
    route = to("canary", timeout=2.0, retry_policy=RETRIES)
    result = Explainer(configuration(route), seed=1).explain("GET", "http://payments/", asks)
    assert result.timeouts is not None
    assert (result.timeouts["route"], result.timeouts["per_try"]) == (0.7, 0.1)
    assert result.retry_policy is not None
    assert result.retry_policy["num_retries"] == 5
    assert result.retry_policy["retry_on"] == ["5xx", "reset", "connect-failure"]
    assert result.retry_policy["hedge_on_per_try_timeout"]
    assert dict(map(tuple, result.headers))["x-envoy-expected-rq-timeout-ms"] == "100"  # type: ignore[arg-type]


def test_the_virtual_hosts_retry_policy_is_the_routes_where_it_has_none() -> None:
    result = explain(to("stable"), retry_policy=RETRIES)
    assert result.retry_policy is not None
    assert result.retry_policy["num_retries"] == 2
    assert explain(to("stable")).retry_policy is None


@pytest.mark.parametrize(
    "manager,route,expected",
    [
        ({}, {}, 15.0),
        ({"max_stream_duration": 3.0}, {}, 3.0),
        ({"max_stream_duration": 3.0}, {"timeout": None}, 3.0),
        ({"max_stream_duration": 3.0}, {"max_stream_duration": 0.0}, None),
        ({"max_stream_duration": 3.0}, {"max_stream_duration": 20.0}, 20.0),
        ({}, {"max_stream_duration": 4.0}, 4.0),
        ({}, {"timeout": None}, None),
    ],
)
def test_the_longest_a_call_may_take(manager: dict[str, Any], route: dict[str, Any], expected: float | None) -> None:
    timeouts = explain(to("stable", **route), manager=manager).timeouts
    assert timeouts is not None
    assert timeouts["route"] == expected


@pytest.mark.parametrize(
    "manager,route,expected",
    [
        ({}, {}, (300.0, None)),
        ({"stream_idle_timeout": None}, {}, (None, None)),
        ({"stream_idle_timeout": 9.0}, {"idle_timeout": 2.0}, (2.0, None)),
        ({"stream_idle_timeout": 9.0}, {"idle_timeout": 0.0}, (None, None)),
        ({}, {"retry_policy": RetryPolicy(per_try_idle_timeout=1.0)}, (None, 1.0)),
        ({}, {"idle_timeout": 0.5, "retry_policy": RetryPolicy(per_try_idle_timeout=1.0)}, (0.5, None)),
    ],
)
def test_the_idle_limit_in_force(manager: dict[str, Any], route: dict[str, Any], expected: Any) -> None:
    timeouts = explain(to("stable", **route), manager=manager).timeouts
    assert timeouts is not None
    assert (timeouts["idle"], timeouts["per_try_idle"]) == expected


def test_weights_and_the_share_drawn_repeat_with_the_seed() -> None:
    split = to(WeightedClusters((WeightedCluster("stable", 3), WeightedCluster("canary", 1))))
    runs = []
    for _ in range(2):
        explainer = Explainer(configuration(split), seed=7)
        runs.append([explainer.explain("GET", "http://payments/") for _ in range(400)])
    first, again = runs
    assert [each.to_dict() for each in first] == [each.to_dict() for each in again]
    for each in first:
        assert [(share["cluster"], share["weight"]) for share in each.weights] == [("stable", 3), ("canary", 1)]
        assert [share["cluster"] for share in each.weights if share["chosen"]] == [each.cluster]
    assert 60 < sum(each.cluster == "canary" for each in first) < 140


def test_answers_without_an_upstream() -> None:
    header = HeaderMutations((HeaderValueOption("x-from", "mesh"),))
    answer = explain(Route(ALL, DirectResponseAction(418, b"short"), response_headers=header))
    assert answer.direct_response == {"status": 418, "body": "short"}
    assert answer.response_headers == [["x-from", "mesh"], ["content-type", "text/plain"]]
    created = explain(Route(ALL, DirectResponseAction(201, b"")), path="/a?b")
    assert (created.direct_response, created.redirect) == ({"status": 201, "body": ""}, None)
    assert created.response_headers == [["location", "http://payments/a?b"]]
    redirect = explain(Route(ALL, RedirectAction(302, host_redirect="new.test")), path="/a?b")
    assert redirect.redirect == {"status": 302, "location": "http://new.test/a?b"}
    for each in (answer, redirect):
        assert (each.cluster, each.endpoint, each.authority, each.path, each.headers) == (None, None, None, None, [])
        assert each.response_flag is None


@pytest.mark.parametrize(
    "route,flag,reason",
    [
        (to("empty"), "UH", "no healthy endpoint in cluster 'empty'"),
        (to("nowhere"), "NC", "'nowhere' does not exist"),
        (to("stable", CANARY), "NR", "no route of virtual host 'payments'"),
    ],
)
def test_the_flag_when_there_is_nowhere_to_go(route: Route, flag: str, reason: str) -> None:
    result = explain(route)
    assert (result.response_flag, result.endpoint) == (flag, None)
    assert reason in (result.reason or "")


def test_unknown_hosts_pass_or_are_refused() -> None:
    snapshot = configuration(to("stable"))
    passes = Explainer(snapshot).explain("GET", "http://elsewhere/")
    refused = Explainer(snapshot, reject_unknown=True).explain("GET", "http://elsewhere/")
    assert (passes.response_flag, passes.pass_through) == ("NR", True)
    assert (refused.response_flag, refused.pass_through) == ("NR", False)
    assert explain(to("anywhere")).pass_through


def test_filters_and_endpoints_are_told() -> None:
    result = explain(to("stable"), manager={"http_filters": (LIMIT,)})
    (entry,) = result.filters
    assert (entry["type"], entry["stat_prefix"], entry["token_bucket"]["max_tokens"]) == ("LocalRateLimit", "side", 10)
    assert result.balancing is not None
    assert result.balancing["policy"] == "RoundRobin"
    (priority,) = result.balancing["priorities"]
    assert (priority["priority"], priority["healthy_load"], priority["panic"]) == (0, 100, False)
    assert priority["endpoints"][0] == {
        "address": "10.0.0.1:8001",
        "locality": "eu/a",
        "weight": 1,
        "health": "UNKNOWN",
        "availability": "healthy",
        "ejected": False,
        "out_of_reach": False,
        "health_flags": [],
        "active": 0,
    }


def test_brief_leaves_out_what_is_long_and_decides_the_same() -> None:
    split = to(WeightedClusters((WeightedCluster("stable", 1), WeightedCluster("canary", 1))))
    full, brief = (Explainer(configuration(split), seed=5, brief=brief) for brief in (False, True))
    for _ in range(50):
        one, other = (each.explain("GET", "http://payments/").to_dict() for each in (full, brief))
        assert (other.pop("trials"), other.pop("balancing")) == ([], None)
        assert one.pop("trials")
        assert one.pop("balancing")
        assert one == other


def test_a_hash_sends_the_same_key_to_the_same_endpoint() -> None:
    explainer = Explainer(configuration(to("hashed", hash_policies=(HashPolicy("header", "x-user"),))))
    keys = [str(number % 10) for number in range(40)]
    results = [explainer.explain("GET", "http://payments/", {"x-user": key}) for key in keys]
    chosen = {key: {each.endpoint for each, own in zip(results, keys, strict=True) if own == key} for key in keys}
    assert all(len(endpoints) == 1 for endpoints in chosen.values())
    assert len({each.request_hash for each in results}) == 10


def test_overload_drops_are_told() -> None:
    dropping = cluster("stable", 8001)
    assert dropping.load_assignment is not None
    assignment = dataclasses.replace(dropping.load_assignment, drop_overloads=(DropOverload("lb", 0.25),))
    snapshot = configuration(to("stable"))
    clusters = {**snapshot.clusters, "stable": dataclasses.replace(dropping, load_assignment=assignment)}
    explainer = Explainer(dataclasses.replace(snapshot, clusters=clusters))
    assert explainer.explain("GET", "http://payments/").overload_drops == {"lb": 0.25}


def test_every_field_is_in_the_object_always() -> None:
    names = [each.name for each in dataclasses.fields(Explanation)]
    for result in (explain(to("stable")), explain(to("nowhere")), explain(Route(ALL, DirectResponseAction(200)))):
        assert list(result.to_dict()) == names


def test_files_with_errors_are_refused(tmp_path: Any) -> None:
    (tmp_path / "a.yaml").write_text("name: a\nconnect_timeout: soon\n")
    with pytest.raises(ConfigurationError, match="connect_timeout"):
        Explainer.from_files(tmp_path)


@pytest.mark.parametrize(
    "url,authority,path",
    [
        ("http://Payments:80", "payments", "/"),
        ("https://payments:443/a", "payments", "/a"),
        ("http://payments:8080/a b?c=d e", "payments:8080", "/a%20b?c=d%20e"),
        ("http://user:secret@payments/é#part", "payments", "/%C3%A9"),
        ("http://[::1]:81/%2F?", "[::1]:81", "/%2F?"),
    ],
)
def test_urls_are_read_as_http_clients_read_them(url: str, authority: str, path: str) -> None:
    httpx = pytest.importorskip("httpx")
    head = head_from("get", url, {})
    assert (head.method, head.authority, head.path) == ("GET", authority, path)
    request = httpx.Request("GET", url)
    assert request.headers["host"] == head.authority
    assert request.url.raw_path.decode() == head.path


@pytest.mark.parametrize(
    "method,url,headers",
    [
        ("GET", "payments/x", {}),
        ("GET", "http:///x", {}),
        ("GET", "http://payments:99999/", {}),
        ("GET", "http://pâyments/", {}),
        ("G T", "http://payments/", {}),
        ("", "http://payments/", {}),
        ("GET", "http://payments/", {"x y": "1"}),
        ("GET", "http://payments/", {"x": "a\r\nb: c"}),
        ("GET", "http://payments/", {"x": "€"}),
    ],
)
def test_what_is_no_request_is_a_value_error(method: str, url: str, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        head_from(method, url, headers)


def test_a_host_header_takes_the_place_of_the_urls_host() -> None:
    head = head_from("GET", "http://10.0.0.1/", [("Host", "payments"), ("X-A", "1"), ("x-a", "2")])
    assert head.authority == "payments"
    assert head.headers == [(b"host", b"payments"), (b"x-a", b"1"), (b"x-a", b"2")]
