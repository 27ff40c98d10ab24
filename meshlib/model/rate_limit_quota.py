"""Quotas that a service assigns, and hears the use of (`envoy.extensions.filters.http.rate_limit_quota.v3`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from meshlib.model.filters import FilterConfig, TokenBucket
from meshlib.model.grpc_service import GrpcService
from meshlib.model.headers import HeaderValueOption
from meshlib.model.matcher_tree import Input, Matcher
from meshlib.model.matchers import ALWAYS, FractionalPercent

__all__ = [
    "BucketId",
    "BucketSettings",
    "QuotaStrategy",
    "RateLimitQuota",
    "RateLimitQuotaOverride",
    "RequestsPerTimeUnit",
]

BucketId: TypeAlias = tuple[tuple[str, str], ...]
"""What names a bucket to both sides: keys and values, sorted."""
_UNAVAILABLE = 14


@dataclass(frozen=True, slots=True)
class RequestsPerTimeUnit:
    """So many requests in so many seconds."""

    requests: int
    seconds: int


QuotaStrategy: TypeAlias = Literal["ALLOW_ALL", "DENY_ALL"] | RequestsPerTimeUnit | TokenBucket


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """`RateLimitQuotaBucketSettings`. `bucket_id` says what the bucket of a request is called: a text, or where to find
    one in the request; a request without it passes. No `bucket_id` at all: its requests are `no_assignment`'s.

    Its use is told every `reporting_interval` seconds. Until the first assignment `no_assignment` counts. After one has
    expired `expired` does, another strategy or `reuse` of the last, for `expired_timeout` seconds (None: until there is
    a new one); then, or without `expired` at once, the bucket is as one without assignment.

    Who is denied is answered `status`, `body` and `response_headers`; a gRPC call `grpc_status` and `grpc_message`.
    """

    bucket_id: tuple[tuple[str, str | Input], ...] = ()
    reporting_interval: float = 1.0
    no_assignment: QuotaStrategy = "ALLOW_ALL"
    expired: QuotaStrategy | Literal["reuse"] | None = None
    expired_timeout: float | None = None
    status: int = 429
    body: bytes = b""
    grpc_status: int = _UNAVAILABLE
    grpc_message: str = ""
    response_headers: tuple[HeaderValueOption, ...] = ()


@dataclass(frozen=True, slots=True)
class RateLimitQuota(FilterConfig):
    """`envoy.filters.http.rate_limit_quota`: `service` assigns quotas to buckets, in `domain`; `buckets` say which
    bucket a request is of. One of no bucket passes, and is told of to nobody.

    `enabled`: the share of requests that are looked at. `enforced`: the share of those over their quota that are
    denied; the others pass with `request_headers_to_add_when_not_enforced`.
    """

    domain: str
    service: GrpcService
    buckets: Matcher[BucketSettings]
    enabled: FractionalPercent = ALWAYS
    enforced: FractionalPercent = ALWAYS
    request_headers_to_add_when_not_enforced: tuple[HeaderValueOption, ...] = ()

    def on_route(self, said: RateLimitQuotaOverride) -> RateLimitQuota:
        """The filter as a route, a virtual host or a weighted cluster wants it."""
        return replace(self, domain=said.domain or self.domain, buckets=said.buckets or self.buckets)


@dataclass(frozen=True, slots=True)
class RateLimitQuotaOverride(FilterConfig):
    """`RateLimitQuotaOverride`: another `domain`, other `buckets`; empty and None leave the filter's."""

    domain: str = ""
    buckets: Matcher[BucketSettings] | None = None
