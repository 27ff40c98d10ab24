"""The filter of assigned quotas read from the wire: buckets, strategies, what is reported and refused."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.extensions.filters.http.rate_limit_quota.v3 import rate_limit_quota_pb2
from envoy.type.matcher.v3 import http_inputs_pb2
from google.protobuf import struct_pb2

from meshlib.model.filters import PerFilterConfig, TokenBucket, UnsupportedFilter
from meshlib.model.grpc_service import GrpcService
from meshlib.model.headers import HeaderValueOption
from meshlib.model.listener import Listener
from meshlib.model.matcher_tree import Input, MatcherList, OnMatch
from meshlib.model.matchers import FractionalPercent
from meshlib.model.rate_limit_quota import BucketSettings, RateLimitQuota, RateLimitQuotaOverride, RequestsPerTimeUnit
from meshlib.model.report import ResourceError
from meshlib.model.route import RouteConfiguration
from meshlib.sources.xds.decode import Decoded, decode_message
from meshlib.sources.xds.types import LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds

PREFIX = "type.googleapis.com/envoy.extensions.filters.http.rate_limit_quota.v3."
HEADER = {"@type": f"type.googleapis.com/{http_inputs_pb2.HttpRequestHeaderMatchInput.DESCRIPTOR.full_name}"}
SERVER = {"envoy_grpc": {"cluster_name": "quotas"}}
assert rate_limit_quota_pb2.DESCRIPTOR.package in PREFIX
assert struct_pb2


def buckets(**settings: Any) -> dict[str, Any]:
    action = {"@type": f"{PREFIX}RateLimitQuotaBucketSettings", "reporting_interval": "5s", **settings}
    return {"on_no_match": {"action": {"name": "b", "typed_config": action}}}


def decoded(matchers: Any = None, **options: Any) -> Decoded:
    config = {
        "@type": f"{PREFIX}RateLimitQuotaFilterConfig",
        "rlqs_server": SERVER,
        "domain": "shop",
        "bucket_matchers": buckets() if matchers is None else matchers,
        **options,
    }
    resource = xds.api_listener(http_filters=[{"name": "quota", "typed_config": config}, xds.ROUTER])
    return decode_message(xds.message(LISTENER, resource))


def config_of(found: Decoded) -> Any:
    assert isinstance(found.resource, Listener)
    return found.resource.managers[0].http_filters[0].config


def settings_of(**settings: Any) -> BucketSettings:
    config = config_of(decoded(buckets(**settings)))
    assert isinstance(config, RateLimitQuota)
    assert isinstance(config.buckets, MatcherList)
    assert config.buckets.on_no_match is not None
    found = config.buckets.on_no_match.then
    assert isinstance(found, BucketSettings)
    return found


def test_defaults() -> None:
    found = decoded()
    bucket = BucketSettings(reporting_interval=5.0)
    assert config_of(found) == RateLimitQuota("shop", GrpcService(cluster="quotas"), MatcherList((), OnMatch(bucket)))
    assert (bucket.status, bucket.grpc_status, bucket.no_assignment, bucket.expired) == (429, 14, "ALLOW_ALL", None)
    assert "quotas" in found.references.clusters
    assert found.issues == ()


def test_a_bucket() -> None:
    assert settings_of(
        bucket_id_builder={
            "bucket_id_builder": {
                "b": {"string_value": "x"},
                "a": {"custom_value": {"name": "h", "typed_config": {**HEADER, "header_name": "X-User"}}},
            }
        },
        reporting_interval="0.5s",
        deny_response_settings={
            "http_status": {"code": "Forbidden"},
            "http_body": "bm8=",
            "grpc_status": {"code": 8, "message": "slowly"},
            "response_headers_to_add": [{"header": {"key": "X-A", "value": "1"}}],
        },
        no_assignment_behavior={"fallback_rate_limit": {"blanket_rule": "DENY_ALL"}},
        expired_assignment_behavior={"expired_assignment_behavior_timeout": "9s", "reuse_last_assignment": {}},
    ) == BucketSettings(
        bucket_id=(("a", Input("header", "x-user")), ("b", "x")),
        reporting_interval=0.5,
        no_assignment="DENY_ALL",
        expired="reuse",
        expired_timeout=9.0,
        status=403,
        body=b"no",
        grpc_status=8,
        grpc_message="slowly",
        response_headers=(HeaderValueOption("x-a", "1"),),
    )


@pytest.mark.parametrize(
    "strategy,expected",
    [
        ({"blanket_rule": "ALLOW_ALL"}, "ALLOW_ALL"),
        ({"blanket_rule": "DENY_ALL"}, "DENY_ALL"),
        (
            {"requests_per_time_unit": {"requests_per_time_unit": 5, "time_unit": "MINUTE"}},
            RequestsPerTimeUnit(5, 60),
        ),
        ({"token_bucket": {"max_tokens": 5, "tokens_per_fill": 2, "fill_interval": "3s"}}, TokenBucket(5, 2, 3.0)),
    ],
)
def test_strategies(strategy: dict[str, Any], expected: Any) -> None:
    found = settings_of(
        no_assignment_behavior={"fallback_rate_limit": strategy},
        expired_assignment_behavior={"fallback_rate_limit": strategy},
    )
    assert (found.no_assignment, found.expired) == (expected, expected)


def test_fractions_and_marks() -> None:
    config = config_of(
        decoded(
            filter_enabled={"default_value": {"numerator": 10}, "runtime_key": "on"},
            filter_enforced={"default_value": {"numerator": 20}},
            request_headers_to_add_when_not_enforced=[{"header": {"key": "X-Over", "value": "1"}}],
        )
    )
    assert (config.enabled, config.enforced) == (FractionalPercent(10, runtime_key="on"), FractionalPercent(20))
    assert config.request_headers_to_add_when_not_enforced == (HeaderValueOption("x-over", "1"),)


def test_a_matcher_that_is_not_supported_is_reported() -> None:
    custom = {"name": "c", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {}}}
    line = {
        "predicate": {
            "single_predicate": {
                "input": {"name": "h", "typed_config": {**HEADER, "header_name": "x"}},
                "custom_match": custom,
            }
        },
        "on_match": buckets()["on_no_match"],
    }
    found = decoded({"matcher_list": {"matchers": [line]}})
    assert isinstance(config_of(found), UnsupportedFilter)
    assert [issue.reason for issue in found.issues] == [
        "custom matchers are not supported; no request is of any bucket"
    ]


@pytest.mark.parametrize(
    "options",
    [{"domain": ""}, {"matchers": buckets(reporting_interval="0s")}],
)
def test_what_envoy_refuses(options: dict[str, Any]) -> None:
    with pytest.raises(ResourceError):
        decoded(**options)


def test_what_a_route_says() -> None:
    said = {"@type": f"{PREFIX}RateLimitQuotaOverride", "domain": "other"}
    whole = {**said, "bucket_matchers": buckets()}
    configuration = xds.route_configuration(
        "routes",
        xds.route(typed_per_filter_config={"quota": said}),
        xds.route(typed_per_filter_config={"quota": whole}),
    )
    found = decode_message(xds.message(ROUTE_CONFIGURATION, configuration)).resource
    assert isinstance(found, RouteConfiguration)
    first, second = (route.typed_per_filter_config for route in found.virtual_hosts[0].routes)
    assert first == (PerFilterConfig("quota", RateLimitQuotaOverride("other")),)
    tree = MatcherList((), OnMatch(BucketSettings(reporting_interval=5.0)))
    assert second == (PerFilterConfig("quota", RateLimitQuotaOverride("other", tree)),)
    base = RateLimitQuota("shop", GrpcService(cluster="quotas"), MatcherList(()))
    merged = base.on_route(RateLimitQuotaOverride("other", tree))
    assert (merged.domain, merged.buckets) == ("other", tree)
    assert base.on_route(RateLimitQuotaOverride()) == base
