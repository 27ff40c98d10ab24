"""RetryPolicy (`envoy.config.route.v3`)."""

from __future__ import annotations

from typing import Any

from meshlib.model.report import ResourceError
from meshlib.model.route import RetryPolicy
from meshlib.sources.xds.decode.common import duration, duration_or_off, type_name, wrapped
from meshlib.sources.xds.decode.context import Context, fields, join

_POLICY = fields(
    "retry_on",
    "num_retries",
    "per_try_timeout",
    "per_try_idle_timeout",
    "retry_host_predicate",
    "host_selection_retry_max_attempts",
    "retriable_status_codes",
    "retry_back_off",
    instead={
        "rate_limited_retry_back_off": "Retry-After is not read; retry_back_off applies",
        "retry_priority": "every attempt uses the cluster's own priorities",
        "retriable_request_headers": "requests are retried whatever their headers",
    },
)
_BACK_OFF = fields("base_interval", "max_interval")

RETRY_ON = frozenset(
    {
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    }
)
"""The conditions that reach the model. Unknown ones are reported; Envoy ignores them too."""

_NEVER_HAPPENS = frozenset({"http3-post-connect-failure"})  # no HTTP/3 here, so nothing is lost
_PREVIOUS_HOSTS = frozenset(
    {
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        "envoy.retry_host_predicates.previous_hosts",
    }
)
_MIN_INTERVAL = 0.001  # as in Envoy: shorter intervals are taken as 1 ms


def _conditions(ctx: Context, message: Any, path: str) -> tuple[str, ...]:
    names = [name.strip() for name in message.retry_on.split(",")]
    for name in names:
        if name and name not in RETRY_ON and name not in _NEVER_HAPPENS:
            ctx.degraded(join(path, "retry_on"), f"condition {name[:80]!r} is not supported; it never causes a retry")
    return tuple(dict.fromkeys(name for name in names if name in RETRY_ON))


def _back_off(ctx: Context, message: Any, path: str) -> tuple[float, float]:
    if not message.HasField("retry_back_off"):
        return 0.025, 0.25
    where, back_off = join(path, "retry_back_off"), message.retry_back_off
    ctx.check_fields(back_off, where, _BACK_OFF)
    base = max(_MIN_INTERVAL, duration(back_off, "base_interval") or 0.0)
    longest = duration(back_off, "max_interval")
    if longest is None:
        return base, 10 * base
    longest = max(_MIN_INTERVAL, longest)
    if longest < base:
        raise ResourceError(join(where, "max_interval"), f"must be at least base_interval ({base:g}s), is {longest:g}s")
    return base, longest


def _previous_hosts(ctx: Context, message: Any, path: str) -> bool:
    found = False
    for index, predicate in enumerate(message.retry_host_predicate):
        name = type_name(predicate.typed_config.type_url) or predicate.name
        if name in _PREVIOUS_HOSTS or predicate.name in _PREVIOUS_HOSTS:
            found = True
        else:
            where = f"{join(path, 'retry_host_predicate')}[{index}]"
            ctx.degraded(where, f"predicate {name[:120]} is not supported; left out")
    return found


def retry_policy(ctx: Context, message: Any, path: str) -> RetryPolicy:
    """A RetryPolicy with Envoy's defaults filled in."""
    ctx.check_fields(message, path, _POLICY)
    attempts = message.host_selection_retry_max_attempts
    if attempts < 0:
        raise ResourceError(join(path, "host_selection_retry_max_attempts"), f"must not be negative, is {attempts}")
    base, longest = _back_off(ctx, message, path)
    return RetryPolicy(
        retry_on=_conditions(ctx, message, path),
        num_retries=wrapped(message, "num_retries", 1),
        per_try_timeout=duration_or_off(message, "per_try_timeout", None),
        per_try_idle_timeout=duration_or_off(message, "per_try_idle_timeout", None),
        retriable_status_codes=tuple(message.retriable_status_codes),
        base_interval=base,
        max_interval=longest,
        previous_hosts=_previous_hosts(ctx, message, path),
        host_selection_retry_max_attempts=attempts or 1,
    )
