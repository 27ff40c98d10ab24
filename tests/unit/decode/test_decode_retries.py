"""Retry policies, hedging and timeouts of a route, decoded in full."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.model.matchers import HeaderMatcher, Present, StringMatcher
from meshlib.model.metadata import Struct
from meshlib.model.report import ResourceError
from meshlib.model.retry import GrpcTimeout, RateLimitedBackOff, ResetHeader, RetryPolicy
from meshlib.model.route import RouteAction, VirtualHost
from meshlib.sources.xds.decode import Decoded, decode_message
from meshlib.sources.xds.types import ROUTE_CONFIGURATION
from parts import xds_resources as xds

TYPES = "type.googleapis.com/envoy.extensions.retry"


def decoded(action: dict[str, Any], **host: Any) -> tuple[VirtualHost, Decoded]:
    # JSON needs to know the types of what an Any holds.
    import envoy.extensions.retry.host.omit_canary_hosts.v3.omit_canary_hosts_pb2
    import envoy.extensions.retry.host.omit_host_metadata.v3.omit_host_metadata_config_pb2
    import envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2
    import envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2  # noqa: F401

    route = {"match": {"prefix": "/"}, "route": {"cluster": "a", **action}}
    text = {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route], **host}]}
    found = decode_message(xds.message(ROUTE_CONFIGURATION, text))
    return found.resource.virtual_hosts[0], found  # type: ignore[union-attr]


def action_of(action: dict[str, Any]) -> RouteAction:
    host, found = decoded(action)
    assert found.issues == ()
    (route,) = host.routes
    assert isinstance(route.action, RouteAction)
    return route.action


def policy_of(**policy: Any) -> RetryPolicy:
    found = action_of({"retry_policy": policy}).retry_policy
    assert found is not None
    return found


def test_headers_that_ask_for_a_retry_and_that_permit_one() -> None:
    policy = policy_of(
        retry_on="retriable-headers",
        retriable_headers=[{"name": "X-Again", "string_match": {"exact": "yes"}}],
        retriable_request_headers=[{"name": ":method", "string_match": {"exact": "GET"}}, {"name": "x-retry"}],
    )
    assert policy.retry_on == ("retriable-headers",)
    assert policy.retriable_headers == (HeaderMatcher("x-again", StringMatcher("exact", "yes")),)
    assert [matcher.match for matcher in policy.retriable_request_headers] == [
        StringMatcher("exact", "GET"),
        Present(),
    ]


def test_rate_limited_back_off() -> None:
    policy = policy_of(
        rate_limited_retry_back_off={
            "reset_headers": [{"name": "Retry-After"}, {"name": "X-RateLimit-Reset", "format": "UNIX_TIMESTAMP"}],
        }
    )
    assert policy.rate_limited_back_off == RateLimitedBackOff(
        (ResetHeader("retry-after", "SECONDS"), ResetHeader("x-ratelimit-reset", "UNIX_TIMESTAMP")), 300.0
    )


def test_predicates_and_the_priority() -> None:
    policy = policy_of(
        retry_host_predicate=[
            {"name": "a", "typed_config": {"@type": f"{TYPES}.host.previous_hosts.v3.PreviousHostsPredicate"}},
            {"name": "b", "typed_config": {"@type": f"{TYPES}.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"}},
            {
                "name": "c",
                "typed_config": {
                    "@type": f"{TYPES}.host.omit_host_metadata.v3.OmitHostMetadataConfig",
                    "metadata_match": {"filter_metadata": {"envoy.lb": {"stage": "old"}}},
                },
            },
        ],
        host_selection_retry_max_attempts=4,
        retry_priority={
            "name": "d",
            "typed_config": {
                "@type": f"{TYPES}.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 2,
            },
        },
    )
    assert (policy.previous_hosts, policy.omit_canary_hosts, policy.previous_priorities) == (True, True, 2)
    assert policy.omit_host_metadata == (Struct((("stage", "old"),)),)


def test_what_is_not_known_is_told() -> None:
    other = {"@type": "type.googleapis.com/google.protobuf.Empty"}
    _, found = decoded(
        {
            "retry_policy": {
                "retry_on": "http3-post-connect-failure,made-up",
                "retry_priority": {"name": "p", "typed_config": other},
                "retry_host_predicate": [{"name": "h", "typed_config": other}],
                "retry_options_predicates": [{"name": "o", "typed_config": other}],
            },
            "hedge_policy": {"initial_requests": 2, "hedge_on_per_try_timeout": True},
            "grpc_timeout_offset": "1s",
            "flush_timeout": "1s",
        },
        retry_policy_typed_config=other,
    )
    told = {issue.path.rpartition("]")[2].removeprefix(".") or issue.path for issue in found.issues}
    names = {path.rpartition(".")[2] for path in told}
    assert {"retry_on", "retry_priority", "retry_options_predicates", "initial_requests"} <= names
    assert {"grpc_timeout_offset", "flush_timeout", "retry_policy_typed_config"} <= names


def test_an_update_frequency_of_nothing_is_refused() -> None:
    config = {"@type": f"{TYPES}.priority.previous_priorities.v3.PreviousPrioritiesConfig"}
    with pytest.raises(ResourceError, match="update_frequency"):
        decoded({"retry_policy": {"retry_priority": {"name": "d", "typed_config": config}}})


def test_hedging_and_what_upstreams_are_told_by_virtual_host_and_route() -> None:
    host, found = decoded(
        {"hedge_policy": {"hedge_on_per_try_timeout": False}},
        hedge_policy={"hedge_on_per_try_timeout": True},
        include_attempt_count_in_response=True,
        include_is_timeout_retry_header=True,
        per_request_buffer_limit_bytes=10,
    )
    assert found.issues == ()
    assert (host.hedge_on_per_try_timeout, host.request_body_buffer_limit) == (True, 10)
    assert (host.include_attempt_count_in_response, host.include_is_timeout_retry_header) == (True, True)
    (route,) = host.routes
    assert isinstance(route.action, RouteAction)
    assert route.action.hedge_on_per_try_timeout is False
    host, _ = decoded({}, per_request_buffer_limit_bytes=10, request_body_buffer_limit=20)
    assert host.request_body_buffer_limit == 20


@pytest.mark.parametrize(
    ("action", "timeout", "stream", "bound"),
    [
        ({}, 15.0, None, None),
        ({"max_stream_duration": {"max_stream_duration": "2s"}}, 15.0, 2.0, None),
        ({"max_stream_duration": {"grpc_timeout_header_max": "3s"}}, None, None, GrpcTimeout(3.0)),
        (
            {"max_stream_duration": {"max_stream_duration": "2s", "grpc_timeout_header_max": "2s"}},
            15.0,
            2.0,
            None,
        ),
        (
            {
                "max_stream_duration": {
                    "max_stream_duration": "2s",
                    "grpc_timeout_header_max": "0s",
                    "grpc_timeout_header_offset": "0.1s",
                }
            },
            15.0,
            2.0,
            GrpcTimeout(0.0, 0.1),
        ),
        (
            {"max_grpc_timeout": "4s", "grpc_timeout_offset": "0.5s"},
            15.0,
            None,
            GrpcTimeout(4.0, 0.5, instead_of_route=True),
        ),
    ],
)
def test_timeouts(
    action: dict[str, Any], timeout: float | None, stream: float | None, bound: GrpcTimeout | None
) -> None:
    found = action_of(action)
    assert (found.timeout, found.max_stream_duration, found.grpc_timeout) == (timeout, stream, bound)
