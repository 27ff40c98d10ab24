"""The local rate limit filter: its buckets, its descriptors, and what it says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshlib.model.filters import FilterConfig, LocalRateLimit, LocalRateLimitDescriptor, TokenBucket
from meshlib.model.matchers import NEVER, FractionalPercent
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import duration, enum_name, fractional_percent, header_options, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.rate_limits import rate_limits
from meshlib.sources.xds.decode.unknown import unknown_fields

LOCAL_RATE_LIMIT_TYPE = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
LOCAL_RATE_LIMIT_MODULE = "envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit_pb2"

_LOCAL_RATE_LIMIT = fields(
    "stat_prefix",
    "status",
    "token_bucket",
    "filter_enabled",
    "filter_enforced",
    "request_headers_to_add_when_not_enforced",
    "response_headers_to_add",
    "descriptors",
    "stage",
    "local_cluster_rate_limit",
    "enable_x_ratelimit_headers",
    "vh_rate_limits",
    "always_consume_default_token_bucket",
    "rate_limited_as_resource_exhausted",
    "rate_limits",
    "max_dynamic_descriptors",
    "enable_retry_after_header",
    instead={
        "local_rate_limit_per_downstream_connection": (
            "calls come by no connection of a caller's: one bucket is shared by all of them"
        )
    },
)
_DESCRIPTOR = fields("entries", "token_bucket", "shadow_mode")
_FRACTION = fields("default_value", "runtime_key")
_MIN_FILL_INTERVAL = 0.05


def local_rate_limit(ctx: Context, message: Any, path: str) -> LocalRateLimit:
    """`envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`."""
    message = _newest(message)
    ctx.check_fields(message, path, _LOCAL_RATE_LIMIT)
    marks = "request_headers_to_add_when_not_enforced"
    option: Any = enum_name(message, "vh_rate_limits", path)
    embedded = rate_limits(ctx, message.rate_limits, join(path, "rate_limits"), embedded=True)
    return LocalRateLimit(
        stat_prefix=message.stat_prefix,
        token_bucket=_bucket(message, path),
        enabled=_share(ctx, message, "filter_enabled", path),
        enforced=_share(ctx, message, "filter_enforced", path),
        status=message.status.code if message.status.code >= 400 else 429,  # as Envoy: only error codes are taken
        response_headers=header_options(ctx, message.response_headers_to_add, join(path, "response_headers_to_add")),
        rate_limited_as_resource_exhausted=message.rate_limited_as_resource_exhausted,
        descriptors=_descriptors(ctx, message, path),
        stage=message.stage,
        rate_limits=embedded,
        vh_rate_limits=option,
        always_consume_default_token_bucket=wrapped(message, "always_consume_default_token_bucket", True),
        max_dynamic_descriptors=wrapped(message, "max_dynamic_descriptors", 20),
        enable_x_ratelimit_headers=enum_name(message, "enable_x_ratelimit_headers", path) != "OFF",
        enable_retry_after_header=getattr(message, "enable_retry_after_header", False),
        request_headers_to_add_when_not_enforced=header_options(ctx, getattr(message, marks), join(path, marks)),
        local_cluster_rate_limit=_by_cluster(message, path),
    )


def check_per_route(config: FilterConfig, path: str) -> FilterConfig:
    """The configuration of a level below the listener, where a limit needs a bucket, as in Envoy."""
    if isinstance(config, LocalRateLimit) and config.token_bucket is None:
        raise ResourceError(join(path, "token_bucket"), "is required for the limit of a route or virtual host")
    return config


def _newest(message: Any) -> Any:
    """The message with fields that xds-protos does not have yet, where it may have such."""
    if not any(unknown_fields(message)) and not any(any(unknown_fields(item)) for item in message.descriptors):
        return message
    from meshlib.sources.xds.decode.added_fields import with_added

    return with_added(message)


def _share(ctx: Context, message: Any, name: str, path: str) -> FractionalPercent:
    """The fraction of a runtime key, with the value it has without runtime; none of the requests where it is unset."""
    if not message.HasField(name):
        return NEVER
    found = getattr(message, name)
    ctx.check_fields(found, join(path, name), _FRACTION)
    return replace(fractional_percent(found.default_value), runtime_key=found.runtime_key)


def _bucket(message: Any, path: str) -> TokenBucket | None:
    return _token_bucket(message.token_bucket, join(path, "token_bucket")) if message.HasField("token_bucket") else None


def _token_bucket(message: Any, path: str) -> TokenBucket:
    interval = duration(message, "fill_interval") or 0.0
    if interval < _MIN_FILL_INTERVAL:
        raise ResourceError(join(path, "fill_interval"), f"must be at least 0.05s, is {interval:g}s")
    return TokenBucket(message.max_tokens, wrapped(message, "tokens_per_fill", 1), interval)


def _descriptors(ctx: Context, message: Any, path: str) -> tuple[LocalRateLimitDescriptor, ...]:
    found: dict[tuple[tuple[str, str], ...], LocalRateLimitDescriptor] = {}
    for index, item in enumerate(message.descriptors):
        where = f"{join(path, 'descriptors')}[{index}]"
        ctx.check_fields(item, where, _DESCRIPTOR)
        entries = tuple((entry.key, entry.value) for entry in item.entries)
        if entries in found:
            raise ResourceError(join(where, "entries"), "another descriptor has the same entries")
        bucket = _token_bucket(item.token_bucket, join(where, "token_bucket"))
        found[entries] = LocalRateLimitDescriptor(entries, bucket, getattr(item, "shadow_mode", False))
    return tuple(found.values())


def _by_cluster(message: Any, path: str) -> bool:
    if not message.HasField("local_cluster_rate_limit"):
        return False
    if message.local_rate_limit_per_downstream_connection:
        where = join(path, "local_cluster_rate_limit")
        raise ResourceError(where, "has no place beside local_rate_limit_per_downstream_connection")
    return True
