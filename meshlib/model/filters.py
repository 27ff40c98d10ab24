"""HTTP filters: what the control plane put between the request and the router (`envoy.extensions.filters.http.*`).

The order of `HttpConnectionManager.http_filters` is the order of execution; the terminal filter is the router.
A filter this version does not know is kept as `UnsupportedFilter`, so that it can be reported by name and skipped.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshlib.model.headers import HeaderValueOption
from meshlib.model.matchers import NEVER, FractionalPercent
from meshlib.model.rate_limits import Entry, RateLimit, VhRateLimits

__all__ = [
    "FilterConfig",
    "HttpFilter",
    "LocalRateLimit",
    "LocalRateLimitDescriptor",
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
class LocalRateLimitDescriptor:
    """Requests that have a descriptor of these entries take a token of this bucket. An entry without a value stands for
    any: then every combination of values has a bucket of its own, of which the filter keeps the
    `max_dynamic_descriptors` last used. With `shadow_mode` one over the limit is counted, and passes.
    """

    entries: tuple[Entry, ...]
    token_bucket: TokenBucket
    shadow_mode: bool = False


@dataclass(frozen=True, slots=True)
class LocalRateLimit(FilterConfig):
    """`envoy.filters.http.local_ratelimit`. Enabled and enforced for 0 % of the requests unless set, as in Envoy.

    Over the limit: `status`, body `local_rate_limited`, response flag RL, and `response_headers`.
    A request takes a token of every one of `descriptors` that it has, the slowest first, and then one of
    `token_bucket`, unless `always_consume_default_token_bucket` is False and there was a descriptor. Which descriptors
    a request has is said by `rate_limits`; without them by those of its route and virtual host (`vh_rate_limits`) that
    are of the same `stage`. Without any bucket the filter does nothing.

    `enable_x_ratelimit_headers`: responses say what is left, in `x-ratelimit-*`; `enable_retry_after_header`: those
    with status 429 when to come back. `request_headers_to_add_when_not_enforced` go to the upstream with a request that
    is over a limit which is not enforced. `local_cluster_rate_limit`: the limit is that of all endpoints of the local
    cluster together, each of which takes its share.

    A gRPC call is refused with UNAVAILABLE, which is what 429 means to gRPC,
    or with RESOURCE_EXHAUSTED where `rate_limited_as_resource_exhausted`.
    """

    stat_prefix: str
    token_bucket: TokenBucket | None
    enabled: FractionalPercent = NEVER
    enforced: FractionalPercent = NEVER
    status: int = 429
    response_headers: tuple[HeaderValueOption, ...] = ()
    rate_limited_as_resource_exhausted: bool = False
    descriptors: tuple[LocalRateLimitDescriptor, ...] = ()
    stage: int = 0
    rate_limits: tuple[RateLimit, ...] = ()
    vh_rate_limits: VhRateLimits = "OVERRIDE"
    always_consume_default_token_bucket: bool = True
    max_dynamic_descriptors: int = 20
    enable_x_ratelimit_headers: bool = False
    enable_retry_after_header: bool = False
    request_headers_to_add_when_not_enforced: tuple[HeaderValueOption, ...] = ()
    local_cluster_rate_limit: bool = False


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
