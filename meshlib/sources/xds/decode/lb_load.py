"""Policies that go by weights and load: round robin, least request, load reports, peak EWMA; and slow start."""

from __future__ import annotations

import math
from typing import Any

from meshlib.model.lb import ClientSideWeightedRoundRobin, LeastRequest, PeakEwma, RoundRobin, SlowStart
from meshlib.sources.xds.decode.common import duration, enum_name, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join

_SLOW_START = fields("slow_start_window", "aggression", "min_weight_percent")
_ROUND_ROBIN = fields("slow_start_config", "locality_lb_config")  # the last one is decoded by the caller
_LEAST_REQUEST = fields(
    "choice_count",
    "active_request_bias",
    "slow_start_config",
    "enable_full_scan",
    "selection_method",
    # of the extension, decoded by its caller:
    "locality_lb_config",
)
_CLIENT_SIDE = fields(
    "enable_oob_load_report",
    "oob_reporting_period",
    "blackout_period",
    "weight_expiration_period",
    "weight_update_period",
    "error_utilization_penalty",
    "metric_names_for_computing_utilization",
    "slow_start_config",
)
_PEAK_EWMA = fields(
    "decay_time",
    "default_rtt",
    "penalty_value",
    harmless={
        "aggregation_interval": "latencies are shared by all threads at once",
        "max_samples_per_host": "no samples are kept",
    },
)
_AGGRESSION = fields("default_value", harmless={"runtime_key": "there is no runtime; the default value counts"})


def slow_start(ctx: Context, message: Any, path: str) -> SlowStart | None:
    """The `slow_start_config` of a policy; None without one, or with an empty window, as in Envoy."""
    if not message.HasField("slow_start_config"):
        return None
    path, found = join(path, "slow_start_config"), message.slow_start_config
    ctx.check_fields(found, path, _SLOW_START)
    window = duration(found, "slow_start_window") or 0.0
    if window <= 0.0:
        return None
    percent = found.min_weight_percent.value if found.HasField("min_weight_percent") else 10.0
    return SlowStart(window, _aggression(ctx, found, path), percent)


def _aggression(ctx: Context, message: Any, path: str) -> float:
    if not message.HasField("aggression"):
        return 1.0
    path = join(path, "aggression")
    ctx.check_fields(message.aggression, path, _AGGRESSION)
    value = float(message.aggression.default_value)
    if math.isfinite(value) and value > 0.0:
        return value
    ctx.degraded(path, f"{value} is not above 0; 1.0 is used, as in Envoy")
    return 1.0


def round_robin(ctx: Context, message: Any, path: str) -> RoundRobin:
    """`RoundRobinLbConfig`, or the extension of that name."""
    ctx.check_fields(message, path, _ROUND_ROBIN)
    return RoundRobin(slow_start(ctx, message, path))


def least_request(ctx: Context, message: Any, path: str) -> LeastRequest:
    """`LeastRequestLbConfig`, or the extension of that name, which alone has a full scan."""
    ctx.check_fields(message, path, _LEAST_REQUEST)
    bias = 1.0
    if message.HasField("active_request_bias"):
        bias = message.active_request_bias.default_value
        if not math.isfinite(bias) or bias < 0:
            ctx.degraded(join(path, "active_request_bias"), f"{bias} is not a bias; 1.0 is used, as in Envoy")
            bias = 1.0
    full = "selection_method" in message.DESCRIPTOR.fields_by_name and (
        enum_name(message, "selection_method", path) == "FULL_SCAN" or wrapped(message, "enable_full_scan", False)
    )
    return LeastRequest(wrapped(message, "choice_count", 2), bias, full, slow_start(ctx, message, path))


def client_side_weighted_round_robin(ctx: Context, message: Any, path: str) -> ClientSideWeightedRoundRobin:
    """`ClientSideWeightedRoundRobin`; periods and defaults are those of gRFC A58."""
    ctx.check_fields(message, path, _CLIENT_SIDE)
    defaults = ClientSideWeightedRoundRobin()
    penalty = wrapped(message, "error_utilization_penalty", defaults.error_utilization_penalty)
    period = _seconds(message, "oob_reporting_period", 10.0)
    return ClientSideWeightedRoundRobin(
        _seconds(message, "blackout_period", defaults.blackout_period),
        _seconds(message, "weight_expiration_period", defaults.weight_expiration_period),
        _seconds(message, "weight_update_period", defaults.weight_update_period),
        penalty,
        tuple(message.metric_names_for_computing_utilization),
        period if wrapped(message, "enable_oob_load_report", False) else None,
        slow_start(ctx, message, path),
    )


def peak_ewma(ctx: Context, message: Any, path: str) -> PeakEwma:
    """`PeakEwma` of Envoy's contrib."""
    ctx.check_fields(message, path, _PEAK_EWMA)
    defaults = PeakEwma()
    return PeakEwma(
        _seconds(message, "decay_time", 0.0) or defaults.decay_time,
        _seconds(message, "default_rtt", defaults.default_rtt),
        wrapped(message, "penalty_value", defaults.penalty),
    )


def _seconds(message: Any, name: str, default: float) -> float:
    found = duration(message, name)
    return default if found is None else found
