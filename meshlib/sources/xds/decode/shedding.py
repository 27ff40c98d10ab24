"""Load shedding: `envoy.filters.http.adaptive_concurrency` and `envoy.filters.http.admission_control`."""

from __future__ import annotations

from typing import Any

from meshlib.model.report import ResourceError
from meshlib.model.shedding import GRPC_SUCCESS, AdaptiveConcurrency, AdmissionControl
from meshlib.sources.xds.decode.common import duration, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join

_FILTERS = "envoy.extensions.filters.http"
ADAPTIVE_CONCURRENCY_TYPE = f"{_FILTERS}.adaptive_concurrency.v3.AdaptiveConcurrency"
ADMISSION_CONTROL_TYPE = f"{_FILTERS}.admission_control.v3.AdmissionControl"
SHEDDING_MODULES = {
    ADAPTIVE_CONCURRENCY_TYPE: f"{_FILTERS}.adaptive_concurrency.v3.adaptive_concurrency_pb2",
    ADMISSION_CONTROL_TYPE: f"{_FILTERS}.admission_control.v3.admission_control_pb2",
}

_ADAPTIVE = fields("gradient_controller_config", "enabled", "concurrency_limit_exceeded_status")
_GRADIENT = fields("sample_aggregate_percentile", "concurrency_limit_params", "min_rtt_calc_params")
_LIMIT = fields("max_concurrency_limit", "concurrency_update_interval")
_MIN_RTT = fields("interval", "fixed_value", "request_count", "jitter", "min_concurrency", "buffer")
_ADMISSION = fields(
    "enabled",
    "success_criteria",
    "sampling_window",
    "aggression",
    "sr_threshold",
    "rps_threshold",
    "max_rejection_probability",
)
_CRITERIA = fields("http_criteria", "grpc_criteria")
_RUNTIME_VALUE = fields(
    "default_value",
    harmless={"runtime_key": "only routes match by what a runtime says; elsewhere the default value counts"},
)
_LEAST_THRESHOLD, _MOST_GRPC = 1.0, 16


def adaptive_concurrency(ctx: Context, message: Any, path: str) -> AdaptiveConcurrency:
    """`AdaptiveConcurrency`. As in Envoy only error codes are taken as the status of a refusal."""
    ctx.check_fields(message, path, _ADAPTIVE)
    gradient, where = message.gradient_controller_config, join(path, "gradient_controller_config")
    ctx.check_fields(gradient, where, _GRADIENT)
    limit, params = gradient.concurrency_limit_params, gradient.min_rtt_calc_params
    ctx.check_fields(limit, join(where, "concurrency_limit_params"), _LIMIT)
    ctx.check_fields(params, join(where, "min_rtt_calc_params"), _MIN_RTT)
    interval, told = duration(params, "interval"), duration(params, "fixed_value")
    if interval is None and told is None:
        raise ResourceError(join(where, "min_rtt_calc_params"), "needs an interval or a fixed_value")
    status = message.concurrency_limit_exceeded_status.code
    return AdaptiveConcurrency(
        max_concurrency_limit=wrapped(limit, "max_concurrency_limit", 1000),
        sample_aggregate_percentile=_percent(gradient, "sample_aggregate_percentile", 50.0),
        concurrency_update_interval=duration(limit, "concurrency_update_interval") or 0.0,
        min_rtt_interval=interval or 0.0,
        min_rtt=told,
        request_count=wrapped(params, "request_count", 50),
        jitter=_percent(params, "jitter", 15.0),
        min_concurrency=wrapped(params, "min_concurrency", 3),
        buffer=_percent(params, "buffer", 25.0),
        enabled=_enabled(ctx, message, path),
        status=status if status >= 400 else 503,
    )


def admission_control(ctx: Context, message: Any, path: str) -> AdmissionControl:
    """`AdmissionControl`. Envoy counts whole seconds: a window of less than one never gives it a reason to refuse."""
    ctx.check_fields(message, path, _ADMISSION)
    criteria, where = message.success_criteria, join(path, "success_criteria")
    ctx.check_fields(criteria, where, _CRITERIA)
    window = duration(message, "sampling_window")
    seconds = 30 if window is None else int(window)
    threshold = _runtime(ctx, message, "sr_threshold", 95.0, path)
    if threshold < _LEAST_THRESHOLD:
        raise ResourceError(join(path, "sr_threshold"), f"must be at least 1 percent, is {threshold:g}")
    return AdmissionControl(
        sampling_window=float(max(1, seconds)),
        aggression=max(1.0, _runtime(ctx, message, "aggression", 1.0, path)),
        sr_threshold=threshold,
        rps_threshold=int(_runtime(ctx, message, "rps_threshold", 0, path)),
        max_rejection_probability=_runtime(ctx, message, "max_rejection_probability", 80.0, path),
        http_success_status=_http_ranges(criteria, where),
        grpc_success_status=_grpc_codes(criteria, where),
        enabled=_enabled(ctx, message, path) and seconds >= 1,
    )


def _http_ranges(criteria: Any, path: str) -> tuple[tuple[int, int], ...]:
    if not criteria.HasField("http_criteria"):
        return ((0, 500),)
    ranges = tuple((found.start, found.end) for found in criteria.http_criteria.http_success_status)
    for index, (start, end) in enumerate(ranges):
        if not 100 <= start <= end <= 600:
            where = f"{join(path, 'http_criteria.http_success_status')}[{index}]"
            raise ResourceError(where, f"must be a range within 100 and 600, is [{start}, {end})")
    return ranges


def _grpc_codes(criteria: Any, path: str) -> tuple[int, ...]:
    if not criteria.HasField("grpc_criteria"):
        return GRPC_SUCCESS
    codes = tuple(criteria.grpc_criteria.grpc_success_status)
    for index, code in enumerate(codes):
        if code > _MOST_GRPC:
            where = f"{join(path, 'grpc_criteria.grpc_success_status')}[{index}]"
            raise ResourceError(where, f"is no gRPC status: {code}")
    return codes


def _enabled(ctx: Context, message: Any, path: str) -> bool:
    """A `RuntimeFeatureFlag`: on, unless its default value says otherwise."""
    if not message.HasField("enabled"):
        return True
    ctx.check_fields(message.enabled, join(path, "enabled"), _RUNTIME_VALUE)
    return bool(wrapped(message.enabled, "default_value", True))


def _runtime(ctx: Context, message: Any, name: str, default: float, path: str) -> float:
    """The default value of a `RuntimeDouble`, `RuntimeUInt32` or `RuntimePercent`."""
    if not message.HasField(name):
        return default
    found = getattr(message, name)
    ctx.check_fields(found, join(path, name), _RUNTIME_VALUE)
    value = found.default_value
    return float(getattr(value, "value", value))


def _percent(message: Any, name: str, default: float) -> float:
    return float(getattr(message, name).value) if message.HasField(name) else default
