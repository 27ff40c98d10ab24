"""Mirrors, CORS policies, warm-up and the rest of what is said of calls: the Envoy resources for them."""

from typing import Any

import pytest

from parts.istio_objects import HOST, entry, obj, resources, rule

Json = dict[str, Any]
CLUSTER = f"Cluster outbound|9080||{HOST}"


def action(route: str) -> Json:
    text = obj(
        "VirtualService", "v", f"{{hosts: [{HOST}], http: [{{route: [{{destination: {{host: {HOST}}}}}], {route}}}]}}"
    )
    (host, _) = resources(entry(), text)["RouteConfiguration 9080"]["virtual_hosts"]
    found: Json = host["routes"][0]
    return found


def mirrored(share: Json, cluster: str = f"outbound|9080||{HOST}") -> Json:
    return {"cluster": cluster, "runtime_fraction": {"default_value": share}, "trace_sampled": False,
            "disable_shadow_host_suffix_append": True}  # fmt: skip


@pytest.mark.parametrize(
    "route, expected",
    [
        (f"mirror: {{host: {HOST}}}", [mirrored({"numerator": 100})]),
        (f"mirror: {{host: {HOST}, subset: v2, port: {{number: 80}}}}, mirrorPercentage: {{value: 12.5}}",
         [mirrored({"numerator": 125000, "denominator": "MILLION"}, f"outbound|80|v2|{HOST}")]),
        (f"mirror: {{host: {HOST}}}, mirrorPercent: 40", [mirrored({"numerator": 40})]),
        (f"mirror: {{host: {HOST}}}, mirrorPercentage: {{value: 0}}", []),
        (f"mirrors: [{{destination: {{host: {HOST}}}}}, {{destination: {{host: a}}, percentage: {{value: 50}}}}]",
         [mirrored({"numerator": 100}),
          mirrored({"numerator": 500000, "denominator": "MILLION"}, "outbound|9080||a.default.svc.cluster.local")]),
    ],
)  # fmt: skip
def test_mirrors_keep_their_hosts_and_have_a_share(route: str, expected: list[Json]) -> None:
    assert action(route)["route"].get("request_mirror_policies", []) == expected


def test_a_cors_policy_is_the_filter_s_configuration_on_the_route() -> None:
    policy = (
        "corsPolicy: {allowOrigins: [{exact: 'https://a.test'}, {regex: '.*'}], allowMethods: [GET, PUT], "
        "allowHeaders: [x-a, x-b], exposeHeaders: [x-c], maxAge: 24h, allowCredentials: true, "
        "unmatchedPreflights: IGNORE}"
    )
    config = action(policy)["typed_per_filter_config"]["envoy.filters.http.cors"]
    assert config.pop("@type").endswith("cors.v3.CorsPolicy")
    assert config == {
        "allow_origin_string_match": [{"exact": "https://a.test"}, {"safe_regex": {"regex": ".*"}}],
        "allow_methods": "GET,PUT",
        "allow_headers": "x-a,x-b",
        "expose_headers": "x-c",
        "max_age": "86400",
        "allow_credentials": True,
        "forward_not_matching_preflights": False,
        "filter_enabled": {"default_value": {"numerator": 100}},
    }


def test_the_cors_filter_is_in_the_listeners_of_those_who_use_it() -> None:
    def filters(route: str) -> list[str]:
        text = obj("VirtualService", "v", f"{{hosts: [{HOST}], http: [{{{route} redirect: {{uri: /}}}}]}}")
        chain = resources(entry(), text)["Listener 0.0.0.0_9080"]["filter_chains"][0]
        return [found["name"] for found in chain["filters"][0]["typed_config"]["http_filters"]]

    assert filters("corsPolicy: {},") == ["envoy.filters.http.cors", "envoy.filters.http.router"]
    assert filters("") == ["envoy.filters.http.router"]


@pytest.mark.parametrize(
    "fault, expected",
    [
        ("{abort: {httpStatus: 503, percentage: {value: 12.5}}}",
         {"abort": {"http_status": 503, "percentage": {"numerator": 125000, "denominator": "MILLION"}}}),
        ("{abort: {grpcStatus: UNAVAILABLE}}", {"abort": {"grpc_status": 14, "percentage": {}}}),
        ("{abort: {percentage: {value: 100}}}", {}),
        ("{delay: {fixedDelay: 1m1s, percentage: {value: 0.1}}}",
         {"delay": {"fixed_delay": "61s", "percentage": {"numerator": 1000, "denominator": "MILLION"}}}),
        ("{delay: {fixedDelay: 5s, percent: 30}}", {"delay": {"fixed_delay": "5s", "percentage": {"numerator": 30}}}),
        ("{delay: {fixedDelay: 5s}}", {"delay": {"fixed_delay": "5s", "percentage": {}}}),
    ],
)  # fmt: skip
def test_a_fault_is_the_filter_s_configuration_on_the_route(fault: str, expected: Json) -> None:
    config = action(f"fault: {fault}")["typed_per_filter_config"]["envoy.filters.http.fault"]
    assert config.pop("@type").endswith("fault.v3.HTTPFault")
    assert config == expected


def test_retries_go_to_other_localities_where_they_may() -> None:
    found = action("retries: {attempts: 3, retryRemoteLocalities: true}")["route"]["retry_policy"]["retry_priority"]
    assert found["name"] == "envoy.retry_priorities.previous_priorities"
    assert found["typed_config"]["update_frequency"] == 2
    assert (
        "retry_priority" not in action("retries: {attempts: 3, retryRemoteLocalities: false}")["route"]["retry_policy"]
    )


def test_a_timeout_holds_for_grpc_calls_too() -> None:
    found = action("timeout: 2s")["route"]
    assert (found["timeout"], found["max_grpc_timeout"]) == ("2s", "2s")


@pytest.mark.parametrize(
    "balancer, field, expected",
    [
        ("simple: ROUND_ROBIN, warmup: {duration: 2m}", "round_robin_lb_config",
         {"slow_start_window": "120s", "aggression": {"default_value": 1.0, "runtime_key": "("},
          "min_weight_percent": {"value": 10.0}}),
        ("warmup: {duration: 30s, minimumPercent: 5, aggression: 2}", "least_request_lb_config",
         {"slow_start_window": "30s", "aggression": {"default_value": 2.0, "runtime_key": "("},
          "min_weight_percent": {"value": 5.0}}),
        ("simple: LEAST_REQUEST, warmupDurationSecs: 45s", "least_request_lb_config", {"slow_start_window": "45s"}),
    ],
)  # fmt: skip
def test_new_endpoints_are_warmed_up(balancer: str, field: str, expected: Json) -> None:
    found = resources(entry(), rule(f"trafficPolicy: {{loadBalancer: {{{balancer}}}}}"))[CLUSTER]
    assert found[field] == {"slow_start_config": expected}


@pytest.mark.parametrize("balancer", ["simple: RANDOM", "consistentHash: {useSourceIp: true}"])
def test_other_balancers_do_not_warm_up(balancer: str) -> None:
    found = resources(entry(), rule(f"trafficPolicy: {{loadBalancer: {{{balancer}, warmup: {{duration: 2m}}}}}}"))[
        CLUSTER
    ]
    assert "slow_start_config" not in str(found)


@pytest.mark.parametrize(
    "policy, expected",
    [
        (
            "loadBalancer: {localityLbSetting: {distribute: [{from: eu, to: {us: 100}}]}}",
            {"locality_weighted_lb_config": {}},
        ),
        (
            "loadBalancer: {zoneAwareLbSetting: {minClusterSize: 3}}",
            {"zone_aware_lb_config": {"min_cluster_size": "3"}},
        ),
        ("loadBalancer: {zoneAwareLbSetting: {enabled: false}}", {"zone_aware_lb_config": {"routing_enabled": {}}}),
        ("outlierDetection: {}", {}),
    ],
)
def test_what_the_cluster_says_of_localities(policy: str, expected: Json) -> None:
    found = resources(entry(), rule(f"trafficPolicy: {{{policy}}}"))[CLUSTER]["common_lb_config"]
    assert {name: value for name, value in found.items() if name != "healthy_panic_threshold"} == expected


def test_the_client_s_protocol_can_be_kept() -> None:
    pool = "connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}}"
    (options,) = resources(entry(), rule(f"trafficPolicy: {{{pool}}}"))[CLUSTER][
        "typed_extension_protocol_options"
    ].values()
    assert set(options) == {"@type", "use_downstream_protocol_config"}


def test_nobody_is_verified_only_where_that_is_asked_for() -> None:
    def tls(more: str) -> Json:
        found = resources(entry(), rule(f"trafficPolicy: {{tls: {{mode: SIMPLE, sni: a.test, {more}}}}}"))[CLUSTER]
        context: Json = found["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
        return context

    assert tls("insecureSkipVerify: true") == {}
    assert tls("insecureSkipVerify: false") == {"system_root_certs": {}}
    assert tls("caCertificates: /ca.pem, caCrl: /crl.pem") == {
        "trusted_ca": {"filename": "/ca.pem"},
        "crl": {"filename": "/crl.pem"},
    }


def test_the_names_of_an_entry_are_those_of_certificates() -> None:
    named = entry("endpoints: [{address: 10.0.0.1, serviceAccount: b}], subjectAltNames: ['spiffe://x/a']")
    found = resources(named, rule("trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}"))[CLUSTER]
    names = found["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
    assert [name["exact"] for name in names["match_subject_alt_names"]] == [
        "spiffe://cluster.local/ns/default/sa/b",
        "spiffe://x/a",
    ]


def test_cookies_of_consistent_hashing_have_attributes() -> None:
    cookie = "{name: session, path: /, attributes: [{name: SameSite, value: Lax}, {name: Secure}]}"
    (host, _) = resources(
        entry(), rule(f"trafficPolicy: {{loadBalancer: {{consistentHash: {{httpCookie: {cookie}}}}}}}")
    )["RouteConfiguration 9080"]["virtual_hosts"]
    (policy,) = host["routes"][0]["route"]["hash_policy"]
    assert policy["cookie"]["attributes"] == [{"name": "SameSite", "value": "Lax"}, {"name": "Secure"}]
