"""The filter `meshlib.rate_limit` from a TypedStruct, at a filter chain and per route."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import any_pb2, json_format
from xds.type.v3 import typed_struct_pb2

from meshlib.model.limiters import Bucket, ConcurrencyLimit, RequestLimit, UniformRate, WarmUp
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.context import Context
from meshlib.sources.xds.decode.filters import _config


def decoded(value: dict[str, Any]) -> tuple[object, list[str]]:
    typed = typed_struct_pb2.TypedStruct(type_url="type.googleapis.com/meshlib.rate_limit")
    json_format.ParseDict(value, typed.value)
    packed = any_pb2.Any()
    packed.Pack(typed)
    ctx = Context("Listener l")
    return _config(ctx, packed, "typed_config"), [issue.path for issue in ctx.issues]


@pytest.mark.parametrize(
    "value,expected",
    [
        ({"bucket": {"rate": 5}}, RequestLimit("meshlib.rate_limit", Bucket(5.0))),
        (
            {"name": "n", "uniform_rate": {"rate": 5, "max_wait": 0.5}, "key": "header:x-user", "max_keys": 9},
            RequestLimit("n", UniformRate(5.0, 0.5), "header:x-user", 9),
        ),
        (
            {"warm_up": {"rate": 5, "period": 3, "cold_factor": 2}},
            RequestLimit("meshlib.rate_limit", WarmUp(5.0, 3.0, 2.0)),
        ),
        (
            {
                "concurrency": {"max_in_flight": 7},
                "status": 503,
                "headers": "ratelimit",
                "retry_after": False,
                "rate_limited_as_resource_exhausted": True,
            },
            RequestLimit(
                "meshlib.rate_limit",
                ConcurrencyLimit(7),
                status=503,
                headers="ratelimit",
                retry_after=False,
                rate_limited_as_resource_exhausted=True,
            ),
        ),
    ],
)
def test_each_limiter_is_read(value: dict[str, Any], expected: RequestLimit) -> None:
    assert decoded(value) == (expected, [])


def test_a_field_that_it_does_not_have_is_reported() -> None:
    assert decoded({"bucket": {"rate": 5}, "burst": 3})[1] == ["typed_config.value.burst"]


@pytest.mark.parametrize(
    "value,path",
    [
        ({}, "typed_config.value"),
        ({"bucket": {"rate": 5}, "concurrency": {"max_in_flight": 1}}, "typed_config.value"),
        ({"bucket": 5}, "typed_config.value.bucket"),
        ({"bucket": {}}, "typed_config.value.bucket.rate"),
        ({"bucket": {"rate": "5"}}, "typed_config.value.bucket.rate"),
        ({"bucket": {"rate": -5}}, "typed_config.value.bucket"),
        ({"bucket": {"rate": 5, "bursts": 1}}, "typed_config.value.bucket.bursts"),
        ({"concurrency": {"max_in_flight": 1.5}}, "typed_config.value.concurrency.max_in_flight"),
        ({"bucket": {"rate": 5}, "key": "user"}, "typed_config.value"),
        ({"bucket": {"rate": 5}, "status": 200}, "typed_config.value"),
        ({"bucket": {"rate": 5}, "retry_after": 1}, "typed_config.value.retry_after"),
    ],
)
def test_what_is_wrong_is_refused_where_it_stands(value: dict[str, Any], path: str) -> None:
    with pytest.raises(ResourceError) as refused:
        decoded(value)
    assert refused.value.path == path
