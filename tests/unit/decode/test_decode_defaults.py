"""Each default of SEMANTICS that is a value of the model, read from the smallest resource there is."""

from typing import Any

import pytest

from meshlib.model.cluster import OutlierDetection, RetryBudget, Thresholds
from meshlib.model.durations import LONGEST
from meshlib.model.lb import LeastRequest, RingHash, RoundRobin
from meshlib.model.route import RetryPolicy
from meshlib.sources.xds.decode import decode_message
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds


def cluster(**changes: Any) -> Any:
    return decode_message(xds.message(CLUSTER, xds.eds_cluster(**changes))).resource


def action(**changes: Any) -> Any:
    body = xds.route_configuration("routes", {"match": {"prefix": "/"}, "route": {"cluster": "payments", **changes}})
    return decode_message(xds.message(ROUTE_CONFIGURATION, body)).resource.virtual_hosts[0].routes[0].action


def load(**changes: Any) -> Any:
    return decode_message(xds.message(CLUSTER_LOAD_ASSIGNMENT, xds.assignment(**changes))).resource


def hcm(**changes: Any) -> Any:
    return decode_message(xds.message(LISTENER, xds.api_listener(**changes))).resource.managers[0]


@pytest.mark.parametrize(
    "field, value",
    [
        ("connect_timeout", 5.0),
        ("healthy_panic_threshold", 50.0),
        ("idle_timeout", 3600.0),
        ("max_requests_per_connection", None),
        ("lb_policy", RoundRobin()),
        ("locality_weighted", False),
        ("subsets", None),
        ("outlier_detection", None),
        ("circuit_breaker", None),
        ("tls", None),
        ("http2", False),
        ("endpoints_name", "payments"),
    ],
)
def test_cluster(field: str, value: object) -> None:
    assert getattr(cluster(), field) == value


def test_thresholds_are_1024_and_three_retries_for_both_priorities() -> None:
    found = cluster(circuit_breakers={"thresholds": [{}, {"priority": "HIGH"}]}).circuit_breakers
    assert found.default == found.high == Thresholds(1024, 1024, 1024, 3, None)


def test_a_retry_budget_is_20_percent_and_at_least_three() -> None:
    found = cluster(circuit_breakers={"thresholds": [{"retry_budget": {}}]}).circuit_breakers
    assert found.default.retry_budget == RetryBudget(20.0, 3)


def test_outlier_detection() -> None:
    found = cluster(outlier_detection={}).outlier_detection
    assert found == OutlierDetection(5, 100, 10.0, 30.0, 300.0, 10, False)
    assert (found.consecutive_gateway_failure, found.enforcing_consecutive_gateway_failure) == (5, 0)
    assert (found.consecutive_local_origin_failure, found.enforcing_consecutive_local_origin_failure) == (5, 100)
    assert (found.success_rate_minimum_hosts, found.success_rate_request_volume) == (5, 100)
    assert (found.success_rate_stdev_factor, found.enforcing_success_rate) == (1900, 100)
    assert found.enforcing_local_origin_success_rate == 100
    assert (found.failure_percentage_minimum_hosts, found.failure_percentage_request_volume) == (5, 50)
    assert (found.failure_percentage_threshold, found.enforcing_failure_percentage) == (85, 0)
    assert found.enforcing_failure_percentage_local_origin == 0
    assert (found.max_ejection_time_jitter, found.split_external_local_origin_errors) == (0.0, False)
    assert found.successful_active_health_check_uneject_host is True
    assert found.error_matcher is None


def test_the_longest_ejection_is_never_below_the_base() -> None:
    assert cluster(outlier_detection={"base_ejection_time": "400s"}).outlier_detection.max_ejection_time == 400.0


def test_least_request_and_ring_hash() -> None:
    assert cluster(lb_policy="LEAST_REQUEST").lb_policy == LeastRequest(2, 1.0)
    assert cluster(lb_policy="RING_HASH").lb_policy == RingHash(1024, 8_388_608, "XX_HASH", False)


@pytest.mark.parametrize(
    "field, value",
    [
        ("timeout", 15.0),
        ("idle_timeout", None),
        ("max_stream_duration", None),
        ("retry_policy", None),
        ("priority", "DEFAULT"),
        ("cluster_not_found_response_code", 503),
        ("host_rewrite", None),
        ("append_x_forwarded_host", False),
    ],
)
def test_route_action(field: str, value: object) -> None:
    assert getattr(action(), field) == value


def test_a_route_timeout_of_zero_is_off() -> None:
    assert action(timeout="0s").timeout is None


def test_ten_thousand_years_are_a_hundred() -> None:
    assert action(timeout="315576000000s").timeout == LONGEST
    assert cluster(connect_timeout="315576000000s").connect_timeout == LONGEST


def test_retry_policy() -> None:
    expected = RetryPolicy(("5xx",), 1, None, None, (), 0.025, 0.25, False, 1)
    assert action(retry_policy={"retry_on": "5xx"}).retry_policy == expected


def test_the_longest_back_off_is_ten_times_the_base() -> None:
    assert action(retry_policy={"retry_back_off": {"base_interval": "0.1s"}}).retry_policy.max_interval == 1.0


def test_a_back_off_below_a_millisecond_is_a_millisecond() -> None:
    assert action(retry_policy={"retry_back_off": {"base_interval": "0.0001s"}}).retry_policy.base_interval == 0.001


def test_redirect_is_301_and_keeps_the_query() -> None:
    body = xds.route_configuration("routes", {"match": {"prefix": "/"}, "redirect": {"host_redirect": "b"}})
    found = decode_message(xds.message(ROUTE_CONFIGURATION, body)).resource.virtual_hosts[0].routes[0].action
    assert (found.response_code, found.strip_query, found.prefix_rewrite) == (301, False, None)


def test_path_matching_is_case_sensitive() -> None:
    body = xds.route_configuration()
    found = decode_message(xds.message(ROUTE_CONFIGURATION, body)).resource.virtual_hosts[0].routes[0].match
    assert found.path.case_sensitive


def test_endpoints() -> None:
    found = load()
    endpoint = found.localities[0].endpoints[0]
    assert found.overprovisioning_factor == 140
    assert (endpoint.weight, endpoint.health_status) == (1, "UNKNOWN")
    assert (found.localities[0].weight, found.localities[0].priority) == (None, 0)


@pytest.mark.parametrize(
    "field, value",
    [("stream_idle_timeout", 300.0), ("request_timeout", None), ("max_stream_duration", None), ("strip_port", "none")],
)
def test_connection_manager(field: str, value: object) -> None:
    assert getattr(hcm(), field) == value


def test_a_local_rate_limit_is_enabled_and_enforced_for_nobody() -> None:
    kind = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
    config = {"@type": kind, "stat_prefix": "x", "token_bucket": {"max_tokens": 5, "fill_interval": "2s"}}
    limit = hcm(http_filters=[{"name": "limit", "typed_config": config}, xds.ROUTER]).http_filters[0].config
    assert (limit.enabled.fraction, limit.enforced.fraction, limit.status) == (0.0, 0.0, 429)
    assert not limit.rate_limited_as_resource_exhausted
    assert (limit.token_bucket.max_tokens, limit.token_bucket.tokens_per_fill, limit.token_bucket.fill_interval) == (
        5,
        1,
        2.0,
    )


def test_thresholds_per_host_are_those_of_their_priority_and_the_first_counts() -> None:
    found = cluster(
        circuit_breakers={
            "thresholds": [{"max_requests": 7, "track_remaining": True}],
            "per_host_thresholds": [{"max_connections": 2}, {"max_connections": 9}, {"priority": "HIGH"}],
        }
    ).circuit_breakers
    assert found.default == Thresholds(max_requests=7, track_remaining=True, max_connections_per_host=2)
    assert found.high == Thresholds()
