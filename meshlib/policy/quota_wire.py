"""What a rate limit quota service is told and what it says (`envoy.service.rate_limit_quota.v3`), on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshlib.model.filters import TokenBucket
from meshlib.model.protobuf_wire import (
    LENGTH,
    VARINT,
    fields,
    message_field,
    messages_in,
    number_field,
    numbers_in,
    signed,
)
from meshlib.model.rate_limit_quota import BucketId, QuotaStrategy, RequestsPerTimeUnit
from meshlib.model.rate_limits import UNIT_SECONDS
from meshlib.policy.quota import Assignment, Usage
from meshlib.policy.rate_limit_service import UNITS, as_utf8

METHOD = "/envoy.service.rate_limit_quota.v3.RateLimitQuotaService/StreamRateLimitQuotas"
_NANOSECONDS = 1_000_000_000
_SHORTEST_FILL = 0.05


def usage_reports(domain: str, usages: Iterable[Usage]) -> bytes:
    """A `RateLimitQuotaUsageReports`. The domain goes with every one, where the protocol asks for it in the first."""
    return b"".join((message_field(1, as_utf8(domain)), *(message_field(2, _usage(each)) for each in usages)))


def _usage(usage: Usage) -> bytes:
    seconds, rest = divmod(int(usage.elapsed * _NANOSECONDS), _NANOSECONDS)
    entries = b"".join(message_field(1, _pair(key, value)) for key, value in usage.bucket)
    elapsed = message_field(2, number_field(1, seconds) + number_field(2, rest))
    return message_field(1, entries) + elapsed + number_field(3, usage.allowed) + number_field(4, usage.denied)


def _pair(key: str, value: str) -> bytes:
    return message_field(1, as_utf8(key)) + message_field(2, as_utf8(value))


def assignments(data: bytes) -> Iterator[Assignment]:
    """What a `RateLimitQuotaResponse` says. Raises MalformedMessageError (a ValueError)."""
    for action in messages_in(data, 1):
        bucket = _bucket(b"".join(messages_in(action, 1)))
        if any(True for _ in messages_in(action, 3)):
            yield Assignment(bucket, None)
        for assigned in messages_in(action, 2):
            lives = next(messages_in(assigned, 2), None)
            strategy = next(messages_in(assigned, 3), None)
            yield Assignment(
                bucket,
                "ALLOW_ALL" if strategy is None else _strategy(strategy),
                None if lives is None else max(0.0, _seconds(lives)),
            )


def _bucket(data: bytes) -> BucketId:
    found: dict[str, str] = {}
    for entry in messages_in(data, 1):
        key, value = (b"".join(list(messages_in(entry, index))[-1:]).decode("utf-8", "replace") for index in (1, 2))
        found[key] = value.encode("utf-8", "replace").decode("latin-1")  # as headers are, whose values these may be
    return tuple(sorted(found.items()))


def _strategy(data: bytes) -> QuotaStrategy:
    found: QuotaStrategy = "ALLOW_ALL"
    for index, kind, value in fields(data):
        if index == 1 and kind == VARINT:
            found = "DENY_ALL" if value == 1 else "ALLOW_ALL"
        elif kind == LENGTH and isinstance(value, bytes):
            if index == 2:
                found = _per_unit(numbers_in(value))
            elif index == 3:
                found = _token_bucket(value)
    return found


def _per_unit(said: dict[int, int]) -> RequestsPerTimeUnit:
    unit = said.get(2, 0)
    return RequestsPerTimeUnit(said.get(1, 0), UNIT_SECONDS.get(UNITS[unit] if unit < len(UNITS) else "", 1))


def _token_bucket(data: bytes) -> QuotaStrategy:
    said = numbers_in(data)
    per_fill = numbers_in(next(messages_in(data, 2), b"")).get(1)
    interval = _seconds(next(messages_in(data, 3), b""))
    if not said.get(1):
        return "DENY_ALL"
    return TokenBucket(said[1], 1 if per_fill is None else per_fill, max(interval, _SHORTEST_FILL))


def _seconds(data: bytes) -> float:
    said = numbers_in(data)
    return signed(said.get(1, 0)) + signed(said.get(2, 0)) / _NANOSECONDS
