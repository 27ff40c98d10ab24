"""A discovery chain as routes and clusters: what Consul writes, value by value, and nothing silently left out."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.endpoint import Address, Locality
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.lb import LeastRequest, Maglev, Random, RingHash, RoundRobin, UnsupportedLbPolicy
from meshlib.model.matchers import HeaderMatcher, PathMatcher, Present, QueryParameterMatcher, StringMatcher
from meshlib.model.report import Report, ResourceError
from meshlib.model.route import HashPolicy, RetryPolicy, Route, RouteAction, WeightedClusters
from meshlib.policy.retry import CONDITION_WORDS
from meshlib.sources.consul.chain import decode_chain
from meshlib.sources.consul.chain_clusters import chain_clusters
from meshlib.sources.consul.chain_policies import RETRY_ON
from meshlib.sources.consul.chain_routes import RouteDefaults, virtual_host
from meshlib.sources.consul.fields import Fields
from meshlib.sources.consul.health import decode_instances

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "Type", "Name"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def resolver(name: str, **more: Any) -> dict[str, Any]:
    said = {"Target": name, "ConnectTimeout": "5s", **more.pop("Resolver", {})}
    return {"Type": "resolver", "Name": name, "Resolver": said, **more}


def answer(start: str, nodes: dict[str, Any], *targets: str, **more: Any) -> dict[str, Any]:
    named = {name: {"ID": name, "Service": name, "Datacenter": "dc1"} for name in targets}
    told = {"ServiceName": "payments", "Datacenter": "dc1", "Protocol": "http", "StartNode": start}
    return {"Chain": {**told, "Nodes": nodes, "Targets": named, **more}}


def routed(route: dict[str, Any]) -> dict[str, Any]:
    """A chain whose router has this one route, to a."""
    nodes = {
        "router": {"Type": "router", "Routes": [{"Definition": route, "NextNode": "resolver:a"}]},
        "resolver:a": resolver("a"),
    }
    return answer("router", nodes, "a")


def routes(told: dict[str, Any], report: Report | None = None) -> tuple[Route, ...]:
    report = report if report is not None else Report()
    chain = decode_chain(told, "payments", report)
    names = {target: found.cluster.name for target, found in chain_clusters(chain, "dc1").items()}
    return virtual_host("payments", chain, names, RouteDefaults()).routes


def action_of(told: dict[str, Any]) -> RouteAction:
    action = routes(told)[0].action
    assert isinstance(action, RouteAction)
    return action


def test_a_resolver_alone() -> None:
    told = answer("resolver:a", {"resolver:a": resolver("a", Resolver={"RequestTimeout": 7_000_000_000})}, "a")
    (route,) = routes(told)
    assert route.action == RouteAction("a", timeout=7.0)
    assert route.match.path == PathMatcher("prefix", "/")
    told["Chain"]["Nodes"]["resolver:a"]["Resolver"]["RequestTimeout"] = -1_000_000_000
    assert action_of(told).timeout is None, "negative is off"
    del told["Chain"]["Nodes"]["resolver:a"]["Resolver"]["RequestTimeout"]
    assert action_of(told).timeout == 15.0


def test_shares_are_hundredths_of_a_percent() -> None:
    splits = [
        {"Weight": 99.99, "NextNode": "resolver:a", "Definition": {"RequestHeaders": {"Add": {"X-A": "1"}}}},
        {"Weight": 0.01, "NextNode": "resolver:b", "Definition": {"Weight": 0.01}},
    ]
    nodes = {"s": {"Type": "splitter", "Splits": splits}, "resolver:a": resolver("a"), "resolver:b": resolver("b")}
    cluster = action_of(answer("s", nodes, "a", "b")).cluster
    assert isinstance(cluster, WeightedClusters)
    assert [(share.name, share.weight) for share in cluster.clusters] == [("a", 9999), ("b", 1)]
    assert cluster.clusters[0].request_headers == HeaderMutations((HeaderValueOption("x-a", "1"),))


@pytest.mark.parametrize(
    "http, path",
    [
        ({"PathExact": "/a"}, PathMatcher("path", "/a")),
        ({"PathPrefix": "/a", "CaseInsensitive": True}, PathMatcher("prefix", "/a", case_sensitive=False)),
        ({"PathRegex": "/a+"}, PathMatcher("safe_regex", "/a+")),
        ({"Methods": ["GET"]}, PathMatcher("prefix", "/")),
        ({}, PathMatcher("prefix", "/")),
    ],
)
def test_paths(http: dict[str, Any], path: PathMatcher) -> None:
    assert routes(routed({"Match": {"HTTP": http}}))[0].match.path == path


def test_headers_queries_and_methods() -> None:
    http = {
        "Header": [
            {"Name": "X-Exact", "Exact": "v", "Invert": True},
            {"Name": "x-prefix", "Prefix": "v"},
            {"Name": "x-suffix", "Suffix": "v"},
            {"Name": "x-regex", "Regex": "v+"},
            {"Name": "x-present", "Present": True},
        ],
        "QueryParam": [{"Name": "q", "Exact": "v"}, {"Name": "r", "Regex": "v+"}, {"Name": "p", "Present": True}],
        "Methods": ["GET", "PUT"],
    }
    match = routes(routed({"Match": {"HTTP": http}}))[0].match
    assert match.headers == (
        HeaderMatcher("x-exact", StringMatcher("exact", "v"), invert=True),
        HeaderMatcher("x-prefix", StringMatcher("prefix", "v")),
        HeaderMatcher("x-suffix", StringMatcher("suffix", "v")),
        HeaderMatcher("x-regex", StringMatcher("safe_regex", "v+")),
        HeaderMatcher("x-present", Present()),
        HeaderMatcher(":method", StringMatcher("safe_regex", "GET|PUT")),
    )
    assert match.query_parameters == (
        QueryParameterMatcher("q", StringMatcher("exact", "v")),
        QueryParameterMatcher("r", StringMatcher("safe_regex", "v+")),
        QueryParameterMatcher("p", Present()),
    )


def test_a_destination() -> None:
    destination = {
        "PrefixRewrite": "/b",
        "RequestTimeout": "1m1.5s",
        "IdleTimeout": "-1s",
        "NumRetries": 3,
        "RetryOnConnectFailure": True,
        "RetryOn": ["5xx", "connect-failure"],
        "RetryOnStatusCodes": [503, 429],
        "RequestHeaders": {"Add": {"A": "1"}, "Set": {"B": "2"}, "Remove": ["C"]},
        "ResponseHeaders": {"Set": {"D": "4"}},
    }
    (route,) = routes(routed({"Match": {"HTTP": {"PathPrefix": "/a"}}, "Destination": destination}))
    action = route.action
    assert isinstance(action, RouteAction)
    assert (action.timeout, action.idle_timeout, action.prefix_rewrite) == (61.5, 0.0, "/b")
    conditions = ("5xx", "connect-failure", "retriable-status-codes")
    assert action.retry_policy == RetryPolicy(conditions, num_retries=3, retriable_status_codes=(503, 429))
    put = HeaderValueOption("b", "2", "OVERWRITE_IF_EXISTS_OR_ADD")
    assert route.request_headers == HeaderMutations((HeaderValueOption("a", "1"), put), ("c",))
    assert route.response_headers.add[0].name == "d"


def test_the_root_as_a_rewrite_takes_the_slash_with_it() -> None:
    action = action_of(routed({"Match": {"HTTP": {"PathPrefix": "/a.b"}}, "Destination": {"PrefixRewrite": "/"}}))
    assert action.regex_rewrite is not None
    assert (action.prefix_rewrite, action.regex_rewrite.pattern) == ("", r"^/a\.b(/?)(.*)")


def balanced(balancer: dict[str, Any]) -> dict[str, Any]:
    return answer("resolver:a", {"resolver:a": resolver("a", LoadBalancer=balancer)}, "a")


@pytest.mark.parametrize(
    "balancer, policy",
    [
        ({}, RoundRobin()),
        ({"Policy": "round_robin"}, RoundRobin()),
        ({"Policy": "random"}, Random()),
        ({"Policy": "least_request"}, LeastRequest()),
        ({"Policy": "least_request", "LeastRequestConfig": {"ChoiceCount": 5}}, LeastRequest(5)),
        ({"Policy": "ring_hash", "RingHashConfig": {"MinimumRingSize": 8, "MaximumRingSize": 16}}, RingHash(8, 16)),
        ({"Policy": "maglev"}, Maglev()),
        ({"Policy": "dice"}, UnsupportedLbPolicy("dice")),
    ],
)
def test_balancers(balancer: dict[str, Any], policy: Any) -> None:
    report = Report()
    clusters = chain_clusters(decode_chain(balanced(balancer), "payments", report), "dc1")
    assert clusters["a"].cluster.lb_policy == policy
    assert bool(report.issues) == isinstance(policy, UnsupportedLbPolicy)


def test_hash_policies() -> None:
    policies = [
        {"Field": "header", "FieldValue": "X-User", "Terminal": True},
        {"Field": "cookie", "FieldValue": "c", "CookieConfig": {"TTL": 30_000_000_000, "Path": "/p"}},
        {"Field": "cookie", "FieldValue": "s", "CookieConfig": {"Session": True}},
        {"Field": "query_parameter", "FieldValue": "q"},
        {"SourceIP": True},
    ]
    assert action_of(balanced({"Policy": "ring_hash", "HashPolicies": policies})).hash_policies == (
        HashPolicy("header", "x-user", terminal=True),
        HashPolicy("cookie", "c", ttl=30.0, path="/p"),
        HashPolicy("cookie", "s", ttl=0.0),
        HashPolicy("query_parameter", "q"),
        HashPolicy("source_ip"),
    )
    assert action_of(balanced({"Policy": "random", "HashPolicies": policies})).hash_policies == ()


def test_failover_is_a_list_of_targets_and_names_say_where() -> None:
    node = resolver("a", Resolver={"Failover": {"Targets": ["b", "c"], "Policy": {"Mode": "order-by-locality"}}})
    told = answer("resolver:a", {"resolver:a": node}, "a", "b", "c", Protocol="grpc")
    told["Chain"]["Targets"]["a"] |= {"ServiceSubset": "v1", "Subset": {"Filter": "f", "OnlyPassing": True}}
    told["Chain"]["Targets"]["b"] |= {"Datacenter": "dc2", "Namespace": "default", "MeshGateway": {"Mode": "local"}}
    told["Chain"]["Targets"]["c"] |= {"Peer": "east", "Namespace": "team"}
    report = Report()
    found = chain_clusters(decode_chain(told, "payments", report), "dc1")["a"]
    assert (found.cluster.name, found.cluster.http2, found.cluster.connect_timeout) == ("v1.a", True, 5.0)
    assert [target.cluster_name("dc1") for target in found.targets] == ["v1.a", "b.dc2", "c.team.peer.east"]
    assert (found.targets[0].filter, found.targets[0].only_passing) == ("f", True)
    assert sorted(issue.path.rpartition(".")[2] for issue in report.issues) == ["Mode", "Mode"]


@pytest.mark.parametrize(
    "route, path",
    [
        ({"Match": {"TCP": {"Port": 1}}}, "Match.TCP"),
        ({"Match": {"HTTP": {"PathPrefix": "/", "Fragment": "x"}}}, "Match.HTTP.Fragment"),
        ({"Match": {"HTTP": {"Header": [{"Name": "a", "Exact": "b", "Contains": "c"}]}}}, "Header[0].Contains"),
        ({"Destination": {"Mirror": "x"}}, "Destination.Mirror"),
        ({"Destination": {"RetryOn": ["full-moon"]}}, "Destination.RetryOn"),
        ({"Destination": {"RequestHeaders": {"Add": {"a": "%CEL(1)%"}}}}, "RequestHeaders.Add"),
        ({"Destination": {"RequestHeaders": {"Append": {"a": "b"}}}}, "RequestHeaders.Append"),
    ],
)
def test_what_is_not_honoured_is_told_with_its_path(route: dict[str, Any], path: str) -> None:
    report = Report()
    routes(routed(route), report)
    assert [issue.severity for issue in report.issues] == ["degraded"]
    assert report.issues[0].path.endswith(path)
    assert report.issues[0].resource == "Consul discovery chain payments"


@pytest.mark.parametrize(
    "told, path",
    [
        (answer("nowhere", {}), "StartNode"),
        (answer("x", {"x": {"Type": "gateway"}}), "Nodes.x.Type"),
        (answer("resolver:a", {"resolver:a": resolver("a")}), "Nodes.resolver:a.Resolver.Target"),
        (answer("s", {"s": {"Type": "splitter", "Splits": []}}), "Nodes.s.Splits"),
        (answer("s", {"s": {"Type": "splitter", "Splits": [{"NextNode": "x"}]}}), "Nodes.s.Splits[0]"),
        (routed({"Destination": {"RequestTimeout": "soon"}}), "Destination.RequestTimeout"),
        (routed({"Destination": {"RequestHeaders": {"Set": {":path": "/"}}}}), "RequestHeaders.Set"),
        (routed({"Destination": {"RequestHeaders": {"Set": {"a": "100%"}}}}), "RequestHeaders.Set"),
        (routed({"Match": {"HTTP": {"Header": [{"Name": "a"}]}}}), "Header[0]"),
        (routed({"Match": {"HTTP": {"Header": [{"Name": "a", "Regex": "("}]}}}), "Header[0].Regex"),
        (routed({"Match": {"HTTP": {"PathRegex": "(?=x)"}}}), "Match.HTTP.PathRegex"),
        (routed({"Match": {"HTTP": {"Methods": [1]}}}), "Match.HTTP.Methods"),
        (balanced({"Policy": "ring_hash", "HashPolicies": [{"Field": "moon"}]}), "HashPolicies[0].Field"),
    ],
)
def test_what_cannot_be_is_refused_with_its_path(told: dict[str, Any], path: str) -> None:
    with pytest.raises(ResourceError) as caught:
        routes(told)
    assert caught.value.path.endswith(path)


def test_the_conditions_are_those_the_policy_has() -> None:
    assert CONDITION_WORDS.keys() | {"retriable-status-codes", "envoy-ratelimited"} == RETRY_ON


@pytest.mark.parametrize(
    "text, seconds",
    [("5s", 5.0), ("1m30s", 90.0), ("1.5h", 5400.0), ("250ms", 0.25), ("10us", 1e-5), ("0", 0), ("-2s", -2)],
)
def test_durations(text: str, seconds: float) -> None:
    assert Fields({"d": text}, "", "", Report()).duration("d") == pytest.approx(seconds)


# Health ---------------------------------------------------------------------------------------------------------------


def row(**service: Any) -> dict[str, Any]:
    node = {
        "Node": "n",
        "Address": "10.0.0.9",
        "Datacenter": "dc1",
        "TaggedAddresses": {"lan": "10.0.0.8", "wan": "1.2.3.4"},
    }
    checks = [{"Status": status} for status in service.pop("checks", ())]
    return {"Node": node, "Service": {"ID": "i", "Port": 80, **service}, "Checks": checks}


@pytest.mark.parametrize(
    "checks, weights, expected",
    [
        ([], None, ("HEALTHY", 1)),
        (["passing"], {"Passing": 5, "Warning": 2}, ("HEALTHY", 5)),
        (["passing", "warning"], {"Passing": 5, "Warning": 2}, ("HEALTHY", 2)),
        (["warning", "critical"], {"Passing": 5, "Warning": 2}, ("UNHEALTHY", 5)),
        (["maintenance"], None, ("UNHEALTHY", 1)),
        (["passing"], {"Passing": 0, "Warning": 1}, ("UNHEALTHY", 1)),
        (["warning"], {"Passing": 1, "Warning": 0}, ("UNHEALTHY", 1)),
        (["from-the-future"], None, ("UNHEALTHY", 1)),
    ],
)
def test_health_and_weight(checks: list[str], weights: Any, expected: tuple[str, int]) -> None:
    (found,) = decode_instances([row(checks=checks, Weights=weights)], "payments", Report())
    assert (found.endpoint.health_status, found.endpoint.weight) == expected


@pytest.mark.parametrize(
    "service, is_remote, address",
    [
        ({"Address": "10.0.0.1"}, False, Address("10.0.0.1", 80)),
        ({}, False, Address("10.0.0.8", 80)),
        ({}, True, Address("1.2.3.4", 80)),
        ({"Address": "10.0.0.1"}, True, Address("10.0.0.1", 80)),
        ({"TaggedAddresses": {"wan": {"Address": "5.6.7.8", "Port": 81}}}, True, Address("5.6.7.8", 81)),
        ({"Address": "fd00::1"}, False, Address("fd00::1", 80)),
        ({"SocketPath": "/run/app.sock", "Port": 0}, False, Address("", 0, "/run/app.sock")),
    ],
)
def test_addresses(service: dict[str, Any], is_remote: bool, address: Address) -> None:
    (found,) = decode_instances([row(**service)], "payments", Report(), is_remote=is_remote)
    assert found.endpoint.address == address


def test_what_else_is_known_of_an_instance() -> None:
    told = row(Tags=["blue"], Meta={"version": "v1"}, Locality={"Region": "eu", "Zone": "eu-1"})
    (found,) = decode_instances([told], "payments", Report())
    assert found.locality == Locality("eu", "eu-1")
    assert found.endpoint.metadata.namespace("envoy.lb").get("version") == "v1"
    assert found.endpoint.metadata.namespace("consul").get("tags") == ("blue",)


# Any answer -----------------------------------------------------------------------------------------------------------


def mutated(value: Any, rng: random.Random, put: Any) -> Any:
    """The value with one place in it replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        return {**value, key: mutated(value[key], rng, put)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        index = rng.randrange(len(value))
        return [*value[:index], mutated(value[index], rng, put), *value[index + 1 :]]
    return put


@given(st.integers(0, 2**32), JSON)
def test_any_answer_is_understood_or_refused(seed: int, put: Any) -> None:
    """Never another error, whatever stands where."""
    rng = random.Random(seed)
    match = {"HTTP": {"PathPrefix": "/a", "Header": [{"Name": "a", "Exact": "b"}], "Methods": ["GET"]}}
    destination = {"RequestTimeout": "1s", "RetryOn": ["5xx"], "RequestHeaders": {"Add": {"a": "b"}}}
    balancer = {"Policy": "ring_hash", "HashPolicies": [{"Field": "cookie", "CookieConfig": {"TTL": 1}}]}
    told = routed({"Match": match, "Destination": destination})
    told["Chain"]["Nodes"]["resolver:a"]["LoadBalancer"] = balancer
    for value, read in (
        (told, routes),
        ([row(checks=["passing"])], lambda rows: decode_instances(rows, "p", Report())),
    ):
        with contextlib.suppress(ResourceError):
            assert isinstance(read(mutated(value, rng, put)), tuple)
