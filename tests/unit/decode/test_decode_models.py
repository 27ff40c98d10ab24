"""Rich resources to the model, and what is left out of them: reported with its path, never refused."""

from typing import Any

import pytest

from meshlib.model.circuit_breaker import FallbackResponse
from meshlib.model.cluster import CircuitBreaker, Cluster, UpstreamTls
from meshlib.model.endpoint import (
    Address,
    ClusterLoadAssignment,
    DropOverload,
    LbEndpoint,
    Locality,
    LocalityLbEndpoints,
)
from meshlib.model.filters import PerFilterConfig, RouterFilter, UnsupportedFilter
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.lb import (
    LbSubsetConfig,
    LeastRequest,
    Random,
    RingHash,
    RoundRobin,
    SubsetSelector,
)
from meshlib.model.listener import Listener
from meshlib.model.matchers import (
    FractionalPercent,
    HeaderMatcher,
    Int64Range,
    PathMatcher,
    Present,
    QueryParameterMatcher,
    RegexRewrite,
    RouteMatch,
    StringMatcher,
)
from meshlib.model.metadata import Metadata, Struct
from meshlib.model.route import (
    ClusterHeader,
    DirectResponseAction,
    HashPolicy,
    HostRewrite,
    RedirectAction,
    RetryPolicy,
    Route,
    RouteAction,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
)
from meshlib.sources.xds.decode import Decoded, decode_message
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds

Json = dict[str, Any]
_LB = "type.googleapis.com/envoy.extensions.load_balancing_policies"


def cluster(**changes: Any) -> tuple[Cluster, list[str]]:
    found = decode_message(xds.message(CLUSTER, {**xds.eds_cluster(), **changes}))
    assert isinstance(found.resource, Cluster)
    return found.resource, [issue.path for issue in found.issues]


def one_route(route: Json) -> tuple[Route, list[str]]:
    found = decode_message(xds.message(ROUTE_CONFIGURATION, xds.route_configuration("routes", route)))
    return found.resource.virtual_hosts[0].routes[0], [issue.path for issue in found.issues]


def action(**changes: Any) -> RouteAction:
    found, issues = one_route({"match": {"prefix": "/"}, "route": {"cluster": "a", **changes}})
    assert issues == []
    assert isinstance(found.action, RouteAction)
    return found.action


# Routes


def test_matchers() -> None:
    match = {
        "path_separated_prefix": "/api",
        "case_sensitive": False,
        "headers": [
            {"name": "X-Exact", "exact_match": "a"},
            {"name": "x-range", "range_match": {"start": -5, "end": 5}, "invert_match": True},
            {"name": "x-there"},
            {"name": "x-gone", "present_match": False, "treat_missing_header_as_empty": True},
            {"name": ":method", "string_match": {"exact": "get", "ignore_case": True}},
            {"name": "x-re", "safe_regex_match": {"regex": "a+"}},
        ],
        "query_parameters": [{"name": "q", "string_match": {"contains": "x"}}, {"name": "p"}],
        "grpc": {},
        "runtime_fraction": {"default_value": {"numerator": 3, "denominator": "TEN_THOUSAND"}, "runtime_key": "k"},
    }
    found, issues = one_route({"match": match, "route": {"cluster": "a"}})
    assert issues == []
    assert found.match == RouteMatch(
        path=PathMatcher("path_separated_prefix", "/api", case_sensitive=False),
        headers=(
            HeaderMatcher("x-exact", StringMatcher("exact", "a")),
            HeaderMatcher("x-range", Int64Range(-5, 5), invert=True),
            HeaderMatcher("x-there", Present()),
            HeaderMatcher("x-gone", Present(present=False), treat_missing_as_empty=True),
            HeaderMatcher(":method", StringMatcher("exact", "get", ignore_case=True)),
            HeaderMatcher("x-re", StringMatcher("safe_regex", "a+")),
        ),
        query_parameters=(
            QueryParameterMatcher("q", StringMatcher("contains", "x")),
            QueryParameterMatcher("p", Present()),
        ),
        grpc=True,
        runtime_fraction=FractionalPercent(3, 10_000, "k"),
    )


TYPE = "type.googleapis.com/"
ANY = {"@type": f"{TYPE}google.protobuf.StringValue", "value": "x"}


@pytest.mark.parametrize(
    "unsupported, path",
    [
        (
            {"path_match_policy": {"name": "p", "typed_config": {"@type": TYPE + "envoy.config.core.v3.Node"}}},
            "path_match_policy.typed_config",
        ),
        (
            {"prefix": "/", "headers": [{"name": "x", "string_match": {"custom": {"name": "c", "typed_config": ANY}}}]},
            "headers[0].string_match.custom",
        ),
    ],
)
def test_a_route_whose_matcher_is_not_supported_never_matches(unsupported: Json, path: str) -> None:
    body = xds.route_configuration("routes", {"match": unsupported, "route": {"cluster": "secret"}}, xds.route("open"))
    found = decode_message(xds.message(ROUTE_CONFIGURATION, body))
    assert [route.action.cluster for route in found.resource.virtual_hosts[0].routes] == ["open"]
    assert [issue.path for issue in found.issues] == [f"virtual_hosts[0].routes[0].match.{path}"]
    assert "never matches" in found.issues[0].reason
    assert found.references.clusters == {"open"}


def test_weighted_clusters() -> None:
    shares = [
        {
            "name": "a",
            "weight": 90,
            "metadata_match": {"filter_metadata": {"envoy.lb": {"version": "v1"}}},
            "request_headers_to_add": [{"header": {"key": "X-Share", "value": "a"}, "append": False}],
            "host_rewrite_literal": "a.internal",
        },
        {"name": "b", "weight": 10},
        {"name": "c"},
    ]
    found, issues = one_route({"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": shares}}})
    assert issues == []
    assert isinstance(found.action, RouteAction)
    assert found.action.cluster == WeightedClusters(
        (
            WeightedCluster(
                "a",
                90,
                Struct.of({"version": "v1"}),
                HeaderMutations((HeaderValueOption("x-share", "a", "OVERWRITE_IF_EXISTS_OR_ADD"),)),
                host_rewrite_literal="a.internal",
            ),
            WeightedCluster("b", 10),
            WeightedCluster("c", 0),
        )
    )


def test_route_action() -> None:
    found = action(
        timeout="0s",
        idle_timeout="7s",
        max_stream_duration={"max_stream_duration": "60s"},
        prefix_rewrite="/new",
        auto_host_rewrite=True,
        append_x_forwarded_host=True,
        priority="HIGH",
        hash_policy=[
            {"header": {"header_name": "X-User", "regex_rewrite": {"pattern": {"regex": "a"}, "substitution": "b"}}},
            {"cookie": {"name": "sid", "ttl": "0s", "path": "/"}, "terminal": True},
            {"cookie": {"name": "read"}},
            {"query_parameter": {"name": "q"}},
        ],
    )
    assert found == RouteAction(
        cluster="a",
        timeout=None,
        idle_timeout=7.0,
        max_stream_duration=60.0,
        prefix_rewrite="/new",
        host_rewrite=HostRewrite("auto"),
        append_x_forwarded_host=True,
        priority="HIGH",
        hash_policies=(
            HashPolicy("header", "x-user", regex_rewrite=RegexRewrite("a", "b")),
            HashPolicy("cookie", "sid", terminal=True, ttl=0.0, path="/"),
            HashPolicy("cookie", "read"),
            HashPolicy("query_parameter", "q"),
        ),
    )


def test_retry_policy_with_unknown_conditions() -> None:
    policy = {
        "retry_on": "5xx, connect-failure,made-up,http3-post-connect-failure",
        "num_retries": 4,
        "per_try_timeout": "1.5s",
        "retriable_status_codes": [409, 429],
        "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts"}, {"name": "other"}],
        "host_selection_retry_max_attempts": 5,
    }
    found, issues = one_route({"match": {"prefix": "/"}, "route": {"cluster": "a", "retry_policy": policy}})
    assert isinstance(found.action, RouteAction)
    assert found.action.retry_policy == RetryPolicy(
        ("5xx", "connect-failure"),
        4,
        1.5,
        None,
        (409, 429),
        0.025,
        0.25,
        previous_hosts=True,
        host_selection_retry_max_attempts=5,
    )
    where = "virtual_hosts[0].routes[0].route.retry_policy"
    assert issues == [f"{where}.retry_on", f"{where}.retry_host_predicate[1]"]


def test_answers_without_upstream_and_clusters_by_header() -> None:
    body = xds.route_configuration(
        "routes",
        {
            "match": {"prefix": "/r"},
            "redirect": {"https_redirect": True, "prefix_rewrite": "/", "response_code": "SEE_OTHER"},
        },
        {"match": {"prefix": "/d"}, "direct_response": {"status": 403, "body": {"inline_string": "no"}}},
        {"match": {"prefix": "/h"}, "route": {"cluster_header": "X-Cluster"}},
    )
    routes = decode_message(xds.message(ROUTE_CONFIGURATION, body)).resource.virtual_hosts[0].routes
    assert [route.action for route in routes] == [
        RedirectAction(303, https_redirect=True, prefix_rewrite="/"),
        DirectResponseAction(403, b"no"),
        RouteAction(ClusterHeader("x-cluster")),
    ]


def test_virtual_host_and_per_filter_configuration() -> None:
    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    fault = {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"}
    wrapped = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": fault, "is_optional": True}
    host = {
        "name": "v",
        "domains": ["A.com", "*"],
        "require_tls": "ALL",
        "include_request_attempt_count": True,
        "retry_policy": {"retry_on": "reset"},
        "typed_per_filter_config": {"limit": off, "fault": wrapped},
        "response_headers_to_remove": ["Server"],
    }
    found = decode_message(xds.message(ROUTE_CONFIGURATION, {"name": "r", "virtual_hosts": [host]}))
    assert found.resource.virtual_hosts[0] == VirtualHost(
        "v",
        ("A.com", "*"),
        (),
        RetryPolicy(("reset",)),
        "ALL",
        include_request_attempt_count=True,
        response_headers=HeaderMutations(remove=("server",)),
        typed_per_filter_config=(
            PerFilterConfig("fault", UnsupportedFilter(fault["@type"])),
            PerFilterConfig("limit", None, disabled=True),
        ),
    )
    assert [issue.path for issue in found.issues] == [
        'virtual_hosts[0].typed_per_filter_config["fault"].config',
    ]


@pytest.mark.parametrize(
    "changes, path",
    [
        ({"regex_rewrite": {"pattern": {"regex": "(a)"}, "substitution": r"\2"}}, "regex_rewrite.substitution"),
        (
            {"host_rewrite_path_regex": {"pattern": {"regex": "a"}, "substitution": r"\1"}},
            "host_rewrite_path_regex.substitution",
        ),
    ],
)
def test_a_rewrite_that_never_rewrites_is_left_out(changes: Json, path: str) -> None:
    found, issues = one_route({"match": {"prefix": "/"}, "route": {"cluster": "a", **changes}})
    assert found.action == RouteAction("a")
    assert issues == [f"virtual_hosts[0].routes[0].route.{path}"]


def test_the_deprecated_total_weight_does_not_count() -> None:
    shares = {"clusters": [{"name": "a", "weight": 6}, {"name": "b", "weight": 3}], "total_weight": 100}
    found, issues = one_route({"match": {"prefix": "/"}, "route": {"weighted_clusters": shares}})
    assert isinstance(found.action, RouteAction)
    assert found.action.cluster == WeightedClusters((WeightedCluster("a", 6), WeightedCluster("b", 3)))
    assert issues == ["virtual_hosts[0].routes[0].route.weighted_clusters.total_weight"]


# Clusters


def policies(*entries: tuple[str, Json]) -> Json:
    return {
        "policies": [
            {"typed_extension_config": {"name": kind, "typed_config": {"@type": f"{_LB}.{kind}", **config}}}
            for kind, config in entries
        ]
    }


@pytest.fixture(autouse=True)
def policy_types() -> None:
    """The JSON parser packs only what is imported."""
    for name in ("round_robin", "least_request", "random", "ring_hash", "maglev", "wrr_locality", "subset"):
        __import__(f"envoy.extensions.load_balancing_policies.{name}.v3.{name}_pb2")
    __import__("envoy.extensions.transport_sockets.tls.v3.tls_pb2")
    __import__("envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2")
    __import__("envoy.extensions.upstreams.http.v3.http_protocol_options_pb2")
    __import__("envoy.extensions.clusters.aggregate.v3.cluster_pb2")
    __import__("envoy.extensions.clusters.dns.v3.dns_cluster_pb2")
    __import__("udpa.type.v1.typed_struct_pb2")
    __import__("xds.type.v3.typed_struct_pb2")


def test_nested_policies() -> None:
    inner = policies(("random.v3.Random", {}))
    wrr = policies(("wrr_locality.v3.WrrLocality", {"endpoint_picking_policy": inner}))
    found, issues = cluster(load_balancing_policy=wrr)
    assert (found.lb_policy, found.locality_weighted, issues) == (Random(), True, [])
    subset = {"subset_selectors": [{"keys": ["b", "a"]}], "fallback_policy": "ANY_ENDPOINT", "subset_lb_policy": inner}
    found, issues = cluster(load_balancing_policy=policies(("subset.v3.Subset", subset)))
    assert found.subsets == LbSubsetConfig((SubsetSelector(("a", "b")),), "ANY_ENDPOINT")
    assert (found.lb_policy, issues) == (Random(), [])


@pytest.mark.parametrize("wrapper", ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"])
def test_a_typed_struct_is_read_as_what_it_names(wrapper: str) -> None:
    typed = {
        "@type": f"type.googleapis.com/{wrapper}",
        "type_url": f"{_LB}.ring_hash.v3.RingHash",
        "value": {"minimum_ring_size": 64, "hash_function": "MURMUR_HASH_2"},
    }
    chosen = {"policies": [{"typed_extension_config": {"name": "ring", "typed_config": typed}}]}
    found, issues = cluster(load_balancing_policy=chosen)
    assert (found.lb_policy, issues) == (RingHash(64, hash_function="MURMUR_HASH_2"), [])


def test_legacy_policies() -> None:
    found, issues = cluster(
        lb_policy="RING_HASH",
        ring_hash_lb_config={"minimum_ring_size": 5, "maximum_ring_size": 50},
        common_lb_config={
            "consistent_hashing_lb_config": {"use_hostname_for_hashing": True},
            "locality_weighted_lb_config": {},
        },
    )
    assert (found.lb_policy, issues) == (RingHash(5, 50, use_hostname_for_hashing=True), [])
    assert found.locality_weighted
    found, issues = cluster(lb_policy="LEAST_REQUEST", ring_hash_lb_config={})
    assert (found.lb_policy, issues) == (LeastRequest(), ["ring_hash_lb_config"])


def test_a_bias_that_is_none_is_one() -> None:
    config = {"active_request_bias": {"default_value": -1, "runtime_key": "k"}}
    found, issues = cluster(lb_policy="LEAST_REQUEST", least_request_lb_config=config)
    assert (found.lb_policy, issues) == (LeastRequest(), ["least_request_lb_config.active_request_bias"])


def test_types_of_clusters() -> None:
    names = {"clusters": ["a", "b"]}
    aggregate = {"@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig", **names}
    kind = {"name": "envoy.clusters.aggregate", "typed_config": aggregate}
    found = decode_message(xds.message(CLUSTER, {"name": "all", "cluster_type": kind, "lb_policy": "CLUSTER_PROVIDED"}))
    assert isinstance(found.resource, Cluster)
    assert (found.resource.type, found.resource.clusters) == ("AGGREGATE", ("a", "b"))
    assert found.issues == ()
    assert found.references.clusters == {"a", "b"}
    dns = {"@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster"}
    body = {"name": "d", "cluster_type": {"name": "envoy.cluster.dns", "typed_config": dns}}
    assert (
        decode_message(
            xds.message(CLUSTER, {**body, "load_assignment": xds.assignment("d", xds.endpoint("d.internal"))})
        ).resource.type
        == "STRICT_DNS"
    )


def test_the_breaker_of_the_metadata() -> None:
    values = {"fail_max": 3, "reset_timeout": 1.5, "success_threshold": 2, "half_open_permits": 4}
    found, _ = cluster(metadata={"filter_metadata": {"meshlib.circuit_breaker": values}})
    assert found.circuit_breaker == CircuitBreaker(3, 1.5, 2, 4)
    assert cluster(metadata={"filter_metadata": {"meshlib.circuit_breaker": {}}})[0].circuit_breaker == CircuitBreaker()


WHOLE_BREAKER = {
    "fail_max": 0,
    "reset_timeout": 1.5,
    "failure_rate": 50,
    "slow_call_rate": 80,
    "slow_call_duration": 0.5,
    "window_type": "time",
    "window_size": 12.5,
    "minimum_calls": 7,
    "half_open_max_wait": 9,
    "ramp_up": 30,
    "ramp_up_from": 5,
    "scope": "endpoint",
    "name": "tills",
    "fallback": {"status": 200, "headers": {"x-from": "cache"}, "body": "[]", "grpc_status": 0},
}
WHOLE_MODEL = CircuitBreaker(
    fail_max=0,
    reset_timeout=1.5,
    failure_rate=50,
    slow_call_rate=80,
    slow_call_duration=0.5,
    window_type="time",
    window_size=12.5,
    minimum_calls=7,
    half_open_max_wait=9,
    ramp_up=30,
    ramp_up_from=5,
    scope="endpoint",
    name="tills",
    fallback=FallbackResponse(200, (("x-from", "cache"),), b"[]", 0),
)


def test_all_of_the_breaker() -> None:
    found, _ = cluster(metadata={"filter_metadata": {"meshlib.circuit_breaker": WHOLE_BREAKER}})
    assert found.circuit_breaker == WHOLE_MODEL


STRUCT = {"@type": "type.googleapis.com/google.protobuf.Struct", "value": WHOLE_BREAKER}
OPTIONAL = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "is_optional": True, "config": STRUCT}


@pytest.mark.parametrize(
    "more, expected",
    [
        ({}, None),
        ({"metadata": {"filter_metadata": {"meshlib.circuit_breaker": WHOLE_BREAKER}}}, WHOLE_MODEL),
        ({"typed_per_filter_config": {"meshlib.circuit_breaker": STRUCT}}, WHOLE_MODEL),
        ({"typed_per_filter_config": {"meshlib.circuit_breaker": OPTIONAL}}, WHOLE_MODEL),
        ({"typed_per_filter_config": {"meshlib.circuit_breaker": {**OPTIONAL, "disabled": True}}}, None),
    ],
)
def test_the_breaker_of_a_route(more: Json, expected: CircuitBreaker | None) -> None:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "a"}, **more}
    found = decode_message(xds.message(ROUTE_CONFIGURATION, xds.route_configuration("routes", route)))
    assert found.issues == ()
    assert found.resource.virtual_hosts[0].routes[0].circuit_breaker == expected
    assert found.resource.virtual_hosts[0].routes[0].typed_per_filter_config == ()


def test_a_route_that_forwards_nothing_has_nothing_to_break() -> None:
    more = {"metadata": {"filter_metadata": {"meshlib.circuit_breaker": {}}}}
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}, **more}
    found = decode_message(xds.message(ROUTE_CONFIGURATION, xds.route_configuration("routes", route)))
    assert [issue.reason for issue in found.issues] == ["the route forwards nothing, so there is nothing to break"]


def http_options(**config: Any) -> Json:
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {kind: {"@type": f"type.googleapis.com/{kind}", **config}}


def test_http_protocol_options() -> None:
    options = http_options(
        explicit_http_config={"http2_protocol_options": {"max_concurrent_streams": 5}},
        common_http_protocol_options={"idle_timeout": "0s", "max_requests_per_connection": 9},
    )
    found, issues = cluster(typed_extension_protocol_options=options)
    assert (found.http2, found.idle_timeout, found.max_requests_per_connection) == (True, None, 9)
    assert [path.rpartition(".")[2] for path in issues] == ["max_concurrent_streams"]
    found, issues = cluster(typed_extension_protocol_options=http_options(auto_config={}))
    assert (found.http2, len(issues)) == (False, 1)
    found, issues = cluster(http2_protocol_options={}, max_requests_per_connection=3)
    assert (found.http2, found.max_requests_per_connection, issues) == (True, 3, [])


def tls(**common: Any) -> tuple[Cluster, list[str]]:
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    config = {"@type": kind, "sni": "a.internal", "common_tls_context": common}
    return cluster(transport_socket={"name": "tls", "typed_config": config})


def test_tls_from_files_and_inline() -> None:
    found, issues = tls(
        tls_certificates=[{"certificate_chain": {"filename": "c.pem"}, "private_key": {"inline_string": "KEY"}}],
        validation_context={
            "trusted_ca": {"inline_bytes": "Q0E="},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": "spiffe://td/a"}}],
        },
    )
    assert issues == []
    assert found.tls == UpstreamTls(
        sni="a.internal",
        trusted_ca_pem=b"CA",
        certificate_chain="c.pem",
        private_key_pem=b"KEY",
        subject_alt_names=(("URI", "exact", "spiffe://td/a"),),
    )


@pytest.mark.parametrize(
    "common, path",
    [
        ({"validation_context_sds_secret_config": {"name": "roots"}}, "validation_context_sds_secret_config"),
        ({"tls_certificate_sds_secret_configs": [{"name": "own"}]}, "tls_certificate_sds_secret_configs"),
        (
            {"validation_context": {"verify_certificate_hash": ["a" * 64]}},
            "validation_context.verify_certificate_hash",
        ),
    ],
)
def test_protection_that_is_not_there_makes_the_cluster_unusable(common: Json, path: str) -> None:
    found, issues = tls(**common)
    assert found.tls is not None
    assert path in found.tls.unusable
    assert issues == [f"transport_socket.typed_config.common_tls_context.{path}"]


def test_raw_buffer_is_plain_text_and_other_sockets_are_not() -> None:
    kind = "type.googleapis.com/envoy.extensions.transport_sockets"
    raw = {"name": "envoy.transport_sockets.raw_buffer", "typed_config": {"@type": f"{kind}.raw_buffer.v3.RawBuffer"}}
    assert cluster(transport_socket=raw)[0].tls is None
    found, issues = cluster(transport_socket={"name": "envoy.transport_sockets.alts"})
    assert found.tls is not None
    assert found.tls.unusable
    assert issues == ["transport_socket"]


# Endpoints


def test_endpoints() -> None:
    body = {
        "cluster_name": "a",
        "endpoints": [
            {
                "locality": {"region": "r", "zone": "z", "sub_zone": "s"},
                "priority": 1,
                "load_balancing_weight": 7,
                "lb_endpoints": [
                    xds.endpoint(
                        "10.0.0.1",
                        load_balancing_weight=3,
                        health_status="DRAINING",
                        metadata={"filter_metadata": {"envoy.lb": {"v": "1"}}},
                    ),
                    xds.endpoint("fd00::1", 9),
                    {"endpoint": {"address": {"pipe": {"path": "/run/a.sock"}}, "hostname": "h"}},
                    {"endpoint_name": "named"},
                    xds.endpoint("10.0.0.1", load_balancing_weight=5),
                ],
            }
        ],
        "named_endpoints": {"named": {"address": {"socket_address": {"address": "10.0.0.9", "port_value": 1}}}},
        "policy": {
            "overprovisioning_factor": 100,
            "drop_overloads": [{"category": "lb", "drop_percentage": {"numerator": 5}}],
        },
    }
    found = decode_message(xds.message(CLUSTER_LOAD_ASSIGNMENT, body))
    assert found.resource == ClusterLoadAssignment(
        "a",
        (
            LocalityLbEndpoints(
                (
                    LbEndpoint(
                        Address("10.0.0.1", 8080), 3, "DRAINING", metadata=Metadata.of({"envoy.lb": {"v": "1"}})
                    ),
                    LbEndpoint(Address("fd00::1", 9)),
                    LbEndpoint(Address("", 0, "/run/a.sock"), hostname="h"),
                    LbEndpoint(Address("10.0.0.9", 1)),
                ),
                Locality("r", "z", "s"),
                1,
                7,
            ),
        ),
        100,
        (DropOverload("lb", 0.05),),
    )
    assert [issue.reason for issue in found.issues] == [
        "endpoint 10.0.0.1:8080 is there twice in its priority; the first counts"
    ]


# Listeners


def decoded(resource: Json) -> Decoded:
    return decode_message(xds.message(LISTENER, resource))


def test_api_listener_and_socket_listener() -> None:
    found = decoded(xds.api_listener("a:80", "r"))
    assert isinstance(found.resource, Listener)
    assert (found.resource.api, found.resource.managers[0].routes, found.references.routes) == (True, "r", {"r"})
    assert isinstance(found.resource.managers[0].http_filters[-1].config, RouterFilter)
    found = decoded(xds.socket_listener("out", 8080, "r"))
    assert isinstance(found.resource, Listener)
    assert (found.resource.address, found.resource.port, found.resource.direction) == ("0.0.0.0", 8080, "OUTBOUND")
    assert not found.resource.api


def test_inline_routes_are_referred_to_like_others() -> None:
    listener = xds.api_listener("a")
    http = listener["api_listener"]["api_listener"]
    del http["rds"]
    http["route_config"] = xds.route_configuration("inline")
    assert decoded(listener).references.clusters == {"payments"}


def test_collections_of_scopes_route_nothing_and_tcp_is_left_out() -> None:
    listener = xds.socket_listener("out", 80, "r")
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["rds"]
    source = {"scope_key_builder": {"fragments": [{"header_value_extractor": {"name": "x", "index": 0}}]}, "name": "s"}
    scopes = {
        "scoped_rds": {"scoped_rds_config_source": {"ads": {}}, "srds_resources_locator": "xdstp://a/b"},
        "rds_config_source": {"ads": {}},
    }
    manager["scoped_routes"] = {**source, **scopes}
    listener["filter_chains"][0]["filters"].append(
        {"name": "tcp", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {}}}
    )
    found = decoded(listener)
    assert isinstance(found.resource, Listener)
    assert found.resource.managers == ()
    assert [issue.path.rpartition(".")[2] for issue in found.issues] == ["srds_resources_locator", "typed_config"]


def test_round_robin_is_round_robin() -> None:
    assert cluster(load_balancing_policy=policies(("round_robin.v3.RoundRobin", {})))[0].lb_policy == RoundRobin()
