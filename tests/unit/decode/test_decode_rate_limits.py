"""Rate limit actions read from the wire and from files; what is not supported takes its rate limit with it."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.route.v3 import route_components_pb2
from google.protobuf.unknown_fields import UnknownFieldSet

from meshlib.model.context_matchers import IpRanges
from meshlib.model.matchers import HeaderMatcher, QueryParameterMatcher, StringMatcher
from meshlib.model.rate_limits import (
    DescriptorLimit,
    DestinationCluster,
    GenericKey,
    HeaderValueMatch,
    HitsAddend,
    MaskedRemoteAddress,
    MetadataLimit,
    MetadataValue,
    QueryParameterValue,
    QueryParameterValueMatch,
    RateLimit,
    RemoteAddress,
    RemoteAddressMatch,
    RequestHeader,
    SourceCluster,
)
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.added_fields import parse_json
from meshlib.sources.xds.decode.context import Context
from meshlib.sources.xds.decode.rate_limits import rate_limits
from meshlib.sources.xds.decode.validate import validate

METADATA_KEY = {"key": "envoy.user", "path": [{"key": "plan"}, {"key": "name"}]}


def message(**limit: Any) -> Any:
    """As it comes by xDS: what xds-protos does not know of it is carried along."""
    return parse_json({"actions": [{"source_cluster": {}}], **limit}, route_components_pb2.RateLimit)


def decoded(*limits: Any, embedded: bool = False) -> tuple[tuple[RateLimit, ...], list[tuple[str, str]]]:
    ctx = Context("RouteConfiguration r")
    for limit in limits:
        validate(limit)
    found = rate_limits(ctx, limits, "rate_limits", embedded=embedded)
    return found, [(issue.path, issue.reason) for issue in ctx.issues]


@pytest.mark.parametrize(
    "action,expected",
    [
        ({"source_cluster": {}}, SourceCluster()),
        ({"destination_cluster": {}}, DestinationCluster()),
        (
            {"request_headers": {"header_name": "X-User", "descriptor_key": "user", "skip_if_absent": True}},
            RequestHeader("x-user", "user", skip_if_absent=True),
        ),
        (
            {"query_parameters": {"query_parameter_name": "Q", "descriptor_key": "q"}},
            QueryParameterValue("Q", "q"),
        ),
        ({"remote_address": {}}, RemoteAddress()),
        ({"masked_remote_address": {}}, MaskedRemoteAddress(32, 128)),
        (
            {"masked_remote_address": {"v4_prefix_mask_len": 8, "v6_prefix_mask_len": 64}},
            MaskedRemoteAddress(8, 64),
        ),
        ({"generic_key": {"descriptor_value": "v"}}, GenericKey("v")),
        (
            {"generic_key": {"descriptor_value": "%REQ(x)%", "descriptor_key": "k", "default_value": "d"}},
            GenericKey("%REQ(x)%", "k", "d"),
        ),
        (
            {
                "header_value_match": {
                    "descriptor_value": "v",
                    "expect_match": False,
                    "headers": [{"name": "X-A", "string_match": {"exact": "1"}}],
                }
            },
            HeaderValueMatch("v", (HeaderMatcher("x-a", StringMatcher("exact", "1")),), expect_match=False),
        ),
        (
            {
                "query_parameter_value_match": {
                    "descriptor_value": "v",
                    "default_value": "d",
                    "query_parameters": [{"name": "a", "string_match": {"exact": "1"}}],
                }
            },
            QueryParameterValueMatch(
                "v", (QueryParameterMatcher("a", StringMatcher("exact", "1")),), default_value="d"
            ),
        ),
        (
            {"dynamic_metadata": {"descriptor_key": "k", "metadata_key": METADATA_KEY}},
            MetadataValue("k", "envoy.user", ("plan", "name")),
        ),
        (
            {
                "metadata": {
                    "descriptor_key": "k",
                    "metadata_key": METADATA_KEY,
                    "source": "ROUTE_ENTRY",
                    "default_value": "d",
                    "skip_if_absent": True,
                }
            },
            MetadataValue("k", "envoy.user", ("plan", "name"), "d", "ROUTE_ENTRY", skip_if_absent=True),
        ),
        (
            {
                "remote_address_match": {
                    "descriptor_value": "inside",
                    "address_matcher": {"ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]},
                }
            },
            RemoteAddressMatch(IpRanges(("10.0.0.0/8",)), "inside"),
        ),
    ],
)
def test_each_action_is_read(action: dict[str, Any], expected: object) -> None:
    assert decoded(message(actions=[action])) == ((RateLimit((expected,)),), [])  # type: ignore[arg-type]


def test_what_stands_beside_the_actions() -> None:
    found, issues = decoded(
        message(stage=3, disable_key="off", apply_on_stream_done=True, x_ratelimit_option="DRAFT_VERSION_03"),
        message(limit={"dynamic_metadata": {"metadata_key": METADATA_KEY}}, hits_addend={"number": 5}),
        message(
            limit={"rate_limit": {"requests_per_unit": 7, "unit": "MINUTE"}},
            hits_addend={"format": "%REQ(x-cost)%", "is_negative_hits": True},
        ),
    )
    assert issues == []
    first, second, third = found
    assert (first.stage, first.disable_key, first.apply_on_stream_done) == (3, "off", True)
    assert (first.x_ratelimit, second.x_ratelimit) == ("DRAFT_VERSION_03", "UNSPECIFIED")
    assert (second.limit, second.hits_addend) == (MetadataLimit("envoy.user", ("plan", "name")), HitsAddend(5))
    assert third.limit == DescriptorLimit(7, "MINUTE")
    assert third.hits_addend == HitsAddend(None, "%REQ(x-cost)%", negative=True)


@pytest.mark.parametrize(
    "action,path",
    [
        (
            {
                "extension": {
                    "name": "expr",
                    "typed_config": {"@type": "type.googleapis.com/google.protobuf.UInt32Value", "value": 1},
                }
            },
            "extension.typed_config",
        ),
        ({"metadata": {"descriptor_key": "k", "metadata_key": METADATA_KEY, "source": 2}}, "metadata.source"),
    ],
)
def test_an_action_that_is_not_supported_takes_its_rate_limit_with_it(action: dict[str, Any], path: str) -> None:
    unsupported = message(actions=[{"source_cluster": {}}, action])
    found, issues = decoded(unsupported, message())
    assert found == (RateLimit((SourceCluster(),)),)
    assert [(where, reason.endswith("the rate limit is left out")) for where, reason in issues] == [
        (f"rate_limits[0].actions[1].{path}", True)
    ]


def test_an_action_that_is_newer_than_this_version_is_reported() -> None:
    newer = route_components_pb2.RateLimit.FromString(bytes.fromhex("1a04ba060161"))  # field 103 of the action
    assert len(UnknownFieldSet(newer.actions[0])) == 1  # type: ignore[arg-type]
    assert decoded(newer) == (
        (),
        [("rate_limits[0].actions[0]", "field 103 of Action is not known to this version; the rate limit is left out")],
    )


@pytest.mark.parametrize(
    "limit,embedded,path",
    [
        ({"stage": 11}, False, "stage"),
        ({"hits_addend": {}}, False, "hits_addend"),
        ({"hits_addend": {"number": 1, "format": "%REQ(x)%"}}, False, "hits_addend"),
        ({"stage": 1}, True, ""),
        ({"disable_key": "k"}, True, ""),
        ({"hits_addend": {"format": "50%"}}, False, "hits_addend.format"),
    ],
)
def test_what_envoy_refuses_is_refused(limit: dict[str, Any], embedded: bool, path: str) -> None:
    with pytest.raises(ResourceError) as refused:
        decoded(message(**limit), embedded=embedded)
    assert refused.value.path.removeprefix("rate_limits[0]").lstrip(".") == path
