"""The fault filter (`envoy.extensions.filters.http.fault.v3`)."""

from __future__ import annotations

from typing import Any

from meshlib.model.fault import FaultAbort, FaultDelay, FaultRateLimit, HttpFault
from meshlib.model.filters import FilterConfig, UnsupportedFilter
from meshlib.sources.xds.decode.common import duration, fractional_percent, struct, wrapped
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.matchers import header_matcher

FAULT_TYPE = "envoy.extensions.filters.http.fault.v3.HTTPFault"
FAULT_MODULES = {FAULT_TYPE: "envoy.extensions.filters.http.fault.v3.fault_pb2"}

_RUNTIME = (
    "delay_percent_runtime",
    "abort_percent_runtime",
    "delay_duration_runtime",
    "abort_http_status_runtime",
    "abort_grpc_status_runtime",
    "max_active_faults_runtime",
    "response_rate_limit_percent_runtime",
)
_FAULT = fields(
    "delay",
    "abort",
    "response_rate_limit",
    "upstream_cluster",
    "headers",
    "downstream_nodes",
    "max_active_faults",
    "disable_downstream_cluster_stats",
    "filter_metadata",
    *_RUNTIME,
)
_DELAY = fields("fixed_delay", "header_delay", "percentage")
_ABORT = fields("http_status", "grpc_status", "header_abort", "percentage")
_RATE_LIMIT = fields("fixed_limit", "header_limit", "percentage")


def fault_filter(ctx: Context, message: Any, path: str) -> FilterConfig:
    """The filter, or what a route says in its place. A fault with a matcher that is not known would hit more than it
    was meant for, so it is left out.
    """
    ctx.check_fields(message, path, _FAULT)
    try:
        headers = tuple(
            header_matcher(ctx, matcher, f"{join(path, 'headers')}[{index}]")
            for index, matcher in enumerate(message.headers)
        )
    except UnsupportedError as error:
        ctx.degraded(error.path, f"{error.reason}; the fault is not injected")
        return UnsupportedFilter(FAULT_TYPE)
    keys = {name: key for name in _RUNTIME if (key := getattr(message, name))}
    return HttpFault(
        delay=_delay(ctx, message.delay, join(path, "delay")) if message.HasField("delay") else None,
        abort=_abort(ctx, message.abort, join(path, "abort")) if message.HasField("abort") else None,
        response_rate_limit=(
            _rate_limit(ctx, message.response_rate_limit, join(path, "response_rate_limit"))
            if message.HasField("response_rate_limit")
            else None
        ),
        upstream_cluster=message.upstream_cluster,
        headers=headers,
        downstream_nodes=tuple(message.downstream_nodes),
        max_active_faults=wrapped(message, "max_active_faults", None),
        disable_downstream_cluster_stats=message.disable_downstream_cluster_stats,
        filter_metadata=struct(message.filter_metadata),
        **keys,
    )


def _delay(ctx: Context, message: Any, path: str) -> FaultDelay:
    ctx.check_fields(message, path, _DELAY)
    return FaultDelay(duration(message, "fixed_delay"), fractional_percent(message.percentage))


def _abort(ctx: Context, message: Any, path: str) -> FaultAbort:
    ctx.check_fields(message, path, _ABORT)
    kind = message.WhichOneof("error_type")
    return FaultAbort(
        message.http_status if kind == "http_status" else None,
        message.grpc_status if kind == "grpc_status" else None,
        fractional_percent(message.percentage),
    )


def _rate_limit(ctx: Context, message: Any, path: str) -> FaultRateLimit:
    ctx.check_fields(message, path, _RATE_LIMIT)
    fixed = message.fixed_limit.limit_kbps if message.WhichOneof("limit_type") == "fixed_limit" else None
    return FaultRateLimit(fixed, fractional_percent(message.percentage))
