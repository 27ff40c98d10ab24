"""What is refused (NACK), with the path and the reason a person needs."""

import importlib
import sys
from typing import Any

import pytest

from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode import decode, decode_message, regex
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds

for module in ("cluster_provided.v3.cluster_provided", "round_robin.v3.round_robin", "subset.v3.subset"):
    importlib.import_module(f"envoy.extensions.load_balancing_policies.{module}_pb2")  # JSON knows its type then
importlib.import_module("envoy.extensions.clusters.dynamic_forward_proxy.v3.cluster_pb2")

Json = dict[str, Any]


def routes(*changes: Json, **action: Any) -> Json:
    made = [{"match": {"prefix": "/"}, "route": {"cluster": "a"}, **change} for change in changes]
    if action:
        made = [{"match": {"prefix": "/"}, "route": {"cluster": "a", **action}}]
    return xds.route_configuration("routes", *made)


def split(*weights: Any, **changes: Any) -> Json:
    shares = [{"name": f"c{index}", "weight": weight} for index, weight in enumerate(weights)]
    return xds.route_configuration(
        "routes", {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": shares, **changes}}}
    )


def hosts(*domains: list[str]) -> Json:
    return {
        "name": "routes",
        "virtual_hosts": [{"name": name, "domains": list(given)} for name, given in zip("abc", domains, strict=False)],
    }


def at(address: Json, **changes: Any) -> Json:
    return xds.assignment("payments", {"endpoint": {"address": address}, **changes})


def static(kind: str, host: str) -> Json:
    return {"name": "a", "type": kind, "load_assignment": xds.assignment("a", xds.endpoint(host))}


def logical(*localities: list[str]) -> Json:
    """A cluster by name, and its localities with their hosts."""
    groups = [{"lb_endpoints": [xds.endpoint(host) for host in hosts]} for hosts in localities]
    return {"name": "a", "type": "LOGICAL_DNS", "load_assignment": {"cluster_name": "a", "endpoints": groups}}


def extension(name: str, **config: Any) -> Json:
    """A `load_balancing_policy` of one policy."""
    found = {"@type": f"type.googleapis.com/envoy.extensions.load_balancing_policies.{name}", **config}
    return {"policies": [{"typed_extension_config": {"name": name, "typed_config": found}}]}


def passing(**changes: Any) -> Json:
    return {"name": "a", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", **changes}


def breaker(**values: Any) -> Json:
    return xds.eds_cluster(metadata={"filter_metadata": {"meshlib.circuit_breaker": values}})


def typed(**values: Any) -> Json:
    return {"@type": "type.googleapis.com/google.protobuf.Struct", "value": values}


def limit(interval: str) -> Json:
    kind = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
    config = {"@type": kind, "stat_prefix": "x", "token_bucket": {"max_tokens": 5, "fill_interval": interval}}
    return xds.api_listener(http_filters=[{"name": "limit", "typed_config": config}, xds.ROUTER])


PROVIDED = extension("cluster_provided.v3.ClusterProvided")
ROUND_ROBIN = extension("round_robin.v3.RoundRobin")
ANY_SUBSET = {"fallback_policy": "ANY_ENDPOINT", "subset_selectors": [{"keys": ["version"]}]}
FORWARD_PROXY = {
    "name": "envoy.clusters.dynamic_forward_proxy",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
        "dns_cache_config": {"name": "names"},
    },
}
POLICY = "load_balancing_policy.policies[0].typed_extension_config.typed_config"
HCM = "api_listener.api_listener"
ROUTE = "virtual_hosts[0].routes[0]"
ENDPOINT = "endpoints[0].lb_endpoints[0]"
BREAKER = 'metadata.filter_metadata["meshlib.circuit_breaker"]'
TYPED_BREAKER = 'typed_per_filter_config["meshlib.circuit_breaker"]'
FORWARD = {"match": {"prefix": "/"}, "route": {"cluster": "a"}}

TABLE: list[tuple[str, Json, str, str]] = [
    (ROUTE_CONFIGURATION, routes({"match": {}}), f"{ROUTE}.match", "path_separated_prefix"),
    (ROUTE_CONFIGURATION, xds.route_configuration("routes", {"match": {"prefix": "/"}}), ROUTE, "direct_response"),
    (ROUTE_CONFIGURATION, routes({"match": {"safe_regex": {"regex": "("}}}), f"{ROUTE}.match.safe_regex.regex", "RE2"),
    (
        ROUTE_CONFIGURATION,
        routes({"match": {"safe_regex": {"regex": "a" * 20_000}}}),
        f"{ROUTE}.match.safe_regex.regex",
        "at most 16384",
    ),
    (
        ROUTE_CONFIGURATION,
        routes(
            {"match": {"prefix": "/", "headers": [{"name": "x", "string_match": {"safe_regex": {"regex": "a++"}}}]}}
        ),
        f"{ROUTE}.match.headers[0].string_match.safe_regex.regex",
        "RE2",
    ),
    (ROUTE_CONFIGURATION, split(0, 0), f"{ROUTE}.route.weighted_clusters", "between 1 and 4294967295, is 0"),
    (ROUTE_CONFIGURATION, split(2**32 - 1, 1), f"{ROUTE}.route.weighted_clusters", "is 4294967296"),
    (ROUTE_CONFIGURATION, hosts(["a", "b"], ["c", "B"]), "virtual_hosts[1].domains[1]", "virtual_hosts[0]"),
    (ROUTE_CONFIGURATION, hosts(["a", "a"]), "virtual_hosts[0].domains[1]", "may stand once"),
    (ROUTE_CONFIGURATION, hosts([]), "virtual_hosts[0].domains", "must not be empty"),
    (ROUTE_CONFIGURATION, routes(timeout="-1s"), f"{ROUTE}.route.timeout", "negative"),
    (
        ROUTE_CONFIGURATION,
        routes(prefix_rewrite="/a", regex_rewrite={"pattern": {"regex": "a"}, "substitution": "b"}),
        f"{ROUTE}.route",
        "only one of",
    ),
    (
        ROUTE_CONFIGURATION,
        routes(retry_policy={"retry_back_off": {"base_interval": "1s", "max_interval": "0.5s"}}),
        f"{ROUTE}.route.retry_policy.retry_back_off.max_interval",
        "at least base_interval",
    ),
    (
        ROUTE_CONFIGURATION,
        routes({"request_headers_to_add": [{"header": {"key": ":path", "value": "/"}}]}),
        f"{ROUTE}.request_headers_to_add[0]",
        "may not be modified",
    ),
    (
        ROUTE_CONFIGURATION,
        routes({"request_headers_to_remove": ["Host"]}),
        f"{ROUTE}.request_headers_to_remove[0]",
        "may not be modified",
    ),
    (
        ROUTE_CONFIGURATION,
        routes({"request_headers_to_add": [{"header": {"key": "a", "value": "b\n"}}]}),
        f"{ROUTE}.request_headers_to_add[0].header.value",
        "header value",
    ),
    (
        ROUTE_CONFIGURATION,
        xds.route_configuration(
            "routes",
            {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x" * 4097}}},
        ),
        f"{ROUTE}.direct_response.body",
        "4096",
    ),
    (
        ROUTE_CONFIGURATION,
        xds.route_configuration("routes", {"match": {"prefix": "/"}, "direct_response": {"status": 700}}),
        f"{ROUTE}.direct_response.status",
        "600",
    ),
    (CLUSTER, {"type": "STATIC"}, "name", "must not be empty"),
    (CLUSTER, {"name": "a", "type": "EDS"}, "eds_cluster_config", "required by type EDS"),
    (CLUSTER, {**xds.eds_cluster(), "type": "STATIC"}, "eds_cluster_config", "only valid with type EDS"),
    (CLUSTER, {"name": "a", "type": "LOGICAL_DNS"}, "load_assignment", "required"),
    (
        CLUSTER,
        static("STATIC", "payments.internal"),
        "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address",
        "STRICT_DNS",
    ),
    (CLUSTER, xds.eds_cluster(connect_timeout="0s"), "connect_timeout", "greater than 0"),
    (CLUSTER, xds.eds_cluster(lb_policy="LOAD_BALANCING_POLICY_CONFIG"), "load_balancing_policy", "required"),
    (CLUSTER, xds.eds_cluster(load_balancing_policy={}), "load_balancing_policy.policies", "must not be empty"),
    (
        CLUSTER,
        xds.eds_cluster(lb_policy="RING_HASH", ring_hash_lb_config={"minimum_ring_size": 9_000_000}),
        "ring_hash_lb_config.minimum_ring_size",
        "8388608",
    ),
    (
        CLUSTER,
        xds.eds_cluster(lb_policy="RING_HASH", ring_hash_lb_config={"minimum_ring_size": 64, "maximum_ring_size": 32}),
        "ring_hash_lb_config.minimum_ring_size",
        "maximum_ring_size",
    ),
    (
        CLUSTER,
        xds.eds_cluster(lb_policy="LEAST_REQUEST", least_request_lb_config={"choice_count": 1}),
        "least_request_lb_config.choice_count",
        "at least 2",
    ),
    (
        CLUSTER,
        xds.eds_cluster(common_lb_config={"healthy_panic_threshold": {"value": 101}}),
        "common_lb_config.healthy_panic_threshold.value",
        "at most 100",
    ),
    (
        CLUSTER,
        xds.eds_cluster(common_lb_config={"healthy_panic_threshold": {"value": "NaN"}}),
        "common_lb_config.healthy_panic_threshold.value",
        "nan",
    ),
    (
        CLUSTER,
        xds.eds_cluster(outlier_detection={"max_ejection_percent": 101}),
        "outlier_detection.max_ejection_percent",
        "at most 100",
    ),
    (
        CLUSTER,
        xds.eds_cluster(outlier_detection={"max_ejection_time": "29s"}),
        "outlier_detection.max_ejection_time",
        "29 s, shorter than base_ejection_time",
    ),
    *(  # Envoy refuses all of these: `envoy --mode validate`
        (CLUSTER, {**kind, "lb_policy": "CLUSTER_PROVIDED"}, "lb_policy", "CLUSTER_PROVIDED is for clusters that say")
        for kind in (
            xds.eds_cluster(),
            static("STATIC", "10.0.0.1"),
            static("STRICT_DNS", "a.test"),
            logical(["a.test"]),
        )
    ),
    (CLUSTER, xds.eds_cluster(load_balancing_policy=PROVIDED), "load_balancing_policy", "(ORIGINAL_DST, AGGREGATE)"),
    (
        CLUSTER,
        xds.eds_cluster(load_balancing_policy=extension("subset.v3.Subset", subset_lb_policy=PROVIDED)),
        f"{POLICY}.subset_lb_policy{POLICY.removeprefix('load_balancing_policy')}",
        "child of another",
    ),
    (CLUSTER, passing(lb_policy="ROUND_ROBIN"), "lb_policy", "must be CLUSTER_PROVIDED"),
    (
        CLUSTER,
        passing(lb_policy="ROUND_ROBIN", load_balancing_policy=PROVIDED),
        "lb_policy",
        "must be CLUSTER_PROVIDED",
    ),
    (CLUSTER, passing(load_balancing_policy=ROUND_ROBIN), "load_balancing_policy", "must be CLUSTER_PROVIDED"),
    (CLUSTER, {"name": "a", "cluster_type": FORWARD_PROXY}, "lb_policy", "must be CLUSTER_PROVIDED"),
    (CLUSTER, passing(lb_subset_config=ANY_SUBSET), "lb_subset_config", "cannot be combined"),
    (
        CLUSTER,
        xds.eds_cluster(load_balancing_policy=ROUND_ROBIN, lb_subset_config=ANY_SUBSET),
        "lb_subset_config",
        "cannot be combined",
    ),
    (CLUSTER, passing(load_assignment={"cluster_name": "a"}), "load_assignment", "no endpoints of its own"),
    *(
        (CLUSTER, logical(*localities), "load_assignment", "exactly one locality with one endpoint")
        for localities in ([["a.test", "a.test"]], [["a.test"], ["a.test"]], [["a.test"], []], [])
    ),
    (
        CLUSTER,
        xds.eds_cluster(circuit_breakers={"per_host_thresholds": [{"max_requests": 1}]}),
        "circuit_breakers.per_host_thresholds[0]",
        "only max_connections",
    ),
    (CLUSTER, breaker(fail_max=0), f"{BREAKER}.fail_max", "at least 1"),
    (CLUSTER, breaker(reset_timeout="30s"), f"{BREAKER}.reset_timeout", "number"),
    (CLUSTER, breaker(fail_maximum=1), f"{BREAKER}.fail_maximum", "valid are fail_max"),
    (CLUSTER, breaker(failure_rate=101), f"{BREAKER}.failure_rate", "percentage"),
    (CLUSTER, breaker(slow_call_rate=0), f"{BREAKER}.slow_call_rate", "percentage"),
    (CLUSTER, breaker(failure_rate=5, window_size=1.5), f"{BREAKER}.window_size", "whole number"),
    (CLUSTER, breaker(window_type="calls"), f"{BREAKER}.window_type", "count or time"),
    (CLUSTER, breaker(scope="route"), f"{BREAKER}.scope", "cluster or endpoint"),
    (CLUSTER, breaker(name=1), f"{BREAKER}.name", "text"),
    (CLUSTER, breaker(fallback="no"), f"{BREAKER}.fallback", "object"),
    (CLUSTER, breaker(fallback={"code": 1}), f"{BREAKER}.fallback.code", "valid are body"),
    (CLUSTER, breaker(fallback={"status": 700}), f"{BREAKER}.fallback.status", "200 to 599"),
    (CLUSTER, breaker(fallback={"grpc_status": 17}), f"{BREAKER}.fallback.grpc_status", "0 to 16"),
    (CLUSTER, breaker(fallback={"headers": {"a b": "c"}}), f"{BREAKER}.fallback.headers.a b", "header"),
    (
        ROUTE_CONFIGURATION,
        routes({**FORWARD, "metadata": {"filter_metadata": {"meshlib.circuit_breaker": {"reset_timeout": -1}}}}),
        f"{ROUTE}.{BREAKER}.reset_timeout",
        "not negative",
    ),
    (
        ROUTE_CONFIGURATION,
        routes({**FORWARD, "typed_per_filter_config": {"meshlib.circuit_breaker": typed(fail_max="3")}}),
        f"{ROUTE}.{TYPED_BREAKER}.fail_max",
        "number",
    ),
    (
        ROUTE_CONFIGURATION,
        routes(
            {
                **FORWARD,
                "metadata": {"filter_metadata": {"meshlib.circuit_breaker": {}}},
                "typed_per_filter_config": {"meshlib.circuit_breaker": typed()},
            }
        ),
        f"{ROUTE}.{TYPED_BREAKER}",
        "say it once",
    ),
    (
        ROUTE_CONFIGURATION,
        routes({**FORWARD, "typed_per_filter_config": {"meshlib.circuit_breaker": xds.ROUTER["typed_config"]}}),
        f"{ROUTE}.{TYPED_BREAKER}",
        "must be a google.protobuf.Struct",
    ),
    (CLUSTER_LOAD_ASSIGNMENT, {"endpoints": []}, "cluster_name", "must not be empty"),
    (CLUSTER_LOAD_ASSIGNMENT, xds.assignment("a", {}), ENDPOINT, "required"),
    (CLUSTER_LOAD_ASSIGNMENT, at({}), f"{ENDPOINT}.endpoint.address", "required"),
    (
        CLUSTER_LOAD_ASSIGNMENT,
        at({"socket_address": {"address": "10.0.0.256", "port_value": 1}}),
        f"{ENDPOINT}.endpoint.address.socket_address.address",
        "no IP address",
    ),
    (
        CLUSTER_LOAD_ASSIGNMENT,
        at({"socket_address": {"address": "10.0.0.1", "port_value": 65536}}),
        f"{ENDPOINT}.endpoint.address.socket_address.port_value",
        "65535",
    ),
    (
        CLUSTER_LOAD_ASSIGNMENT,
        at({"socket_address": {"address": "10.0.0.1", "named_port": "http"}}),
        f"{ENDPOINT}.endpoint.address.socket_address",
        "port_value",
    ),
    (
        CLUSTER_LOAD_ASSIGNMENT,
        at({"socket_address": {"address": "10.0.0.1", "port_value": 1}}, load_balancing_weight=0),
        f"{ENDPOINT}.load_balancing_weight",
        "at least 1",
    ),
    (
        CLUSTER_LOAD_ASSIGNMENT,
        xds.assignment(
            "a",
            xds.endpoint("10.0.0.1", load_balancing_weight=2**32 - 1),
            xds.endpoint("10.0.0.2", load_balancing_weight=1),
        ),
        "endpoints[0].lb_endpoints",
        "sum of the weights",
    ),
    (
        CLUSTER_LOAD_ASSIGNMENT,
        {
            "cluster_name": "a",
            "endpoints": [
                {"locality": {"zone": zone}, "load_balancing_weight": weight, "priority": 1}
                for zone, weight in (("b", 2**32 - 1), ("c", 1))
            ],
        },
        "endpoints",
        "the locality weights of priority 1 sum up to more than 4294967295",
    ),
    (
        CLUSTER_LOAD_ASSIGNMENT,
        {"cluster_name": "a", "endpoints": [{"priority": 129}]},
        "endpoints[0].priority",
        "at most 128",
    ),
    (LISTENER, {"name": "a"}, "address", "api_listener"),
    (LISTENER, xds.api_listener(http_filters=[]), f"{HCM}.http_filters", "router"),
    (LISTENER, xds.api_listener(http_filters=[xds.ROUTER, xds.ROUTER]), f"{HCM}.http_filters[0]", "last"),
    (LISTENER, xds.api_listener(http_filters=[{"name": "x"}]), f"{HCM}.http_filters[0].typed_config", "'x' needs"),
    (LISTENER, xds.api_listener(routes=""), f"{HCM}.rds.route_config_name", "must not be empty"),
    (LISTENER, limit("0.01s"), f"{HCM}.http_filters[0].typed_config.token_bucket.fill_interval", "0.05s"),
]


@pytest.mark.parametrize(
    "resource",
    [
        passing(),
        passing(load_balancing_policy=PROVIDED),
        {"name": "a", "cluster_type": FORWARD_PROXY, "lb_policy": "CLUSTER_PROVIDED"},
        {"name": "a", "cluster_type": FORWARD_PROXY, "load_balancing_policy": PROVIDED},
        xds.eds_cluster(lb_policy="CLUSTER_PROVIDED", load_balancing_policy=ROUND_ROBIN),
        logical(["a.test"]),
    ],
)
def test_what_envoy_takes_is_taken(resource: Json) -> None:
    assert decode_message(xds.message(CLUSTER, resource)).issues == ()


def test_a_type_of_cluster_that_is_not_here_may_provide_a_balancer() -> None:
    kind = {"name": "envoy.clusters.redis"}
    found = decode_message(xds.message(CLUSTER, {"name": "a", "cluster_type": kind, "lb_policy": "CLUSTER_PROVIDED"}))
    assert [(issue.severity, issue.path) for issue in found.issues] == [("degraded", "cluster_type")]


@pytest.mark.parametrize(
    "type_url, resource, path, reason", TABLE, ids=[f"{index}-{row[2]}" for index, row in enumerate(TABLE)]
)
def test_refused(type_url: str, resource: Json, path: str, reason: str) -> None:
    message = xds.message(type_url, resource)
    with pytest.raises(ResourceError) as caught:
        decode_message(message)
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert caught.value.resource.startswith(type_url.rpartition(".")[2])


def test_bytes_that_are_no_protobuf() -> None:
    with pytest.raises(ResourceError, match="is no valid envoy"):
        decode(CLUSTER, b"\xff\xff\xff")


def test_an_unknown_type_names_the_known_ones() -> None:
    with pytest.raises(ResourceError, match="ClusterLoadAssignment"):
        decode("type.googleapis.com/envoy.nothing.v3.Nothing", b"")


def test_an_unknown_enum_value() -> None:
    message: Any = xds.message(CLUSTER, xds.eds_cluster())
    message.lb_policy = 77
    with pytest.raises(ResourceError, match="no known value: 77"):
        decode_message(message)


def test_policies_nested_without_end() -> None:
    message: Any = xds.message(CLUSTER, xds.eds_cluster())
    from envoy.extensions.load_balancing_policies.wrr_locality.v3 import wrr_locality_pb2

    inner = wrr_locality_pb2.WrrLocality()
    inner.endpoint_picking_policy.policies.add().typed_extension_config.name = "last"
    for _ in range(40):
        outer = wrr_locality_pb2.WrrLocality()
        outer.endpoint_picking_policy.policies.add().typed_extension_config.typed_config.Pack(inner)
        inner = outer
    message.load_balancing_policy.policies.add().typed_extension_config.typed_config.Pack(inner)
    message.load_balancing_policy.policies[0].typed_extension_config.name = "wrr"
    with pytest.raises(ResourceError):
        decode_message(message)


def test_without_re2_a_regular_expression_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    regex._groups.cache_clear()
    body = xds.route_configuration("routes", {"match": {"safe_regex": {"regex": "a"}}, "route": {"cluster": "a"}})
    message = xds.message(ROUTE_CONFIGURATION, body)
    with pytest.raises(ResourceError, match=r"pip install 'meshlib\[re2\]'"):
        decode_message(message)
    monkeypatch.undo()
    assert decode_message(message).resource
