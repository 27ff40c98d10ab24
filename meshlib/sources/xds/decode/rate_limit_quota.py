"""The filter of assigned quotas, its buckets, and what routes say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from meshlib.model.filters import FilterConfig, TokenBucket, UnsupportedFilter
from meshlib.model.matcher_tree import Input, Matcher
from meshlib.model.matchers import ALWAYS, FractionalPercent
from meshlib.model.rate_limit_quota import (
    BucketSettings,
    QuotaStrategy,
    RateLimitQuota,
    RateLimitQuotaOverride,
    RequestsPerTimeUnit,
)
from meshlib.model.rate_limits import UNIT_SECONDS
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import duration, enum_name, fractional_percent, header_options, unpack, wrapped
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.grpc_service import grpc_service
from meshlib.sources.xds.decode.matcher_tree import match_input, matcher

_PACKAGE = "envoy.extensions.filters.http.rate_limit_quota.v3"
QUOTA_TYPE = f"{_PACKAGE}.RateLimitQuotaFilterConfig"
OVERRIDE_TYPE = f"{_PACKAGE}.RateLimitQuotaOverride"
_SETTINGS_TYPE = f"{_PACKAGE}.RateLimitQuotaBucketSettings"
_MODULE = f"{_PACKAGE}.rate_limit_quota_pb2"
QUOTA_MODULES = {QUOTA_TYPE: _MODULE, OVERRIDE_TYPE: _MODULE}
_FILTER = fields(
    "rlqs_server",
    "domain",
    "bucket_matchers",
    "filter_enabled",
    "filter_enforced",
    "request_headers_to_add_when_not_enforced",
)
_OVERRIDE = fields("domain", "bucket_matchers")
_SETTINGS = fields(
    "bucket_id_builder",
    "reporting_interval",
    "deny_response_settings",
    "no_assignment_behavior",
    "expired_assignment_behavior",
)
_DENY = fields("http_status", "http_body", "grpc_status", "response_headers_to_add")
_SHORTEST_FILL = 0.05
_SHORTEST_INTERVAL = 0.1
"""Seconds between reports, as the rules of the proto file have it."""
_UNAVAILABLE = 14


def rate_limit_quota(ctx: Context, message: Any, path: str) -> FilterConfig:
    """The filter's configuration; without a service, or with a matcher that is not supported, it does nothing."""
    ctx.check_fields(message, path, _FILTER)

    def share(name: str) -> FractionalPercent:
        if not message.HasField(name):
            return ALWAYS
        found = getattr(message, name)
        return replace(fractional_percent(found.default_value), runtime_key=found.runtime_key)

    buckets = _buckets(ctx, message, path)
    if buckets is None or not message.HasField("rlqs_server"):
        return UnsupportedFilter(f"type.googleapis.com/{QUOTA_TYPE}")
    added = "request_headers_to_add_when_not_enforced"
    return RateLimitQuota(
        domain=message.domain,
        service=grpc_service(ctx, message.rlqs_server, join(path, "rlqs_server")),
        buckets=buckets,
        enabled=share("filter_enabled"),
        enforced=share("filter_enforced"),
        request_headers_to_add_when_not_enforced=header_options(ctx, getattr(message, added), join(path, added)),
    )


def rate_limit_quota_override(ctx: Context, message: Any, path: str) -> FilterConfig:
    """What a route, a virtual host or a weighted cluster says."""
    ctx.check_fields(message, path, _OVERRIDE)
    if not message.HasField("bucket_matchers"):
        return RateLimitQuotaOverride(message.domain)
    return RateLimitQuotaOverride(message.domain, _buckets(ctx, message, path))


def _buckets(ctx: Context, message: Any, path: str) -> Matcher[BucketSettings] | None:
    where = join(path, "bucket_matchers")
    try:
        return matcher(ctx, message.bucket_matchers, where, lambda action, at: _settings(ctx, action, at))
    except UnsupportedError as error:
        ctx.degraded(error.path, f"{error.reason}; no request is of any bucket")
    return None


def _settings(ctx: Context, action: Any, path: str) -> BucketSettings:
    name, message = unpack(action, {_SETTINGS_TYPE: _MODULE}, path)
    if message is None:
        raise UnsupportedError(path, f"the action {name!r} is not supported")
    ctx.check_fields(message, path, _SETTINGS)
    deny, where = message.deny_response_settings, join(path, "deny_response_settings")
    ctx.check_fields(deny, where, _DENY)
    expired = message.expired_assignment_behavior
    return BucketSettings(
        bucket_id=_bucket_id(ctx, message, path),
        reporting_interval=max(duration(message, "reporting_interval") or 0.0, _SHORTEST_INTERVAL),
        no_assignment=_fallback(message.no_assignment_behavior, join(path, "no_assignment_behavior")),
        expired=_expired(expired, join(path, "expired_assignment_behavior")),
        expired_timeout=duration(expired, "expired_assignment_behavior_timeout"),
        status=deny.http_status.code or 429,
        body=wrapped(deny, "http_body", b""),
        grpc_status=deny.grpc_status.code or _UNAVAILABLE,
        grpc_message=deny.grpc_status.message,
        response_headers=header_options(ctx, deny.response_headers_to_add, join(where, "response_headers_to_add")),
    )


def _bucket_id(ctx: Context, message: Any, path: str) -> tuple[tuple[str, str | Input], ...]:
    builders, where = message.bucket_id_builder.bucket_id_builder, join(path, "bucket_id_builder.bucket_id_builder")

    def value(key: str) -> str | Input:
        found, at = builders[key], f'{where}["{key}"]'
        if found.WhichOneof("value_specifier") == "string_value":
            return str(found.string_value)
        return match_input(found.custom_value, join(at, "custom_value"))

    return tuple((key, value(key)) for key in sorted(builders))


def _fallback(message: Any, path: str) -> QuotaStrategy:
    return _strategy(message.fallback_rate_limit, join(path, "fallback_rate_limit"))


def _expired(message: Any, path: str) -> Any:
    match message.WhichOneof("expired_assignment_behavior"):
        case "fallback_rate_limit":
            return _fallback(message, path)
        case "reuse_last_assignment":
            return "reuse"
    return None


def _strategy(message: Any, path: str) -> QuotaStrategy:
    match message.WhichOneof("strategy"):
        case "blanket_rule":
            rule: Any = enum_name(message, "blanket_rule", path)
            return "DENY_ALL" if rule == "DENY_ALL" else "ALLOW_ALL"
        case "requests_per_time_unit":
            found, where = message.requests_per_time_unit, join(path, "requests_per_time_unit")
            unit = enum_name(found, "time_unit", where)
            if unit not in UNIT_SECONDS:
                raise ResourceError(join(where, "time_unit"), "is required")
            return RequestsPerTimeUnit(found.requests_per_time_unit, UNIT_SECONDS[unit])
        case "token_bucket":
            bucket = message.token_bucket
            interval = max(duration(bucket, "fill_interval") or 0.0, _SHORTEST_FILL)
            return TokenBucket(bucket.max_tokens, wrapped(bucket, "tokens_per_fill", 1), interval)
    return "ALLOW_ALL"


Decode = Callable[[Context, Any, str], FilterConfig]
QUOTA_DECODERS: dict[str, Decode] = {QUOTA_TYPE: rate_limit_quota, OVERRIDE_TYPE: rate_limit_quota_override}
