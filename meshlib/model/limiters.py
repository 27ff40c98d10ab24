"""Limits beyond Envoy's, as one filter (`meshlib.rate_limit`): how requests are held, and what tells them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from meshlib.model.filters import FilterConfig

__all__ = ["Bucket", "ConcurrencyLimit", "LimitHeaders", "Limiter", "RequestLimit", "UniformRate", "WarmUp"]

LimitHeaders = Literal["none", "x-ratelimit", "ratelimit", "structured"]
"""What responses say of the limit: nothing; `x-ratelimit-limit`, `-remaining`, `-reset` as Envoy's; the same without
`x-` (draft-ietf-httpapi-ratelimit-headers up to 07); `ratelimit` and `ratelimit-policy` (from 08 on).
"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: `rate` requests a second, `burst` of them at once (0: those of one second). It starts full."""

    rate: float
    burst: float = 0.0

    def __post_init__(self) -> None:
        _positive(rate=self.rate)
        _not_negative(burst=self.burst)


@dataclass(frozen=True, slots=True)
class UniformRate:
    """A leaky bucket: requests go on one by one, `1 / rate` seconds apart. Those that come sooner wait in a queue, for
    `max_wait` seconds at most; a request that would have to wait longer is refused at once.
    """

    rate: float
    max_wait: float = 0.0

    def __post_init__(self) -> None:
        _positive(rate=self.rate)
        _not_negative(max_wait=self.max_wait)


@dataclass(frozen=True, slots=True)
class WarmUp:
    """A bucket whose rate grows from `rate / cold_factor` to `rate` within `period` seconds of use, and holds what a
    second fills in. Unused for `period` seconds it is cold again. (Sentinel's names, and its factor of 3.)
    """

    rate: float
    period: float = 10.0
    cold_factor: float = 3.0

    def __post_init__(self) -> None:
        _positive(rate=self.rate, period=self.period)
        if self.cold_factor < 1.0:
            raise ValueError(f"cold_factor must be at least 1, got {self.cold_factor}")


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """So many requests at a time, each to the end of its response."""

    max_in_flight: int

    def __post_init__(self) -> None:
        if self.max_in_flight < 1:
            raise ValueError(f"max_in_flight must be at least 1, got {self.max_in_flight}")


KEYS = "header:..., query_parameter:..., path_segment:N, claim:..., remote_address"
Limiter: TypeAlias = Bucket | UniformRate | WarmUp | ConcurrencyLimit


@dataclass(frozen=True, slots=True)
class RequestLimit(FilterConfig):
    """`limiter` for all requests together or, with a `key`, for each of its values: `header:x-user`,
    `query_parameter:q`, `path_segment:0` (the first), `claim:sub`, or `remote_address`. Requests without a value share
    one limiter. The `max_keys` values last used are remembered: of one that was forgotten the count begins anew.

    A claim is read from the bearer token in `authorization`, which is **not verified** here: it tells callers apart,
    and does not say who they are.

    Over the limit: `status`, body `local_rate_limited`, flag RL, with `retry_after` a `retry-after` header where it is
    known when to come back, and for gRPC UNAVAILABLE or RESOURCE_EXHAUSTED, as of a local rate limit. `headers` says
    what every response tells of the limit; a concurrency limit tells nothing.

    Raises ValueError for a key that is none of these.
    """

    name: str
    limiter: Limiter
    key: str = ""
    max_keys: int = 10_000
    status: int = 429
    rate_limited_as_resource_exhausted: bool = False
    retry_after: bool = True
    headers: LimitHeaders = "none"

    def __post_init__(self) -> None:
        kind, _, name = self.key.partition(":")
        if kind in ("header", "query_parameter", "claim"):
            known = bool(name)
        else:
            known = name.isdecimal() if kind == "path_segment" else self.key in ("", "remote_address")
        if not known:
            raise ValueError(f"key {self.key!r} is not one of {KEYS}")
        if self.max_keys < 1:
            raise ValueError(f"max_keys must be at least 1, got {self.max_keys}")
        if not 400 <= self.status <= 599:
            raise ValueError(f"status must be from 400 to 599, got {self.status}")
        if self.headers not in ("none", "x-ratelimit", "ratelimit", "structured"):
            raise ValueError(f"headers must be none, x-ratelimit, ratelimit or structured, got {self.headers!r}")


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 < value < float("inf"):
            raise ValueError(f"{name} must be positive, got {value}")


def _not_negative(**values: float) -> None:
    for name, value in values.items():
        if not 0.0 <= value < float("inf"):
            raise ValueError(f"{name} must not be negative, got {value}")
