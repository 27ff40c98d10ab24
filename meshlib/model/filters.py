"""HTTP filters: what the control plane put between the request and the router (`envoy.extensions.filters.http.*`).

The order of `HttpConnectionManager.http_filters` is the order of execution; the terminal filter is the router.
A filter this version does not know is kept as `UnsupportedFilter`, so that it can be reported by name and skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.model.headers import HeaderValueOption
from meshlib.model.matchers import NEVER, FractionalPercent

__all__ = [
    "FilterConfig",
    "HttpFilter",
    "LocalRateLimit",
    "PerFilterConfig",
    "RouterFilter",
    "TokenBucket",
    "UnsupportedFilter",
]


@dataclass(frozen=True, slots=True)
class FilterConfig:
    """Base of every filter configuration."""


@dataclass(frozen=True, slots=True)
class RouterFilter(FilterConfig):
    """`envoy.filters.http.router`: the terminal filter. `strict_check_headers` (lower case) are refused with 400 where
    they are malformed.
    """

    suppress_envoy_headers: bool = False
    respect_expected_rq_timeout: bool = False
    strict_check_headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """`envoy.type.v3.TokenBucket`; `fill_interval` in seconds (Envoy refuses less than 50 ms for rate limits)."""

    max_tokens: int
    tokens_per_fill: int = 1
    fill_interval: float = 1.0


@dataclass(frozen=True, slots=True)
class LocalRateLimit(FilterConfig):
    """`envoy.filters.http.local_ratelimit`. Enabled and enforced for 0 % of the requests unless set, as in Envoy.

    Over the limit: `status`, body `local_rate_limited`, response flag RL, and `response_headers`.
    Without a bucket the filter does nothing. A gRPC call is refused with UNAVAILABLE, which is what 429 means to gRPC,
    or with RESOURCE_EXHAUSTED where `rate_limited_as_resource_exhausted`.
    """

    stat_prefix: str
    token_bucket: TokenBucket | None
    enabled: FractionalPercent = NEVER
    enforced: FractionalPercent = NEVER
    status: int = 429
    response_headers: tuple[HeaderValueOption, ...] = ()
    rate_limited_as_resource_exhausted: bool = False


@dataclass(frozen=True, slots=True)
class UnsupportedFilter(FilterConfig):
    """A filter that is not applied; `type_url` names it in the report."""

    type_url: str


@dataclass(frozen=True, slots=True)
class HttpFilter:
    """One entry of `http_filters`. A `disabled` filter runs only where `typed_per_filter_config` enables it."""

    name: str
    config: FilterConfig
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class PerFilterConfig:
    """`typed_per_filter_config` entry, at virtual host, route or weighted cluster: the most specific wins.

    `config=None` keeps the filter's own configuration (a pure enable/disable override).
    """

    name: str
    config: FilterConfig | None
    disabled: bool = False
