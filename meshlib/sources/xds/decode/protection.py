"""What protects a cluster: circuit-breaker thresholds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshlib.model.cluster import CircuitBreakers, RetryBudget, Thresholds
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import enum_name, wrapped
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
