"""Decoding is total: any bytes, and any mutation of good bytes, give a model or a ResourceError."""

import importlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode import decode, references
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION
from parts import xds_resources as xds

for _module in (  # the types that stand in an Any below
    "envoy.extensions.filters.http.ratelimit.v3.rate_limit_pb2",
    "envoy.config.route.v3.route_components_pb2",
    "envoy.extensions.path.match.uri_template.v3.uri_template_match_pb2",
    "envoy.type.matcher.v3.http_inputs_pb2",
):
    importlib.import_module(_module)

Json = dict[str, Any]
_LIMIT = {
    "name": "limit",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "x",
        "token_bucket": {"max_tokens": 5, "fill_interval": "2s"},
        "filter_enabled": {"default_value": {"numerator": 50, "denominator": "MILLION"}},
    },
}
_GLOBAL = {
    "name": "global",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
        "domain": "shop",
        "timeout": "0.02s",
        "failure_mode_deny_percent": {"default_value": {"numerator": 50}},
        "rate_limit_service": {
            "grpc_service": {
                "google_grpc": {
                    "target_uri": "limits:8081",
                    "stat_prefix": "l",
                    "channel_credentials": {"ssl_credentials": {"root_certs": {"inline_string": "x"}}},
                },
                "initial_metadata": [{"key": "a", "value": "b"}],
            },
            "transport_api_version": "V3",
        },
        "rate_limits": [{"actions": [{"generic_key": {"descriptor_value": "k"}}], "hits_addend": {"number": 2}}],
    },
}
_ACTION = {
    "weighted_clusters": {"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 2}]},
    "timeout": "3.5s",
    "retry_policy": {"retry_on": "5xx,reset", "num_retries": 3, "retry_back_off": {"base_interval": "0.1s"}},
    "hash_policy": [
        {"header": {"header_name": "x-user"}},
        {"cookie": {"name": "c", "ttl": "0s"}, "terminal": True},
        {"filter_state": {"key": "k"}},
    ],
    "metadata_match": {"filter_metadata": {"envoy.lb": {"version": "v1", "deep": {"list": [1, "a", None]}}}},
    "regex_rewrite": {"pattern": {"regex": "^/(a+)"}, "substitution": r"/\1"},
}
_MATCH = {
    "safe_regex": {"regex": "/a.*"},
    "headers": [
        {"name": "x-a", "string_match": {"prefix": "b"}},
        {"name": "x-b", "range_match": {"start": 1, "end": 9}},
    ],
    "query_parameters": [{"name": "q", "present_match": True}],
    "runtime_fraction": {"default_value": {"numerator": 5}, "runtime_key": "k"},
    "tls_context": {"presented": False},
    "dynamic_metadata": [
        {"filter": "f", "path": [{"key": "k"}], "value": {"or_match": {"value_matchers": [{"bool_match": True}] * 2}}}
    ],
    "filter_state": [{"key": "k", "address_match": {"ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]}}],
}
_TYPE = "type.googleapis.com/"
_TEMPLATE = {
    "path_match_policy": {
        "name": "t",
        "typed_config": {
            "@type": f"{_TYPE}envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
            "path_template": "/a/{b=c/*}/**.d",
        },
    }
}
_HEADER = {
    "name": "h",
    "typed_config": {"@type": f"{_TYPE}envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": "x"},
}
_LEAD = {
    "action": {"name": "r", "typed_config": {"@type": f"{_TYPE}envoy.config.route.v3.Route", **xds.route()}},
}
_SINGLE = {"single_predicate": {"input": _HEADER, "value_match": {"prefix": "a"}}}
_TREE = {"matcher_tree": {"input": _HEADER, "prefix_match_map": {"map": {"a": _LEAD, "ab": _LEAD}}}}
_MATCHER = {
    "matcher_list": {
        "matchers": [
            {"predicate": {"not_matcher": _SINGLE}, "on_match": {"matcher": _TREE}},
            {"predicate": {"or_matcher": {"predicate": [_SINGLE, _SINGLE]}}, "on_match": _LEAD},
        ]
    },
    "on_no_match": _LEAD,
}
_TREE_HOST = {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "matcher": _MATCHER}]}
_CLUSTER = {
    "lb_policy": "RING_HASH",
    "ring_hash_lb_config": {"minimum_ring_size": 64},
    "circuit_breakers": {"thresholds": [{"priority": "HIGH", "max_requests": 5, "retry_budget": {}}]},
    "outlier_detection": {"interval": "1s", "consecutive_5xx": 3},
    "lb_subset_config": {"subset_selectors": [{"keys": ["version"]}], "default_subset": {"version": "v1"}},
    "common_lb_config": {"healthy_panic_threshold": {"value": 10}},
    "metadata": {"filter_metadata": {"meshlib.circuit_breaker": {"fail_max": 3}}},
}
_LEAST = {"timeout": "1s", "interval": "2s", "unhealthy_threshold": 3, "healthy_threshold": 2}
_HTTP_CHECK = {
    "path": "/healthz",
    "method": "POST",
    "send": {"text": "6869"},
    "receive": [{"text": "6f6b"}, {"binary": "eWVz"}],
    "expected_statuses": [{"start": 200, "end": 300}],
    "retriable_statuses": [{"start": 429, "end": 430}],
    "request_headers_to_add": [{"header": {"key": "x-a", "value": "%PROTOCOL%"}}],
    "service_name_matcher": {"prefix": "pay"},
}
_CHECKED = {
    "health_checks": [
        {**_LEAST, "http_health_check": _HTTP_CHECK, "initial_jitter": "1s", "interval_jitter_percent": 10},
        {**_LEAST, "tcp_health_check": {"send": {"text": "00"}, "proxy_protocol_config": {"version": "V2"}}},
        {**_LEAST, "grpc_health_check": {"service_name": "s", "authority": "a"}, "tls_options": {}},
        {**_LEAST, "custom_health_check": {"name": "envoy.health_checkers.redis"}},
    ],
    "metadata": {"filter_metadata": {"meshlib.health_check": {"when": "ejected"}}},
}
_CHECKED_ENDPOINT = {
    "endpoint": {**xds.endpoint()["endpoint"], "health_check_config": {"port_value": 1, "hostname": "h"}}
}
SEEDS: list[tuple[str, Json]] = [
    (LISTENER, xds.api_listener(http_filters=[_LIMIT, _GLOBAL, xds.ROUTER])),
    (LISTENER, xds.socket_listener("0.0.0.0_80", 80, "routes")),
    (ROUTE_CONFIGURATION, xds.route_configuration("routes", {"match": _MATCH, "route": _ACTION}, xds.route())),
    (ROUTE_CONFIGURATION, xds.route_configuration("routes", {"match": _TEMPLATE, "route": {"cluster": "a"}})),
    (ROUTE_CONFIGURATION, _TREE_HOST),
    (CLUSTER, xds.eds_cluster(**_CLUSTER)),
    (CLUSTER, xds.eds_cluster(**_CHECKED)),
    (CLUSTER_LOAD_ASSIGNMENT, xds.assignment("a", xds.endpoint(load_balancing_weight=3), xds.endpoint("::1"))),
    (CLUSTER_LOAD_ASSIGNMENT, xds.assignment("a", _CHECKED_ENDPOINT)),
]
TYPES = [LISTENER, ROUTE_CONFIGURATION, CLUSTER, CLUSTER_LOAD_ASSIGNMENT]
_SEED_BYTES = [(type_url, xds.message(type_url, body).SerializeToString()) for type_url, body in SEEDS]


def is_total(type_url: str, data: bytes) -> bool:
    """Decode; true for a model. A model is hashable and its references can be read."""
    try:
        found = decode(type_url, data)
    except ResourceError as error:
        refused: ResourceError | None = error
    else:
        refused = None
    if refused is not None:
        assert refused.reason
        assert refused.resource
        return False
    hash(found.resource)
    assert references(found.resource) == found.references
    assert all(issue.severity == "degraded" and issue.reason for issue in found.issues)
    return True


@pytest.mark.parametrize("type_url, data", _SEED_BYTES)
def test_the_seeds_are_good(type_url: str, data: bytes) -> None:
    assert is_total(type_url, data)


@given(st.sampled_from(TYPES), st.binary(max_size=400))
@settings(max_examples=600, deadline=None)
def test_any_bytes(type_url: str, data: bytes) -> None:
    is_total(type_url, data)


def _mutated(draw: st.DrawFn, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        kind = draw(st.sampled_from(["flip", "set", "cut", "insert", "repeat"]))
        if kind == "flip" and changed:
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and changed:
            changed[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif kind == "cut":
            del changed[at : at + draw(st.integers(1, 8))]
        elif kind == "insert":
            changed[at:at] = draw(st.binary(min_size=1, max_size=8))
        else:
            changed[at:at] = changed[at : at + draw(st.integers(1, 40))]
    return bytes(changed)


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, bytes]:
    type_url, data = draw(st.sampled_from(_SEED_BYTES))
    return type_url, _mutated(draw, data)


@given(mutations())
@settings(max_examples=1500, deadline=None)
def test_any_mutation_of_good_bytes(case: tuple[str, bytes]) -> None:
    is_total(*case)


@pytest.mark.parametrize("type_url", TYPES)
def test_nesting_without_end(type_url: str) -> None:
    data = b"x"
    for _ in range(3000):
        length, prefix = len(data), b""
        while length > 0x7F:
            prefix, length = prefix + bytes([length & 0x7F | 0x80]), length >> 7
        data = b"\x12" + prefix + bytes([length]) + data
    assert not is_total(type_url, data)


def _paths(message: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    from meshlib.sources.xds.decode.validate import is_repeated

    found = []
    for field, value in message.ListFields():
        here = (*path, field.name)
        found.append(here)
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for index, item in enumerate(value) if is_repeated(field) else [(None, value)]:
            found += _paths(item, here if index is None else (*here, index))
    return found


_WILD_NUMBERS = [0, 1, -1, 2**31 - 1, 2**32 - 1, 2**63 - 1, -(2**63), float("nan"), float("inf"), -1.5, 65536]


@st.composite
def wild_values(draw: st.DrawFn) -> tuple[str, bytes]:
    """A good message with one field emptied, or set to a value at the edge of its type."""
    type_url, body = draw(st.sampled_from(SEEDS))
    message: Any = xds.message(type_url, body)
    path = draw(st.sampled_from(_paths(message)))
    owner = message
    for step in path[:-1]:
        owner = owner[step] if isinstance(step, int) else getattr(owner, step)
    try:
        setattr(owner, path[-1], draw(st.sampled_from([*_WILD_NUMBERS, "", "\x00", "é" * 300, b"\xff"])))
    except (TypeError, ValueError, AttributeError):
        owner.ClearField(path[-1])
    return type_url, message.SerializeToString()


@given(wild_values())
@settings(max_examples=800, deadline=None)
def test_any_value_at_the_edge_of_its_type(case: tuple[str, bytes]) -> None:
    is_total(*case)
