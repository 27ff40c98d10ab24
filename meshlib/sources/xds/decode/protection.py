"""What protects a cluster: circuit-breaker thresholds, and our breaker from the metadata."""

from __future__ import annotations

from typing import Any

from meshlib.model.cluster import CircuitBreaker, CircuitBreakers, RetryBudget, Thresholds
from meshlib.model.metadata import EMPTY_STRUCT, Metadata, Value
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import enum_name, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join

BREAKER_NAMESPACE = "meshlib.circuit_breaker"
_BREAKERS = fields("thresholds", instead={"per_host_thresholds": "the thresholds of the cluster apply"})
_THRESHOLDS = fields(
    "priority",
    "max_connections",
    "max_pending_requests",
    "max_requests",
    "max_retries",
    "retry_budget",
    harmless={"track_remaining": "the remaining room is always known"},
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
    return CircuitBreakers(found.get("DEFAULT", Thresholds()), found.get("HIGH", Thresholds()))


_BREAKER_PATH = f'metadata.filter_metadata["{BREAKER_NAMESPACE}"]'
_COUNTS = frozenset({"fail_max", "success_threshold", "half_open_permits"})


def _breaker_value(name: str, value: Value) -> float:
    where = f"{_BREAKER_PATH}.{name}"
    if not isinstance(value, float) or isinstance(value, bool):
        raise ResourceError(where, "must be a number")
    if name in _COUNTS and (value < 1 or not value.is_integer()):
        raise ResourceError(where, f"must be a whole number of at least 1, is {value:g}")
    if name == "reset_timeout" and value < 0:
        raise ResourceError(where, f"must be a number of seconds, not negative, is {value:g}")
    return value


def circuit_breaker(metadata: Metadata) -> CircuitBreaker | None:
    """The breaker of the namespace `meshlib.circuit_breaker`; None when there is no such namespace."""
    found = metadata.namespace(BREAKER_NAMESPACE)
    if found is EMPTY_STRUCT and BREAKER_NAMESPACE not in dict(metadata.namespaces):
        return None
    known: dict[str, Any] = {}
    for name, value in found.items:
        if name != "reset_timeout" and name not in _COUNTS:
            names = ", ".join(sorted({*_COUNTS, "reset_timeout"}))
            raise ResourceError(f"{_BREAKER_PATH}.{name}", f"is not known; valid are {names}")
        number = _breaker_value(name, value)
        known[name] = int(number) if name in _COUNTS else number
    return CircuitBreaker(**known)
