"""Global rate limits: a service decides, for all who ask it (`envoy.extensions.filters.http.ratelimit.v3`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from meshlib.model.filters import FilterConfig
from meshlib.model.grpc_service import GrpcService
from meshlib.model.headers import HeaderValueOption
from meshlib.model.matchers import ALWAYS, FractionalPercent
from meshlib.model.rate_limits import RateLimit, VhRateLimits

__all__ = ["DEFAULT_TIMEOUT", "GlobalRateLimit", "GlobalRateLimitPerRoute", "RequestType"]

DEFAULT_TIMEOUT = 0.02
"""Seconds a rate limit service has to answer (Envoy: 20 ms)."""
RequestType = Literal["internal", "external", "both"]


@dataclass(frozen=True, slots=True)
class GlobalRateLimit(FilterConfig):
    """`envoy.filters.http.ratelimit`: `service` is asked about each request that has descriptors, in `domain`.

    `rate_limits` say which descriptors: those of the filter itself, where it has any, stand in place of the routes'.
    Requests of a route get the descriptors of the filter's `stage`. `request_type`: only requests that are internal
    (`x-envoy-internal: true`), only others, or both.

    Over the limit: `status`, flag RL, `x-envoy-ratelimited: true` unless `x_envoy_ratelimited` is False, what the
    service wants added, `response_headers`, and `x-ratelimit-*` headers (also on responses within the limit) where
    `x_ratelimit_headers`. A gRPC call is refused with UNAVAILABLE, or with RESOURCE_EXHAUSTED where
    `rate_limited_as_resource_exhausted`.

    A service that does not answer within `timeout` seconds (None: it may take any time), or answers with an error, lets
    the request pass; with `failure_mode_deny`, or for the share of requests in `failure_mode_deny_percent` where that
    is set, it is answered with `status_on_error` and the flag RLSE.

    `enabled`: the share of requests that the service is asked about. `enforced`: the share of those over the limit
    that are refused. `stat_prefix` stands in the names of the counters (`ratelimit.<stat_prefix>.ok`).
    `vh_rate_limits`: when the virtual host's count beside the route's.
    """

    domain: str
    service: GrpcService
    rate_limits: tuple[RateLimit, ...] = ()
    stage: int = 0
    request_type: RequestType = "both"
    timeout: float | None = DEFAULT_TIMEOUT
    failure_mode_deny: bool = False
    failure_mode_deny_percent: FractionalPercent | None = None
    rate_limited_as_resource_exhausted: bool = False
    x_ratelimit_headers: bool = False
    x_envoy_ratelimited: bool = True
    status: int = 429
    status_on_error: int = 500
    response_headers: tuple[HeaderValueOption, ...] = ()
    enabled: FractionalPercent = ALWAYS
    enforced: FractionalPercent = ALWAYS
    stat_prefix: str = ""
    vh_rate_limits: VhRateLimits = "OVERRIDE"

    def on_route(self, said: GlobalRateLimitPerRoute) -> GlobalRateLimit:
        """The filter as a route, a virtual host or a weighted cluster wants it."""
        return replace(
            self,
            domain=said.domain or self.domain,
            rate_limits=said.rate_limits or self.rate_limits,
            vh_rate_limits=said.vh_rate_limits,
        )


@dataclass(frozen=True, slots=True)
class GlobalRateLimitPerRoute(FilterConfig):
    """`RateLimitPerRoute`: another `domain` (empty: the filter's), other `rate_limits` in place of the filter's and the
    route's, and whether the virtual host's count beside the route's.
    """

    vh_rate_limits: VhRateLimits = "OVERRIDE"
    rate_limits: tuple[RateLimit, ...] = ()
    domain: str = ""
