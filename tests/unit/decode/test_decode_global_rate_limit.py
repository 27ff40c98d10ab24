"""The filter that asks a rate limit service: its defaults, its service, what is reported and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.extensions.filters.http.ratelimit.v3 import rate_limit_pb2

from meshlib.model.filters import HttpFilter, PerFilterConfig
from meshlib.model.global_rate_limit import GlobalRateLimit, GlobalRateLimitPerRoute
from meshlib.model.grpc_service import GrpcService, GrpcTls
from meshlib.model.headers import HeaderValueOption
from meshlib.model.listener import Listener
from meshlib.model.matchers import FractionalPercent
from meshlib.model.rate_limits import GenericKey, RateLimit
from meshlib.model.report import ResourceError
from meshlib.model.route import RouteConfiguration
from meshlib.sources.xds.decode import Decoded, decode_message
from meshlib.sources.xds.types import LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds

TYPE = f"type.googleapis.com/{rate_limit_pb2.RateLimit.DESCRIPTOR.full_name}"
BY_CLUSTER = {"envoy_grpc": {"cluster_name": "limits"}}
OWN = {"actions": [{"generic_key": {"descriptor_value": "k"}}]}


def decoded(service: Any = None, **options: Any) -> Decoded:
    config = {
        "@type": TYPE,
        "domain": "shop",
        "rate_limit_service": {"grpc_service": service or BY_CLUSTER, "transport_api_version": "V3"},
        **options,
    }
    resource = xds.api_listener(http_filters=[{"name": "limit", "typed_config": config}, xds.ROUTER])
    return decode_message(xds.message(LISTENER, resource))


def config_of(found: Decoded) -> GlobalRateLimit:
    listener = found.resource
    assert isinstance(listener, Listener)
    entry: HttpFilter = listener.managers[0].http_filters[0]
    assert isinstance(entry.config, GlobalRateLimit)
    return entry.config


def test_defaults_are_envoys() -> None:
    found = decoded()
    assert config_of(found) == GlobalRateLimit("shop", GrpcService(cluster="limits"))
    assert found.issues == ()
    assert config_of(found).timeout == 0.02


def test_the_service_is_among_the_clusters_that_are_needed() -> None:
    assert "limits" in decoded().references.clusters
    assert decoded({"google_grpc": {"target_uri": "a:1", "stat_prefix": "l"}}).references.clusters == frozenset()


def test_every_option() -> None:
    found = decoded(
        stage=3,
        request_type="internal",
        timeout="0.5s",
        failure_mode_deny=True,
        failure_mode_deny_percent={"default_value": {"numerator": 5, "denominator": "TEN_THOUSAND"}},
        rate_limited_as_resource_exhausted=True,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        disable_x_envoy_ratelimited_header=True,
        rate_limited_status={"code": "ServiceUnavailable"},
        status_on_error={"code": "BadGateway"},
        response_headers_to_add=[{"header": {"key": "X-Own", "value": "1"}}],
        filter_enabled={"default_value": {"numerator": 10}},
        filter_enforced={"default_value": {"numerator": 20}},
        stat_prefix="outer",
        rate_limits=[OWN],
    )
    assert config_of(found) == GlobalRateLimit(
        domain="shop",
        service=GrpcService(cluster="limits"),
        rate_limits=(RateLimit((GenericKey("k"),)),),
        stage=3,
        request_type="internal",
        timeout=0.5,
        failure_mode_deny=True,
        failure_mode_deny_percent=FractionalPercent(5, 10_000),
        rate_limited_as_resource_exhausted=True,
        x_ratelimit_headers=True,
        x_envoy_ratelimited=False,
        status=503,
        status_on_error=502,
        response_headers=(HeaderValueOption("x-own", "1"),),
        enabled=FractionalPercent(10),
        enforced=FractionalPercent(20),
        stat_prefix="outer",
    )
    assert found.issues == ()


def test_no_timeout_is_none() -> None:
    assert config_of(decoded(timeout="0s")).timeout is None


@pytest.mark.parametrize(
    "service,expected",
    [
        (
            {
                "envoy_grpc": {"cluster_name": "limits", "authority": "limits.shop"},
                "initial_metadata": [{"key": "X-Key", "value": "k"}],
            },
            GrpcService(cluster="limits", authority="limits.shop", metadata=(("x-key", "k"),)),
        ),
        ({"google_grpc": {"target_uri": "dns:///l:1", "stat_prefix": "l"}}, GrpcService(target="dns:///l:1")),
        (
            {
                "google_grpc": {
                    "target_uri": "l:1",
                    "stat_prefix": "l",
                    "channel_credentials": {
                        "ssl_credentials": {
                            "root_certs": {"filename": "ca.pem"},
                            "private_key": {"inline_string": "key"},
                            "cert_chain": {"inline_bytes": "Y2hhaW4="},
                        }
                    },
                }
            },
            GrpcService(target="l:1", tls=GrpcTls(("ca.pem", b""), ("", b"key"), ("", b"chain"))),
        ),
        (
            {
                "google_grpc": {
                    "target_uri": "l:1",
                    "stat_prefix": "l",
                    "channel_credentials": {"local_credentials": {}},
                }
            },
            GrpcService(target="l:1"),
        ),
    ],
)
def test_services(service: Any, expected: GrpcService) -> None:
    found = decoded(service)
    assert config_of(found).service == expected
    assert found.issues == ()


def test_credentials_that_are_not_sent_are_reported() -> None:
    google = {"target_uri": "l:1", "stat_prefix": "l", "call_credentials": [{"access_token": "t"}]}
    found = decoded({"google_grpc": {**google, "channel_credentials": {"google_default": {}}}})
    assert config_of(found).service == GrpcService(target="l:1", tls=GrpcTls())
    assert [issue.path.rpartition(".")[2] for issue in found.issues] == ["call_credentials", "google_default"]


@pytest.mark.parametrize(
    "options,path",
    [
        ({"domain": ""}, "domain"),
        ({"stage": 11}, "stage"),
        ({"request_type": "some"}, "request_type"),
        ({"rate_limits": [{**OWN, "stage": 1}]}, "rate_limits[0]"),
        ({"rate_limit_service": {"transport_api_version": "V3"}}, "rate_limit_service.grpc_service"),
    ],
)
def test_what_envoy_refuses(options: dict[str, Any], path: str) -> None:
    with pytest.raises(ResourceError) as caught:
        decoded(**options)
    assert caught.value.path.endswith(path)


def test_what_a_route_says() -> None:
    said = {
        "@type": f"{TYPE}PerRoute",
        "vh_rate_limits": "INCLUDE",
        "override_option": "IGNORE_POLICY",
        "rate_limits": [OWN],
        "domain": "other",
    }
    configuration = xds.route_configuration("routes", xds.route(typed_per_filter_config={"limit": said}))
    found = decode_message(xds.message(ROUTE_CONFIGURATION, configuration))
    assert isinstance(found.resource, RouteConfiguration)
    assert found.resource.virtual_hosts[0].routes[0].typed_per_filter_config == (
        PerFilterConfig("limit", GlobalRateLimitPerRoute("INCLUDE", (RateLimit((GenericKey("k"),)),), "other")),
    )
    assert [issue.path.rpartition(".")[2] for issue in found.issues] == ["override_option"]
