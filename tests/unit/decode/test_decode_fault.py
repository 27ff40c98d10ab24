"""The fault filter to the model: all its fields, at every level; and faults that would hit more than they should."""

from dataclasses import fields
from typing import Any

import pytest

from meshlib.model.fault import FaultAbort, FaultDelay, FaultRateLimit, HttpFault
from meshlib.model.filters import HttpFilter, PerFilterConfig, RouterFilter, UnsupportedFilter
from meshlib.model.matchers import FractionalPercent, HeaderMatcher, StringMatcher
from meshlib.model.metadata import Struct
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode import Decoded, decode_message
from meshlib.sources.xds.types import LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds

Json = dict[str, Any]
TYPE = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
ROUTER = {
    "name": "router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}
WHOLE: Json = {
    "delay": {"fixed_delay": "1.5s", "percentage": {"numerator": 5, "denominator": "TEN_THOUSAND"}},
    "abort": {"http_status": 503, "percentage": {"numerator": 7, "denominator": "MILLION"}},
    "response_rate_limit": {"fixed_limit": {"limit_kbps": 12}, "percentage": {"numerator": 100}},
    "upstream_cluster": "up",
    "headers": [{"name": "X-User", "string_match": {"exact": "me"}}],
    "downstream_nodes": ["a", "b"],
    "max_active_faults": 0,
    "delay_percent_runtime": "r1",
    "abort_percent_runtime": "r2",
    "delay_duration_runtime": "r3",
    "abort_http_status_runtime": "r4",
    "max_active_faults_runtime": "r5",
    "response_rate_limit_percent_runtime": "r6",
    "abort_grpc_status_runtime": "r7",
    "disable_downstream_cluster_stats": True,
    "filter_metadata": {"why": "a drill"},
}


def listener(config: Json) -> Decoded:
    filters = [{"name": "fault", "typed_config": {"@type": TYPE, **config}}, ROUTER]
    return decode_message(xds.message(LISTENER, xds.api_listener(http_filters=filters)))


def decoded(config: Json) -> tuple[Any, list[str]]:
    found = listener(config)
    first, router = found.resource.managers[0].http_filters
    assert router == HttpFilter("router", RouterFilter())
    return first.config, [str(issue) for issue in found.issues]


def test_every_field() -> None:
    fault, issues = decoded(WHOLE)
    assert issues == []
    assert fault == HttpFault(
        FaultDelay(1.5, FractionalPercent(5, 10_000)),
        FaultAbort(503, None, FractionalPercent(7, 1_000_000)),
        FaultRateLimit(12, FractionalPercent(100)),
        "up",
        (HeaderMatcher("x-user", StringMatcher("exact", "me")),),
        ("a", "b"),
        0,
        delay_percent_runtime="r1",
        abort_percent_runtime="r2",
        delay_duration_runtime="r3",
        abort_http_status_runtime="r4",
        max_active_faults_runtime="r5",
        response_rate_limit_percent_runtime="r6",
        abort_grpc_status_runtime="r7",
        disable_downstream_cluster_stats=True,
        filter_metadata=Struct((("why", "a drill"),)),
    )
    assert [
        field.name for field in fields(HttpFault) if getattr(fault, field.name) == getattr(HttpFault(), field.name)
    ] == []
    hash(fault)


@pytest.mark.parametrize(
    "config, expected",
    [
        ({}, HttpFault()),
        ({"abort": {"grpc_status": 14}}, HttpFault(abort=FaultAbort(None, 14))),
        ({"abort": {"grpc_status": 0}}, HttpFault(abort=FaultAbort(None, 0))),
        ({"abort": {"header_abort": {}}}, HttpFault(abort=FaultAbort())),
        ({"delay": {"header_delay": {}}}, HttpFault(delay=FaultDelay(None))),
        ({"response_rate_limit": {"header_limit": {}}}, HttpFault(response_rate_limit=FaultRateLimit(None))),
    ],
)
def test_what_a_request_may_ask_for(config: Json, expected: HttpFault) -> None:
    assert decoded(config) == (expected, [])


@pytest.mark.parametrize(
    "config, path",
    [
        ({"abort": {}}, "abort"),
        ({"abort": {"http_status": 199}}, "abort.http_status"),
        ({"abort": {"http_status": 600}}, "abort.http_status"),
        ({"delay": {}}, "delay"),
        ({"delay": {"fixed_delay": "0s"}}, "delay.fixed_delay"),
        ({"response_rate_limit": {}}, "response_rate_limit"),
        ({"response_rate_limit": {"fixed_limit": {"limit_kbps": 0}}}, "response_rate_limit.fixed_limit.limit_kbps"),
    ],
)
def test_what_envoy_refuses(config: Json, path: str) -> None:
    with pytest.raises(ResourceError) as refused:
        listener(config)
    assert path in refused.value.path


def test_a_fault_with_a_matcher_that_is_not_known_hits_nobody() -> None:
    custom = {"name": "x", "string_match": {"custom": {"name": "own", "typed_config": {"@type": TYPE}}}}
    fault, issues = decoded({**WHOLE, "headers": [{"name": "x-user"}, custom]})
    assert fault == UnsupportedFilter("envoy.extensions.filters.http.fault.v3.HTTPFault")
    assert len(issues) == 1
    assert "http_filters[0].typed_config.headers[1]" in issues[0]
    assert "the fault is not injected" in issues[0]


def test_every_level() -> None:
    def per(status: int) -> Json:
        return {"fault": {"@type": TYPE, "abort": {"http_status": status}}}

    cluster = {"name": "up", "weight": 1, "typed_per_filter_config": per(504)}
    route = {
        "match": {"prefix": "/"},
        "route": {"weighted_clusters": {"clusters": [cluster]}},
        "typed_per_filter_config": per(503),
    }
    host = {"name": "v", "domains": ["*"], "routes": [route], "typed_per_filter_config": per(502)}
    found = decode_message(
        xds.message(ROUTE_CONFIGURATION, {"name": "r", "virtual_hosts": [host], "typed_per_filter_config": per(501)})
    )
    table = found.resource
    shares = table.virtual_hosts[0].routes[0].action.cluster.clusters
    levels = (table, table.virtual_hosts[0], table.virtual_hosts[0].routes[0], shares[0])
    assert [level.typed_per_filter_config for level in levels] == [
        (PerFilterConfig("fault", HttpFault(abort=FaultAbort(status))),) for status in (501, 502, 503, 504)
    ]
    assert found.issues == ()
