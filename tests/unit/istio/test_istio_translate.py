"""Istio YAML in, Envoy resources out. Expected values are istiod's (pilot/pkg/networking/core), with its defaults."""

from typing import Any

import pytest
from google.protobuf import json_format

from meshlib.model.report import Issue
from meshlib.sources.files.loader import parse_text
from meshlib.sources.files.resources import Content
from meshlib.sources.istio.translate import translate

Json = dict[str, Any]
HOST = "reviews.default.svc.cluster.local"

ENTRY = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: reviews}
spec:
  hosts: [reviews]
  ports: [{number: 9080, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints:
  - {address: 10.0.0.1, labels: {version: v1}}
  - {address: 10.0.0.2, labels: {version: v2}, ports: {http: 8002}, weight: 3, locality: eu/a}
"""


def entry(spec: str) -> str:
    return f"---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e}}\nspec: {spec}\n"


def rule(spec: str, host: str = "reviews") -> str:
    head = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\n"
    return f"{head}spec: {{host: {host}, {spec}}}\n"


def virtual(http: str, hosts: str = "[reviews]", namespace: str = "default", more: str = "") -> str:
    metadata = f"{{name: v, namespace: {namespace}}}"
    head = f"---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {metadata}\n"
    return f"{head}spec: {{hosts: {hosts}, {more} http: {http}}}\n"


TO_REVIEWS = "route: [{destination: {host: reviews}}]"


def translated(text: str) -> Content:
    content = parse_text(text, "x.yaml")
    assert content.issues == ()
    return translate(content.istio)


def resources(text: str, *, issues: int = 0) -> dict[str, Json]:
    content = translated(text)
    assert len(content.issues) == issues, [str(issue) for issue in content.issues]
    return {
        resource.label: json_format.MessageToDict(resource.message, preserving_proto_field_name=True)
        for resource in content.resources
    }


def cluster(text: str, port: int = 9080, subset: str = "", host: str = HOST) -> Json:
    return resources(text)[f"Cluster outbound|{port}|{subset}|{host}"]


def hosts_of(text: str, port: int = 9080, *, issues: int = 0) -> dict[str, Json]:
    table = resources(text, issues=issues)[f"RouteConfiguration {port}"]
    return {host["name"]: host for host in table["virtual_hosts"]}


def routes_of(http: str, *, more: str = "", issues: int = 0) -> list[Json]:
    routes: list[Json] = hosts_of(ENTRY + more + virtual(http), issues=issues)[
        "reviews.default.svc.cluster.local:9080"
    ]["routes"]
    return routes


def issues_of(text: str) -> list[Issue]:
    return list(translated(text).issues)


# Services ------------------------------------------------------------------------------------------------------------


def test_a_service_becomes_cluster_assignment_listeners_and_tables() -> None:
    found = resources(ENTRY)
    assert set(found) == {
        "Cluster PassthroughCluster",
        f"Cluster outbound|9080||{HOST}",
        f"ClusterLoadAssignment outbound|9080||{HOST}",
        "Listener 0.0.0.0_9080",
        f"Listener {HOST}:9080",
        "RouteConfiguration 9080",
        f"RouteConfiguration outbound|9080||{HOST}",
    }
    api = found[f"Listener {HOST}:9080"]
    assert "address" not in api
    assert api["api_listener"]["api_listener"]["rds"]["route_config_name"] == f"outbound|9080||{HOST}"
    outbound = found["Listener 0.0.0.0_9080"]
    assert outbound["address"]["socket_address"] == {"address": "0.0.0.0", "port_value": 9080}
    (chain,) = outbound["filter_chains"]
    assert chain["filters"][0]["typed_config"]["rds"]["route_config_name"] == "9080"


def test_a_cluster_has_istio_s_defaults_and_not_envoy_s() -> None:
    found = cluster(ENTRY)
    assert found["type"] == "EDS"
    assert found["connect_timeout"] == "10s"
    assert found["lb_policy"] == "LEAST_REQUEST"
    assert found["circuit_breakers"]["thresholds"] == [
        {
            "max_connections": 4294967295,
            "max_pending_requests": 4294967295,
            "max_requests": 4294967295,
            "max_retries": 4294967295,
        }
    ]
    assert "outlier_detection" not in found
    assert "typed_extension_protocol_options" not in found


def test_endpoints_are_grouped_by_locality_with_weights_and_named_ports() -> None:
    localities = resources(ENTRY)[f"ClusterLoadAssignment outbound|9080||{HOST}"]["endpoints"]
    plain, european = localities
    assert plain["locality"] == {}, "said though empty, as grpcio wants it"
    assert plain["load_balancing_weight"] == 1
    assert european["locality"] == {"region": "eu", "zone": "a"}
    assert european["load_balancing_weight"] == 3
    address = european["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    assert address == {"address": "10.0.0.2", "port_value": 8002}
    assert plain["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["port_value"] == 9080


@pytest.mark.parametrize(
    "resolution, kind, policy",
    [("DNS", "STRICT_DNS", "LEAST_REQUEST"), ("DNS_ROUND_ROBIN", "LOGICAL_DNS", "LEAST_REQUEST"),
     ("NONE", "ORIGINAL_DST", "CLUSTER_PROVIDED")],
)  # fmt: skip
def test_resolutions(resolution: str, kind: str, policy: str) -> None:
    text = entry(f"{{hosts: [ext.test], ports: [{{number: 80, protocol: HTTP}}], resolution: {resolution}}}")
    found = cluster(text, 80, host="ext.test")
    assert (found["type"], found["lb_policy"]) == (kind, policy)
    if kind == "ORIGINAL_DST":
        assert "load_assignment" not in found
    else:  # the host itself is the endpoint when none is listed
        (locality,) = found["load_assignment"]["endpoints"]
        address = locality["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        assert address == {"address": "ext.test", "port_value": 80}


def test_target_ports_unix_sockets_and_http2() -> None:
    text = entry(
        "{hosts: [a.test], ports: [{number: 80, targetPort: 8080, name: grpc, protocol: GRPC}], resolution: STATIC,"
        " endpoints: [{address: 10.0.0.1}, {address: 'unix:///run/a.sock'}]}"
    )
    found = resources(text)
    (locality,) = found["ClusterLoadAssignment outbound|80||a.test"]["endpoints"]
    first, second = (endpoint["endpoint"]["address"] for endpoint in locality["lb_endpoints"])
    assert first["socket_address"]["port_value"] == 8080
    assert second == {"pipe": {"path": "/run/a.sock"}}
    (options,) = found["Cluster outbound|80||a.test"]["typed_extension_protocol_options"].values()
    assert options["explicit_http_config"] == {"http2_protocol_options": {}}


def test_ports_without_http_are_not_routed_and_said() -> None:
    text = entry("{hosts: [a.test], ports: [{number: 5432, protocol: TCP}], resolution: DNS}")
    (issue,) = issues_of(text)
    assert (issue.severity, issue.path) == ("degraded", "ports")
    assert set(resources(text, issues=1)) == {"Cluster outbound|5432||a.test"}


@pytest.mark.parametrize(
    "host, addresses, expected",
    [
        ("reviews", "", [HOST, f"{HOST}.", "reviews", "reviews.default.svc", "reviews.default"]),
        ("a.other.svc.cluster.local", "",
         ["a.other.svc.cluster.local", "a.other.svc.cluster.local.", "a.other.svc", "a.other"]),
        ("ext.test", "addresses: [10.1.2.3, 10.0.0.0/8, '::1'],", ["ext.test", "ext.test.", "10.1.2.3", "[::1]"]),
        ("'*.ext.test'", "", ["*.ext.test", "*.ext.test."]),
    ],
)  # fmt: skip
def test_the_names_a_service_answers_to(host: str, addresses: str, expected: list[str]) -> None:
    text = entry(f"{{hosts: [{host}], {addresses} ports: [{{number: 80, protocol: HTTP}}], resolution: NONE}}")
    hosts = hosts_of(text, 80)
    allow_any = hosts.pop("allow_any")
    (found,) = hosts.values()
    assert found["domains"] == expected
    assert allow_any["domains"] == ["*"]
    assert allow_any["routes"][0]["route"] == {
        "cluster": "PassthroughCluster",
        "timeout": "0s",
        "max_grpc_timeout": "0s",
    }


def test_proxyless_tables_have_ports_in_their_domains() -> None:
    (host,) = resources(ENTRY)[f"RouteConfiguration outbound|9080||{HOST}"]["virtual_hosts"]
    assert {HOST, f"{HOST}:9080", "reviews", "reviews:9080"} <= set(host["domains"])


# Policies ------------------------------------------------------------------------------------------------------------


def test_connection_pool_outlier_detection_and_retry_budget() -> None:
    found = cluster(
        ENTRY
        + rule(
            "trafficPolicy: {retryBudget: {percent: 25},"
            " connectionPool: {tcp: {maxConnections: 5, connectTimeout: 250ms},"
            " http: {http1MaxPendingRequests: 7, http2MaxRequests: 9, maxRetries: 2, maxRequestsPerConnection: 3,"
            " idleTimeout: 1h30m}}, outlierDetection: {consecutive5xxErrors: 3, consecutiveGatewayErrors: 0,"
            " interval: 1m, baseEjectionTime: 90s, maxEjectionPercent: 40}}"
        )
    )
    assert found["connect_timeout"] == "0.250s"
    (thresholds,) = found["circuit_breakers"]["thresholds"]
    assert thresholds == {
        "max_connections": 5,
        "max_pending_requests": 7,
        "max_requests": 9,
        "max_retries": 2,
        "retry_budget": {"budget_percent": {"value": 25.0}, "min_retry_concurrency": 3},
    }
    (options,) = found["typed_extension_protocol_options"].values()
    assert options["common_http_protocol_options"] == {"idle_timeout": "5400s", "max_requests_per_connection": 3}
    assert found["outlier_detection"] == {
        "consecutive_5xx": 3,
        "enforcing_consecutive_5xx": 100,
        "consecutive_gateway_failure": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "interval": "60s",
        "base_ejection_time": "90s",
        "max_ejection_percent": 40,
    }
    assert found["common_lb_config"]["healthy_panic_threshold"] == {}  # 0 %: panic is off


@pytest.mark.parametrize("codes", [[503], [429, 503]])
def test_outlier_detection_http_error_codes_are_the_errors_and_no_other_status_is(codes: list[int]) -> None:
    found = cluster(ENTRY + rule(f"trafficPolicy: {{outlierDetection: {{outlierDetectionHttpErrorCodes: {codes}}}}}"))
    (options,) = found["typed_extension_protocol_options"].values()
    each = [
        {"http_response_headers_match": {"headers": [{"name": ":status", "string_match": {"exact": str(code)}}]}}
        for code in codes
    ]
    expected = each[0] if len(each) == 1 else {"or_match": {"rules": each}}
    assert options["outlier_detection"] == {"error_matcher": expected}


def test_gateway_errors_and_local_failures_eject_where_they_are_asked_for() -> None:
    text = "{consecutiveGatewayErrors: 2, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 4}"
    assert cluster(ENTRY + rule(f"trafficPolicy: {{outlierDetection: {text}}}"))["outlier_detection"] == {
        "consecutive_gateway_failure": 2,
        "enforcing_consecutive_gateway_failure": 100,
        "enforcing_success_rate": 0,
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 4,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
    }


@pytest.mark.parametrize(
    "balancer, policy, config",
    [
        ("{simple: ROUND_ROBIN}", "ROUND_ROBIN", {}),
        ("{simple: RANDOM}", "RANDOM", {}),
        ("{simple: LEAST_CONN}", "LEAST_REQUEST", {}),
        ("{simple: UNSPECIFIED}", "LEAST_REQUEST", {}),
        ("{consistentHash: {httpHeaderName: x}}", "RING_HASH", {"ring_hash_lb_config": {"minimum_ring_size": "1024"}}),
        ("{consistentHash: {httpHeaderName: x, ringHash: {minimumRingSize: 9}}}", "RING_HASH",
         {"ring_hash_lb_config": {"minimum_ring_size": "9"}}),
        ("{consistentHash: {useSourceIp: true, maglev: {tableSize: 101}}}", "MAGLEV",
         {"maglev_lb_config": {"table_size": "101"}}),
    ],
)  # fmt: skip
def test_load_balancers(balancer: str, policy: str, config: Json) -> None:
    found = cluster(ENTRY + rule(f"trafficPolicy: {{loadBalancer: {balancer}}}"))
    assert found.get("lb_policy", "ROUND_ROBIN") == policy
    assert {key: value for key, value in found.items() if key.endswith("_hash_lb_config") or "maglev" in key} == config


def test_passthrough_forgets_the_endpoints() -> None:
    found = cluster(ENTRY + rule("trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}"))
    assert (found["type"], found["lb_policy"]) == ("ORIGINAL_DST", "CLUSTER_PROVIDED")
    assert "eds_cluster_config" not in found


SUBSETS = """
trafficPolicy:
  loadBalancer: {simple: RANDOM}
  connectionPool: {tcp: {maxConnections: 1}}
  portLevelSettings: [{port: {number: 9081}, connectionPool: {tcp: {maxConnections: 2}}}]
subsets:
- {name: v1, labels: {version: v1}}
- {name: v2, labels: {version: v2}, trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}}
- name: v3
  labels: {version: v3}
  trafficPolicy: {portLevelSettings: [{port: {number: 9080}, outlierDetection: {}}]}
"""


def with_subsets() -> str:
    head = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\nspec:\n  host: reviews"
    return ENTRY.replace("]\n  resolution", ", {number: 9081, name: b, protocol: HTTP}]\n  resolution") + (
        head + SUBSETS.replace("\n", "\n  ") + "\n"
    )


@pytest.mark.parametrize(
    "port, subset, policy, connections",
    [
        (9080, "", "RANDOM", 1),
        (9081, "", "LEAST_REQUEST", 2),  # a port's settings replace the whole policy
        (9080, "v1", "RANDOM", 1),
        (9080, "v2", "RANDOM", 3),  # a subset's blocks replace the destination's one by one
        (9081, "v2", "LEAST_REQUEST", 3),
        (9080, "v3", "LEAST_REQUEST", 4294967295),  # ... but its port's settings replace them all
    ],
)
def test_whose_policy_holds(port: int, subset: str, policy: str, connections: int) -> None:
    found = cluster(with_subsets(), port, subset)
    assert found["lb_policy"] == policy
    assert found["circuit_breakers"]["thresholds"][0]["max_connections"] == connections


@pytest.mark.parametrize("subset, addresses", [("v1", ["10.0.0.1"]), ("v2", ["10.0.0.2"]), ("v3", [])])
def test_a_subset_has_the_endpoints_with_its_labels(subset: str, addresses: list[str]) -> None:
    found = resources(with_subsets())[f"ClusterLoadAssignment outbound|9080|{subset}|{HOST}"]
    endpoints = [e for locality in found.get("endpoints", ()) for e in locality["lb_endpoints"]]
    assert [e["endpoint"]["address"]["socket_address"]["address"] for e in endpoints] == addresses


def test_the_rule_of_the_host_goes_before_the_longest_wildcard() -> None:
    entries = "".join(
        entry(f"{{hosts: [{host}.ext.test], ports: [{{number: 80, protocol: HTTP}}], resolution: DNS}}")
        for host in "ab"
    )
    rules = [("'*.ext.test'", "RANDOM"), ("'*.test'", "ROUND_ROBIN"), ("a.ext.test", "LEAST_REQUEST")]
    text = entries + "".join(rule(f"trafficPolicy: {{loadBalancer: {{simple: {lb}}}}}", host) for host, lb in rules)
    assert cluster(text, 80, host="a.ext.test")["lb_policy"] == "LEAST_REQUEST"
    assert cluster(text, 80, host="b.ext.test")["lb_policy"] == "RANDOM"


def test_tls_origination_always_verifies() -> None:
    found = cluster(ENTRY + rule("trafficPolicy: {tls: {mode: SIMPLE}}"))
    context = found["transport_socket"]["typed_config"]
    assert context["common_tls_context"] == {"validation_context": {"system_root_certs": {}}}
    assert "sni" not in context
    (options,) = found["typed_extension_protocol_options"].values()
    assert options["upstream_http_protocol_options"] == {"auto_sni": True, "auto_san_validation": True}
    tls = "{mode: MUTUAL, clientCertificate: c, privateKey: k, caCertificates: a, sni: s, subjectAltNames: ['spiffe://x']}"
    found = cluster(ENTRY + rule(f"trafficPolicy: {{tls: {tls}}}"))
    mutual = found["transport_socket"]["typed_config"]
    assert mutual == {
        "@type": mutual["@type"],
        "sni": "s",
        "common_tls_context": {
            "tls_certificates": [{"certificate_chain": {"filename": "c"}, "private_key": {"filename": "k"}}],
            "validation_context": {
                "trusted_ca": {"filename": "a"},
                "match_subject_alt_names": [{"exact": "spiffe://x"}],
            },
        },
    }
    assert "typed_extension_protocol_options" not in found


@pytest.mark.parametrize(
    "export_to, namespace, visible",
    [("['*']", "other", True), ("['.']", "default", True), ("['.']", "other", False), ("[default]", "other", True),
     ("[elsewhere]", "default", False), ("['~']", "default", False), ("[]", "other", True)],
)  # fmt: skip
def test_objects_that_are_not_exported_to_the_callers_are_told_and_not_used(
    export_to: str, namespace: str, visible: bool
) -> None:
    text = ENTRY.replace("{name: reviews}", f"{{name: reviews, namespace: {namespace}}}")
    content = translated(text.replace("spec:\n", f"spec:\n  exportTo: {export_to}\n"))
    assert bool(content.resources) is visible
    assert [issue.path for issue in content.issues] == ([] if visible else ["exportTo"])


def test_istio_mutual_is_the_workload_s_own_identity() -> None:
    tls = "{mode: ISTIO_MUTUAL, subjectAltNames: ['spiffe://cluster.local/ns/default/sa/reviews']}"
    text = ENTRY + rule(f"trafficPolicy: {{tls: {tls}}}, subsets: [{{name: v1}}]")
    context = cluster(text)["transport_socket"]["typed_config"]
    assert context["sni"] == f"outbound_.9080_._.{HOST}"
    assert context["common_tls_context"] == {
        "alpn_protocols": ["istio"],
        "tls_certificate_provider_instance": {"instance_name": "default"},
        "validation_context": {
            "ca_certificate_provider_instance": {"instance_name": "default"},
            "match_subject_alt_names": [{"exact": "spiffe://cluster.local/ns/default/sa/reviews"}],
        },
    }
    subset = cluster(text, subset="v1")["transport_socket"]["typed_config"]
    assert subset["sni"] == f"outbound_.9080_.v1_.{HOST}"


# Routes --------------------------------------------------------------------------------------------------------------


def test_without_a_virtual_service_everything_goes_to_the_service() -> None:
    (route,) = hosts_of(ENTRY)[f"{HOST}:9080"]["routes"]
    assert route["name"] == "default"
    assert route["match"] == {"prefix": "/"}
    action = route["route"]
    assert (action["cluster"], action["timeout"]) == (f"outbound|9080||{HOST}", "0s")
    policy = action["retry_policy"]
    assert policy.pop("retry_host_predicate")[0]["name"] == "envoy.retry_host_predicates.previous_hosts"
    assert policy == {
        "num_retries": 2,
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "host_selection_retry_max_attempts": "5",
    }


@pytest.mark.parametrize(
    "match, expected",
    [
        ("{uri: {exact: /a}}", {"path": "/a"}),
        ("{uri: {prefix: /a}, ignoreUriCase: true}", {"prefix": "/a", "case_sensitive": False}),
        ("{uri: {regex: '/a.*'}}", {"safe_regex": {"regex": "/a.*"}}),
        ("{headers: {b: {exact: x}, a: {prefix: y}}}",
         {"prefix": "/", "headers": [{"name": "a", "string_match": {"prefix": "y"}},
                                     {"name": "b", "string_match": {"exact": "x"}}]}),
        ("{headers: {a: {}}}", {"prefix": "/", "headers": [{"name": "a", "present_match": True}]}),
        ("{headers: {a: {regex: '*'}}}", {"prefix": "/", "headers": [{"name": "a", "present_match": True}]}),
        ("{withoutHeaders: {a: {exact: x}}}",
         {"prefix": "/", "headers": [{"name": "a", "string_match": {"exact": "x"}, "invert_match": True,
                                      "treat_missing_header_as_empty": True}]}),
        ("{withoutHeaders: {a: {}}}",
         {"prefix": "/", "headers": [{"name": "a", "present_match": True, "invert_match": True}]}),
        ("{method: {exact: GET}, scheme: {exact: http}, authority: {prefix: r}}",
         {"prefix": "/", "headers": [{"name": ":method", "string_match": {"exact": "GET"}},
                                     {"name": ":authority", "string_match": {"prefix": "r"}},
                                     {"name": ":scheme", "string_match": {"exact": "http"}}]}),
        ("{queryParams: {q: {regex: '[0-9]'}}}",
         {"prefix": "/", "query_parameters": [{"name": "q", "string_match": {"safe_regex": {"regex": "[0-9]"}}}]}),
        ("{queryParams: {q: {exact: ''}}}",
         {"prefix": "/", "query_parameters": [{"name": "q", "string_match": {"exact": ""}}]}),
    ],
)  # fmt: skip
def test_matches(match: str, expected: Json) -> None:
    first, *_ = routes_of(f"[{{match: [{match}], {TO_REVIEWS}}}]")
    assert first["match"] == {"case_sensitive": True, **expected}


def test_each_match_is_a_route_and_a_catch_all_ends_the_list() -> None:
    http = (
        f"[{{name: r, match: [{{name: m, uri: {{exact: /a}}}}, {{uri: {{exact: /b}}}}], {TO_REVIEWS}}},"
        f" {{match: [{{uri: {{prefix: /}}}}], {TO_REVIEWS}}}, {{match: [{{uri: {{exact: /never}}}}], {TO_REVIEWS}}}]"
    )
    routes = routes_of(http)
    assert [route.get("name", "") for route in routes] == ["r.m", "r", ""]
    assert routes[-1]["match"] == {"prefix": "/", "case_sensitive": True}


def test_matches_for_other_ports_and_other_callers_are_left_out() -> None:
    http = f"[{{match: [{{port: 1}}, {{port: 9080, uri: {{exact: /a}}}}], {TO_REVIEWS}}}]"
    assert [route["match"].get("path") for route in routes_of(http)] == ["/a"]
    for match in (
        "sourceLabels: {app: x}",
        "gateways: [g]",
        "sourceNamespace: other",
        "headers: {'@request.auth.claims.a': {}}",
    ):
        http = f"[{{match: [{{{match}}}], {TO_REVIEWS}}}, {{match: [{{uri: {{exact: /b}}}}], {TO_REVIEWS}}}]"
        assert [route["match"].get("path") for route in routes_of(http, issues=1)] == ["/b"]


def test_weights_subsets_ports_and_headers_of_destinations() -> None:
    http = (
        "[{route: [{destination: {host: reviews, subset: v1, port: {number: 81}}, weight: 90,"
        " headers: {request: {set: {b: x, a: y, Host: h}, add: {c: z}, remove: [d, ':path']}}},"
        " {destination: {host: other.test}, weight: 10}, {destination: {host: zero.test}, weight: 0}]}]"
    )
    (route,) = routes_of(http, issues=3)
    first, second = route["route"]["weighted_clusters"]["clusters"]
    assert first == {
        "name": f"outbound|81|v1|{HOST}",
        "weight": 90,
        "host_rewrite_literal": "h",
        "request_headers_to_remove": ["d"],
        "request_headers_to_add": [
            {"header": {"key": "a", "value": "y"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
            {"header": {"key": "b", "value": "x"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
            {"header": {"key": "c", "value": "z"}},
        ],
    }
    assert second == {"name": "outbound|9080||other.test", "weight": 10}


def test_headers_of_a_single_destination_join_the_route_s() -> None:
    http = (
        "[{headers: {response: {set: {a: x}}, request: {set: {host: outer}}},"
        " route: [{destination: {host: reviews}, headers: {response: {add: {b: y}}, request: {set: {host: inner}}}}]}]"
    )
    (route,) = routes_of(http)
    assert [option["header"]["key"] for option in route["response_headers_to_add"]] == ["a", "b"]
    assert route["route"]["host_rewrite_literal"] == "outer"


def test_rewrites() -> None:
    (route,) = routes_of(f"[{{rewrite: {{uri: /new, authority: a.test}}, {TO_REVIEWS}}}]")
    assert route["route"]["prefix_rewrite"] == "/new"
    assert route["route"]["host_rewrite_literal"] == "a.test"
    (route,) = routes_of(f"[{{rewrite: {{uriRegexRewrite: {{match: a, rewrite: b}}}}, {TO_REVIEWS}}}]")
    assert route["route"]["regex_rewrite"] == {"pattern": {"regex": "a"}, "substitution": "b"}


@pytest.mark.parametrize(
    "redirect, expected",
    [
        ("{uri: /n}", {"path_redirect": "/n"}),
        ("{prefixRewrite: /n, authority: a.test, redirectCode: 308}",
         {"prefix_rewrite": "/n", "host_redirect": "a.test", "response_code": "PERMANENT_REDIRECT"}),
        ("{scheme: https, port: 443}", {"scheme_redirect": "https"}),
        ("{scheme: https, port: 8443}", {"scheme_redirect": "https", "port_redirect": 8443}),
        ("{uri: /n, derivePort: FROM_REQUEST_PORT}", {"path_redirect": "/n", "port_redirect": 9080}),
    ],
)  # fmt: skip
def test_redirects(redirect: str, expected: Json) -> None:
    (route,) = routes_of(f"[{{redirect: {redirect}}}]")
    assert route["redirect"] == expected


def test_direct_responses() -> None:
    (route,) = routes_of("[{directResponse: {status: 503, body: {string: nope}}}]")
    assert route["direct_response"] == {"status": 503, "body": {"inline_string": "nope"}}


@pytest.mark.parametrize(
    "retries, expected",
    [
        ("{attempts: 0}", None),
        ("{attempts: 3, perTryTimeout: 250ms, backoff: 10ms}",
         {"num_retries": 3, "per_try_timeout": "0.250s", "retry_back_off": {"base_interval": "0.010s"}}),
        ("{attempts: 1, retryOn: '5xx,503, 404'}",
         {"num_retries": 1, "retry_on": "5xx,retriable-status-codes", "retriable_status_codes": [503, 404]}),
        ("{attempts: 1, retryOn: 'reset,999'}", {"num_retries": 1, "retry_on": "reset,999"}),
    ],
)  # fmt: skip
def test_retries(retries: str, expected: Json | None) -> None:
    (route,) = routes_of(f"[{{retries: {retries}, timeout: 1m, {TO_REVIEWS}}}]")
    assert route["route"]["timeout"] == "60s"
    policy = route["route"].get("retry_policy")
    if expected is None:
        assert policy is None
        return
    assert {**policy, **expected} == policy
    assert "retry_host_predicate" in policy


@pytest.mark.parametrize(
    "consistent, policy",
    [
        ("{httpHeaderName: x-user}", {"header": {"header_name": "x-user"}}),
        ("{httpCookie: {name: c, ttl: 0s, path: /}}", {"cookie": {"name": "c", "ttl": "0s", "path": "/"}}),
        ("{useSourceIp: true}", {"connection_properties": {"source_ip": True}}),
        ("{httpQueryParameterName: q}", {"query_parameter": {"name": "q"}}),
    ],
)
def test_consistent_hashing_hashes_on_the_route_and_retries_the_same_host(consistent: str, policy: Json) -> None:
    hashing = rule(f"trafficPolicy: {{loadBalancer: {{consistentHash: {consistent}}}}}")
    (route,) = routes_of(f"[{{{TO_REVIEWS}}}]", more=hashing)
    assert route["route"]["hash_policy"] == [policy]
    assert "retry_host_predicate" not in route["route"]["retry_policy"]
    (default,) = hosts_of(ENTRY + hashing)[f"{HOST}:9080"]["routes"]
    assert default["route"]["hash_policy"] == [policy]


def test_hosts_without_a_service_are_served_on_port_80() -> None:
    http = "[{route: [{destination: {host: reviews, port: {number: 9080}}}]}]"
    hosts = hosts_of(ENTRY + virtual(http, "[book.test, '*.wild.test']"), 80)
    assert {name: host["domains"] for name, host in hosts.items()} == {
        "book.test:80": ["book.test"],
        "*.wild.test:80": ["*.wild.test"],
        "allow_any": ["*"],
    }
    assert hosts["book.test:80"]["routes"][0]["route"]["cluster"] == f"outbound|9080||{HOST}"


def test_short_names_belong_to_the_namespace_of_the_object() -> None:
    http = "[{route: [{destination: {host: reviews}}]}]"
    hosts = hosts_of(ENTRY + virtual(http, "[a.test]", namespace="other"), 80, issues=1)
    assert hosts["a.test:80"]["routes"][0]["route"]["cluster"] == "outbound|80||reviews.other.svc.cluster.local"


def test_the_most_specific_virtual_service_has_a_host() -> None:
    def answering(status: int, host: str) -> str:
        return virtual(f"[{{directResponse: {{status: {status}}}}}]", f"[{host}]")

    entries = "".join(
        entry(f"{{hosts: [{host}.ext.test], ports: [{{number: 81, protocol: HTTP}}], resolution: DNS}}")
        for host in "ab"
    )
    text = entries + answering(501, "'*.test'") + answering(502, "'*.ext.test'") + answering(503, "a.ext.test")
    hosts = hosts_of(text, 81)
    assert hosts["a.ext.test:81"]["routes"][0]["direct_response"]["status"] == 503
    assert hosts["b.ext.test:81"]["routes"][0]["direct_response"]["status"] == 502


def test_gateways_are_not_the_mesh() -> None:
    text = ENTRY + virtual("[{directResponse: {status: 503}}]", more="gateways: [ingress],")
    (issue,) = issues_of(text)
    assert "gateways ingress are not served" in issue.reason
    (route,) = hosts_of(text, issues=1)[f"{HOST}:9080"]["routes"]
    assert route["name"] == "default"


# What is wrong, and what is not applied ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, path, words",
    [
        (virtual("[{rout: []}]"), "http[0].rout", "did you mean 'route'?"),
        (virtual("[{timeout: 15, " + TO_REVIEWS + "}]"), "http[0].timeout", "strings of seconds: 15s"),
        (virtual("[{match: [{uri: {exact: a, prefix: b}}], " + TO_REVIEWS + "}]"),
         "http[0].match[0].uri.prefix", "exclude"),
        (virtual("[{match: [{headers: {x: {exact: 1}}}], " + TO_REVIEWS + "}]"),
         "http[0].match[0].headers.x.exact", "quotes"),
        (virtual("[{name: a}]"), "http[0]", "needs route, redirect or directResponse"),
        (virtual("[{redirect: {uri: /}, " + TO_REVIEWS + "}]"), "http[0].redirect", "exclude each other"),
        (virtual("[{redirect: {redirectCode: 300}}]"), "http[0].redirect.redirectCode", "301, 302"),
        (virtual("[{route: [{destination: {host: a}}, {destination: {host: b}}]}]"), "http[0].route", "add up to 0"),
        (virtual("[{route: [{destination: {}}]}]"), "http[0].route[0].destination", "needs 'host'"),
        (virtual("{}"), "http", "where a list belongs"),
        (rule("trafficPolicy: {loadBalancer: {simple: ROUND_ROBBIN}}"),
         "trafficPolicy.loadBalancer.simple", "ROUND_ROBIN?"),
        (rule("trafficPolicy: {connectionPool: {http: {http1_max_pending_requests: 1}}}"),
         "trafficPolicy.connectionPool.http.http1_max_pending_requests", "did you mean 'http1MaxPendingRequests'?"),
        (rule("trafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}"),
         "trafficPolicy.outlierDetection.maxEjectionPercent", "0 to 100"),
        (entry("{hosts: [a.test], ports: [{number: 0}]}"), "ports[0].number", "1 to 65535"),
        (entry("{hosts: [a.test]}"), "", "needs ports"),
        (entry("{hosts: [], ports: [{number: 1}]}"), "", "needs 'hosts'"),
        (entry("{hosts: [a.test], ports: [{number: 1}], resolution: STATIC}"), "resolution", "list them, or use"),
        (entry("{hosts: ['*.a.test'], ports: [{number: 1}], resolution: DNS}"), "hosts[0]", "cannot be resolved"),
        (entry("{hosts: [a.test], ports: [{number: 1, protocol: HTTTP}]}"), "ports[0].protocol", "one of HTTP"),
    ],
)  # fmt: skip
def test_mistakes_are_errors_with_path_and_fix(text: str, path: str, words: str) -> None:
    errors = [issue for issue in issues_of(text) if issue.severity == "error"]
    assert [(issue.path, words in f"{issue.reason} {issue.fix}") for issue in errors] == [(path, True)], errors
    assert errors[0].file == "x.yaml"
    assert errors[0].line > 0


@pytest.mark.parametrize(
    "text, path",
    [
        (virtual("[{fault: {delay: {}}, " + TO_REVIEWS + "}]"), "http[0].fault"),
        (virtual("[{delegate: {name: x}}]"), "http[0].delegate"),
        (rule("trafficPolicy: {proxyProtocol: {}}"), "trafficPolicy.proxyProtocol"),
        (rule("", "other.test"), "host"),
        (
            entry(
                "{hosts: [a.test], ports: [{number: 80, name: http, protocol: HTTP, targetPort: 81}], resolution: NONE}"
            ),
            "ports[0].targetPort",
        ),
        (
            ENTRY.replace("{name: reviews}", "{name: again, namespace: other}").replace("[reviews]", f"[{HOST}]"),
            "hosts",
        ),
    ],
)
def test_what_is_not_applied_is_reported_and_the_rest_is_used(text: str, path: str) -> None:
    separator = "" if text.startswith("---") else "---\n"
    content = translated(ENTRY + separator + text)
    assert [(issue.severity, issue.path) for issue in content.issues] == [("degraded", path)]
    assert any(resource.name == "9080" for resource in content.resources)


def test_a_field_that_is_null_says_nothing() -> None:
    """As in Kubernetes; what is left out of a YAML by hand often stays as its name and a colon."""
    said = entry(
        "{hosts: [a.test], ports: [{number: 80, name: http, protocol: null, targetPort: null}], resolution: STATIC,"
        " endpoints: [{address: 10.0.0.1, ports: null, labels: null, weight: null}], exportTo: null}"
    )
    bare = entry(
        "{hosts: [a.test], ports: [{number: 80, name: http}], resolution: STATIC, endpoints: [{address: 10.0.0.1}]}"
    )
    assert resources(said) == resources(bare)
    nothing = "{uri: {exact: null, prefix: /a}, method: null, headers: null}"
    http = f"[{{match: [{nothing}], timeout: null, corsPolicy: null, retries: null, {TO_REVIEWS}}}]"
    assert routes_of(http) == routes_of(f"[{{match: [{{uri: {{prefix: /a}}}}], {TO_REVIEWS}}}]")


def test_a_condition_that_is_null_is_refused_and_not_left_out() -> None:
    (issue,) = issues_of(ENTRY + virtual(f"[{{match: [{{headers: {{x: null}}}}], {TO_REVIEWS}}}]"))
    assert (issue.severity, "headers.x" in issue.path) == ("error", True)


@pytest.mark.parametrize("origin", ["{}", "{exact: null}", "{exact: ''}"])
def test_an_origin_that_says_nothing_is_refused(origin: str) -> None:
    cors = f"corsPolicy: {{allowOrigins: [{{exact: 'https://a.test'}}, {origin}]}}"
    (issue,) = issues_of(ENTRY + virtual(f"[{{{cors}, {TO_REVIEWS}}}]"))
    assert (issue.severity, issue.reason) == ("error", "StringMatch needs one of exact, prefix, regex")
