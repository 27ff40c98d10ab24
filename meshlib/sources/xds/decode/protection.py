"""What protects a cluster: circuit-breaker thresholds and outlier detection."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshlib.model.cluster import CircuitBreakers, OutlierDetection, RetryBudget, Thresholds
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import duration, enum_name, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join

_BREAKERS = fields("thresholds", "per_host_thresholds")
_PER_HOST = fields("priority", "max_connections", harmless={"track_remaining": "Envoy tracks nothing per host"})
_NOT_PER_HOST = {"max_pending_requests", "max_requests", "max_retries", "retry_budget", "max_connection_pools"}
_THRESHOLDS = fields(
    "priority",
    "max_connections",
    "max_pending_requests",
    "max_requests",
    "max_retries",
    "retry_budget",
    "track_remaining",
    instead={"max_connection_pools": "a cluster has a pool for each endpoint, and no more are made"},
)
_RETRY_BUDGET = fields("budget_percent", "min_retry_concurrency")
_OUTLIER = frozenset(
    {
        "consecutive_5xx",
        "enforcing_consecutive_5xx",
        "interval",
        "base_ejection_time",
        "max_ejection_time",
        "max_ejection_percent",
        "always_eject_one_host",
    }
)
_NO_DETECTOR = "this detector is not in this version; it ejects no endpoint"
_PARAMETERS = {  # parameters of detectors: they say nothing by themselves, the switch of their detector is reported
    "success_rate_minimum_hosts",
    "success_rate_request_volume",
    "success_rate_stdev_factor",
    "consecutive_gateway_failure",
    "consecutive_local_origin_failure",
    "enforcing_consecutive_local_origin_failure",
    "enforcing_local_origin_success_rate",
    "enforcing_failure_percentage_local_origin",
    "failure_percentage_threshold",
    "failure_percentage_minimum_hosts",
    "failure_percentage_request_volume",
    "successful_active_health_check_uneject_host",
}
_SWITCHES = {  # detector switch: its default in Envoy
    "enforcing_success_rate": 100,
    "enforcing_consecutive_gateway_failure": 0,
    "enforcing_failure_percentage": 0,
}
_OUTLIER_FIELDS = fields(
    *_OUTLIER,
    *_SWITCHES,
    harmless=dict.fromkeys(_PARAMETERS, "parameter of a detector whose switch is reported"),
    instead={"split_external_local_origin_errors": "local errors count as consecutive 5xx"},
)


def _retry_budget(ctx: Context, message: Any, path: str) -> RetryBudget | None:
    if not message.HasField("retry_budget"):
        return None
    budget, where = message.retry_budget, join(path, "retry_budget")
    ctx.check_fields(budget, where, _RETRY_BUDGET)
    return RetryBudget(
        budget.budget_percent.value if budget.HasField("budget_percent") else 20.0,
        wrapped(budget, "min_retry_concurrency", 3),
    )


def _thresholds(ctx: Context, message: Any, path: str) -> Thresholds:
    ctx.check_fields(message, path, _THRESHOLDS)
    return Thresholds(
        max_connections=wrapped(message, "max_connections", 1024),
        max_pending_requests=wrapped(message, "max_pending_requests", 1024),
        max_requests=wrapped(message, "max_requests", 1024),
        max_retries=wrapped(message, "max_retries", 3),
        retry_budget=_retry_budget(ctx, message, path),
        track_remaining=message.track_remaining,
    )


def circuit_breakers(ctx: Context, message: Any, path: str) -> CircuitBreakers:
    """`CircuitBreakers`: the first entry of a priority counts, as in Envoy."""
    ctx.check_fields(message, path, _BREAKERS)
    found: dict[str, Thresholds] = {}
    for index, item in enumerate(message.thresholds):
        where = f"{join(path, 'thresholds')}[{index}]"
        priority = enum_name(item, "priority", where)
        if priority in found:
            ctx.degraded(where, f"priority {priority} is there twice; the first entry counts")
        else:
            found[priority] = _thresholds(ctx, item, where)
    per_host = _per_host(ctx, message, path)
    default, high = (
        replace(found.get(priority, Thresholds()), max_connections_per_host=per_host.get(priority))
        for priority in ("DEFAULT", "HIGH")
    )
    return CircuitBreakers(default, high)


def _per_host(ctx: Context, message: Any, path: str) -> dict[str, int | None]:
    """`per_host_thresholds`, of which Envoy too knows `max_connections` only; the first entry of a priority counts."""
    found: dict[str, int | None] = {}
    for index, item in enumerate(message.per_host_thresholds):
        where = f"{join(path, 'per_host_thresholds')}[{index}]"
        priority = enum_name(item, "priority", where)
        if priority in found:
            ctx.degraded(where, f"priority {priority} is there twice; the first entry counts")
            continue
        if any(field.name in _NOT_PER_HOST for field, _ in item.ListFields()):
            raise ResourceError(where, "only max_connections may be bounded per host")
        ctx.check_fields(item, where, _PER_HOST)
        found[priority] = item.max_connections.value if item.HasField("max_connections") else None
    return found


def outlier_detection(ctx: Context, message: Any, path: str) -> OutlierDetection:
    """`OutlierDetection`. Envoy ejects by success rate unless that is switched off, so its absence is reported."""
    ctx.check_fields(message, path, _OUTLIER_FIELDS)
    for name, default in _SWITCHES.items():
        if wrapped(message, name, default):
            ctx.degraded(join(path, name), _NO_DETECTOR, f"set {name}: 0 to say so")

    def seconds(name: str, default: float) -> float:
        found = duration(message, name)
        return default if found is None else found

    base = seconds("base_ejection_time", 30.0)
    return OutlierDetection(
        consecutive_5xx=wrapped(message, "consecutive_5xx", 5),
        enforcing_consecutive_5xx=wrapped(message, "enforcing_consecutive_5xx", 100),
        interval=seconds("interval", 10.0),
        base_ejection_time=base,
        max_ejection_time=seconds("max_ejection_time", max(300.0, base)),
        max_ejection_percent=wrapped(message, "max_ejection_percent", 10),
        always_eject_one_host=wrapped(message, "always_eject_one_host", default=False),
    )
