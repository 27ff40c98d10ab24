"""RetryPolicy and HedgePolicy (`envoy.config.route.v3`), with the extensions of `envoy.extensions.retry`."""

from __future__ import annotations

from typing import Any

from meshlib.model.matchers import HeaderMatcher
from meshlib.model.metadata import EMPTY_STRUCT, Struct
from meshlib.model.report import ResourceError
from meshlib.model.retry import RateLimitedBackOff, ResetHeader, RetryPolicy
from meshlib.sources.xds.decode.common import duration, duration_or_off, struct, type_name, unpack, wrapped
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.matchers import header_matcher

_POLICY = fields(
    "retry_on",
    "num_retries",
    "per_try_timeout",
    "per_try_idle_timeout",
    "retry_host_predicate",
    "host_selection_retry_max_attempts",
    "retriable_status_codes",
    "retry_back_off",
    "rate_limited_retry_back_off",
    "retriable_headers",
    "retriable_request_headers",
    "retry_priority",
    instead={"retry_options_predicates": "every attempt has the same options"},
)
_BACK_OFF = fields("base_interval", "max_interval")
_RATE_LIMITED = fields("reset_headers", "max_interval")
BODY_LIMIT_FIELDS = ("per_request_buffer_limit_bytes", "request_body_buffer_limit")
_HEDGE = fields(
    "hedge_on_per_try_timeout",
    instead={
        "initial_requests": "a call begins with one attempt; Envoy does not implement this either",
        "additional_request_chance": "no attempt is added by chance; Envoy does not implement this either",
    },
)

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
        "retriable-headers",
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
_OMIT_CANARIES = frozenset(
    {
        "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate",
        "envoy.retry_host_predicates.omit_canary_hosts",
    }
)
_OMIT_METADATA = "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig"
_PREVIOUS_PRIORITIES = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
_MODULES = {
    _OMIT_METADATA: "envoy.extensions.retry.host.omit_host_metadata.v3.omit_host_metadata_config_pb2",
    _PREVIOUS_PRIORITIES: "envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2",
}
_METADATA_MATCH = fields("metadata_match")
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


def _rate_limited(ctx: Context, message: Any, path: str) -> RateLimitedBackOff | None:
    if not message.HasField("rate_limited_retry_back_off"):
        return None
    where, back_off = join(path, "rate_limited_retry_back_off"), message.rate_limited_retry_back_off
    ctx.check_fields(back_off, where, _RATE_LIMITED)
    headers = tuple(
        ResetHeader(header.name.lower(), "UNIX_TIMESTAMP" if header.format else "SECONDS")
        for header in back_off.reset_headers
    )
    longest = duration(back_off, "max_interval")
    return RateLimitedBackOff(headers, 300.0 if longest is None else longest)


def _headers(ctx: Context, message: Any, name: str, path: str) -> tuple[HeaderMatcher, ...]:
    """Header matchers of which any one may hold, so that one that is not supported can be left out."""
    found = []
    for index, matcher in enumerate(getattr(message, name)):
        try:
            found.append(header_matcher(ctx, matcher, f"{join(path, name)}[{index}]"))
        except UnsupportedError as error:
            ctx.degraded(error.path, f"{error.reason}; left out")
    return tuple(found)


def _host_predicates(ctx: Context, message: Any, path: str) -> dict[str, Any]:
    """The model's fields for `retry_host_predicate`."""
    previous, canaries, labels = False, False, list[Struct]()
    for index, predicate in enumerate(message.retry_host_predicate):
        where = f"{join(path, 'retry_host_predicate')}[{index}]"
        name = type_name(predicate.typed_config.type_url) or predicate.name
        if {name, predicate.name} & _PREVIOUS_HOSTS:
            previous = True
        elif {name, predicate.name} & _OMIT_CANARIES:
            canaries = True
        elif name == _OMIT_METADATA:
            labels.append(_labels(ctx, predicate.typed_config, join(where, "typed_config")))
        else:
            ctx.degraded(where, f"predicate {name[:120]} is not supported; left out")
    return {
        "previous_hosts": previous,
        "omit_canary_hosts": canaries,
        "omit_host_metadata": tuple(label for label in labels if label.items),
    }


def _labels(ctx: Context, typed_config: Any, path: str) -> Struct:
    """Only the namespace `envoy.lb` counts, as in Envoy."""
    _, message = unpack(typed_config, _MODULES, path)
    if message is None:
        return EMPTY_STRUCT
    ctx.check_fields(message, path, _METADATA_MATCH)
    return struct(message.metadata_match.filter_metadata["envoy.lb"])


def _previous_priorities(ctx: Context, message: Any, path: str) -> int | None:
    if not message.HasField("retry_priority"):
        return None
    where = join(path, "retry_priority")
    name, found = unpack(message.retry_priority.typed_config, _MODULES, join(where, "typed_config"))
    if name != _PREVIOUS_PRIORITIES or found is None:
        name = name or message.retry_priority.name
        ctx.degraded(where, f"retry priority {name[:120]} is not supported; the cluster's own priorities count")
        return None
    if found.update_frequency < 1:
        raise ResourceError(join(where, "typed_config.update_frequency"), "must be greater than 0")
    return int(found.update_frequency)


def hedges(ctx: Context, message: Any, path: str) -> bool | None:
    """`hedge_policy.hedge_on_per_try_timeout` of a route or virtual host; None where it has no such policy."""
    if not message.HasField("hedge_policy"):
        return None
    ctx.check_fields(message.hedge_policy, join(path, "hedge_policy"), _HEDGE)
    return bool(message.hedge_policy.hedge_on_per_try_timeout)


def body_buffer_limit(message: Any) -> int | None:
    """The bytes of a body that a route or virtual host keeps for a retry; None where it does not say. The newer field
    wins.
    """
    if message.HasField("request_body_buffer_limit"):
        return int(message.request_body_buffer_limit.value)
    limit: int | None = wrapped(message, "per_request_buffer_limit_bytes", None)
    return limit


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
        host_selection_retry_max_attempts=attempts or 1,
        retriable_headers=_headers(ctx, message, "retriable_headers", path),
        retriable_request_headers=_headers(ctx, message, "retriable_request_headers", path),
        rate_limited_back_off=_rate_limited(ctx, message, path),
        previous_priorities=_previous_priorities(ctx, message, path),
        **_host_predicates(ctx, message, path),
    )
