"""The filter that asks a rate limit service, and what routes say of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshlib.model.global_rate_limit import DEFAULT_TIMEOUT, GlobalRateLimit, GlobalRateLimitPerRoute
from meshlib.model.matchers import ALWAYS, FractionalPercent
from meshlib.sources.xds.decode.common import duration, enum_name, fractional_percent, header_options
from meshlib.sources.xds.decode.context import Context, fields, join
from meshlib.sources.xds.decode.grpc_service import grpc_service
from meshlib.sources.xds.decode.rate_limits import rate_limits

GLOBAL_RATE_LIMIT_TYPE = "envoy.extensions.filters.http.ratelimit.v3.RateLimit"
PER_ROUTE_TYPE = "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute"
_MODULE = "envoy.extensions.filters.http.ratelimit.v3.rate_limit_pb2"
GLOBAL_RATE_LIMIT_MODULES = {GLOBAL_RATE_LIMIT_TYPE: _MODULE, PER_ROUTE_TYPE: _MODULE}
_FILTER = fields(
    "domain",
    "stage",
    "request_type",
    "timeout",
    "failure_mode_deny",
    "failure_mode_deny_percent",
    "rate_limited_as_resource_exhausted",
    "rate_limit_service",
    "enable_x_ratelimit_headers",
    "disable_x_envoy_ratelimited_header",
    "rate_limited_status",
    "response_headers_to_add",
    "status_on_error",
    "stat_prefix",
    "filter_enabled",
    "filter_enforced",
    "rate_limits",
)
_SERVICE = fields("grpc_service", harmless={"transport_api_version": "there is one version, 3"})
_PER_ROUTE = fields(
    "vh_rate_limits",
    "rate_limits",
    "domain",
    instead={"override_option": "vh_rate_limits says whether the virtual host's limits count"},
)
_FIRST_ERROR, _FIRST_CODE, _LAST_CODE = 400, 100, 511


def global_rate_limit(ctx: Context, message: Any, path: str) -> GlobalRateLimit:
    """The filter's configuration."""
    ctx.check_fields(message, path, _FILTER)
    where = join(path, "rate_limit_service")
    ctx.check_fields(message.rate_limit_service, where, _SERVICE)

    def share(name: str) -> FractionalPercent | None:
        if not message.HasField(name):
            return None
        found = getattr(message, name)
        return replace(fractional_percent(found.default_value), runtime_key=found.runtime_key)

    limited, on_error = message.rate_limited_status.code, message.status_on_error.code
    request_type: Any = message.request_type or "both"
    timeout = duration(message, "timeout")
    return GlobalRateLimit(
        domain=message.domain,
        service=grpc_service(ctx, message.rate_limit_service.grpc_service, join(where, "grpc_service")),
        rate_limits=rate_limits(ctx, message.rate_limits, join(path, "rate_limits"), embedded=True),
        stage=message.stage,
        request_type=request_type,
        timeout=DEFAULT_TIMEOUT if timeout is None else timeout or None,
        failure_mode_deny=message.failure_mode_deny,
        failure_mode_deny_percent=share("failure_mode_deny_percent"),
        rate_limited_as_resource_exhausted=message.rate_limited_as_resource_exhausted,
        x_ratelimit_headers=enum_name(message, "enable_x_ratelimit_headers", path) == "DRAFT_VERSION_03",
        x_envoy_ratelimited=not message.disable_x_envoy_ratelimited_header,
        status=limited if limited >= _FIRST_ERROR else 429,
        status_on_error=on_error if _FIRST_CODE <= on_error <= _LAST_CODE else 500,
        response_headers=header_options(ctx, message.response_headers_to_add, join(path, "response_headers_to_add")),
        enabled=share("filter_enabled") or ALWAYS,
        enforced=share("filter_enforced") or ALWAYS,
        stat_prefix=message.stat_prefix,
    )


def global_rate_limit_per_route(ctx: Context, message: Any, path: str) -> GlobalRateLimitPerRoute:
    """What a route, a virtual host or a weighted cluster says."""
    ctx.check_fields(message, path, _PER_ROUTE)
    option: Any = enum_name(message, "vh_rate_limits", path)
    own = rate_limits(ctx, message.rate_limits, join(path, "rate_limits"), embedded=True)
    return GlobalRateLimitPerRoute(option, own, message.domain)
